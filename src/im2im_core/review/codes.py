"""Every problem that a look at samples can find: its code, how grave it is, what it means and its cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]
Topic = Literal["files", "sizes", "pixels", "labels", "voxels", "set"]


@dataclass(frozen=True)
class Code:
    """What stands behind a code; the documentation, the tables and the messages are made from it."""

    topic: Topic
    severity: Severity
    """Usual severity; error: nothing can be learned from it as it is."""
    short: str
    """In a few words, for tables."""
    meaning: str
    """When it is said, as a sentence without its full stop."""
    cure: str


@dataclass(frozen=True)
class Problem:
    """One thing a person should know about a sample, or about all of them."""

    sample: str
    """Name of the sample; empty where it concerns the whole set."""
    code: str
    """One of `CODES`."""
    severity: Severity
    text: str
    """What was found, with its numbers; one sentence without its full stop."""
    cure: str = ""
    file: str = ""
    """File or folder it is about; empty where it is none, or several."""
    value: Any = None
    """What was found, as plain content: a number, a size, names; None where the text says it all."""


CODES: dict[str, Code] = {
    # ---- files ----
    "no_images": Code("files", "error", "no images", "The folder or table holds no images", "Name another folder"),
    "not_understood": Code(
        "files",
        "error",
        "not understood",
        "A folder, table or description as a whole is not understood, so nothing in it was looked at",
        "Name another folder, or set data.layout",
    ),
    "missing_partner": Code(
        "files",
        "error",
        "partner missing",
        "An image has no target, or a target or weight has no image",
        "Add the missing files or remove their partners",
    ),
    "duplicate_stem": Code(
        "files",
        "error",
        "name stands twice",
        "Two files of one role have the same name, or a file is given twice",
        "Keep one file per name",
    ),
    "unreadable": Code(
        "files",
        "error",
        "cannot be read",
        "A file cannot be opened, or one of its planes, strips, tiles or chunks cannot be read: every pixel is tried",
        "Replace or remove the files that cannot be read",
    ),
    "group_pattern": Code(
        "files",
        "error",
        "no group",
        "A name does not fit `group_pattern`",
        "Change group_pattern so that it fits every name",
    ),
    "table": Code("files", "error", "wrong row", "A row of the table says what nobody knows", "Correct the table"),
    "dataset_json": Code(
        "files",
        "warning",
        "dataset.json differs",
        "The dataset.json of an nnU-Net data set and its files do not say the same",
        "Correct dataset.json or the files",
    ),
    "left_out": Code(
        "files",
        "warning",
        "files not used",
        "Files beside the images belong to no sample, so nothing is learned from them",
        "Rename, convert or move them; right if they shall not be used",
    ),
    "further_images": Code(
        "files",
        "warning",
        "more images inside",
        "A file holds several images (scenes), and some of them are not used",
        "Name them in data.scenes, or in the column scene of a table; right if they shall not be used",
    ),
    "scenes": Code(
        "files",
        "error",
        "scenes do not fit",
        "Image and target, weight or channel have different scenes, or a scene that is asked for is not there",
        "Choose one with data.scenes, for example 0 for the first, or save the files with the same scenes",
    ),
    # ---- sizes ----
    "shape_mismatch": Code(
        "sizes",
        "error",
        "sizes differ",
        "Image, target and weight of a sample differ in Y or X, or in T or Z without being a single one",
        "Give image, target and weight the same size",
    ),
    "channel_count": Code(
        "sizes",
        "error",
        "channels differ",
        "An image has another number of channels than most",
        "Choose the channels that all images have with data.input_channels, or remove the image",
    ),
    "spacing_mismatch": Code(
        "sizes",
        "warning",
        "voxels differ",
        "Image and target say different voxel sizes",
        "Look whether they show the same place; save the target with the voxel size of its image",
    ),
    "smaller_than_patch": Code(
        "sizes",
        "info",
        "smaller than a patch",
        "An image is smaller than `data.patch`; what is missing is filled by mirroring",
        "Choose a smaller data.patch where many images are concerned",
    ),
    "rgb_or_channels_question": Code(
        "sizes",
        "info",
        "RGB or channels?",
        "Three or four 8-bit channels without names may be one RGB picture; three or four planes may be channels",
        "Choose channels with data.input_channels, convert the picture to grey, or set data.axes, for example to CYX",
    ),
    "assumed": Code(
        "sizes",
        "info",
        "something assumed",
        "What the reader of a file had to assume",
        "Set data.axes or data.voxel_size, or save the file again, where it is not so",
    ),
    # ---- pixels ----
    "nan_inf": Code(
        "pixels",
        "error",
        "NaN or infinite",
        "Image or target has NaN or infinite pixels; a warning where `data.invalid_pixels` is `fill`",
        "Mend the image, or let such pixels be filled: data.invalid_pixels = fill",
    ),
    "constant": Code(
        "pixels",
        "warning",
        "constant",
        "All pixels of an image or target are equal",
        "Remove it, or look whether the export went wrong",
    ),
    "constant_channel": Code(
        "pixels",
        "warning",
        "empty channel",
        "All pixels of one channel are equal",
        "Leave the channel out with data.input_channels, or look whether the export went wrong",
    ),
    "constant_plane": Code(
        "pixels",
        "warning",
        "empty planes",
        "All pixels of some planes or time points are equal, those of others are not",
        "Cut the empty planes off, or look whether frames were lost",
    ),
    "saturated": Code(
        "pixels",
        "warning",
        "saturated",
        "More than one percent of the pixels have the largest value that their type can hold",
        "Record with less light or gain; what is saturated cannot be learned from",
    ),
    "dtype_range": Code(
        "pixels",
        "warning",
        "odd range",
        "An image has very few grey values, or values so large that they lose digits when they are computed with",
        "Look whether it is a mask, or whether the export went wrong; save it in the type it was recorded in",
    ),
    "target_is_image": Code(
        "pixels",
        "error",
        "target is the image",
        "The target has exactly the pixels of its image",
        "Put the right target in its place",
    ),
    "weight_invalid": Code(
        "pixels",
        "error",
        "wrong weight",
        "A weight image has negative, NaN or infinite pixels",
        "A weight is 0 where nothing is known and positive elsewhere",
    ),
    "nothing_known": Code(
        "pixels",
        "warning",
        "nothing known",
        "Every pixel is unknown: the weight is 0, or nothing is painted where labels are sparse",
        "Paint background and objects, correct the weight, or remove the sample",
    ),
    # ---- labels ----
    "negative_or_fractional_labels": Code(
        "labels",
        "error",
        "no labels",
        "A label is negative, fractional, NaN or larger than 32 bits can hold",
        "Labels are whole numbers, 0 is background",
    ),
    "undeclared_class": Code(
        "labels",
        "error",
        "unknown class",
        "A label is none of the classes that `framework.classes` or dataset.json declares",
        "Correct the labels, or declare the class",
    ),
    "empty_foreground": Code(
        "labels",
        "warning",
        "nothing labelled",
        "A label image is all background",
        "Right if there is nothing to see; else label it",
    ),
    "validation_without_labels": Code(
        "labels",
        "warning",
        "validation is empty",
        "No image that validates has a labelled object, so no figure can tell a good model from a bad one",
        "Name images with objects in data.split.validation_names, or label some of those that validate",
    ),
    "label_gap": Code(
        "labels",
        "warning",
        "classes have gaps",
        "Class numbers are left out; those between are learned as classes that never occur",
        "Number the classes without gaps",
    ),
    "probably_classes": Code(
        "labels",
        "warning",
        "classes?",
        "The task is instance segmentation, but many separate objects have the same id",
        "They look like classes: choose the task semantic_segmentation, or number the objects",
    ),
    "probably_instances": Code(
        "labels",
        "warning",
        "instances?",
        "The task is semantic segmentation, but every object has an id of its own",
        "They look like instances: choose the task instance_segmentation",
    ),
    "few_objects": Code(
        "labels",
        "warning",
        "few objects",
        "There are few labelled objects in all",
        "Label more; 50 or more usually suffice to begin",
    ),
    # ---- voxels ----
    "voxel_size_missing": Code(
        "voxels",
        "warning",
        "voxel size unknown",
        "Files do not say the size of a pixel",
        "Set data.voxel_size, so that predictions can be made at the same scale",
    ),
    "voxel_size_impossible": Code(
        "voxels",
        "warning",
        "impossible voxel size",
        "A voxel size is zero, negative or not finite; it is taken as unknown",
        "Look it up at the microscope and set data.voxel_size",
    ),
    "voxel_size_suspicious": Code(
        "voxels",
        "warning",
        "odd voxel size",
        "A voxel size is that of a printer or screen, far from that of microscopes, not square in Y and X, or lacks Z",
        "Look it up at the microscope and set data.voxel_size",
    ),
    "voxel_size_units": Code(
        "voxels",
        "warning",
        "wrong unit?",
        "A voxel size becomes a usual one when it is taken in nanometres, millimetres or metres",
        "Correct the unit in the file, or set data.voxel_size in micrometres",
    ),
    "voxel_size_differs": Code(
        "voxels",
        "warning",
        "scales differ",
        "Voxel sizes of the images differ by more than a factor of two along an axis",
        "Set data.rescale.kind to voxel_size, or correct the sizes where they are wrong",
    ),
    "anisotropy_inverted": Code(
        "voxels",
        "warning",
        "Z and X swapped?",
        "Planes are closer to each other than pixels, or Y and Z are equal while X differs: sizes in the wrong order",
        "Set data.voxel_size in the order Z, Y, X",
    ),
    # ---- the set ----
    "duplicate": Code(
        "set",
        "warning",
        "same as another",
        "Images have the same pixels",
        "Keep one, or put them into one group",
    ),
    "overlap_train_validation": Code(
        "set",
        "error",
        "shared with validation",
        "Training shares an image, or its pixels, with validation or test",
        "Put both into one group, or keep one of them",
    ),
    "mixed_types": Code(
        "set",
        "warning",
        "types differ",
        "Images have different pixel types",
        "Right only if normalisation makes them alike; look at both",
    ),
    "split": Code(
        "set",
        "error",
        "cannot be divided",
        "The images cannot be divided into training and validation as the settings want it",
        "Change data.split, the parts or the groups",
    ),
}
"""All codes; they do not change between versions."""


def problem(
    code: str,
    text: str,
    sample: str = "",
    *,
    severity: Severity | None = None,
    cure: str = "",
    file: str = "",
    value: Any = None,
) -> Problem:
    """Problem of a kind, with the usual severity and cure unless others are given."""
    kind = CODES[code]
    return Problem(sample, code, severity or kind.severity, text, cure or kind.cure, file, value)
