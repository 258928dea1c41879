"""Whether an index has changed since the page read it."""

from __future__ import annotations

import os
from pathlib import Path

from dsprh_tf.index.interface import Index
from dsprh_tf.index.location import open_index

_EVERY = 1.0  # seconds between two looks at a folder, a call of some microseconds
_EVERY_DATABASE = 30.0  # seconds between two counts of a database's items


class Watch:
    """Looks at an index now and then, and opens it anew after a change.

    A folder has changed when its index.json was replaced, which each commit does in one step. A
    database answers from what it holds now; only what the page derived from it (number of items,
    tags, the order without a query) gets old, and is read again when the number of items changes.

    Attributes:
        database: whether it is one; then everything here belongs on the thread that searches.
        every: seconds between two looks.

    Args:
        location: a folder, or the address of a database.
        verify: whether to compare checksums when it is opened.
    """

    def __init__(self, location: str, verify: bool = True):
        self._location, self._verify = location, verify
        self.database = "://" in location
        self.every = _EVERY_DATABASE if self.database else _EVERY
        self._state: object = None

    def open(self) -> Index:
        """The index as it is now.

        Raises:
            ValueError: there is none, or it is broken.
            OSError: it cannot be read.
        """
        before = None if self.database else self._look()
        index = open_index(self._location, verify=self._verify)
        self._state = len(index) if self.database else before
        return index

    def changed(self, index: Index) -> bool:
        """Whether the index has changed since it was opened, or since the last call that said so.

        Args:
            index: the index as it was opened.

        Raises:
            OSError: a database failed.
        """
        state = len(index) if self.database else self._look()
        if state is None or state == self._state:
            return False  # a folder that is away for now is not a change
        self._state = state
        return True

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(Path(self._location) / "index.json")
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
