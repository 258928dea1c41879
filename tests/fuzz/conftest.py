"""The process that reads inputs, for all tests of fuzzing."""

from __future__ import annotations

import pytest
from fuzz import engine


@pytest.fixture(scope="session")
def worker(tmp_path_factory):
    """An `engine.Worker`: its imports and valid inputs take many seconds."""
    found = engine.Worker(tmp_path_factory.mktemp("fuzz"))
    yield found
    found.close()
