"""Rows of ids, found by bisection."""

from __future__ import annotations

import numpy as np


class IdRows:
    """Which row has an id.

    Attributes:
        ids: int64 [n], ascending.

    Args:
        ids: int64 [all rows].
        rows: int64 [n], the rows that count.
    """

    def __init__(self, ids: np.ndarray, rows: np.ndarray):
        self._rows = rows[np.argsort(ids[rows], kind="stable")]
        self.ids = np.array(ids[self._rows])

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Rows of ids, int64 of their shape; -1 for those that are not there."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, self._rows[at], -1)
