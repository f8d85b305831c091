"""Images that wait to be predicted one after the other; one that fails does not stop the others."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im2im_core.commands.scenes import Scene, each_scene
from im2im_core.errors import DataError, Im2ImError, ResourceError
from im2im_core.progress import duration
from napari_im2im._layers import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari import Viewer
    from napari.layers import Layer

    from im2im_core.models import LocalModel
    from im2im_core.predict_options import PredictOptions
    from napari_im2im._layers import Snapshot


@dataclass
class Tally:
    """How far a row of images is, and what became of them."""

    total: int = 0
    """0 until it is known."""
    begun: int = 0
    done: int = 0
    failed: list[Im2ImError] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def place(self) -> str:
        """For example ``image 2 of 12``."""
        return f"image {self.begun} of {self.total}"

    def summary(self) -> str:
        """What became of all, in words."""
        words = f"{self.done} of {self.total} images predicted, {duration(time.monotonic() - self.began)}"
        return f"{words}, {len(self.failed)} failed" if self.failed else words


@dataclass(frozen=True)
class Request:
    """What is done with every image of a row; what the panel shows meanwhile may change."""

    model: LocalModel
    options: PredictOptions
    outputs: tuple[str, ...]
    """Results that are made; none for the main one."""

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of an attached job."""
        return {"model": str(self.model.path), "outputs": list(self.outputs) or None}

    @property
    def main(self) -> str:
        """Name of the result that needs no name of its own."""
        return next(iter(self.outputs or [self.model.inference.outputs[0].name]))

    @property
    def facts(self) -> dict[str, Any]:
        """What is kept with the layers."""
        return {"model_path": str(self.model.path), "channels": list(self.options.channels or ())}


@dataclass
class LayerQueue:
    """Open layers; each is taken as it is when its turn comes."""

    request: Request
    todo: list[Layer]
    tally: Tally

    @classmethod
    def of(cls, layers: Sequence[Layer], request: Request) -> LayerQueue:
        """Queue of `layers`."""
        return cls(request, list(layers), Tally(len(layers)))

    def next(self, viewer: Viewer) -> Snapshot:
        """Snapshot of the next layer; it counts as taken.

        Raises
        ------
        DataError
            It is not open any more, or its dimensions are not known.
        """
        layer = self.todo.pop(0)
        self.tally.begun += 1
        if layer not in viewer.layers:
            raise DataError(f"“{layer.name}” is not open any more", "Open it, and predict it")
        return take_snapshot([layer])


@dataclass
class FileQueue:
    """Images in files and in folders; results go into a new folder beside the first."""

    request: Request
    files: tuple[Path, ...]
    scene: str | None = None
    """The only scene of each file that is wanted; every one where not given."""
    todo: list[tuple[Path | Scene, Path]] = field(default_factory=list)
    """Image and the file that its result is written to; empty until the first is asked for."""
    folder: Path = field(default_factory=Path)
    """New folder that all results are in."""
    tally: Tally = field(default_factory=Tally)
    image: Path | Scene = field(default_factory=Path)
    """The one that is predicted."""

    def next(self) -> dict[str, Any]:
        """Arguments of the next prediction; it counts as taken.

        Looks into folders and makes one, so it is not for the main thread. When it raises, the queue is
        empty, as the others would fail too.

        Raises
        ------
        Im2ImError
            There is no image or no such scene, two results would have one name, or the folder for the results cannot be
            made.
        """
        try:
            if not self.tally.total:
                self.folder, pairs = listed(self.files)
                self.todo = each_scene(pairs, self.scene, self.folder)
                self.tally.total = len(self.todo)
            self.make_folder()
        except Im2ImError:
            self.todo.clear()
            raise
        self.image, target = self.todo.pop(0)
        self.tally.begun += 1
        path = self.image.path if isinstance(self.image, Scene) else self.image
        scene = self.image.name if isinstance(self.image, Scene) else None
        told = {"image": str(path), "scene": scene, "to": str(target), "options": self.request.options.dump()}
        return {**self.request.arguments, **told}

    def make_folder(self) -> None:
        """Make the folder for the results.

        Raises
        ------
        ResourceError
            It cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            cure = "Check its permissions, or copy the images to a folder of your own"
            raise ResourceError(f"Cannot make {self.folder}: {error.strerror}", cure) from error


def listed(files: Sequence[Path]) -> tuple[Path, list[tuple[Path, Path]]]:
    """New folder for the results, and the images in `files` and folders with the file that each result goes to.

    Looks into folders, so it is not for the main thread.

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
            return folder, [(files[0], folder / result_name(files[0]))]
        return folder, pair_outputs([str(f) for f in files], folder)
    except OSError as error:
        raise DataError(f"{files[0]} cannot be looked at: {error.strerror}", "Check its permissions") from error


def result_name(image: Path) -> str:
    """Name of the file that the result for `image` is written to."""
    return image.name if image.suffix.lower() in (".tif", ".tiff", ".zarr") else f"{image.stem}.tif"
