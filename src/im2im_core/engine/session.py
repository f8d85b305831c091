"""One training from a run folder to a bundle: images, cache, steps, checkpoints, the finished model."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from im2im_core.engine.agreement import Agreement
from im2im_core.engine.augment import Augmenter
from im2im_core.engine.callbacks import (
    Checkpointer,
    Ending,
    Reporter,
    Stopper,
    Validation,
    monitored,
    non_finite_error,
)
from im2im_core.engine.checkpoint import Checkpoint, CheckpointFolder
from im2im_core.engine.data import (
    ActivePart,
    PatchStream,
    StreamSettings,
    build_store,
    index_of,
    target_statistics,
)
from im2im_core.engine.devices import choose_device, keep_freed_memory, kept_torch, lay_out
from im2im_core.engine.figures import Figures
from im2im_core.engine.frameworks.build import divisor_of, geometry
from im2im_core.engine.named_metrics import NamedMetric
from im2im_core.engine.networks.effective import effective_radius
from im2im_core.engine.planning import choose_patch, framework_of, make_plan, shapes_of
from im2im_core.engine.predict_plan import spatial
from im2im_core.engine.prepare import Entry, Item, items_of, prepare
from im2im_core.engine.previews import Previews
from im2im_core.engine.schedule import Budget
from im2im_core.engine.start import begin_from, hold_back
from im2im_core.engine.start_plan import record_start
from im2im_core.engine.train import Clock, Counters, KeepSignals, PatchLoader, StepModule, fit, load_split, make_trainer
from im2im_core.engine.validate import LARGEST, Validator, View, view_of
from im2im_core.errors import Stopped
from im2im_core.events import CommandDone, Event, Finished, Message, Paused, Progress, Started
from im2im_core.files import write_json
from im2im_core.inference import Inference, InputDescription, OutputDescription, TargetScaling
from im2im_core.jobs.commands import CommandInbox
from im2im_core.jobs.environment import read_data, write_environment
from im2im_core.jobs.inputs import describe_inputs, recorded_split
from im2im_core.jobs.ranks import is_follower
from im2im_core.plans import Plan
from im2im_core.recipe.data import SMALLEST_PATCH
from im2im_core.recipe.training import OneCycle, Polynomial
from im2im_core.split import SAME_IMAGE, split_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from im2im_core.api import Data
    from im2im_core.engine.cache import Store
    from im2im_core.engine.frameworks.contract import Framework
    from im2im_core.engine.planning.labels import Looks
    from im2im_core.jobs.commands import Command
    from im2im_core.normalize import Scaling
    from im2im_core.project import Project
    from im2im_core.recipe import Recipe
    from im2im_core.runs import Run
    from im2im_core.samples import Sample, Split

log = logging.getLogger(__name__)

VALIDATION_PIXELS = 0.06
"""Pixels of a validation relative to those trained on between two of them: a forward pass costs a third of a step."""
FEWEST_VIEWS, MOST_VIEWS = 3, 24
"""How many images are looked at in a validation; fewer only where there are fewer, or no time."""
CLEARLY_WORSE = 0.1
"""Relative loss of the monitored figure from which earlier weights are preferred to annealed ones."""
POLL_SECONDS = 0.2
"""How often commands are looked for between steps."""


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    state: str
    """finished (there is a model), stopped or paused"""
    step: int
    reason: str
    metrics: dict[str, float]


@dataclass
class Prepared:
    """Images made ready for one training."""

    plan: Plan
    framework: Framework
    stream: PatchStream
    views: list[View]
    target_scaling: Scaling | None
    sample: np.ndarray
    """A raw training patch, for the test tensors of the bundle."""
    find: Callable[[str], Entry | None] = lambda name: None
    """Prepared image of a sample by its name."""


def train_run(
    folder: Path,
    split: Split,
    plan: Plan | None,
    recipe: Any,
    *,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], str],
    started: float | None = None,
    cache_folder: Path | None = None,
    root: Path | None = None,
) -> Outcome:
    """Train in the run `folder` until the budget is used or somebody stops it; resumes where checkpoints exist.

    Parameters
    ----------
    split : Split
        Training and validation samples.
    plan : Plan, optional
        A plan made earlier; else one is made now and written to ``plan.yaml``.
    should_stop : callable
        Empty string to go on, else "stop", "pause", "abort" or "signal".
    started : float, optional
        Unix time from which a budget in minutes counts; now where not given.
    root : Path, optional
        Where the path of the model to start from begins; the working folder where not given.

    Raises
    ------
    Im2ImError
        With the cure. The last good state is kept.
    """
    clock = Clock(started) if started else Clock()
    cache = cache_folder or folder / "cache"
    if plan is None:
        with kept_torch():
            plan = make_plan(recipe, split, cache_folder=cache, root=root)
    choose_device(plan.runtime.device)  # before the images are read, which may take long
    for advice in plan.messages:
        on_event(Message(advice.text, "warning", advice.cure, advice.code))
    with kept_torch(plan.runtime.device):
        torch.set_num_threads(plan.runtime.threads)
        torch.manual_seed(plan.recipe.training.seed)
        start = CheckpointFolder(folder / "checkpoints").newest()
        # A checkpoint holds all weights: the model that the first attempt started from is not needed any more.
        framework = _resumed(plan) if start else _begun(plan, root, on_event)
        prepared = prepare_images(plan, split, cache, on_event, should_stop, framework)
        return _Session(folder, prepared, on_event, should_stop, clock).run(start)


def run_training(
    run: Run,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool],
    *,
    data: Data | None = None,
    started: float | None = None,
) -> None:
    """Train the run on disk; what `jobs.child` calls in the process that owns it.

    Parameters
    ----------
    should_stop : callable
        True once a signal asked to end; commands are read from the run folder.
    data : samples and their parts, optional
        What `load_data` gave already; else they are found through the recipe.
    """
    from im2im_core.project import Project
    from im2im_core.trust import require_trusted_recipe

    require_trusted_recipe(run.recipe)
    keep_freed_memory()
    project = Project(run.folder.parent.parent)
    plan, split = _decide(run, project, data, on_event)
    asked = _Asked(run, on_event, should_stop)
    try:
        outcome = train_run(
            run.folder,
            split,
            plan,
            plan.recipe,
            on_event=on_event,
            should_stop=asked,
            started=started,
            cache_folder=project.folder("cache"),
            root=project.root,
        )
    except Stopped:
        if asked.reason != "pause":
            raise
        saved = CheckpointFolder(run.checkpoints).entries()
        on_event(Paused(saved[-1]["step"] if saved else 0))
        return
    if outcome.state == "paused":
        on_event(Paused(outcome.step))


def _decide(run: Run, project: Project, data: Data | None, on_event: Callable[[Event], None]) -> tuple[Plan, Split]:
    """Plan and split of a run: made by its first attempt, read back by every later one."""
    from im2im_core.api import load_data

    content, inputs = run.plan, read_data(run)
    plan = Plan.from_dict(content, f"{run.name}/plan.yaml") if content else None
    samples, parts = data or load_data(plan.recipe if plan else run.recipe, project)
    recorded = recorded_split(inputs, samples, project.root) if plan else None
    if recorded:
        split, warning = recorded
        if warning:
            on_event(warning)
    elif plan:
        split = split_data(plan.recipe.data, samples, parts)
    else:
        plan, split = plan_and_split(
            run.recipe, samples, parts, cache_folder=project.folder("cache"), root=project.root
        )
    assert plan is not None
    if is_follower(plan.recipe):
        return plan, split  # the first process writes
    began = any(run.checkpoints.glob("*.safetensors"))  # then nobody needs the model that it started from
    known = plan if began else replace(plan, recipe=record_start(plan.recipe, project.root))
    write_environment(
        run,
        seeds={"training": plan.recipe.training.seed, "split": plan.recipe.data.split.seed},
        data=inputs if recorded else describe_inputs(samples, split, project.root),
        device=plan.runtime.device,
    )
    if not content or known != plan:
        run.write_plan(known.to_dict())
        known.recipe.to_file(run.folder / "recipe.yaml")
        plan = known
    return plan, split


def plan_and_split(
    recipe: Recipe,
    samples: Sequence[Sample],
    parts: Mapping[str, str],
    probe: bool = False,
    cache_folder: Path | None = None,
    root: Path | None = None,
) -> tuple[Plan, Split]:
    """Plan and split that agree: blocks of one image lie as far apart as the patch that the plan chose."""
    looks: Looks = {}
    with kept_torch():
        if recipe.data.patch != "auto":
            split = split_data(recipe.data, samples, parts)
            return make_plan(recipe, split, probe, cache_folder, root), split
        recipe, split, reason = _with_patch(recipe, samples, parts, looks)
        plan = make_plan(recipe, split, probe, cache_folder, root, looks)
    return replace(plan, reasons={**plan.reasons, "data.patch": reason}), split


def _with_patch(
    recipe: Recipe, samples: Sequence[Sample], parts: Mapping[str, str], looks: Looks
) -> tuple[Recipe, Split, str]:
    """Recipe with a patch, the split that agrees with it, and why the patch has its size."""
    smallest = recipe.override({"data.patch": [SMALLEST_PATCH] * recipe.data.dimensions})
    split = split_data(smallest.data, samples, parts)
    # The patch follows from whole images, as does what their labels show: no class between two blocks is missed.
    whole = {sample.name: sample for sample in samples}
    undivided = replace(split, train=tuple(whole.get(s.name, s) for s in split.train))
    if SAME_IMAGE in split.reason:
        longest = np.median([max(s.source.info.shape[-2:]) for s in undivided.train])
        patch, reason = choose_patch(recipe, undivided, looks, int(longest) // 3)
        planned = recipe.override({"data.patch": list(patch)})
        divided = split_data(planned.data, samples, parts)
        if SAME_IMAGE in divided.reason:
            return planned, divided, f"{reason}; a third of the image at most, so that a part of it can validate"
    patch, reason = choose_patch(recipe, undivided, looks)
    planned = recipe.override({"data.patch": list(patch)})
    return planned, split_data(planned.data, samples, parts), reason


class _Asked:
    """Why the training should end at this step boundary, from signals and commands; empty to go on."""

    def __init__(self, run: Run, on_event: Callable[[Event], None], should_stop: Callable[[], bool]) -> None:
        self._inbox = CommandInbox(run, run.attempt)
        self._on_event, self._should_stop = on_event, should_stop
        self._polled = 0.0
        self.reason = ""
        self.on_preview: Callable[[dict[str, Any]], str] = lambda _: "ask again when the training has begun"

    def __call__(self) -> str:
        now = time.monotonic()
        if self._should_stop():
            self.reason = self.reason or "signal"
        elif now - self._polled >= POLL_SECONDS:
            self._polled = now
            for command in self._inbox.poll():
                self._on_event(CommandDone(command.number, command.verb, self._take(command)))
        return self.reason

    def _take(self, command: Command) -> str:
        """Do what a command asks; what is to be said about it."""
        if command.verb == "preview":
            return self.on_preview(command.arguments)
        if command.verb == "resume":
            return "the training is running"
        if self.reason:
            return f"the training ends already, because of {self.reason}"
        self.reason = command.verb
        return ""


# ---- what learns ----


def _begun(plan: Plan, root: Path | None, on_event: Callable[[Event], None]) -> Framework:
    """Framework at the start: new, or with the weights of the model that is taught on, which is said."""
    framework = framework_of(plan.recipe, plan.facts)
    begun = begin_from(framework, plan.recipe, plan.facts.voxel_size, root)
    held = hold_back(framework, plan.recipe.training.start)
    if begun:
        on_event(Message("; ".join(filter(None, (begun.text, held))), code="taught_on"))
    return framework


def _resumed(plan: Plan) -> Framework:
    """Framework that gets its weights from a checkpoint."""
    framework = framework_of(plan.recipe, plan.facts)
    hold_back(framework, plan.recipe.training.start)
    return framework


# ---- images ----


def prepare_images(
    plan: Plan,
    split: Split,
    cache_folder: Path,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], str],
    framework: Framework | None = None,
) -> Prepared:
    """Stream of patches and validation views; every image is read once.

    Parameters
    ----------
    framework : Framework, optional
        What learns; a new one where not given.

    Raises
    ------
    Stopped
        Somebody asked to stop before all images were read.
    """
    recipe = plan.recipe
    framework = framework or framework_of(recipe, plan.facts)
    items = items_of(split.train)
    scaling = target_statistics(items, recipe)
    report = _reading(len(items), on_event, should_stop)
    store = build_store(
        plan.runtime.cache,
        items,
        recipe,
        framework,
        scaling,
        cache_folder,
        report,
        plan.runtime.cache_held,
    )
    stream, sample = _stream(plan, items, store, framework, report)
    validated = items_of(split.validation, validation=True)
    views = _views(plan, validated, framework, scaling)
    known = {item.name: item for item in (*items, *validated)}

    def find(name: str) -> Entry | None:
        if name not in known:
            return None
        # Read once more, as images that validate are: the target is shown beside what is predicted.
        return prepare(replace(known[name], validation=True), recipe, framework, scaling)

    return Prepared(plan, framework, stream, views, scaling, sample, find)


def _reading(total: int, on_event: Callable[[Event], None], should_stop: Callable[[], str]) -> Callable[[int], None]:
    start = time.monotonic()

    def report(done: int) -> None:
        if should_stop():
            raise Stopped(
                f"Stopped after {done} of {total} images were read", "Nothing was trained since the last start"
            )
        elapsed = time.monotonic() - start
        on_event(Progress("reading images", done, total, elapsed, elapsed / done * (total - done)))

    return report


def _stream(
    plan: Plan, items: list[Item], store: Store, framework: Framework, report: Callable[[int], None]
) -> tuple[PatchStream, np.ndarray]:
    """Stream of patches, and a raw one from the first image."""
    recipe, planes = plan.recipe, plan.recipe.data.dimensions == 2
    augmenter = Augmenter(recipe.data.augmentation, recipe.data.dimensions, framework.targets)
    patch = recipe.patch_size
    window = augmenter.window(patch)
    settings = StreamSettings(
        seed=recipe.training.seed,
        batch=recipe.batch_size,
        accumulate=recipe.training.accumulate,
        patch=spatial(patch, 1),
        window=spatial(window, 1),
        foreground=recipe.data.foreground,
        planes=planes,
    )
    shapes, indices = [], []
    for number, item in enumerate(items):
        entry = store.get(number)  # one at a time: a rolling cache does not hold them all
        shapes.append(entry.shape)
        indices.append(index_of(item, recipe, entry, recipe.training.seed))
        if number == 0:
            z, y, x = settings.patch
            sample = np.array(entry.arrays["source"][:, :z, :y, :x])
        if plan.runtime.cache == "rolling":
            report(number + 1)
    active = None
    if plan.runtime.cache == "rolling" and plan.runtime.cache_held < len(items):
        held = plan.runtime.cache_held
        active = ActivePart(
            len(items), held, max(1, round(plan.steps_per_epoch * held / len(items))), recipe.training.seed
        )
    moving = None if augmenter.rotates else augmenter
    stream = PatchStream(store, shapes, indices, framework.targets, settings, active, moving)
    return stream, sample[:, 0] if planes else sample


def _views(plan: Plan, items: list[Item], framework: Framework, scaling: Scaling | None) -> list[View]:
    """Validation views: evenly chosen images, as many as there is time for, smaller parts of few."""
    recipe, dimensions = plan.recipe, plan.recipe.data.dimensions

    if isinstance(recipe.training.validate_every, int):
        trained = recipe.training.validate_every * float(np.prod(recipe.patch_size)) * recipe.batch_size
        budget = max(3 * VALIDATION_PIXELS * trained * recipe.training.accumulate, 1)
    else:
        budget = 24 * 256 * 256 if recipe.data.dimensions == 2 else 4 * 32 * 96 * 96
    if not items:
        return []
    divisor = divisor_of(framework)
    first = prepare(items[0], recipe, framework, scaling)
    for largest in LARGEST[dimensions]:
        pixels = np.prod([p.stop - p.start for p in view_of(first, divisor, dimensions, None, largest).place])
        if budget // pixels >= min(len(items), FEWEST_VIEWS):
            break
    count = int(np.clip(budget // pixels, 1, min(len(items), MOST_VIEWS)))
    chosen = np.linspace(0, len(items) - 1, count).round().astype(int) if count > 1 else [(len(items) - 1) // 2]
    # A single one is the middle one: a time series may begin with a single cell.
    entries = (prepare(items[i], recipe, framework, scaling) if i else first for i in chosen)
    return [view_of(entry, divisor, dimensions, None, largest).alone() for entry in entries]


# ---- steps ----


class _Session:
    """Holds the parts of one training together."""

    def __init__(
        self,
        folder: Path,
        prepared: Prepared,
        on_event: Callable[[Event], None],
        should_stop: Callable[[], str],
        clock: Clock,
    ) -> None:
        self.folder, self.prepared, self.on_event, self.clock = folder, prepared, on_event, clock
        self.plan, self.recipe = prepared.plan, prepared.plan.recipe
        minutes = self.recipe.training.minutes
        budget = Budget(self.plan.steps, minutes * 60 if minutes else None)
        augmenter = Augmenter(self.recipe.data.augmentation, self.recipe.data.dimensions, prepared.framework.targets)
        lay_out(prepared.framework, self.plan.runtime.device)
        self.module = StepModule(prepared.framework, self.recipe, augmenter, budget, on_event)
        self.module.clock = clock
        self.checkpoints = CheckpointFolder(folder / "checkpoints")
        self.ending = Ending()
        self.reporter = Reporter(self.recipe, folder, on_event, self.plan.steps_per_epoch)
        self.checkpointer = Checkpointer(self.checkpoints, self.recipe, on_event, self.ending)
        device = torch.device(self.plan.runtime.device)
        metrics = [NamedMetric(named) for named in self.recipe.training.metrics]
        figures = Figures(self.recipe.training.figures, prepared.framework)
        self.validator = Validator(prepared.views, device, self.recipe.training.seed, metrics, figures)
        self.validation = Validation(
            self.validator,
            self.recipe,
            self.checkpoints,
            on_event,
            self.ending,
            self.reporter.table,
            self.plan.steps_per_epoch,
            may_skip=device.type != "cpu" and "training.validate_every" in self.plan.reasons,
        )
        divisor = divisor_of(prepared.framework)
        self.previews = Previews(
            folder / "previews", prepared.find, divisor, self.recipe.data.dimensions, self.validator
        )
        self.validation.previews = self.previews
        if self.recipe.logging.preview and prepared.views:
            self.previews.watch(prepared.views[0])
        if isinstance(should_stop, _Asked):
            should_stop.on_preview = self.previews.request
        self.stopper = Stopper(should_stop, self.ending, self.checkpointer, self.validation)

    def run(self, start: Checkpoint | None) -> Outcome:
        """Train from the checkpoint `start`, if there is one, then write the bundle."""
        callbacks = [
            KeepSignals(),
            _Restore(self, start),
            self.reporter,
            self.validation,
            self.stopper,
            self.checkpointer,
            Agreement(self.ending),
        ]
        trainer = make_trainer(self.recipe, self.plan.runtime.device, callbacks, self.folder)
        self.on_event(
            Started(
                self.plan.steps,
                self.recipe.training.minutes,
                self.plan.runtime.device,
                sum(p.numel() for p in self.prepared.framework.parameters()),
            )
        )
        self.module.counters.step = start.step if start else 0
        if start and self._complete(start):
            self._take_over(start)
        else:
            loader = PatchLoader(
                self.prepared.stream, self.module.counters.step, self.plan.runtime.workers, self.on_event
            )
            fit(self.module, loader, trainer)
        if self.ending.reason == "non_finite":
            raise non_finite_error(self.module)
        return self._end(trainer)

    def _complete(self, start: Checkpoint) -> bool:
        """Whether an earlier attempt used the budget and only the bundle is missing."""
        return bool(self.plan.steps and start.step >= self.plan.steps)

    def _take_over(self, start: Checkpoint) -> None:
        """Stand where the earlier attempt stood after its last validation."""
        framework = self.module.average.framework
        self.module.counters = Counters(**start.state["counters"])
        load_split(framework, start.weights, "ema.")
        self.ending.reason = "budget"
        if self.validator.views:
            values = replace_device(self.validator, "cpu").run(framework)
            self.validation.last, self.validation.last_total = monitored(framework, values)[1], values.get("total")

    def _end(self, trainer: Any) -> Outcome:
        step, reason = self.module.counters.step, self.ending.reason or "budget"
        if reason in ("pause", "abort", "signal"):
            return Outcome("paused" if reason == "pause" else "stopped", step, reason, {})
        if not trainer.is_global_zero:
            return Outcome("finished", step, reason, {})
        metrics = self.finish(trainer)
        self.on_event(Finished(step, "model", metrics, round(self.module.elapsed(), 1), _WORDS.get(reason, reason)))
        return Outcome("finished", step, reason, metrics)

    def finish(self, trainer: Any) -> dict[str, float]:
        """Choose weights and thresholds, measure, write the bundle."""
        framework = self.module.average.framework
        best = self.checkpoints.best() if self._earlier_is_better() else None
        if best is not None and best.step != self.module.counters.step:
            load_split(framework, best.weights, "ema.")
        framework.to("cpu").eval()
        validator = replace_device(self.validator, "cpu")
        chosen = framework.calibrate(validator.predictions(framework)) if validator.views else None
        if chosen is not None:
            framework.settings = chosen
        metrics = validator.run(framework) if validator.views else {}
        write_json(self.folder / "metrics.json", metrics)
        self._export(framework, metrics)
        return metrics

    def _earlier_is_better(self) -> bool:
        """Whether the best validated weights should replace the last ones.

        A schedule that ends at a small learning rate makes the last weights the best in truth;
        a few validation images cannot tell them from earlier ones, unless they are clearly worse. A figure
        that counts two or three objects is clearly worse with each of them; the losses have to agree.
        """
        counters, last, total = self.module.counters, self.validation.last, self.validation.last_total
        annealed = isinstance(self.recipe.training.scheduler, OneCycle | Polynomial)
        if not annealed or self.ending.reason != "budget" or last is None or counters.best is None:
            return True
        if total is not None and counters.best_total is not None and total < counters.best_total:
            return False
        return not abs(last - counters.best) <= CLEARLY_WORSE * max(abs(counters.best), 1e-9)  # true for NaN

    def _export(self, framework: Framework, metrics: dict[str, float]) -> None:
        from im2im_core.bundle import BundleMetadata
        from im2im_core.engine.export import export_bundle

        inference = describe(self.prepared, framework)
        facts = self.plan.facts
        # Loss terms say nothing to whoever looks for a model, and one of them is called Dice.
        metrics = {k: v for k, v in metrics.items() if k not in (*framework.loss_weights(), "total")} or metrics
        metadata = BundleMetadata(
            name=self.recipe.name,
            task=self.recipe.task,
            metrics=metrics,
            trained_on=f"{facts.training} images; {facts.split}",
        )
        export_bundle(
            framework,
            inference,
            self.folder / "model",
            metadata=metadata,
            sample=self.prepared.sample,
            torchscript=self.recipe.output.torchscript,
            onnx=self.recipe.output.onnx,
            provenance={"recipe": self.recipe.dump(), "metrics": metrics},
        )


_WORDS = {"budget": "budget used", "early": "validation stopped improving", "stop": "stopped by the user"}


class _Restore(KeepSignals):
    """Goes back to the checkpoint of an earlier attempt; writes the last one at the end."""

    def __init__(self, session: _Session, start: Any) -> None:
        super().__init__()
        self._session, self._start = session, start

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        session = self._session
        if self._start is not None:
            pl_module.restore(self._start)
            session.reporter.table.forget_after(self._start.step)
            session.on_event(Message(f"Going on from step {self._start.step}", code="resumed"))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        session = self._session
        if session.ending.reason == "non_finite":
            return
        session.checkpointer.save(trainer, pl_module, session.ending.reason)
        if trainer.is_global_zero and session.ending.reason in ("budget", "early", "stop"):
            session.validation.run(trainer, pl_module)


def replace_device(validator: Validator, device: str) -> Validator:
    """The same validation on another device."""
    return Validator(validator.views, torch.device(device), validator.seed, validator.metrics, validator.figures)


def describe(prepared: Prepared, framework: Framework) -> Inference:
    """Inference description of a trained framework."""
    plan = prepared.plan
    recipe, facts = plan.recipe, plan.facts
    divisor, halo = geometry(framework)
    if prepared.views:
        halo = effective_radius(framework, prepared.views[0].source(framework), halo)
    scaling = prepared.target_scaling
    return Inference(
        name=recipe.name,
        task=recipe.task,
        shapes=shapes_of(recipe, facts),
        input=InputDescription(
            channel_names=facts.channels,
            normalization=recipe.data.normalization,
            invalid_pixels=recipe.data.invalid_pixels,
            rescale=recipe.data.rescale,
            voxel_size=facts.voxel_size,
            object_diameter=facts.object_diameter,
        ),
        framework=framework.settings,
        network=recipe.network,
        patch=recipe.patch_size,
        divisor=divisor,
        halo=halo,
        outputs=tuple(
            OutputDescription(
                name=o.name, kind=o.kind, channels=o.channels, axes=o.axes, scale=tuple(str(s) for s in o.scale)
            )
            for o in framework.results
        ),
        target_scaling=TargetScaling(offset=scaling.offset, scale=scaling.scale) if scaling else None,
    )
