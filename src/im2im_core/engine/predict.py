"""Prediction: a model and an image in, arrays or files out; memory does not grow with the image."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from im2im_core.axes import Region
from im2im_core.engine.devices import choose_device
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.frameworks.contract import Framework, OutputSpec
from im2im_core.engine.predict_deliver import Decoder, Delivery, remove_leftovers
from im2im_core.engine.predict_forward import Translator, pixel_budget
from im2im_core.engine.predict_output import (
    Journal,
    MemorySink,
    Outputs,
    Resumed,
    Sink,
    file_sink,
    require_room,
)
from im2im_core.engine.predict_plan import OutGrid, Plan, clip_region, decide_tile, make_plan, out_grid, smaller
from im2im_core.engine.predict_read import TileReader
from im2im_core.engine.predict_run import OutOfMemory, run_tiles
from im2im_core.errors import ConfigError, DataError, ResourceError, nearest
from im2im_core.events import Event, Message
from im2im_core.image import Image, ImageInfo, as_image, channels_named, select_channels
from im2im_core.inference import Inference, OutputDescription
from im2im_core.object_size import estimated_diameter
from im2im_core.predict_options import PredictOptions, output_path
from im2im_core.rescale import Rescaling, rescaling

if TYPE_CHECKING:
    from im2im_core.engine.predict_foreign import ForeignPredictor

Output = TypeVar("Output", OutputSpec, OutputDescription)
OnEvent = Callable[[Event], None]
MakeArray = Callable[["Layer", tuple[int, ...], np.dtype[Any]], NDArray[Any]]
"""Array of zeros of a shape along T, C, Z, Y, X that a result is written into."""


@dataclass(frozen=True)
class Layer:
    """How a result is to be shown."""

    name: str
    kind: str
    axes: str
    scale: tuple[float, ...]
    """Size of a pixel along each axis; micrometres where known."""
    translate: tuple[float, ...]
    """Centre of the first pixel, in the same unit."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Where it comes from: model, image, tile, factor, seconds, device."""


class Prediction(Mapping[str, Any]):
    """Results by name, the main one first: arrays, or paths where they were written to files.

    An array has the axes of the source that the result keeps, channels only where there are several.
    """

    def __init__(self, results: Mapping[str, NDArray[Any] | Path], layers: Sequence[Layer]) -> None:
        self._results = dict(results)
        self.layers = tuple(layers)

    def __getitem__(self, name: str) -> Any:
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    @property
    def main(self) -> Any:
        """The first result."""
        return next(iter(self._results.values()))


class Predictor:
    """A model that is ready to predict.

    Parameters
    ----------
    model : path
        Folder or zip of a model package.
    device : str
        "auto", or a torch device such as "cpu" or "cuda:1".
    threads : int, optional
        Threads that torch computes with on the CPU.
    """

    _identity: str | None = None
    """Of the package; None where there is none."""

    def __init__(self, model: str | os.PathLike[str], *, device: str = "auto", threads: int | None = None) -> None:
        from im2im_core.bundle import open_bundle

        bundle = open_bundle(Path(model))
        self.framework: Framework = load_framework(bundle, torch.device("cpu"))
        self.inference: Inference = bundle.inference
        self._identity = bundle.identity
        self.device = ready_device(device, threads)

    @classmethod
    def from_framework(
        cls, framework: Framework, inference: Inference, device: str = "auto", threads: int | None = None
    ) -> Predictor:
        """Predictor of a framework that is loaded already; its mode (training or not) is restored after use."""
        predictor = cls.__new__(cls)
        predictor.framework, predictor.inference = framework, inference
        predictor.device = ready_device(device, threads)
        return predictor

    @property
    def identity(self) -> str:
        """Hash of the model's content: two trainings of one recipe differ in it."""
        return self._identity or _weights_hash(self.framework)

    def predict(
        self,
        image: Any,
        region: Region | None = None,
        *,
        axes: str | None = None,
        outputs: Sequence[str] | None = None,
        to: str | os.PathLike[str] | None = None,
        make_array: MakeArray | None = None,
        on_event: OnEvent | None = None,
        should_stop: Callable[[], bool] | None = None,
        options: PredictOptions | None = None,
    ) -> Prediction:
        """Results over `region` of `image` (all of it when None), on the grid of the image.

        Parameters
        ----------
        image : Image, path or array
        region : Region, optional
            Slices along T, C, Z, Y, X; normalisation is still that of the whole image.
        axes : str, optional
            Axes of an array, or of a file that does not say.
        outputs : sequence of str, optional
            Names of the results that are wanted; the main one alone when None.
        to : path, optional
            File that the main result is streamed into; others get the same name with _NAME.
        make_array : callable, optional
            Makes the arrays that results are written into, for example such as others can watch.

        Raises
        ------
        Stopped
            `should_stop` said so. A journal beside `to` keeps what is finished, for ``resume``.
        """
        task = _Task(
            self,
            image,
            axes,
            region,
            outputs,
            Path(to) if to is not None else None,
            on_event or _ignore,
            options or PredictOptions(),
            make_array,
        )
        modes = [(module, module.training) for module in self.framework.modules()]
        places = {p.device for p in self.framework.parameters()}
        self.framework.eval()
        try:
            return task.run(should_stop or _never)
        finally:
            for module, training in modes:
                module.training = training
            if len(places) == 1:
                self.framework.to(next(iter(places)))


