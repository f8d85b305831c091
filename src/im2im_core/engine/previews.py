"""Live predictions of the regions that the user watches, kept for every validation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.engine.callbacks import Preview
from im2im_core.engine.frameworks.contract import TranslateContext
from im2im_core.engine.validate import Validator, View, view_of
from im2im_core.errors import Im2ImError
from im2im_core.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from im2im_core.engine.prepare import Entry
    from im2im_core.engine.train import StepModule

LARGEST = {2: (1, 512, 512), 3: (32, 192, 192)}
"""Largest region that is shown live, along Z, Y, X: it must not slow the training down."""


class Previews:
    """Regions watched in one run.

    Parameters
    ----------
    find : callable
        Prepared image of a sample by its name; None where there is none.
    """

    def __init__(
        self,
        folder: Path,
        find: Callable[[str], Entry | None],
        divisor: tuple[int, ...],
        dimensions: int,
        validator: Validator,
    ) -> None:
        self.folder, self.find = folder, find
        self.divisor, self.dimensions, self.validator = divisor, dimensions, validator
        self.watched: list[Preview] = []

    def watch(self, view: View, name: str = "preview") -> None:
        """Predict `view` at every validation from now on; its source and target are kept once."""
        self.folder.mkdir(exist_ok=True)
        arrays = view.entry.arrays
        _keep(self.folder / f"{name}_source.npy", _inner(np.asarray(arrays["source"]), view))
        if "truth" in arrays:
            _keep(self.folder / f"{name}_target.npy", view.truth())
        self.watched = [p for p in self.watched if p.name != name]
        self.watched.append(Preview(self.folder, name, lambda module: self._predict(view, module)))

    def request(self, arguments: dict[str, Any]) -> str:
        """Watch the region that a command names; gives what became of it, in words.

        Parameters
        ----------
        arguments : dict
            ``sample``: name; ``start`` and ``stop``: along Z, Y, X; ``shape``: size of the image in which they
            count, where it is not the grid of the network.
        """
        try:
            entry = self.find(str(arguments.get("sample", "")))
        except (Im2ImError, OSError) as error:  # the file may be gone by now; the training goes on
            return f"the image cannot be read: {error}"
        if entry is None:
            return f"there is no image {arguments.get('sample')!r} in this run"
        grid = arguments.get("shape") or entry.shape
        factors = [n / g for n, g in zip(entry.shape, grid, strict=True)]
        start = [int(a * f) for a, f in zip(arguments.get("start") or (0, 0, 0), factors, strict=True)]
        stop = [math.ceil(b * f) for b, f in zip(arguments.get("stop") or grid, factors, strict=True)]
        centre = tuple((a + b) // 2 for a, b in zip(start, stop, strict=True))
        size = tuple(max(b - a, 8) for a, b in zip(start, stop, strict=True))
        largest = tuple(min(s, m) for s, m in zip(size, LARGEST[self.dimensions], strict=True))
        view = view_of(entry, self.divisor, self.dimensions, centre, largest).alone()
        self.watch(view, str(arguments.get("name", "preview")))
        return "shown from the next validation on"

    def _predict(self, view: View, module: StepModule) -> NDArray[Any]:
        framework = module.average.framework
        maps = self.validator.maps_of(framework, view)
        results = framework.postprocess(maps, TranslateContext())
        return np.asarray(results[framework.results[0].name])


def _inner(array: NDArray[Any], view: View) -> NDArray[Any]:
    z, y, x = (slice(max(p.start, 0), min(p.stop, n)) for p, n in zip(view.place, view.entry.shape, strict=True))
    part = array[:, z, y, x]
    return part[:, 0] if view.planes else part


def _keep(path: Path, array: NDArray[Any]) -> None:
    with atomic_path(path) as part, part.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)
