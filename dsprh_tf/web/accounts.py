"""Accounts of a page that other machines can reach: a file of names and hashed passwords."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from pathlib import Path

from dsprh_tf.data.files import read_lines

_COST = {"n": 2**14, "r": 8, "p": 1}  # scrypt: 16 MB and some 50 ms per guess
_SALT_BYTES = 16
_MOST_BYTES = 2**24  # of an accounts file
_FIX = "write it with `dsprh serve_demo --make_auth=NAME`"


def make_line(name: str, password: str) -> str:
    """A line of an accounts file: NAME:SALT:HASH, salt and hash in hexadecimal digits.

    Raises:
        ValueError: the name or the password is empty, or the name has a colon, begins with # or is
            not printable.
    """
    unclear = ":" in name or name.startswith("#") or name != name.strip()
    if not name or unclear or not name.isprintable():
        raise ValueError(
            f"the name is {name!r}, expected one without colons, without # in front and without "
            "spaces around it"
        )
    if not password:
        raise ValueError("the password is empty")
    salt = os.urandom(_SALT_BYTES)
    return f"{name}:{salt.hex()}:{_hash(password.encode(), salt).hex()}"


class Accounts:
    """Names and passwords from a file of `make_line`'s lines, empty lines and # comments.

    Args:
        path: the file.

    Raises:
        ValueError: the file is missing, holds no account, has a line of another form or a name
            twice.
    """

    def __init__(self, path: str | os.PathLike):
        self._accounts: dict[str, tuple[bytes, bytes]] = {}
        if not os.path.isfile(path):
            raise ValueError(f"{path} does not exist or is no file: {_FIX}")
        if os.path.getsize(path) > _MOST_BYTES:
            raise ValueError(f"{path} has more than {_MOST_BYTES:,} bytes: {_FIX}")
        for number, line in enumerate(read_lines(Path(path)), 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                name, salt, digest = line.strip().split(":")
                account = bytes.fromhex(salt), bytes.fromhex(digest)
                if not name or len(salt) != 2 * _SALT_BYTES or len(digest) != 128:
                    raise ValueError
            except ValueError as error:
                raise ValueError(f"{path} line {number} is not NAME:SALT:HASH: {_FIX}") from error
            if self._accounts.setdefault(name, account) is not account:
                raise ValueError(
                    f"{path} line {number}: {name[:40]!r} is in a line above already, and only one "
                    "password can count: remove one of the lines"
                )
        if not self._accounts:
            raise ValueError(f"{path} has no account: {_FIX}")
        # Every request brings the password. Right ones are remembered, as digests under a key that
        # ends with the process, so that only the first request needs scrypt.
        self._key = os.urandom(32)
        self._right: set[bytes] = set()

    def recalls(self, authorization: str | None) -> bool | None:
        """The answer of `knows` if it needs no scrypt, otherwise None."""
        given = _credentials(authorization)
        if given is None:
            return False
        return True if self._digest(given) in self._right else None

    def knows(self, authorization: str | None) -> bool:
        """Whether an Authorization header of HTTP Basic has the name and password of an account.

        A guess takes 16 MB and some 50 ms: callers must limit how many are made at once.
        """
        given = _credentials(authorization)
        if given is None:
            return False
        if self._digest(given) in self._right:
            return True
        name, _, password = given.partition(":")
        # An unknown name takes as long as a wrong password.
        salt, expected = self._accounts.get(name, (b"\0" * _SALT_BYTES, b""))
        right = hmac.compare_digest(_hash(password.encode(), salt), expected)
        if right:
            self._right.add(self._digest(given))
        return right

    def _digest(self, given: str) -> bytes:
        return hmac.digest(self._key, given.encode(), "sha256")


def _credentials(authorization: str | None) -> str | None:
    """NAME:PASSWORD of a header of HTTP Basic, None for any other header."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        given = base64.b64decode(encoded, validate=True).decode()
    except ValueError:  # not base 64, or not UTF-8 in it
        return None
    return given if ":" in given else None


def _hash(password: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(password, salt=salt, dklen=64, **_COST)
