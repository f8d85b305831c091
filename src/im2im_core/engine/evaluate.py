"""How good a model is on a data set with targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_core.engine.predict import Predictor
from im2im_core.engine.prepare import read_time
from im2im_core.evaluation import Pair, Report, evaluate_many
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.events import Event
    from im2im_core.metrics import Kind
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
    """Report on a model over all samples of a folder or table, or over `samples`.

    Raises
    ------
    DataError
        A sample has no target or does not fit the model.
    """
    predictor = Predictor(model, device=device)
    found = list(samples) if samples is not None else _samples(data)
    return evaluate_many(
        _pairs(predictor, found, should_stop),
        _kind(predictor.framework),
        on_event,
        should_stop,
        total=sum(s.source.info.shape[0] for s in found),
    )


def _kind(framework: Framework) -> Kind:
    """What the main result is scored as."""
    if framework.results[0].kind != "labels":
        return "image"
    return "labels" if framework.stitch == "instances" else "classes"


def _samples(data: Any) -> list[Sample]:
    from pathlib import Path

    from im2im_core.layouts.base import load_samples
    from im2im_core.recipe import DataSettings

    samples, _ = load_samples(DataSettings(path=str(Path(data).resolve())), Path.cwd())
    return list(samples)


def _pairs(predictor: Predictor, samples: list[Sample], should_stop: Callable[[], bool] | None) -> Iterator[Pair]:
    name = predictor.inference.outputs[0].name
    for sample in samples:
        result = predictor.predict(sample.source, should_stop=should_stop)[name]
        times = sample.source.info.shape[0]
        for time in range(times):
            truth = np.squeeze(read_time(sample.targets[TARGET], time))
            prediction = result[time] if times > 1 else result
            label = sample.name if times == 1 else f"{sample.name}@{time}"
            yield Pair(label, np.squeeze(np.asarray(prediction)), truth, group=sample.name)
