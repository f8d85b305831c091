"""What an attached process can do: each verb takes plain arguments and arrays, and gives plain results and arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.events import Event, OutputBegun
from im2im_core.imports import without_collection

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_core.axes import Region
    from im2im_core.image import Image

Arguments = dict[str, Any]
OnEvent = Callable[[Event], None]
ShouldStop = Callable[[], bool]
Verb = Callable[[Arguments, OnEvent, ShouldStop], dict[str, Any]]


def ping(arguments: Arguments, on_event: OnEvent, should_stop: ShouldStop) -> dict[str, Any]:
    """The arguments themselves."""
    return arguments


def predict(arguments: Arguments, on_event: OnEvent, should_stop: ShouldStop) -> dict[str, Any]:
    """``results`` by name (arrays, or paths where ``to`` is given) and ``layers`` that say how to show them.

    Arguments are ``model``, ``image`` (path or array) and, as wanted, ``scene`` (name, of a file with several),
    ``axes``, ``name``, ``voxel_size``, ``channels``, ``time_step``, ``excerpt`` (of what image the pixels are a part),
    ``region`` (start and stop along T, C, Z, Y, X), ``outputs``, ``to``, ``device`` and ``options``. Where ``live``
    names a folder, results are files in it that fill tile by tile: `OutputBegun` tells of each, and ``results`` holds
    their paths. A model that takes several images gets ``images`` instead: for the name of each input what is said of
    one image above.
    """
    from im2im_core import api
    from im2im_core.predict_options import PredictOptions

    live = _Live(Path(arguments["live"]), on_event) if arguments.get("live") else None
    predictor = api.loaded_predictor(arguments["model"], arguments.get("device", "auto"))
    prediction = predictor.predict(
        _images(arguments),
        _region(arguments.get("region")),
        axes=arguments.get("axes"),
        outputs=arguments.get("outputs"),
        to=arguments.get("to"),
        make_array=live,
        on_event=on_event,
        should_stop=should_stop,
        options=PredictOptions.load(arguments.get("options") or {}),
    )
    results = {name: str(value) if isinstance(value, Path) else np.asarray(value) for name, value in prediction.items()}
    if live:
        results = dict(live.paths)
    return {"results": results, "layers": [asdict(layer) for layer in prediction.layers]}


class _Live:
    """Makes results as mapped files that the viewer watches while they fill."""

    def __init__(self, folder: Path, on_event: OnEvent) -> None:
        self._folder, self._on_event = folder, on_event
        self.paths: dict[str, str] = {}

    def __call__(self, layer: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        from im2im_core.jobs.messages import create_array

        path = self._folder / f"{len(self.paths)}-{re.sub(r'[^A-Za-z0-9_-]', '_', layer.name)}.npy"
        array = create_array(path, shape, dtype)
        self.paths[layer.name] = str(path)
        self._on_event(OutputBegun(layer.name, str(path), asdict(layer)))
        return array


def evaluate(arguments: Arguments, on_event: OnEvent, should_stop: ShouldStop) -> dict[str, Any]:
    """Report of a ``model`` on ``data``, or of a ``prediction`` against ``truth`` (files, folders or arrays)."""
    if "model" in arguments:
        from im2im_core.engine.evaluate import evaluate_on

        model, data = arguments["model"], arguments["data"]
        return evaluate_on(model, data, on_event=on_event, should_stop=should_stop).to_dict()
    from im2im_core.evaluation import Pair, evaluate_files, evaluate_many, guess_kind

    prediction, truth, kind = arguments["prediction"], arguments["truth"], arguments.get("kind", "auto")
    if isinstance(prediction, str):
        return evaluate_files(prediction, truth, kind, on_event, should_stop).to_dict()
    chosen = guess_kind([(prediction, truth)])[0] if kind == "auto" else kind
    pair = Pair("array", prediction, truth)
    return evaluate_many([pair], chosen, on_event, should_stop).to_dict()


def review(arguments: Arguments, on_event: OnEvent, should_stop: ShouldStop) -> dict[str, Any]:
    """``problems`` of the samples that the settings ``data`` name in the project ``root``, for a ``task``."""
    from im2im_core.recipe.data import DataSettings
    from im2im_core.review.data import check_data

    settings = DataSettings.load(arguments["data"])
    root = Path(arguments["root"])
    found = check_data(settings, arguments["task"], root=root, on_event=on_event, should_stop=should_stop)
    return {"problems": [asdict(problem) for problem in found.problems]}


VERBS: dict[str, Verb] = {"ping": ping, "predict": predict, "evaluate": evaluate, "review": review}


def warm() -> None:
    """Import what prediction needs, so that the first one does not wait for it."""
    with without_collection():
        import_module("im2im_core.engine.predict")
        import_module("monai.networks.nets")


def _images(arguments: Arguments) -> Any:
    """The image, or by the names of their inputs those that go in together."""
    if arguments.get("images"):
        return {name: _image(told) for name, told in arguments["images"].items()}
    return _image(arguments)


def _image(arguments: Arguments) -> Image | str | np.ndarray:
    """Image with what the viewer knows of an array, or the scene of a file; any other path stays one."""
    from im2im_core.image import ArrayImage, as_image

    image, axes = arguments["image"], arguments.get("axes")
    if arguments.get("scene"):
        return as_image(image, axes, scene=arguments["scene"])
    if isinstance(image, str) or axes is None:
        return image  # type: ignore[no-any-return]
    size = arguments.get("voxel_size") or (None, None, None)
    name, channels = arguments.get("name", "array"), tuple(arguments.get("channels") or ())
    step = arguments.get("time_step")
    found = ArrayImage(image, axes, name=name, voxel_size=tuple(size), channels=channels, time_step=step)
    if not arguments.get("excerpt"):
        return found
    from im2im_core.excerpt import Excerpt

    return Excerpt.restored(found, arguments["excerpt"])


def _region(spans: list[list[int]] | None) -> Region | None:
    if spans is None:
        return None
    t, c, z, y, x = (slice(start, stop) for start, stop in spans)
    return t, c, z, y, x
