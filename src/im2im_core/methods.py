"""The methods paragraph of a training: what a reader of the paper must know, with what to cite."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from im2im_core.finetuning import start_words
from im2im_core.plans import Plan
from im2im_core.recipe import Recipe
from im2im_core.recipe.framework import EmbedSegSettings, FcnSettings, FlowsSettings, InstanceSettings, StarDistSettings
from im2im_core.recipe.start import TrainedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from im2im_core.recipe.losses import LossSettings
    from im2im_core.runs import Run

REFERENCES = {
    "Falk et al. 2019": "Falk et al. Nat. Methods 16, 67–70 (2019), doi:10.1038/s41592-018-0261-2",
    "Kerfoot et al. 2019": "Kerfoot et al. STACOM 2018, LNCS 11395, 371–380 (2019), doi:10.1007/978-3-030-12029-0_40",
    "Isensee et al. 2021": "Isensee et al. Nat. Methods 18, 203–211 (2021), doi:10.1038/s41592-020-01008-z",
    "Stringer et al. 2021": "Stringer et al. Nat. Methods 18, 100–106 (2021), doi:10.1038/s41592-020-01018-x",
    "Oktay et al. 2018": "Oktay et al. arXiv:1804.03999 (2018)",
    "Loshchilov & Hutter 2019": "Loshchilov & Hutter. ICLR (2019), arXiv:1711.05101",
    "Kingma & Ba 2015": "Kingma & Ba. ICLR (2015), arXiv:1412.6980",
    "Smith & Topin 2018": "Smith & Topin. arXiv:1708.07120 (2018)",
    "Chen et al. 2018": "Chen et al. IEEE TPAMI 40, 834–848 (2018), doi:10.1109/TPAMI.2017.2699184",
    "Wang et al. 2004": "Wang et al. IEEE TIP 13, 600–612 (2004), doi:10.1109/TIP.2003.819861",
    "Milletari et al. 2016": "Milletari et al. 3DV, 565–571 (2016), doi:10.1109/3DV.2016.79",
    "Lin et al. 2017": "Lin et al. ICCV, 2980–2988 (2017), arXiv:1708.02002",
    "Howard & Ruder 2018": "Howard & Ruder. ACL, 328–339 (2018), doi:10.18653/v1/P18-1031",
    "Wang et al. 2003": "Wang et al. Asilomar Conf. 2, 1398–1402 (2003), doi:10.1109/ACSSC.2003.1292216",
    "Saxton & Baumeister 1982": "Saxton & Baumeister. J. Microsc. 127, 127–138 (1982), "
    "doi:10.1111/j.1365-2818.1982.tb00405.x",
    "Johnson et al. 2016": "Johnson et al. ECCV, 694–711 (2016), arXiv:1603.08155",
    "He et al. 2016": "He et al. NeurIPS 29 (2016), arXiv:1606.04801",
    "Sudre et al. 2017": "Sudre et al. DLMIA, LNCS 10553, 240–248 (2017), doi:10.1007/978-3-319-67558-9_28",
    "Salehi et al. 2017": "Salehi et al. MLMI, LNCS 10541, 379–387 (2017), doi:10.1007/978-3-319-67389-9_44",
    "Abraham & Khan 2019": "Abraham & Khan. ISBI, 683–687 (2019), arXiv:1810.07842",
    "Berman et al. 2018": "Berman et al. CVPR, 4413–4421 (2018), arXiv:1705.08790",
    "Kervadec et al. 2019": "Kervadec et al. MIDL, PMLR 102, 285–296 (2019), arXiv:1812.07032",
    "Karimi & Salcudean 2020": "Karimi & Salcudean. IEEE TMI 39, 499–513 (2020), doi:10.1109/TMI.2019.2930068",
    "Shit et al. 2021": "Shit et al. CVPR, 16560–16569 (2021), arXiv:2003.07311",
    "Hu et al. 2019": "Hu et al. NeurIPS 32 (2019), arXiv:1906.05404",
    "Kampffmeyer et al. 2019": "Kampffmeyer et al. IEEE TIP 28, 2518–2529 (2019), arXiv:1804.07836",
    "Lee et al. 2015": "Lee et al. AISTATS, PMLR 38, 562–570 (2015), arXiv:1409.5185",
    "Ounkomol et al. 2018": "Ounkomol et al. Nat. Methods 15, 917–920 (2018), doi:10.1038/s41592-018-0111-2",
    "Neven et al. 2019": "Neven et al. CVPR, 8837–8845 (2019), arXiv:1906.11109",
    "Lalit et al. 2022": "Lalit et al. Med. Image Anal. 81, 102523 (2022), arXiv:2101.10033",
    "Schmidt et al. 2018": "Schmidt et al. MICCAI, 265–273 (2018), doi:10.1007/978-3-030-00934-2_30",
    "Weigert et al. 2020": "Weigert et al. WACV, 3655–3662 (2020), doi:10.1109/WACV45572.2020.9093435",
    "Cardoso et al. 2022": "Cardoso et al. arXiv:2211.02701 (2022)",
    "Paszke et al. 2019": "Paszke et al. NeurIPS 32, 8024–8035 (2019), arXiv:1912.01703",
}
_CITATION = re.compile(r"[A-Z]\w+ (?:et al\.|& [A-Z]\w+) \d{4}")
NAMED_VERSIONS = {"torch": "PyTorch", "monai": "MONAI", "python": "Python"}
TASKS = {"label_free": "label-free prediction", "restoration": "image restoration"}
AUGMENTATIONS = {
    "rotate": "free rotation up to {}°",
    "brightness": "brightness shifts up to {}",
    "contrast": "contrast changes up to {} (relative)",
    "gamma": "gamma changes up to {}",
    "noise": "Gaussian noise up to {}",
    "blur": "Gaussian blur up to {} px",
}


@dataclass(frozen=True)
class Account:
    """What is known of a training."""

    recipe: Recipe
    plan: Plan | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Account:
        """What the folder of a run tells."""
        from im2im_core.files import read_json

        environment = run.folder / "environment.json"
        content = read_json(environment) if environment.is_file() else {}
        versions = {**content.get("versions", {}), **({"python": content["python"]} if "python" in content else {})}
        plan = Plan.from_dict(run.plan) if run.plan else None
        return cls(plan.recipe if plan else run.recipe, plan, _last_metrics(run), versions)


def _last_metrics(run: Run) -> dict[str, float]:
    """Figures of the finished model, else of the best validation so far."""
    from im2im_core.events import Finished, Validated
    from im2im_core.jobs.eventlog import read_events

    metrics: dict[str, float] = {}
    for event in (stamped.event for stamped in read_events(run)):
        if isinstance(event, Validated) and (event.best or not metrics):
            metrics = event.values
        if isinstance(event, Finished) and event.metrics:
            metrics = event.metrics
    return dict(metrics)


def methods_paragraph(
    source: Run | Recipe,
    *,
    plan: Plan | None = None,
    metrics: Mapping[str, float] | None = None,
    versions: Mapping[str, str] | None = None,
) -> str:
    """Paragraph for the methods section, and below it the references that it names.

    Parameters
    ----------
    source : Run or Recipe
        A run knows its plan, metrics and versions; with a recipe, give those that are known.
    versions : mapping, optional
        Distribution -> version, as in ``environment.json``.
    """
    if isinstance(source, Recipe):
        account = Account(plan.recipe if plan else source, plan, metrics or {}, versions or {})
    else:
        account = Account.of(source)
    parts = (_model, _start, _data, _patches, _augmentation, _optimisation, _result, _software)
    text = " ".join(sentence for part in parts if (sentence := part(account)))
    cited = [f"{REFERENCES[name]}." for name in _CITATION.findall(text) if name in REFERENCES]
    return "\n".join([text, "", "References", *dict.fromkeys(cited)])


# ---- sentences -----------------------------------------------------------------


def _said(settings: Any) -> str:
    """First sentence about a settings class, with its citation."""
    return (type(settings).__doc__ or type(settings).__name__).split("\n")[0].strip().removesuffix(".")


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _inside(sentence: str) -> str:
    """Sentence as it stands within another one."""
    return f"{sentence[:1].lower()}{sentence[1:]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _model(account: Account) -> str:
    recipe, facts = account.recipe, account.plan.facts if account.plan else None
    task = TASKS.get(recipe.task, recipe.task.replace("_", " "))
    network = _said(recipe.network)
    sizes = getattr(recipe.network, "features", None) or getattr(recipe.network, "channels", None)
    sizes = sizes or getattr(recipe.network, "filters", None)
    widths = f" ({', '.join(map(str, sizes))} channels)" if sizes and sizes != "auto" else ""
    channels = f" with {_count(facts.input_channels, 'input channel')}" if facts else ""
    stem = recipe.network.stem
    fold = f", which sees {stem} × {stem} pixels folded into channels," if stem > 1 else ""
    return (
        f"For {task} in {recipe.data.dimensions}D we trained the network “{network}”{widths}{channels}{fold} "
        f"from {_learns(recipe)}."
    )


def _start(account: Account) -> str:
    start = account.recipe.training.start
    return " ".join(start_words(start)) if isinstance(start, TrainedModel) else ""


def _learns(recipe: Recipe) -> str:
    if isinstance(recipe.framework, InstanceSettings):
        what = "distance to the object rim" if recipe.framework.maps == "distance" else "object boundary"
        return f"instance labels, predicting foreground and {what}, from which objects were cut by a seeded watershed"
    if isinstance(recipe.framework, FlowsSettings):
        return (
            "instance labels, predicting foreground and the flow of heat to the centre of each object, "
            "along which pixels were gathered into objects (Stringer et al. 2021)"
        )
    if isinstance(recipe.framework, EmbedSegSettings):
        return (
            f"instance labels, predicting for each pixel the offset to the {recipe.framework.centre} of its object, "
            "a margin and a seediness, by which pixels were clustered (Neven et al. 2019; Lalit et al. 2022)"
        )
    if isinstance(recipe.framework, StarDistSettings):
        rays = recipe.framework.ray_count(recipe.data.dimensions)
        return (
            f"instance labels, predicting for every pixel the probability of being a centre and the distances to the "
            f"object rim along {rays} rays, of which non-maximum suppression kept one star-convex shape per object "
            f"({'Schmidt et al. 2018' if recipe.data.dimensions == 2 else 'Weigert et al. 2020'})"
        )
    if not isinstance(recipe.framework, FcnSettings):  # of another package
        return f"{recipe.framework.learns_from} with the method “{_said(recipe.framework)}”"
    terms = [
        f"{t.weight:g} × {t.kind.replace('_', ' ')} ({_said(t)}{_schedule_words(t)})"
        for t in recipe.framework.loss_terms()
    ]
    levels = recipe.framework.deep_supervision
    deep = f", also at {_count(levels, 'coarser level')} (deep supervision, Lee et al. 2015)" if levels else ""
    return f"image pairs with the loss {' + '.join(terms)}{deep}"


def _schedule_words(loss: LossSettings) -> str:
    return loss.schedule.words() if hasattr(loss, "schedule") else ""


def _data(account: Account) -> str:
    split = account.recipe.data.split
    if account.plan is None:
        return f"{split.validation:.0%} of the images were kept for validation (seed {split.seed})."
    facts = account.plan.facts
    counts = f"{_count(facts.training, 'image')} were used for training, {facts.validation} for validation"
    tested = f" and {facts.test} for testing" if facts.test else ""
    pixel = [f"{axis} {size:.3g}" for axis, size in zip("ZYX", facts.voxel_size, strict=True) if size]
    after = "" if account.recipe.data.rescale.kind == "none" else " after rescaling"
    voxel = f" The median voxel size{after} was {', '.join(pixel)} µm." if pixel else ""
    objects = f" Objects had a median diameter of {facts.object_diameter:.3g} px." if facts.object_diameter else ""
    return f"{counts}{tested} ({facts.split.rstrip('.')}).{voxel}{objects}"


def _patches(account: Account) -> str:
    recipe = account.recipe
    patch, batch = recipe.data.patch, recipe.training.batch
    size = "automatically sized patches" if patch == "auto" else f"patches of {' × '.join(map(str, patch))} px"
    number = "batches of automatic size" if batch == "auto" else f"batches of {batch}"
    times = f", accumulated over {recipe.training.accumulate} batches," if recipe.training.accumulate > 1 else ""
    norm = _inside(_said(recipe.data.normalization))
    return f"Images were normalised per image and channel ({norm}) and cut into {size} in {number}{times}."


def _augmentation(account: Account) -> str:
    settings = account.recipe.data.augmentation
    used = ["mirroring"] if settings.flip else []
    used += ["quarter turns"] if settings.rotate90 else []
    if settings.scale != (1.0, 1.0):
        used.append(f"magnification between {settings.scale[0]:g} and {settings.scale[1]:g}")
    used += [text.format(f"{getattr(settings, n):g}") for n, text in AUGMENTATIONS.items() if getattr(settings, n)]
    return f"Training patches were augmented by {_listed(used)}." if used else "No augmentation was used."


def _optimisation(account: Account) -> str:
    training = account.recipe.training
    optimizer = training.optimizer
    pull = getattr(optimizer, "weight_decay", 0)
    decay = f", weight decay {pull:g}" if pull else ""
    schedule = f"{training.scheduler.kind.replace('_', ' ')} ({_inside(_said(training.scheduler))})"
    ema = f" An exponential moving average of the weights (factor {training.ema:g}) was used." if training.ema else ""
    if training.swa:
        ema += f" Over the last {training.swa:.0%} of the training all weights counted alike in their average."
    clip = f" Gradients were clipped to a norm of {training.clip:g}." if training.clip else ""
    return (
        f"Weights were optimised with {_said(optimizer)} at a learning rate of {optimizer.lr:g}{decay} "
        f"for {_budget(account)}; the learning rate schedule was {schedule}, "
        f"the random seed {training.seed}.{ema}{clip}"
    )


def _budget(account: Account) -> str:
    training = account.recipe.training
    given = {name: getattr(training, name) for name in ("epochs", "steps", "minutes")}
    named = [f"{value:g} {name}" for name, value in given.items() if value is not None]
    steps = account.plan.steps if account.plan and training.steps is None else None
    return f"{named[0] if named else 'the default budget'}{f' ({steps} steps)' if steps else ''}"


def _result(account: Account) -> str:
    figures = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in account.metrics.items()]
    return f"On data not trained on it reached {_listed(figures)}." if figures else ""


def _software(account: Account) -> str:
    from im2im_core import __version__

    ours = account.versions.get("napari-im2im", __version__)
    cited = {"PyTorch": " (Paszke et al. 2019)", "MONAI": " (Cardoso et al. 2022)"}
    others = [
        f"{label} {account.versions[name]}{cited.get(label, '')}"
        for name, label in NAMED_VERSIONS.items()
        if name in account.versions
    ] or [f"{label}{citation}" for label, citation in cited.items()]
    return f"Training used napari-im2im {ours} with {_listed(others)}."
