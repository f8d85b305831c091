"""Simulated training data on disk: folders IM and GT with files of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from im2im_core.errors import ConfigError, DataError, nearest
from im2im_core.files import atomic_path
from im2im_core.microscope.specimen import Specimen, fluorescence, low_light

if TYPE_CHECKING:
    from numpy.typing import NDArray

DatasetTask = Literal["instance_segmentation", "semantic_segmentation", "label_free", "restoration"]
RESTORATION_PHOTONS = 6.0


def write_dataset(
    folder: Path,
    task: DatasetTask,
    *,
    count: int,
    shape: tuple[int, ...],
    seed: int,
    dimensions: Literal[2, 3] = 2,
    start: int = 0,
) -> Path:
    """Folder with `count` pairs as OME-TIFF, sources in ``IM`` and targets of the same names in ``GT``.

    A pair depends on `seed` and its number alone, so that ``start=8`` continues a set of eight.

    Parameters
    ----------
    shape : tuple of int
        ``(Y, X)`` or ``(Z, Y, X)``, as `dimensions` says.

    Raises
    ------
    ConfigError
        The task is not known.
    DataError
        `shape` does not have `dimensions` numbers.
    """
    if task not in get_args(DatasetTask):
        raise ConfigError(f"The simulated microscope knows no task {task!r}", nearest(task, get_args(DatasetTask)))
    if len(shape) != dimensions:
        raise DataError(
            f"Shape {tuple(shape)} has {len(shape)} numbers, {dimensions} dimensions were asked for",
            "Give (Y, X) for 2 and (Z, Y, X) for 3 dimensions",
        )
    for index in range(start, start + count):
        optics, noise = np.random.SeedSequence((seed, index)).generate_state(2).tolist()
        specimen = fluorescence(shape, seed=optics)
        source, target = _pair(specimen, task, noise)
        name = f"nuclei_{index:04d}.ome.tif"
        _write(folder / "IM" / name, source, specimen)
        _write(folder / "GT" / name, target, specimen)
    return folder


def _pair(specimen: Specimen, task: DatasetTask, noise: int) -> tuple[NDArray[Any], NDArray[Any]]:
    if task == "instance_segmentation":
        return specimen.image, specimen.labels
    if task == "semantic_segmentation":
        return specimen.image, specimen.classes
    if task == "label_free":
        return specimen.transmitted, specimen.clean
    return low_light(specimen, RESTORATION_PHOTONS, noise), specimen.clean


def _write(path: Path, pixels: NDArray[Any], specimen: Specimen) -> None:
    import tifffile

    metadata: dict[str, Any] = {"axes": specimen.axes}
    for axis, size in zip("ZYX", specimen.voxel_size, strict=True):
        if size is not None:
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    with atomic_path(path) as part:
        tifffile.imwrite(part, pixels, ome=True, photometric="minisblack", compression="zlib", metadata=metadata)
