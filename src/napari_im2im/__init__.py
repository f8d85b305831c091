"""The napari plugin: widgets, forms and sample images around im2im_core; imports no torch."""

from __future__ import annotations
