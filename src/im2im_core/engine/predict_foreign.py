"""Prediction with models of other tools: one volume after the other, in the blocks that the package asks for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from im2im_core.axes import AXES, Region
from im2im_core.bundle.foreign import TensorSpec, describe_foreign
from im2im_core.engine.foreign import ForeignModel
from im2im_core.engine.frameworks.contract import OutputSpec
from im2im_core.engine.predict import Prediction, layer_of, out_info, ready_device, wanted_outputs
from im2im_core.engine.predict_deliver import remove_leftovers
from im2im_core.engine.predict_forward import is_out_of_memory
from im2im_core.engine.predict_output import MemorySink, Sink, file_sink
from im2im_core.engine.predict_plan import OutGrid, clip_region
from im2im_core.engine.predict_run import ProgressClock
from im2im_core.errors import ConfigError, DataError, ResourceError, Stopped, nearest
from im2im_core.events import Event, Message, OutputWritten, TileDone
from im2im_core.image import Image, as_image, select_channels
from im2im_core.predict_options import PredictOptions, output_path

if TYPE_CHECKING:
    from im2im_core.bundle import Bundle
    from im2im_core.engine.predict import MakeArray
    from im2im_core.image import ImageInfo

OURS = frozenset({"channels", "tile", "seed", "overwrite", "resume"})
"""Options that do not change what a package of another tool decides."""
STORED = {"b1": "u1", "f2": "f4", "f8": "f4", "i8": "i4", "u8": "u4"}
"""Types of results that files do not have, with those that take their place."""
Frame = tuple[int, slice]
"""Time point and planes that the network sees at once."""


class ForeignPredictor:
    """A bioimage.io model of another tool that is ready to predict, with the calls of `Predictor`.

    A time point, or for planar models a plane, is normalised, run and kept in memory as a whole.
    Models that take several images at once get them by the names of their inputs.

    Parameters
    ----------
    device : str
        "auto", or a torch device such as "cpu" or "cuda:1".
    threads : int, optional
        Threads that torch computes with on the CPU.
    """

    def __init__(self, bundle: Bundle, *, device: str = "auto", threads: int | None = None) -> None:
        self.inference = describe_foreign(bundle)
        self.identity = bundle.identity
        self.device = ready_device(device, threads)
        self.model = ForeignModel(bundle, device=str(self.device))

    def predict(
        self,
        image: Any,
        region: Region | None = None,
        *,
        axes: str | None = None,
        outputs: Sequence[str] | None = None,
        to: str | os.PathLike[str] | None = None,
        make_array: MakeArray | None = None,
        on_event: Callable[[Event], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        options: PredictOptions | None = None,
    ) -> Prediction:
        """Results over `region` of `image`, as `Predictor.predict` gives them; each under its name in the package.

        Parameters
        ----------
        image : Image, path, array, or mapping of them
            Where the model takes several images, each under the name of its input. Results lie on the first input.

        Raises
        ------
        ConfigError
            An option changes what the package decides, or an input is missing or unknown.
        DataError
            The image does not fit the model.
        Stopped
            `should_stop` said so; nothing is kept.
        """
        options = options or PredictOptions()
        _check_options(options, self.inference.name)
        task = _Task(self, self._opened(image, axes, options), region)
        task.tile = None if options.tile == "auto" else options.tile
        task.names = [o.name for o in wanted_outputs(self.inference.outputs, outputs)]
        task.to, task.make_array, task.overwrite = Path(to) if to is not None else None, make_array, options.overwrite
        task.tell = on_event or task.tell
        task.should_stop = should_stop or task.should_stop
        try:
            return task.run()
        except RuntimeError as error:
            if is_out_of_memory(error):
                cure = "Close other programs" if self.device.type == "cpu" else "Use --device cpu"
                raise ResourceError(
                    f"Memory of {self.device} does not suffice for {self.inference.name}", cure
                ) from error
            raise DataError(
                f"{self.inference.name} failed on {task.image.info.name}: {str(error).strip().splitlines()[-1]}",
                "Look in its documentation for the images that it takes",
            ) from error
        finally:
            task.abort()

    def _opened(self, image: Any, axes: str | None, options: PredictOptions) -> dict[str, Image]:
        """Image of each input by name; channels are chosen of the first."""
        names = [given.name for given in self.inference.inputs]
        images = dict(image) if isinstance(image, Mapping) else {names[0]: image}
        unknown = [name for name in images if name not in names]
        if unknown:
            raise ConfigError(f"{self.inference.name} has no input {unknown[0]!r}", nearest(unknown[0], names))
        missing = [name for name in names if name not in images]
        if missing:
            raise ConfigError(
                f"{self.inference.name} takes {len(names)} images; {', '.join(missing)} is missing",
                f"Give each under its name: {' '.join(f'--input {name}=FILE' for name in names)}",
            )
        dimensions = self.inference.shapes.dimensions
        opened = {name: as_image(images[name], axes=axes, dimensions=dimensions) for name in names}
        return {**opened, names[0]: select_channels(opened[names[0]], options.channels)}


def _check_options(options: PredictOptions, model: str) -> None:
    defaults = PredictOptions()
    changed = [n for n in PredictOptions.model_fields if getattr(options, n) != getattr(defaults, n)]
    refused = [n for n in changed if n not in OURS]
    if refused:
        raise ConfigError(
            f"{', '.join(refused)}: {model} was made by another tool and is run as its package says",
            "Leave such options out",
        )


class _Task:
    """One prediction from the image to its results."""

    def __init__(self, predictor: ForeignPredictor, images: Mapping[str, Image], region: Region | None) -> None:
        self.predictor, self.images = predictor, images
        self.image = next(iter(images.values()))
        self.names: list[str] = []
        self.to: Path | None = None
        self.make_array: MakeArray | None = None
        self.overwrite = False
        self.tile: tuple[int, ...] | None = None
        self.tell: Callable[[Event], None] = _ignore
        self.should_stop: Callable[[], bool] = _never
        self.region = clip_region(region, self.image.info)
        self._grids: dict[str, OutGrid] = {}
        self._sinks: dict[str, Sink] = {}
        self._clock: ProgressClock | None = None
        self._notes: set[str] = set()
        self._flat = predictor.inference.shapes.dimensions == 2
        self._check_images()

    def _check_images(self) -> None:
        """Raise DataError where an image does not fit its input, or the others."""
        inference = self.predictor.inference
        for given in inference.inputs:
            info = self.images[given.name].info
            if info.shape[1] != given.channels:
                which = f"as {given.name!r} " if len(inference.inputs) > 1 else ""
                raise DataError(
                    f"{info.name} has {info.shape[1]} channel(s); the model {inference.name!r} {which}sees "
                    f"{given.channels}",
                    f"Choose {given.channels} of them with channels=",
                )
            if not self._flat and "Z" not in info.axes:
                raise DataError(
                    f"{info.name} is a plane (axes {info.axes}); the model works on volumes",
                    "Give a Z-stack, or name its axes if it has one (for example 'ZYX')",
                )
            first = self.image.info
            if (info.shape[0], *info.shape[2:]) != (first.shape[0], *first.shape[2:]):
                raise DataError(
                    f"{first.name} has {_sizes(first)} pixels along T, Z, Y, X, {info.name} has {_sizes(info)}",
                    "Images that go in together are of one size",
                )

    def run(self) -> Prediction:
        """Results, after every frame is computed and written."""
        began = time.monotonic()
        frames = self._frames()
        for number, frame in enumerate(frames):
            results = self._compute(frame, number, len(frames))
            if not self._sinks:
                self._begin(results)
            for name in self.names:
                self._write(name, frame, results[name])
        finished = {name: sink.finish() for name, sink in self._sinks.items()}
        self._sinks.clear()
        for name, result in finished.items():
            if isinstance(result, Path):
                self.tell(OutputWritten(str(result), name))
        facts = self._facts(time.monotonic() - began)
        return Prediction(finished, [layer_of(self._grids[n], self.image.info, self.region, facts) for n in finished])

    def abort(self) -> None:
        """Leave nothing half-written behind."""
        for sink in self._sinks.values():
            sink.abort()

    def _frames(self) -> list[Frame]:
        t, _, z, _, _ = self.region
        depth = self.image.info.shape[2]
        planes = [slice(k, k + 1) for k in range(z.start, z.stop)] if self._flat else [slice(0, depth)]
        return [(time, part) for time in range(t.start, t.stop) for part in planes]

    def _compute(self, frame: Frame, number: int, total: int) -> Mapping[str, NDArray[Any]]:
        """Outputs ``(C, Z, Y, X)`` of one frame by name."""

        def on_block(done: int, blocks: int) -> None:
            if done < blocks and self.should_stop():
                raise Stopped("The prediction was stopped", "Start it again; nothing is kept of it")
            self._clock = self._clock or ProgressClock(total * blocks, 0, self.tell)
            self._clock.tick(number * blocks + done)

        model = self.predictor.model
        pixels = {s.name: to_tensor(self._read(s.name, frame), s) for s in model.inputs}
        found = model.predict(pixels, on_block, tile=self.tile, on_note=self._note)
        return {s.name: from_tensor(found[s.name], s) for s in model.outputs if s.name in self.names}

    def _read(self, name: str, frame: Frame) -> NDArray[Any]:
        """Pixels ``(T, C, Z, Y, X)`` of one frame of an input."""
        moment, planes = frame
        info = self.images[name].info
        _, channels, _, height, width = info.shape
        pixels = self.images[name].read(
            (slice(moment, moment + 1), slice(0, channels), planes, slice(0, height), slice(0, width))
        )
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise DataError(f"{info.name} has NaN or infinite pixels", "Mend the image")
        return pixels

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.add(text)
            self.tell(Message(text, "warning", "Give tile, as large as the memory allows", "seams"))

    # ---- outputs ----

    def _begin(self, results: Mapping[str, NDArray[Any]]) -> None:
        for number, name in enumerate(self.names):
            grid = self._grids[name] = self._grid(name, results[name])
            if self.to is None:
                array = self.make_array and self.make_array(
                    layer_of(grid, self.image.info, self.region, {}), grid.shape, grid.dtype
                )
                self._sinks[name] = MemorySink(grid, array)
                continue
            path = output_path(self.to, name, number == 0)
            remove_leftovers(path)
            self._sinks[name] = file_sink(path, grid, out_info(grid, self.image.info), self.overwrite)

    def _grid(self, name: str, values: NDArray[Any]) -> OutGrid:
        """Where a result lies, from its first frame."""
        info = self.image.info
        has_z = self._flat or any(o.name == name and "Z" in o.axes for o in self.predictor.inference.outputs)
        dropped = {axis for axis, there in (("Z", has_z), ("C", len(values) > 1)) if not there}
        source = (1 if self._flat else info.shape[2], info.shape[3], info.shape[4])
        z, y, x = (Fraction(made, size) for made, size in zip(values.shape[1:], source, strict=True))
        scale = (z if has_z else Fraction(0), y, x)
        part = self._part(values.shape[1:], source)
        times, planes, depth, height, width = (s.stop - s.start for s in (self.region[0], self.region[2], *part))
        return OutGrid(
            spec=OutputSpec(name, "image", len(values), "CZYX" if has_z else "CYX", scale),
            scale=scale,
            whole=source,
            part=part,
            shape=(times, len(values), planes if self._flat else depth, height, width),
            dtype=values.dtype,
            axes="".join(a for a in AXES if a not in dropped and (a in info.axes or a == "C")),
        )

    def _part(self, made: Sequence[int], source: Sequence[int]) -> tuple[slice, ...]:
        """Wanted part of a result of one frame."""
        wanted = (slice(0, 1) if self._flat else self.region[2], *self.region[3:])
        if tuple(made) == tuple(source):
            return wanted
        if any(w != slice(0, n) for w, n in zip(wanted, source, strict=True)):
            raise DataError(
                f"The model makes {'×'.join(map(str, made))} pixels of {'×'.join(map(str, source))}",
                "Predict the whole image instead of a part of it",
            )
        return tuple(slice(0, n) for n in made)

    def _write(self, name: str, frame: Frame, values: NDArray[Any]) -> None:
        grid = self._grids[name]
        moment, plane = frame[0] - self.region[0].start, frame[1].start - self.region[2].start
        place = (
            slice(moment, moment + 1),
            slice(0, grid.shape[1]),
            slice(plane, plane + 1) if self._flat else slice(0, grid.shape[2]),
            slice(0, grid.shape[3]),
            slice(0, grid.shape[4]),
        )
        self._sinks[name].write(place, np.ascontiguousarray(values[(slice(None), *grid.part)][None], grid.dtype))
        self.tell(TileDone(name, tuple(s.start for s in place), tuple(s.stop for s in place)))

    def _facts(self, seconds: float) -> dict[str, Any]:
        return {
            "model": self.predictor.inference.name,
            "image": " + ".join(image.info.name for image in self.images.values()),
            "weights": self.predictor.model.weights,
            "seconds": round(seconds, 3),
            "device": str(self.predictor.device),
        }


# ---- our axes and theirs ----


def to_tensor(pixels: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """``(T, C, Z, Y, X)`` pixels with the axes of a tensor; those that it lacks have one element."""
    letters = [axis.letter for axis in spec.axes]
    missing = [a for a in AXES if a not in letters]
    ordered = pixels.transpose([AXES.index(a) for a in (*letters, *missing)])
    return np.ascontiguousarray(ordered.reshape(ordered.shape[: len(letters)]))


def from_tensor(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """``(C, Z, Y, X)`` of a tensor with one time point, in a type that files have."""
    letters = [axis.letter for axis in spec.axes]
    missing = [a for a in AXES if a not in letters]
    full = values.reshape((*values.shape, *[1] * len(missing)))
    ordered = full.transpose([[*letters, *missing].index(a) for a in AXES])[0]
    wanted = np.dtype(STORED.get(ordered.dtype.str[1:], ordered.dtype))
    stored: NDArray[Any] = ordered.astype(wanted, copy=False)
    if wanted.kind in "iu" and not np.array_equal(stored, ordered):
        raise DataError(f"{spec.name} has values up to {ordered.max()}, more than files hold", "Use another output")
    return stored


def _sizes(info: ImageInfo) -> str:
    return "×".join(map(str, (info.shape[0], *info.shape[2:])))


def _ignore(event: Event) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False
