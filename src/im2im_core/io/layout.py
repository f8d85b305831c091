"""How the dimensions of a file map to ``(T, C, Z, Y, X)``, found from trusted metadata or told by the user."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

from im2im_core.axes import AXES, Region, check_axes, to_tczyx
from im2im_core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DROPPED = "."
"""Stands for a dimension of size 1 that means nothing."""
_KNOWN = AXES + "S"
_MAX_CHOICES = 6


@dataclass(frozen=True)
class Layout:
    """One letter of T, C, Z, Y, X (or ``.``) for each dimension of a file, in the order of the file."""

    shape: tuple[int, ...]
    letters: str
    rgb: bool = False
    """The channels are RGB samples."""

    @property
    def axes(self) -> str:
        """The axes that are there, in the order of TCZYX."""
        return "".join(a for a in AXES if a in self.letters)

    @property
    def tczyx(self) -> tuple[int, int, int, int, int]:
        """Size along T, C, Z, Y, X."""
        t, c, z, y, x = (self.shape[self.letters.index(a)] if a in self.letters else 1 for a in AXES)
        return t, c, z, y, x

    def slices(self, region: Region) -> tuple[slice, ...]:
        """The same region along the dimensions of the file."""
        return tuple(slice(0, 1) if a == DROPPED else region[AXES.index(a)] for a in self.letters)

    def arrange(self, block: NDArray[Any]) -> NDArray[Any]:
        """``(T, C, Z, Y, X)`` view of a block in the order of the file."""
        kept = block[tuple(0 if a == DROPPED else slice(None) for a in self.letters)]
        return to_tczyx(kept, self.letters.replace(DROPPED, ""))


def resolve_layout(
    name: str, shape: tuple[int, ...], axes: str, given: str | None = None, *, squeeze: bool = True
) -> Layout:
    """Layout of a file whose metadata says `axes`, or whose user says `given`.

    Parameters
    ----------
    axes : str
        One letter per dimension; any letter outside TCZYXS means "unknown".
    given : str, optional
        One letter per dimension that is not of size 1 (or per dimension of all).
    squeeze : bool
        Treat T, C, Z and S of size 1 as absent, for formats that declare all axes always.

    Raises
    ------
    DataError
        The axes are unknown and none were given, or those given do not fit.
    """
    if given is not None:
        return _as_given(name, shape, axes, given.upper())
    drop = "TCZS" if squeeze else "S"
    letters = [DROPPED if n == 1 and (a in drop or a not in _KNOWN) else a for a, n in zip(axes, shape, strict=True)]
    _refuse_unknown(name, shape, letters)
    return _merge_rgb(name, shape, letters)


def _refuse_unknown(name: str, shape: tuple[int, ...], letters: list[str]) -> None:
    kept = [(a, n) for a, n in zip(letters, shape, strict=True) if a != DROPPED]
    counts = Counter(a for a, _ in kept)
    unclear = [i for i, (a, _) in enumerate(kept) if a not in _KNOWN or counts[a] > 1]
    if not unclear and {"Y", "X"} <= set(counts):
        return
    sizes = tuple(n for _, n in kept)
    raise DataError(
        f"{name}: the file does not say what its {len(kept)} dimensions {sizes} are",
        f"Say it with axes=, for example {', '.join(_choices([a for a, _ in kept], sizes, unclear))}",
    )


def _choices(letters: list[str], sizes: tuple[int, ...], unclear: list[int]) -> list[str]:
    """Axes that the user may have meant."""
    sure = {a for i, a in enumerate(letters) if i not in unclear}
    found = []
    for names in permutations([a for a in "ZTC" if a not in sure], len(unclear)):
        named = dict(zip(unclear, names, strict=True))
        found.append("".join(named.get(i, a) for i, a in enumerate(letters)))
    if len(sizes) == 3 and sizes[-1] in (3, 4):
        found.append("YXC")
    return found[:_MAX_CHOICES] or [AXES[-len(sizes) :]]


def _as_given(name: str, shape: tuple[int, ...], axes: str, given: str) -> Layout:
    every = list(range(len(shape)))
    plane = [i for i in every if shape[i] > 1 or axes[i] in "YX"]
    large = [i for i in every if shape[i] > 1]
    for kept in (every, plane, large):
        if len(kept) == len(given):
            break
    else:
        sizes = tuple(shape[i] for i in plane)
        raise DataError(
            f"{name}: axes {given!r} name {len(given)} dimensions, the file has {len(plane)}: {sizes}",
            "Give one letter per dimension",
        )
    check_axes(given, len(kept), name)
    told = "".join(axes[i] for i in kept)
    if set(told) == set(given) and told != given:
        raise DataError(
            f"{name}: axes {given!r} were given, the file itself says {told!r}",
            "Leave axes= away; the result is in the order TCZYX in any case",
        )
    letters = [DROPPED] * len(shape)
    for i, letter in zip(kept, given, strict=True):
        letters[i] = letter
    return _merge_rgb(name, shape, letters)


def _merge_rgb(name: str, shape: tuple[int, ...], letters: list[str]) -> Layout:
    """Layout in which RGB samples are channels."""
    if "S" not in letters:
        return Layout(shape, "".join(letters))
    if "C" in letters and shape[letters.index("C")] > 1:
        raise DataError(f"{name}: the image has channels and RGB samples", "Split it into one or the other")
    merged = [DROPPED if a == "C" else "C" if a == "S" else a for a in letters]
    return Layout(shape, "".join(merged), rgb=True)


def check_region(region: Region, shape: tuple[int, ...], name: str) -> Region:
    """`region` itself, after checking that it lies inside `shape`.

    Raises
    ------
    DataError
        A slice has no explicit bounds or leaves the image.
    """
    inside = len(region) == len(shape) and all(
        s.start is not None and s.stop is not None and s.step in (None, 1) and 0 <= s.start <= s.stop <= n
        for s, n in zip(region, shape, strict=False)
    )
    if not inside:
        raise DataError(
            f"{name}: region {region} is not inside the image of shape {shape}",
            "Give start and stop along T, C, Z, Y, X",
        )
    return region
