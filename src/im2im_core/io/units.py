"""Lengths in micrometres and times in seconds, whatever unit a file uses."""

from __future__ import annotations

import math

_MICROMETRES = {
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "dm": 1e5, "decimeter": 1e5,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "\\u00b5m": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "pm": 1e-6, "picometer": 1e-6, "picometre": 1e-6,
    "å": 1e-4, "Å".lower(): 1e-4, "angstrom": 1e-4,
    "in": 25400.0, "inch": 25400.0, "inches": 25400.0,
    "ft": 304800.0, "foot": 304800.0,
}  # fmt: skip
_SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3,
    "µs": 1e-6, "μs": 1e-6, "us": 1e-6, "microsecond": 1e-6,
    "ns": 1e-9, "nanosecond": 1e-9,
    "min": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0,
}  # fmt: skip


def micrometres(value: float | None, unit: str) -> float | None:
    """`value` in micrometres; None where the unit is not a length or the value is not a size."""
    return _converted(value, _MICROMETRES.get(unit.strip().lower()))


def seconds(value: float | None, unit: str) -> float | None:
    """`value` in seconds; None where the unit is not a time or the value is not a duration."""
    return _converted(value, _SECONDS.get(unit.strip().lower()))


def refused_size(axis: str, value: float | None) -> tuple[tuple[str, float], ...]:
    """Axis and `value` where that cannot be the size of a voxel; nothing where it can or is not known."""
    return () if value is None or (math.isfinite(value) and value > 0) else ((axis, value),)


def _converted(value: float | None, factor: float | None) -> float | None:
    if value is None or factor is None or not math.isfinite(value) or value <= 0:
        return None
    return value * factor
