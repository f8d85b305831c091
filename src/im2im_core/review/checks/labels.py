"""Whether labels are labels, of the kind that the task wants, and enough of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from im2im_core.io.identity import file_of
from im2im_core.review.codes import Problem, problem
from im2im_core.review.words import counted, some
from im2im_core.samples import TARGET

if TYPE_CHECKING:
    from im2im_core.review.aim import Aim
    from im2im_core.review.facts import SampleFacts
    from im2im_core.review.label_facts import LabelFacts
    from im2im_core.samples import Sample

FEW_OBJECTS = 50


def check_numbers(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """Labels are whole numbers of at least 0, and something is labelled."""
    labels = facts.labels
    if labels is None:
        return
    file = file_of(sample.targets[TARGET])
    if labels.flaw:
        yield problem("negative_or_fractional_labels", labels.flaw, sample.name, file=file, value=labels.odd_value)
    elif labels.ids == 0:
        yield problem("empty_foreground", f"{sample.name}: nothing is labelled", sample.name, file=file)


def check_declared(sample: Sample, facts: SampleFacts, aim: Aim) -> Iterator[Problem]:
    """Classes are those that are declared."""
    labels, allowed = facts.labels, aim.allowed
    if labels is None or allowed is None:
        return
    unknown = [v for v in labels.values if v not in allowed]
    if not labels.values and labels.ids > len(allowed):
        unknown = [labels.largest]
    if unknown:
        declared = ", ".join(map(str, sorted(allowed)))
        text = f"{sample.name}: labels hold {some(list(map(str, unknown)))}, declared are the classes {declared}"
        yield problem("undeclared_class", text, sample.name, file=file_of(sample.targets[TARGET]), value=unknown)


# ---- the set ----


def check_kind(samples: Sequence[Sample], facts: Sequence[SampleFacts], aim: Aim) -> Iterator[Problem]:
    """Classes are given for classes, and instances for instances."""
    labels = [f.labels for f in facts if f.labels is not None and f.labels.ids]
    if aim.labelling == "sparse" or not labels:
        return
    classes = sum(item.pieces_ids <= 10 and item.pieces >= 3 * item.pieces_ids for item in labels)
    instances = sum(item.pieces_ids >= 10 and item.pieces < 1.5 * item.pieces_ids for item in labels)
    if aim.task == "instance_segmentation" and 2 * classes > len(labels):
        text = f"In {classes} of {counted(labels, 'label image')} many separate objects have the same id"
        yield problem("probably_classes", text, value=classes)
    if aim.task == "semantic_segmentation" and 2 * instances > len(labels):
        text = f"In {instances} of {counted(labels, 'label image')} every object has an id of its own"
        yield problem("probably_instances", text, value=instances)


def check_gaps(samples: Sequence[Sample], facts: Sequence[SampleFacts], aim: Aim) -> Iterator[Problem]:
    """Classes are numbered one after the other."""
    values = sorted({v for f in facts if f.labels for v in f.labels.values})
    first = aim.lowest_object
    if aim.task != "semantic_segmentation" or not values or values == list(range(first, first + len(values))):
        return
    shown = ", ".join(map(str, values[:10])) + (", …" if len(values) > 10 else "")
    text = f"Classes are {shown}; those between do not occur but are counted as classes"
    yield problem("label_gap", text, cure=f"Number the classes from {first} without gaps", value=values)


def check_number(samples: Sequence[Sample], facts: Sequence[SampleFacts], aim: Aim) -> Iterator[Problem]:
    """There are objects enough to begin with."""
    counts = [f.labels.objects for f in facts if f.labels and f.labels.objects is not None and not f.labels.flaw]
    total = sum(counts)
    if aim.task == "instance_segmentation" and counts and total < FEW_OBJECTS:
        text = f"There are {total} labelled objects in all"
        cure = f"Label more; {FEW_OBJECTS} or more usually suffice to begin"
        yield problem("few_objects", text, cure=cure, value=total)


def check_validation(validation: Sequence[Sample], facts: Sequence[SampleFacts]) -> Iterator[Problem]:
    """Some image that validates has an object; blocks count by their whole image."""
    from im2im_core.split import BLOCK

    by_name = {f.sample: f.labels for f in facts if f.labels is not None}
    held = [by_name[name] for s in validation if (name := s.name.removesuffix(BLOCK)) in by_name]
    if held and not any(_holds_objects(labels) for labels in held) and any(map(_holds_objects, by_name.values())):
        names = [s.name for s in validation]
        text = f"{counted(names, 'image')} validate ({some(names)}), none has a labelled object"
        yield problem("validation_without_labels", text, value=names)


def _holds_objects(labels: LabelFacts) -> bool:
    return labels.ids > 0
