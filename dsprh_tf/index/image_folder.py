"""The images in a folder, and what else is in it."""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Iterator

from dsprh_tf.data import image_kinds

RUN_MARK = "flags.json"  # of a run folder
_COUNTED = 8  # kinds of other files that are named, the most frequent ones


class ImageFolder:
    """The images in a folder, at any depth, in a fixed order.

    An image is known by its ending, or, if it has none, by its first bytes. Hidden files and
    folders are passed over, linked folders too, since links can form a circle, and run folders,
    which hold images of results.

    Attributes:
        notes: lines on what was passed over, once all images were listed.

    Args:
        path: the folder.
    """

    def __init__(self, path: str):
        self._path = path
        self._others: collections.Counter[str] = collections.Counter()
        self._unread: collections.Counter[str] = collections.Counter()
        self._linked = self._runs = 0

    def __iter__(self) -> Iterator[str]:
        """The paths.

        Raises:
            ValueError: a folder cannot be read.
        """
        for folder, folders, files in os.walk(self._path, onerror=_refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            runs = {n for n in folders if os.path.exists(os.path.join(folder, n, RUN_MARK))}
            folders[:] = [name for name in folders if name not in runs]
            self._runs += len(runs)
            self._linked += sum(os.path.islink(os.path.join(folder, name)) for name in folders)
            for name in sorted(files):
                path = os.path.join(folder, name)
                if self._is_image(name, path):
                    yield path

    @property
    def notes(self) -> list[str]:
        """See the class."""
        notes = [f"passed over: {count:,} {what}" for what, count in self._unread.items()]
        if self._others:
            named = self._others.most_common(_COUNTED)
            rest = sum(self._others.values()) - sum(count for _, count in named)
            counts = [f"{count:,} {what}" for what, count in named]
            counts += [f"{rest:,} others"] if rest else []
            notes.append(f"passed over: {', '.join(counts)}")
        if self._runs:
            notes.append(f"passed over: {self._runs:,} run folders of `dsprh train`")
        if self._linked:
            notes.append(
                f"{self._linked:,} linked folders were not followed: encode each as a source of "
                "its own"
            )
        return notes

    def _is_image(self, name: str, path: str) -> bool:
        """Whether a file is an image that can be read; counts it if not."""
        if name.startswith("."):
            self._others["hidden"] += 1
            return False
        ending = os.path.splitext(name)[1].lower()
        kind = image_kinds.ENDINGS.get(ending)
        if kind is None:
            content = image_kinds.kind_of_file(path)
            # With an ending that says otherwise it is a copy, a download that broke off, or a
            # camera's raw image, which is a TIFF too.
            if content is None or ending:
                self._others[_described(ending, content)] += 1
                return False
            kind = content
        needs = image_kinds.missing(kind)
        # A .heic that is a JPEG can be read: programs that convert leave the name.
        if needs and image_kinds.kind_of_file(path) == kind:
            self._unread[f"{image_kinds.spoken(kind)} images; reading them {needs}"] += 1
            return False
        return True


def _described(ending: str, content: str | None) -> str:
    """A kind of other files: by the ending, if it looks like one, and whether it is an image."""
    what = ending if re.fullmatch(r"\.\w{1,12}", ending) else "of other names"
    what = what if ending else "without an ending"
    return f"{what} ({content} by content: rename to encode)" if content else what


def _refuse(error: OSError):
    raise ValueError(f"{error.filename} cannot be read ({error.strerror})") from error
