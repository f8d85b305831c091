"""Imports of large packages without a search for garbage meanwhile."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def without_collection() -> Iterator[None]:
    """Block in which nothing is searched for garbage.

    Importing torch and MONAI makes a million objects that all stay; to look through them again and
    again while they are made takes a tenth of the time of the import. In napari every search looks
    through all that napari holds as well: as long as the classes of our settings take to be made.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