def open_predictor(
    model: str | os.PathLike[str], *, device: str = "auto", threads: int | None = None
) -> Predictor | ForeignPredictor:
    """Predictor of a model package: one of ours, or of another tool, which is run as bioimage.io describes it."""
    from im2im_core.bundle import open_bundle
    from im2im_core.engine.predict_foreign import ForeignPredictor

    bundle = open_bundle(Path(model))
    if bundle.is_ours:
        return Predictor(model, device=device, threads=threads)
    return ForeignPredictor(bundle, device=device, threads=threads)


def load_framework(bundle: Any, device: torch.device) -> Framework:
    """Framework of a model package with its weights on `device`."""
    inference: Inference = bundle.inference
    framework = build_framework(
        inference.framework, inference.network, inference.shapes, voxel_size=inference.input.voxel_size
    )
    try:
        framework.load_state_dict(bundle.load_weights())
    except RuntimeError as error:  # torch lists every layer
        raise DataError(
            f"The weights of {bundle.name} do not fit the network that its description names",
            "The package is not consistent; get it again, or export the model again",
        ) from error
    return framework.to(device).eval()


def _weights_hash(framework: Framework) -> str:
    """Hash of weights that come from no package; they may change between two predictions."""
    found = hashlib.sha256()
    for name, values in framework.state_dict().items():
        found.update(name.encode())
        found.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def ready_device(device: str, threads: int | None) -> torch.device:
    """Device to compute on, after telling torch how many threads it may use."""
    if threads:
        torch.set_num_threads(threads)
    return torch.device(choose_device(device))


def _ignore(event: Event) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


