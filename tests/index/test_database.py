"""Addresses of databases: no password on the screen."""

from __future__ import annotations

import pytest

from dsprh_tf.index.database import without_password


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("indexes/a:b@c", "indexes/a:b@c"),
        ("milvus://host:1/x", "milvus://host:1/x"),
        ("milvus://me:a@b:c@host:1/x", "milvus://me:***@host:1/x"),
        ("postgresql://me@host/d?table=a:b@c", "postgresql://me@host/d?table=a:b@c"),
        ("postgresql://me:pw@host/d?table=x", "postgresql://me:***@host/d?table=x"),
        ("postgresql://host/d?user=me&password=a:b@c&table=x",
         "postgresql://host/d?user=me&password=***&table=x"),
        ("postgresql://me@host/d?sslpassword=pw", "postgresql://me@host/d?sslpassword=***"),
    ],
)  # fmt: skip
def test_passwords_are_not_shown(location, shown):
    assert without_password(location) == shown
