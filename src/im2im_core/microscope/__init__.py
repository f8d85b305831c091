"""The simulated microscope: seeded images of nuclei in 2D, 3D and time, with exact truth and no file needed."""

from __future__ import annotations

from im2im_core.microscope.dataset import DatasetTask, write_dataset
from im2im_core.microscope.living import Timelapse, timelapse
from im2im_core.microscope.specimen import Specimen, fluorescence, low_light

__all__ = ["DatasetTask", "Specimen", "Timelapse", "fluorescence", "low_light", "timelapse", "write_dataset"]
