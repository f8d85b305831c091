"""Whether voxel sizes are known and possible, in micrometres, in the right order, and alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from im2im_core.review.codes import Problem, problem
from im2im_core.review.words import some

if TYPE_CHECKING:
    from im2im_core.review.aim import Aim
    from im2im_core.review.facts import SampleFacts
    from im2im_core.samples import Sample

DPI_SIZES = (0.0353, 352.8, 0.02646, 264.6, 0.00847, 84.67)
"""Voxel sizes that 72, 96 and 300 dots per inch give, in micrometres or with centimetres taken for them."""
SMALLEST, LARGEST = 0.001, 100.0
"""Micrometres between which voxels of microscopes lie."""
USUAL = (0.02, 5.0)
"""Micrometres between which the pixels of most light microscopes lie."""
UNITS = {"nanometres": 1e-3, "millimetres": 1e3, "metres": 1e6}
"""Micrometres in a unit that may have been meant."""
NOT_SQUARE = 0.05
INVERTED = 0.67
"""Distance of planes by width of a pixel, below which the two may be swapped."""
WILDLY = 2.0
"""Factor between the largest and the smallest size of an axis."""

Doubt = Callable[["SampleFacts"], str]


def check_missing(samples: Sequence[Sample], facts: Sequence[SampleFacts], aim: Aim) -> Iterator[Problem]:
    """The size of a pixel is known."""
    missing = [f.sample for f in facts if None in f.voxel_size[1:]]
    if missing:
        text = f"{len(missing)} of {len(facts)} images have no voxel size ({some(missing)})"
        yield problem("voxel_size_missing", text, value=missing)


def check_doubts(samples: Sequence[Sample], facts: Sequence[SampleFacts], aim: Aim) -> Iterator[Problem]:
    """Voxel sizes are possible, of a microscope, in micrometres and in the order Z, Y, X; the same doubt once."""
    refused = {s.name: _refused(s) for s in samples}
    found: dict[tuple[str, str], list[str]] = {}
    for item in facts:
        if reason := refused[item.sample]:
            found.setdefault(("voxel_size_impossible", reason), []).append(item.sample)
        for code, doubt in DOUBTS:
            if reason := doubt(item):
                found.setdefault((code, reason), []).append(item.sample)
    for (code, reason), names in found.items():
        yield problem(code, f"{len(names)} of {len(facts)} images: {reason} ({some(names)})", value=names)


def _refused(sample: Sample) -> str:
    """Sizes in the file that the reader took as unknown, along axes that have more than one voxel."""
    info = sample.source.info
    sizes = dict(zip("ZYX", info.shape[2:], strict=True))
    odd = [f"{axis} {value:g}" for axis, value in info.refused if sizes[axis] > 1]
    return f"the file says the voxel size {', '.join(odd)}, which cannot be" if odd else ""


def _impossible(facts: SampleFacts) -> str:
    odd = [f"{axis} {s:g} µm" for axis, s in zip("ZYX", facts.voxel_size, strict=True) if s is not None and not _ok(s)]
    return f"the voxel size {', '.join(odd)} cannot be" if odd else ""


def _ok(size: float) -> bool:
    return math.isfinite(size) and size > 0


def _known(facts: SampleFacts) -> list[float]:
    """Possible sizes along the axes that have more than one voxel."""
    return [s for s, n in zip(facts.voxel_size, facts.shape[2:], strict=True) if s is not None and _ok(s) and n > 1]


def _printer(facts: SampleFacts) -> str:
    dots = [size for size in _known(facts) if any(abs(size / d - 1) < 0.005 for d in DPI_SIZES)]
    return f"voxel size {dots[0]:g} µm is a printer's resolution, not a microscope's" if dots else ""


def _unusual(facts: SampleFacts) -> str:
    odd = [size for size in _known(facts) if not SMALLEST <= size <= LARGEST]
    return "" if not odd or _printer(facts) else f"voxel size {odd[0]:g} µm is unusual for a microscope"


def _unit(facts: SampleFacts) -> str:
    """Unit that makes an unusual size of Y and X a usual one."""
    plane = [size for size in facts.voxel_size[1:] if size is not None and _ok(size)]
    if not plane or SMALLEST <= plane[-1] <= LARGEST / 2 or _printer(facts):
        return ""
    meant = next((u for u, factor in UNITS.items() if USUAL[0] <= plane[-1] * factor <= USUAL[1]), "")
    factor = UNITS.get(meant, 1.0)
    return f"voxel size {plane[-1]:g} µm may be meant in {meant}: {plane[-1] * factor:.4g} µm" if meant else ""


def _not_square(facts: SampleFacts) -> str:
    _, y, x = facts.voxel_size
    if not (y and x and _ok(y) and _ok(x)) or abs(y / x - 1) <= NOT_SQUARE:
        return ""
    return f"voxels of {y:g} × {x:g} µm are not square in Y and X"


def _plane_distance(facts: SampleFacts) -> str:
    z, _, x = facts.voxel_size
    return "the distance of the planes is not known" if facts.shape[2] > 1 and z is None and x is not None else ""


def _inverted(facts: SampleFacts) -> str:
    z, y, x = (size if size is not None and _ok(size) else None for size in facts.voxel_size)
    if facts.shape[2] == 1 or z is None or y is None or x is None:
        return ""
    if abs(z / y - 1) < 0.001 and x > (1 + NOT_SQUARE) * y:
        return f"voxels of {z:g} × {y:g} × {x:g} µm (Z, Y, X) seem to be in the order X, Y, Z"
    if z < INVERTED * min(y, x):
        return f"planes are {z:g} µm apart, closer than pixels of {x:g} µm are wide"
    return ""


DOUBTS: tuple[tuple[str, Doubt], ...] = (
    ("voxel_size_impossible", _impossible),
    ("voxel_size_suspicious", _printer),
    ("voxel_size_suspicious", _unusual),
    ("voxel_size_units", _unit),
    ("voxel_size_suspicious", _not_square),
    ("voxel_size_suspicious", _plane_distance),
    ("anisotropy_inverted", _inverted),
)


def check_alike(samples: Sequence[Sample], facts: Sequence[SampleFacts], aim: Aim) -> Iterator[Problem]:
    """Voxel sizes of the images are alike, else in which unit those that stand out may be."""
    for number, axis in ((2, "X"), (1, "Y"), (0, "Z")):
        sizes = {f.sample: s for f in facts if f.shape[number + 2] > 1 and (s := f.voxel_size[number]) and _ok(s)}
        if not sizes or max(sizes.values()) <= WILDLY * min(sizes.values()):
            continue
        low, high = min(sizes.values()), max(sizes.values())
        text = f"Voxel sizes in {axis} differ from {low:g} to {high:g} µm"
        yield problem("voxel_size_differs", text, value=sizes)
        yield from _other_units(sizes, axis)
        return  # the other axes usually say the same


def _other_units(sizes: dict[str, float], axis: str) -> Iterator[Problem]:
    """Samples whose size is a thousand or a million times that of most, or as much less."""
    usual = statistics.median_low(sizes.values())
    for unit, factor in UNITS.items():
        names = [name for name, size in sizes.items() if 0.5 <= size * factor / usual <= 2]
        if names:
            text = f"{len(names)} of {len(sizes)} images ({some(names)}): the voxel size in {axis} may be in {unit}"
            yield problem("voxel_size_units", text, value=names)
