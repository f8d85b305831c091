"""Which of our tasks a file is for; files that nothing here can learn are refused in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NoReturn

from im2im_core.conversion.losses import learned_output
from im2im_core.conversion.networks import predicts_vectors
from im2im_core.errors import ConfigError
from im2im_core.recipe.frameworks.embedseg import EmbedSegSettings

if TYPE_CHECKING:
    from im2im_core.conversion.notes import Notes
    from im2im_core.conversion.source import Named, Section

Task = Literal["semantic_segmentation", "instance_segmentation", "label_free", "restoration"]
REFUSED = {
    "pix2pix": (
        "a generator against a discriminator",
        "Presets labelfree_2d and labelfree_3d learn from the same pairs, without a discriminator",
    ),
    "cyclegan": ("two sets of images without pairs", "There is no framework for them here yet"),
    "ProbUnet": ("several answers to one image", "Presets semantic_seg_2d and semantic_seg_3d learn one answer"),
}
"""Framework that we do not have -> what it learns, and what comes nearest."""
RESTORING = ("denois", "restor", "deblur", "deconv", "modality", "super", "sted")
"""Parts of names of files and folders that speak of better images, not of other ones."""
PRESETS = {
    "semantic_segmentation": {2: "semantic_seg_2d", 3: "semantic_seg_3d"},
    "instance_segmentation": {2: "instance_seg_2d", 3: "embedseg_3d"},  # EmbedSeg, as there
    "label_free": {2: "labelfree_2d", 3: "labelfree_3d"},
    "restoration": {2: "restoration_2d", 3: "restoration_3d"},
}
"""Task -> presets in 2D and 3D that say what the file does not."""


def require_training(root: Section, name: str) -> None:
    """Do nothing when the file describes a training.

    Raises
    ------
    ConfigError
        It describes something else; the message says what does the same here.
    """
    mode = root.take("mode")
    if not root.content.get("model") or mode is None:
        raise ConfigError(f"{name} is not a configuration of mmv_im2im", "Such a file has mode, data and model")
    if mode == "inference":
        _refuse_prediction(root, name)
    if mode != "train":
        raise ConfigError(f"{name} has the mode {mode!r}", "Only files of trainings (mode: train) have a counterpart")


def _refuse_prediction(root: Section, name: str) -> NoReturn:
    """Refuse a file for prediction, with the command that does the same here."""
    framework = str(root.section("model").take("framework"))
    if framework in REFUSED:
        _refuse_framework(framework, name)
    source = root.section("data").section("inference_input")
    images, ending = source.take("dir", "IMAGES"), source.take("data_type")
    if isinstance(images, str) and isinstance(ending, str) and images != "IMAGES":
        images = f"{images.rstrip('/')}/*{ending}"
    found = root.section("data").section("inference_output").take("path", "FOLDER")
    raise ConfigError(
        f"{name} is for prediction, and models know here by themselves how they predict",
        f"Convert the file of the training, train, then: im2im predict MODEL {images} -o {found}",
    )


def _refuse_framework(framework: str, name: str) -> NoReturn:
    what, cure = REFUSED[framework]
    raise ConfigError(f"{name} is for the framework {framework}: {what}", cure)


def require_known_framework(model: Section, net: Named | None, name: str) -> str:
    """Framework of the file, one of FCN, nnUnet and embedseg.

    Raises
    ------
    ConfigError
        Nothing here learns what it learns; the message says what that is.
    """
    framework = str(model.take("framework"))
    if framework in REFUSED:
        _refuse_framework(framework, name)
    if framework not in ("FCN", "nnUnet", "embedseg"):
        raise ConfigError(f"{name} is for the framework {framework!r}, which is not known", "Write the recipe anew")
    if predicts_vectors(net):
        raise ConfigError(
            f"{name} learns one vector for a whole image (task: regression)",
            "Nothing here learns that yet: networks map images to images",
        )
    return framework


def task_of(framework: str, criterion: Named | None, labels: bool, words: str, notes: Notes) -> Task:
    """Task of the file.

    Parameters
    ----------
    labels : bool
        Whether targets are read as whole numbers.
    words : str
        Names of the file and of its folder of images, which tell better images from other ones.
    """
    if framework == "embedseg":
        return "instance_segmentation"
    if learned_output(criterion, labels) == "segmentation":
        return "semantic_segmentation"
    task: Task = "restoration" if any(word in words.lower() for word in RESTORING) else "label_free"
    other = "label_free" if task == "restoration" else "restoration"
    notes.differs("model.framework", f"task {task}, guessed from names; {other} learns in the same way: --task {other}")
    return task


def convert_embedseg(
    usual: EmbedSegSettings, criterion: Named | None, centre: str | None, dimensions: int, notes: Notes
) -> EmbedSegSettings:
    """Settings of the instances, from the criterion and the way in which centres are found."""
    changes: dict[str, object] = {}
    if centre is not None:
        changes["centre"] = "medoid" if "medoid" in centre else "centroid"
        if centre not in ("medoid", "centroid"):
            notes.differs("data.extra.center_method", f"{changes['centre']} in place of {centre}")
    if criterion is None:
        return usual.replace(**changes)
    params = criterion.params
    sigmas = params.whole("n_sigma", dimensions)
    changes["sigmas"] = "one" if sigmas == 1 else "per_axis"
    if sigmas not in (1, dimensions):
        notes.differs(params.place("n_sigma"), f"{dimensions} sizes of the margin, one for each axis")
    changes["foreground_weight"] = params.number("foreground_weight", 10.0)
    for name in ("inst", "var", "seed"):
        weight = params.number(f"w_{name}")
        word = {"inst": "instance", "var": "variance", "seed": "seed"}[name]
        changes |= {} if weight is None else {f"{word}_weight": weight}
    params.drop("use_costmap", *(f"{word}_{axis}" for word in ("grid", "pixel") for axis in "xyz"))
    return usual.replace(**changes)
