"""Where samples come from: one layout per class; each finds its samples below a folder."""

from __future__ import annotations

from im2im_core.layouts.auto import AutoLayout
from im2im_core.layouts.base import SampleFiles, load_samples, open_samples
from im2im_core.layouts.nnunet import NnunetLayout
from im2im_core.layouts.presplit import PreSplitLayout
from im2im_core.layouts.subfolders import SubfolderLayout
from im2im_core.layouts.suffix import SuffixLayout
from im2im_core.layouts.table import TableLayout

LayoutSettings = AutoLayout | SuffixLayout | SubfolderLayout | TableLayout | PreSplitLayout | NnunetLayout

__all__ = [
    "AutoLayout",
    "LayoutSettings",
    "NnunetLayout",
    "PreSplitLayout",
    "SampleFiles",
    "SubfolderLayout",
    "SuffixLayout",
    "TableLayout",
    "load_samples",
    "open_samples",
]