class _Task:
    """One prediction from its arguments to its results."""

    def __init__(
        self,
        predictor: Predictor,
        image: Any,
        axes: str | None,
        region: Region | None,
        outputs: Sequence[str] | None,
        to: Path | None,
        on_event: OnEvent,
        options: PredictOptions,
        make_array: MakeArray | None,
    ) -> None:
        self.framework, self.inference, self.device = predictor.framework, predictor.inference, predictor.device
        self.predictor = predictor
        self.options, self.to, self.make_array = options, to, make_array
        lock = threading.Lock()

        def tell(event: Event) -> None:  # the computing and the writing thread both have news
            with lock:
                on_event(event)

        self.tell = tell
        if isinstance(image, Mapping):
            raise ConfigError(
                f"{self.inference.name} takes one image, not several by name", "Give the image itself, without a name"
            )
        opened = as_image(image, axes=axes, dimensions=self.inference.shapes.dimensions)
        by_name = channels_named(opened.info, self.inference.input.channel_names)
        self.image: Image = select_channels(opened, options.channels or by_name)
        self.region = clip_region(self._all_channels(region), self.image.info)
        self.specs = wanted_outputs(self.framework.results, outputs)

    def run(self, should_stop: Callable[[], bool]) -> Prediction:
        """Results, after all tiles are computed and written."""
        began = time.monotonic()
        plan = self._plan()
        info = self.image.info
        main = self.framework.results[0].name
        grids = {
            s.name: out_grid(s, plan, info, s.name == main and self.framework.stitch == "instances") for s in self.specs
        }
        journal = None
        if self.to:
            for number, name in enumerate(grids):
                remove_leftovers(output_path(self.to, name, number == 0))
            require_room(self.to, grids, _journal_path(self.to))
            journal = Journal(_journal_path(self.to), self._key(plan))
        outputs = Outputs(grids, self._sinks(grids), journal, self.tell)
        try:
            plan = self._run_all(plan, outputs, journal, should_stop)
            results = outputs.finish()
        except BaseException:
            outputs.abort()
            raise
        facts = self._facts(plan, time.monotonic() - began)
        return Prediction(results, [layer_of(g, info, self.region, facts) for g in grids.values()])

    # ---- before ----

    def _all_channels(self, region: Region | None) -> Region | None:
        if region is None:
            return None
        return region[0], slice(0, self.image.info.shape[1]), region[2], region[3], region[4]

    def _plan(self) -> Plan:
        info, options = self.image.info, self.options
        found = rescaling(
            self.inference.input,
            info.voxel_size,
            self.inference.shapes.dimensions,
            override=options.rescale,
            object_diameter=self._object_diameter(),
        )
        specs = (*self.framework.outputs, *self.framework.results)
        plan = make_plan(self.inference, specs, info, self.region, found, options, self.to is not None)
        self._explain(found)
        return decide_tile(plan, self.framework.outputs, options, pixel_budget(self.device))

    def _object_diameter(self) -> float | None:
        """Width of the objects as told; looked for where that is wished, or the model knows no other size."""
        told = self.options.object_diameter
        by_object = self.inference.input.rescale.kind == "object_size"
        if told == "auto" or (told is None and by_object):
            return estimated_diameter(self.image, self.inference, self.options.rescale)
        return told

    def _explain(self, found: Rescaling) -> None:
        if found.unsure:
            self.tell(
                Message(
                    f"The image is used at its own size: {found.reason}",
                    "warning",
                    "Give the voxel size of the image, the width of its objects (object_diameter) or a scale (rescale)",
                    "unknown_size",
                )
            )
        elif found.factor != (1.0, 1.0, 1.0):
            words = ", ".join(f"{f:.3g}" for f in found.factor)
            self.tell(Message(f"The image is magnified {words} times along Z, Y, X: {found.reason}", code="rescaled"))

    def _key(self, plan: Plan) -> dict[str, Any]:
        """What must be the same for an unfinished output to be gone on with."""
        options = self.options.dump()
        for name in ("resume", "overwrite"):
            del options[name]
        return {
            "model": self.predictor.identity,
            "image": self.image.info.identity,
            "region": str(self.region),
            "options": options,
            "outputs": [s.name for s in self.specs],
            "factor": list(plan.rescaling.factor),
        }

    def _sinks(self, grids: Mapping[str, OutGrid]) -> dict[str, Sink]:
        sinks: dict[str, Sink] = {}
        try:
            for number, (name, grid) in enumerate(grids.items()):
                sinks[name] = (
                    MemorySink(grid, self._array(grid))
                    if self.to is None
                    else file_sink(
                        output_path(self.to, name, number == 0),
                        grid,
                        out_info(grid, self.image.info),
                        self.options.overwrite,
                    )
                )
        except BaseException:
            for sink in sinks.values():
                sink.abort()
            raise
        return sinks

    def _array(self, grid: OutGrid) -> NDArray[Any] | None:
        if self.make_array is None:
            return None
        return self.make_array(layer_of(grid, self.image.info, self.region, {}), grid.shape, np.dtype(grid.dtype))

    # ---- the run ----

    def _run_all(self, plan: Plan, outputs: Outputs, journal: Journal | None, should_stop: Callable[[], bool]) -> Plan:
        """The plan that worked in the end: smaller tiles, then the CPU, where memory does not suffice."""
        state = Resumed()
        if journal and self.options.resume:
            state = journal.resume(outputs.store)
        elif journal:
            journal.begin()
        if state.tile:
            plan = replace(plan, chunk=state.chunk).with_tile(state.tile, state.batch)
        elif journal:
            journal.plan(plan)
        while True:
            delivery = self._delivery(plan, outputs, state)
            try:
                run_tiles(
                    plan,
                    TileReader(self.image, self.inference.input, plan),
                    self._translator(),
                    delivery,
                    (state.frame, state.tiles),
                    self.tell,
                    should_stop,
                )
            except OutOfMemory:
                plan = self._shrink(plan)
                state = Resumed(plan.tile, plan.batch, plan.chunk, delivery.frame, 0, delivery.objects)
                if journal:
                    journal.plan(plan)
            else:
                return plan
            finally:
                delivery.close()

    def _delivery(self, plan: Plan, outputs: Outputs, state: Resumed) -> Delivery:
        decoder = Decoder(self.framework, self.inference, plan, self.options.decoding(), self.options.seed)
        scratch = self.to.parent if self.to else None
        return Delivery(
            plan, self.options.blending, decoder, outputs, scratch, (state.frame, state.tiles), state.objects
        )

    def _translator(self) -> Translator:
        self.framework.to(self.device)
        return Translator(
            self.framework,
            self.device,
            self.options.precision,
            self.options.test_time_augmentation,
            self.options.seed,
            self.options.decoding(),
        )

    def _shrink(self, plan: Plan) -> Plan:
        projects = any("Z" not in spec.axes for spec in self.framework.outputs)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if (less := smaller(plan, projects)) is not None:
            self.tell(
                Message(
                    f"Memory of {self.device} does not suffice; going on with tiles of {'×'.join(map(str, less.tile))}",
                    "warning",
                    code="smaller_tiles",
                )
            )
            return less
        if self.device.type == "cpu":
            raise ResourceError(
                f"The smallest tile, {'×'.join(map(str, plan.tile))}, does not fit into memory",
                "Close other programs or use a smaller model",
            )
        self.tell(
            Message(
                f"Memory of {self.device} does not suffice for the smallest tile; going on with the CPU",
                "warning",
                code="to_cpu",
            )
        )
        self.device = torch.device("cpu")
        return decide_tile(plan, self.framework.outputs, self.options, pixel_budget(self.device))

    def _facts(self, plan: Plan, seconds: float) -> dict[str, Any]:
        return {
            "model": self.inference.name,
            "image": self.image.info.name,
            "tile": list(plan.tile),
            "batch": plan.batch,
            "factor": list(plan.rescaling.factor),
            "rescaled": plan.rescaling.reason,
            "padded": [t.stop for t in plan.tiles[-1].outer],
            "seconds": round(seconds, 3),
            "device": str(self.device),
            "precision": self.options.precision,
            "options": self.options.dump(),
        }


