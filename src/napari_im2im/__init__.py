"""The napari plugin: widgets, forms and sample images around im2im_core; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari import Viewer


def keep_painted_safe(viewer: Viewer | None = None) -> None:
    """Begin to write down what is painted in a viewer, as each of our panels does.

    napari calls no plugin at its start: a line in its startup script makes every viewer safe from the first stroke on.

    Parameters
    ----------
    viewer : napari.Viewer, optional
        The one in front if not given; nothing happens where there is none.
    """
    from napari import current_viewer

    from napari_im2im._journal_watch import watch_labels

    found = viewer or current_viewer()
    if found is not None:
        watch_labels(found)
