"""The rule for removing what is gone from disk: a disk that is not mounted costs no items."""

from __future__ import annotations

import os
from collections.abc import Sequence

MOST_GONE = 0.2  # share of the items: people seldom delete more at once, and disks go as a whole
FEW = 5  # so many may go in any case, as of a small collection they are soon a fifth


def check_gone(gone: int, total: int, what: str) -> None:
    """Refuses to remove so much that the disk is more likely away than the items deleted.

    Args:
        gone: number of items that would be removed.
        total: number of items that there are of that source.
        what: the source, for the error line.

    Raises:
        ValueError: all are gone, or more than a fifth and more than 5.
    """
    if gone and (gone == total or gone > max(FEW, MOST_GONE * total)):
        raise ValueError(
            f"{gone:,} of {total:,} items of {what} are gone from it, more than {MOST_GONE:.0%}: "
            "nothing was removed; see whether a disk is not mounted, or give --yes to remove them"
        )


def check_root(paths: Sequence[str]) -> None:
    """Refuses if the folder that all images of an index are in is missing.

    Args:
        paths: absolute paths of all images.

    Raises:
        ValueError: it is missing.
    """
    folders = {os.path.dirname(path) for path in paths}
    root = os.path.commonpath(folders) if folders and all(map(os.path.isabs, folders)) else "."
    if not os.path.isdir(root):
        raise ValueError(
            f"the folder {root} that all images of the index are in is missing: nothing was "
            "removed; mount or restore it, or give --yes to remove them"
        )
