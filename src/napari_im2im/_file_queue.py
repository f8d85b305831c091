"""Files that wait to be predicted one after the other; one that fails does not stop the others."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.errors import DataError, ResourceError
from im2im_core.progress import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from im2im_core.errors import Im2ImError


@dataclass
class FileQueue:
    """Images that are still to be done, and what became of the others."""

    arguments: dict[str, Any]
    """Arguments that all predictions share."""
    todo: list[tuple[Path, Path]]
    """Image and the file that its result is written to."""
    folder: Path
    """New folder that all results are in."""
    total: int
    failed: list[Im2ImError] = field(default_factory=list)
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, files: Sequence[Path], arguments: dict[str, Any]) -> FileQueue:
        """Queue of images and of all images in folders; results go into a new folder beside the first.

        Raises
        ------
        Im2ImError
            There is no image, or two results would have one name.
        """
        from im2im_core.commands.predict import pair_outputs

        try:
            parent = files[0] if files[0].is_dir() and files[0].suffix != ".zarr" else files[0].parent
            folder = parent / f"predictions-{time.strftime('%Y%m%d-%H%M%S')}"
            if len(files) == 1 and parent == files[0].parent:
                pairs = [(files[0], folder / result_name(files[0]))]
            else:
                pairs = pair_outputs([str(f) for f in files], folder)
        except OSError as error:
            raise DataError(f"{files[0]} cannot be looked at: {error.strerror}", "Check its permissions") from error
        return cls(arguments, pairs, folder, len(pairs))

    def next(self) -> dict[str, Any]:
        """Arguments of the next prediction; it counts as taken.

        Raises
        ------
        ResourceError
            The folder for the results cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            cure = "Check its permissions, or copy the images to a folder of your own"
            raise ResourceError(f"Cannot make {self.folder}: {error.strerror}", cure) from error
        image, target = self.todo.pop(0)
        return {**self.arguments, "image": str(image), "to": str(target)}

    @property
    def place(self) -> str:
        """For example ``image 2 of 12``."""
        return f"image {self.total - len(self.todo)} of {self.total}"

    def summary(self) -> str:
        """What became of all, in words."""
        words = f"{self.done} of {self.total} images predicted, {duration(time.monotonic() - self.began)}"
        return f"{words}, {len(self.failed)} failed" if self.failed else words


def result_name(image: Path) -> str:
    """Name of the file that the result for `image` is written to."""
    return image.name if image.suffix.lower() in (".tif", ".tiff", ".zarr") else f"{image.stem}.tif"
