"""What decoders raise on damaged files, and the error that a person reads instead."""

from __future__ import annotations

import struct
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from im2im_core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAMAGED = (
    OSError, ValueError, RuntimeError, SyntaxError, EOFError, LookupError, TypeError, AttributeError,
    ArithmeticError, AssertionError, struct.error, zlib.error,
)  # fmt: skip
"""What the many decoders behind our readers raise on a damaged file."""


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Block in which whatever a decoder raises becomes an error that names the file.

    Raises
    ------
    DataError
        The file is damaged.
    """
    try:
        yield
    except DAMAGED as error:
        raise DataError(
            f"{path}: it cannot be read ({str(error) or type(error).__name__})",
            "The file is damaged or cut short; copy or save it again",
        ) from error
