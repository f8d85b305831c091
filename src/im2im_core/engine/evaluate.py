"""How good a model is on a data set with targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.engine.figures import kind_of
from im2im_core.engine.predict import Predictor
from im2im_core.engine.prepare import read_time, without_unknown
from im2im_core.errors import DataError
from im2im_core.evaluation import Pair, Report, evaluate_many, spacing_of
from im2im_core.io.labels import as_labels
from im2im_core.layouts.base import load_samples
from im2im_core.partial import to_learning
from im2im_core.recipe import DataSettings
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from im2im_core.events import Event
    from im2im_core.partial import Labelling
    from im2im_core.samples import Sample


def evaluate_on(
    model: Any,
    data: Any,
    *,
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    samples: Sequence[Sample] | None = None,
    device: str = "auto",
) -> Report:
    """Report on a model over all samples of a folder or table, or over `samples`; what is unknown does not count.

    Parameters
    ----------
    data : path or DataSettings
        Settings say what the files do not: axes, channels, layout, sparse labels. They hold for `samples` too.

    Raises
    ------
    DataError
        A sample has no target or does not fit the model.
    """
    predictor = Predictor(model, device=device)
    settings = data if isinstance(data, DataSettings) else DataSettings(path=str(Path(data).resolve()))
    found = list(samples) if samples is not None else list(load_samples(settings, Path.cwd())[0])
    return evaluate_many(
        _pairs(predictor, found, settings.labelling, should_stop),
        kind_of(predictor.framework) or "image",
        on_event,
        should_stop,
        total=sum(s.source.info.shape[0] for s in found),
    )


def _pairs(
    predictor: Predictor, samples: list[Sample], labelling: Labelling, should_stop: Callable[[], bool] | None
) -> Iterator[Pair]:
    name = predictor.inference.outputs[0].name
    labels = predictor.framework.results[0].kind == "labels"
    for sample in samples:
        if TARGET not in sample.targets:
            raise DataError(f"{sample.name} has no target", "Add its target, or leave it out")
        result = predictor.predict(sample.source, should_stop=should_stop)[name]
        times = sample.source.info.shape[0]
        for time in range(times):
            truth, weight = _truth(sample, time, labelling if labels else None)
            prediction = result[time] if times > 1 else result
            label = sample.name if times == 1 else f"{sample.name}@{time}"
            pixel = spacing_of(sample.targets[TARGET], sample.source)
            yield Pair(label, np.squeeze(np.asarray(prediction)), truth, weight, sample.name, pixel)


def _truth(sample: Sample, time: int, labelling: Labelling | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Target of one time point and its weight, flat axes removed; `labelling` is None for images."""
    target = sample.targets[TARGET]
    weight = None if sample.weight is None else read_time(sample.weight, time)[:1].astype(np.float32)
    truth = without_unknown(read_time(target, time), weight)
    if labelling is not None:
        truth = as_labels(truth, target.info.name)
    if labelling == "sparse":
        truth, painted = to_learning(truth, "sparse")
        weight = painted if weight is None else painted * weight
    if weight is None:
        return np.squeeze(truth), None
    shape = np.broadcast_shapes(truth.shape, weight.shape)  # a single plane stands for all
    return np.squeeze(np.broadcast_to(truth, shape)), np.squeeze(np.broadcast_to(weight, shape))
