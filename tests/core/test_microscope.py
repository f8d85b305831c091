"""The simulated microscope: exact truth, equal for equal seeds, noise as the formula says."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from im2im_core.errors import ConfigError, DataError
from im2im_core.microscope import fluorescence, low_light, timelapse, write_dataset
from im2im_core.microscope.nuclei import Canvas, Nucleus, paint_labels
from im2im_core.microscope.optics import GAIN, OFFSET, READ_NOISE, blur, expose


@pytest.fixture(scope="module")
def plane():
    return fluorescence((160, 200), seed=3)


@pytest.fixture(scope="module")
def stack():
    return fluorescence((10, 72, 64), seed=4)


@pytest.fixture(scope="module")
def film():
    return timelapse(16, (96, 112), seed=1, cycle=10)


def _components(labels):
    return [ndimage.label(labels == i)[1] for i in np.unique(labels) if i]


def _disc(radius, identity=1, centre=(0.0, 30.0, 30.0), **changes):
    plain = Nucleus(identity, centre, (radius, radius, radius), 0.0, (), 1.0, (), (0.0, 0.0, 0.0))
    return replace(plain, **changes)


@pytest.mark.parametrize("name", ["plane", "stack"])
def test_every_label_is_one_component_and_numbers_have_no_gaps(name, request):
    labels = request.getfixturevalue(name).labels
    assert labels.max() > 5
    assert np.unique(labels).tolist() == list(range(int(labels.max()) + 1))
    assert set(_components(labels)) == {1}


@pytest.mark.parametrize("name", ["plane", "stack"])
def test_arrays_agree_in_shape_and_type(name, request):
    specimen = request.getfixturevalue(name)
    shape = (160, 200) if name == "plane" else (10, 72, 64)
    kinds = {"image": "u2", "clean": "f4", "labels": "u4", "transmitted": "u2", "classes": "u1"}
    for field, dtype in kinds.items():
        array = getattr(specimen, field)
        assert array.shape == shape
        assert array.dtype == dtype
    assert specimen.axes == "ZYX"[-len(shape) :]


def test_equal_seeds_give_equal_pixels_and_others_do_not():
    first, again, other = (fluorescence((64, 64), seed=s) for s in (5, 5, 6))
    for field in ("image", "clean", "labels", "transmitted"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    assert (first.labels != other.labels).any()


def test_voxels_are_anisotropic_in_3d_and_have_no_height_in_2d(plane, stack):
    assert plane.voxel_size == (None, pytest.approx(11 / 17), pytest.approx(11 / 17))
    assert stack.voxel_size[0] == pytest.approx(3 * stack.voxel_size[2])


def test_nuclei_shine_in_fluorescence_and_show_in_transmitted_light(plane):
    inside = plane.labels > 0
    far = ndimage.distance_transform_edt(~inside) > 6
    assert plane.image[inside].mean() > 3 * plane.image[far].mean() - 2 * OFFSET
    assert plane.transmitted[inside].mean() > 1.1 * plane.transmitted[far].mean()


def test_mitotic_nuclei_are_brighter_and_have_their_own_class():
    specimen = fluorescence((256, 256), seed=1, dividing=0.3)
    assert specimen.dividing
    assert (specimen.classes[np.isin(specimen.labels, specimen.dividing)] == 2).all()
    assert ((specimen.classes == 0) == (specimen.labels == 0)).all()
    assert specimen.clean[specimen.classes == 2].mean() > 1.3 * specimen.clean[specimen.classes == 1].mean()


def test_touching_is_a_choice():
    def neighbours(touching):
        labels = fluorescence((256, 256), seed=2, touching=touching, dividing=0.0, density=0.1).labels
        right, down = (labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])
        return sum(
            int(((a != b) & (a > 0) & (b > 0)).any()) and np.unique(a[(a != b) & (a > 0) & (b > 0)]).size
            for a, b in (right, down)
        )

    assert neighbours(0.8) > 10 > 3 * neighbours(0.0)


@pytest.mark.parametrize("density", [0.05, 0.2])
def test_density_is_the_covered_area(density):
    covered = (fluorescence((320, 320), seed=7, density=density).labels > 0).mean()
    assert 0.6 * density < covered < 1.3 * density


def test_diameter_is_that_of_whole_nuclei():
    specimen = fluorescence((400, 400), seed=8, diameter=24.0, touching=0.0, dividing=0.0)
    areas = np.bincount(specimen.labels.ravel())[1:]
    assert 2 * np.sqrt(np.median(areas) / np.pi) == pytest.approx(24.0, rel=0.1)


def test_a_disc_has_the_area_of_a_disc_and_a_ball_the_volume_of_a_ball():
    disc = paint_labels([_disc(12.0, centre=(0.0, 30.3, 30.4))], Canvas((1, 61, 61), 3.0))
    assert (disc > 0).sum() == pytest.approx(np.pi * 12**2, rel=0.02)
    ball = paint_labels([_disc(12.0, centre=(31.0, 30.3, 30.4))], Canvas((21, 61, 61), 3.0))
    assert (ball > 0).sum() * 3 == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)


def test_overlapping_discs_share_the_overlap_along_their_middle():
    pair = [_disc(10.0, 1, (0.0, 30.0, 22.0)), _disc(10.0, 2, (0.0, 30.0, 38.0))]
    labels = paint_labels(pair, Canvas((1, 61, 61), 3.0))[0]
    assert (labels[:, :30] != 2).all()
    assert (labels[:, 31:] != 1).all()
    assert (labels == 1).sum() == pytest.approx((labels == 2).sum(), abs=20)


def test_a_nucleus_cut_in_two_keeps_its_larger_piece():
    bar = _disc(10.0, 1, radii=(10.0, 5.0, 25.0), centre=(0.0, 30.0, 34.0))
    knife = _disc(10.0, 2, radii=(10.0, 30.0, 3.0), centre=(0.0, 30.0, 28.0))
    labels = paint_labels([bar, knife], Canvas((1, 61, 61), 3.0))
    assert set(_components(labels)) == {1}
    assert (labels[0, :, :20] == 0).all()


def test_blur_keeps_light_and_is_longer_along_the_axis():
    point = np.zeros((31, 61, 61), np.float32)
    point[15, 30, 30] = 1
    spread = blur(point, Canvas(point.shape, 1.0), 17.0)
    assert spread.sum() == pytest.approx(1.0, abs=0.01)
    assert spread[19, 30, 30] > 2 * spread[15, 34, 30]


def test_camera_noise_has_the_mean_and_variance_of_its_formula():
    counts = expose(np.full((400, 400), 50.0), np.random.default_rng(0)).astype(float)
    assert counts.mean() == pytest.approx(50 * GAIN + OFFSET, rel=0.002)
    assert counts.var() == pytest.approx((50 + READ_NOISE**2) * GAIN**2, rel=0.02)


def test_camera_clips_instead_of_wrapping():
    bright = expose(np.full((8, 8), 1e6), np.random.default_rng(0))
    assert (bright == 65535).all()


def test_low_light_is_the_same_specimen_with_fewer_photons(plane):
    noisy = low_light(plane, 4.0, seed=0)
    photons = (noisy.astype(float) - OFFSET) / GAIN
    assert photons.mean() == pytest.approx(plane.clean.mean() * 4 / plane.photons, rel=0.05)
    np.testing.assert_array_equal(noisy, low_light(plane, 4.0, seed=0))
    with pytest.raises(DataError, match="0 photons"):
        low_light(plane, 0, seed=0)


def test_focus_series_changes_sign_through_focus():
    specimen = fluorescence((15, 96, 96), seed=3, density=0.02, touching=0, dividing=0, anisotropy=2.0)
    light = specimen.transmitted.astype(float)
    middle = ndimage.center_of_mass(specimen.labels == 1)
    z, y, x = (round(m) for m in middle)
    near = light[:, y - 2 : y + 3, x - 2 : x + 3].mean(axis=(1, 2)) / np.median(light, axis=(1, 2))
    below, above = near[max(z - 4, 0) : z].mean(), near[z + 1 : z + 5].mean()
    assert abs(below - above) > 0.02


def test_timelapse_follows_every_daughter_to_her_mother(film):
    assert film.image.shape == film.labels.shape == (16, 96, 112)
    assert film.axes == "TYX"
    assert len(film.tracks) >= 4
    frames = {i: np.flatnonzero((film.labels == i).any(axis=(1, 2))) for i in np.unique(film.labels) if i}
    for child, mother in film.tracks.items():
        assert frames[mother].max() < frames[child].min()
    twins = {m: [c for c, other in film.tracks.items() if other == m] for m in film.tracks.values()}
    assert max(len(t) for t in twins.values()) == 2


def test_timelapse_nuclei_move_little_between_frames_and_grow(film):
    labels = film.labels
    for identity in np.unique(labels[0])[1:]:
        if not (labels[1] == identity).any():
            continue
        one, two = (np.array(ndimage.center_of_mass(labels[t] == identity)) for t in (0, 1))
        assert np.linalg.norm(one - two) < 6
    assert all(set(_components(frame)) <= {1} for frame in labels)


def test_timelapse_in_3d():
    film = timelapse(2, (6, 48, 48), seed=0)
    assert film.image.shape == (2, 6, 48, 48)
    assert film.axes == "TZYX"
    assert film.voxel_size[0] > film.voxel_size[1]


@pytest.mark.parametrize(
    ("task", "dtype", "highest"),
    [
        ("instance_segmentation", "u4", 20),
        ("semantic_segmentation", "u1", 2),
        ("label_free", "f4", 500),
        ("restoration", "f4", 500),
    ],
)
def test_dataset_has_partners_of_the_same_name_with_voxel_sizes(tmp_path, task, dtype, highest):
    folder = write_dataset(tmp_path / "data", task, count=2, shape=(48, 56), seed=1)
    sources, targets = (sorted(p.name for p in (folder / side).iterdir()) for side in ("IM", "GT"))
    assert sources == targets == ["nuclei_0000.ome.tif", "nuclei_0001.ome.tif"]
    with tifffile.TiffFile(folder / "IM" / sources[0]) as file:
        assert file.series[0].axes == "YX"
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert pixels["PhysicalSizeX"] == pytest.approx(11 / 17)
    assert "PhysicalSizeZ" not in pixels
    truth = tifffile.imread(folder / "GT" / targets[0])
    assert truth.shape == (48, 56)
    assert truth.dtype == np.dtype(dtype)
    assert 0 < truth.max() <= highest


def test_dataset_continues_where_it_ended(tmp_path):
    write_dataset(tmp_path / "whole", "restoration", count=2, shape=(40, 40), seed=1)
    write_dataset(tmp_path / "rest", "restoration", count=1, shape=(40, 40), seed=1, start=1)
    for side in ("IM", "GT"):
        whole, rest = (tifffile.imread(tmp_path / name / side / "nuclei_0001.ome.tif") for name in ("whole", "rest"))
        np.testing.assert_array_equal(whole, rest)


def test_dataset_in_3d_is_a_stack_with_spacing(tmp_path):
    write_dataset(tmp_path, "label_free", count=1, shape=(6, 40, 44), seed=0, dimensions=3)
    with tifffile.TiffFile(tmp_path / "GT" / "nuclei_0000.ome.tif") as file:
        assert file.series[0].axes == "ZYX"
        assert file.series[0].shape == (6, 40, 44)
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert pixels["PhysicalSizeZ"] == pytest.approx(33 / 17)


def test_wrong_requests_are_refused_with_the_cure(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'restoration'"):
        write_dataset(tmp_path, "restauration", count=1, shape=(32, 32), seed=0)
    with pytest.raises(DataError, match="2 numbers, 3 dimensions"):
        write_dataset(tmp_path, "restoration", count=1, shape=(32, 32), seed=0, dimensions=3)
    with pytest.raises(DataError, match=r"shape \(32,\)"):
        fluorescence((32,), seed=0)
    with pytest.raises(DataError, match="diameter of 4"):
        fluorescence((32, 32), seed=0, diameter=1.0)
    with pytest.raises(DataError, match="cycle of 4"):
        timelapse(3, (32, 32), seed=0, cycle=1)


@pytest.mark.timing
@pytest.mark.parametrize(("shape", "seconds"), [((512, 512), 1.0), ((32, 256, 256), 4.0)])
def test_simulation_is_fast(shape, seconds):
    begun = time.process_time()
    specimen = fluorescence(shape, seed=0)
    # Twice the aim, because test machines are shared.
    assert time.process_time() - begun < 2 * seconds
    assert specimen.labels.max() > 120