def wanted_outputs(results: Sequence[Output], names: Sequence[str] | None) -> list[Output]:
    """Results with the given names, in the order of the model; the main one where None.

    Raises
    ------
    ConfigError
        The model has no such result.
    """
    known = {spec.name: spec for spec in results}
    for name in names or ():
        if name not in known:
            raise ConfigError(f"The model has no output {name!r}", nearest(name, known))
    return list(results[:1]) if names is None else [spec for spec in results if spec.name in names]


def _journal_path(to: Path) -> Path:
    return to.with_name(f".{to.name[:180]}.unfinished")


def out_info(grid: OutGrid, info: ImageInfo) -> ImageInfo:
    """What the file of a result says of itself."""
    y, x = (v / float(s) if v and s else v for v, s in zip(info.voxel_size[1:], grid.scale[1:], strict=True))
    z = info.voxel_size[0]
    z = z / float(grid.scale[0]) if z and grid.scale[0] else z
    axes = grid.axes if {"Y", "X"} <= set(grid.axes) else grid.axes + "YX"
    return ImageInfo(
        name=grid.spec.name,
        shape=grid.shape,
        dtype=grid.dtype,
        axes=axes,
        voxel_size=(z, y, x),
        time_step=info.time_step,
    )


def layer_of(grid: OutGrid, info: ImageInfo, region: Region, facts: dict[str, Any]) -> Layer:
    """How a result over `region` is to be shown."""
    scale, translate = [], []
    for axis in grid.axes:
        if axis in "TC":
            step, first = (info.time_step or 1.0, region[0].start) if axis == "T" else (1.0, 0)
            scale.append(step)
            translate.append(first * step)
            continue
        place = "ZYX".index(axis)
        voxel = info.voxel_size[place] or 1.0
        size = voxel / float(grid.scale[place] or 1)
        scale.append(size)
        # Rims coincide, so the centre of a smaller first pixel stands nearer to the rim.
        translate.append(region[2 + place].start * voxel + (size - voxel) / 2)
    return Layer(grid.spec.name, grid.spec.kind, grid.axes, tuple(scale), tuple(translate), dict(facts))
