"""Images whose bytes stand in a manifest, written to files once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from dsprh_tf.data.files import write_bytes

_ENDINGS = {
    b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"RIFF": "webp",
    b"II*\0": "tif", b"MM\0*": "tif",
}  # fmt: skip


class EmbeddedImages:
    """Files of the images that a Parquet file holds, as Hugging Face writes them.

    They are in the folder FILE.images beside the manifest, each under the hash of its bytes: an
    image that is there is not written again, and rows with the same image name the same file.
    Everything that follows (checks, training, an index and its page) reads files by their path.

    Attributes:
        count: images that were asked for.

    Args:
        manifest: the file that holds them.
    """

    def __init__(self, manifest: Path):
        self._folder = manifest.with_name(f"{manifest.name}.images")
        self.count = 0

    @property
    def notes(self) -> list[str]:
        """A line on where the files are."""
        return [f"{self.count:,} images of the file are in {self._folder}"] if self.count else []

    def file_of(self, content: bytes) -> str:
        """The file of an image, relative to the manifest; it is written if it is missing.

        Raises:
            ValueError: it cannot be written.
        """
        ending = next((e for mark, e in _ENDINGS.items() if content.startswith(mark)), "bin")
        name = f"{hashlib.sha256(content).hexdigest()[:32]}.{ending}"
        try:
            if not (self._folder / name).exists():
                write_bytes(self._folder / name, content)
        except OSError as error:
            raise ValueError(
                f"the image in the manifest cannot be written to {self._folder} "
                f"({error.strerror or error}); copy the manifest to a folder that can be written"
            ) from error
        self.count += 1
        return os.path.join(self._folder.name, name)
