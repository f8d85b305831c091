"""The rules of the self-configuring U-Net, on numbers alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from im2im_core.engine.networks import build_network
from im2im_core.engine.planning.unet import (
    DATA_PART,
    MOST_LEVELS,
    SMALLEST_EDGE,
    SMALLEST_PLANE,
    Topology,
    choose_batch,
    choose_filters,
    choose_kernels,
    choose_strides,
    largest_patch,
    values_held,
)
from im2im_core.recipe.network import DynUNet


def divisor(patch: tuple[int, ...], spacing: tuple[float, ...], exact: bool = False) -> tuple[int, ...]:
    return Topology(choose_strides(patch, spacing, exact), ()).divisor


@pytest.mark.parametrize(
    ("patch", "spacing", "expected"),
    [
        ((64, 64), (1, 1), (16, 16)),  # 64 -> 4
        ((40, 40), (1, 1), (8, 8)),  # 40 -> 5
        ((31, 64), (1, 1), (4, 16)),  # 31 -> 15 -> 7
        ((2048, 2048), (1, 1), (2 ** (MOST_LEVELS - 1),) * 2),
        ((8, 8), (1, 1), (4, 4)),  # a network has three levels
        ((32, 32, 32), (1, 1, 1), (8, 8, 8)),
        ((5, 64, 64), (1, 1, 1), (1, 16, 16)),
        ((16, 64, 64), (6.7, 1, 1), (4, 16, 16)),
        ((16, 64, 64), (100, 1, 1), (4, 16, 16)),  # Z alone is left, and halved at last
        ((64, 16, 16), (0.2, 1, 1), (16, 4, 4)),
        ((1, 64, 64), (1, 1, 1), (1, 16, 16)),
    ],
)
def test_axes_are_halved_until_four_pixels_are_left(
    patch: tuple[int, ...], spacing: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    assert divisor(patch, spacing) == expected


def test_a_coarse_axis_waits_until_the_others_are_as_coarse() -> None:
    strides = choose_strides((16, 112, 112), (2.0, 0.3, 0.3))
    assert strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    kernels = choose_kernels((16, 112, 112), (2.0, 0.3, 0.3), strides)
    assert kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


def test_kernels_are_flat_where_there_is_one_plane_and_stay_full_once_full() -> None:
    strides = choose_strides((1, 32, 32), (1, 1, 1))
    assert set(choose_kernels((1, 32, 32), (1, 1, 1), strides)) == {(1, 3, 3)}
    thin = choose_strides((5, 64, 64), (1, 1, 1))  # Z is never halved, and soon finer than the others
    assert set(choose_kernels((5, 64, 64), (1, 1, 1), thin)) == {(3, 3, 3)}


@pytest.mark.parametrize(("size", "halvings"), [(100, 2), (96, 4), (36, 2), (8, 2)])
def test_a_given_patch_is_halved_while_it_is_even(size: int, halvings: int) -> None:
    assert divisor((size, size), (1, 1), exact=True) == (2**halvings,) * 2
    assert divisor((9, size, size), (1, 1, 1), exact=True) == (1, 2**halvings, 2**halvings)


def test_filters_double_up_to_the_most() -> None:
    assert choose_filters(32, 320, 6) == (32, 64, 128, 256, 320, 320)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_values_held_are_those_of_the_network(dimensions: int) -> None:
    """Counted in the network itself: what every convolution but the last gives."""
    patch, spacing = ((32, 48), (1.0, 1.0)) if dimensions == 2 else ((6, 16, 24), (4.0, 1.0, 1.0))
    strides = choose_strides(patch, spacing, exact=True)
    kernels, filters = choose_kernels(patch, spacing, strides), choose_filters(4, 12, len(strides))
    network = build_network(DynUNet(filters=filters, strides=strides, kernels=kernels), dimensions, 1, 2).eval()
    counts: list[int] = []
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda module, given, result: counts.append(result.numel()))
    network(torch.zeros(1, 1, *patch))
    assert values_held(patch, filters, strides) == sum(counts) - 2 * math.prod(patch)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 300), min_size=2, max_size=3),
    depth=st.floats(0.1, 20),
    room=st.integers(10**4, 10**8),
)
def test_any_image_gets_a_patch_that_its_network_takes(sizes: list[int], depth: float, room: int) -> None:
    image = tuple(sizes)
    spacing = (*(depth,) * (len(image) - 2), 1.0, 1.0)

    def held(patch: tuple[int, ...]) -> int:
        strides = choose_strides(patch, spacing)
        return values_held(patch, choose_filters(32, 320, len(strides)), strides)

    patch = largest_patch(image, spacing, lambda size: divisor(size, spacing), lambda p: held(p) <= room)
    strides = choose_strides(patch, spacing, exact=True)
    assert strides == choose_strides(patch, spacing)  # a plan of the planned recipe is the same
    product = Topology(strides, ()).divisor
    assert all(p % d == 0 for p, d in zip(patch, product, strict=True))
    assert all(p // d >= SMALLEST_EDGE or d == 1 for p, d in zip(patch, product, strict=True))
    least = (*(1,) * (len(image) - 2), SMALLEST_PLANE, SMALLEST_PLANE)
    assert all(p <= max(n, m) for p, n, m in zip(patch, image, least, strict=True))
    assert held(patch) <= room or set(patch[-2:]) == {SMALLEST_PLANE}


def test_a_larger_budget_never_takes_a_smaller_patch() -> None:
    def patch(room: int) -> tuple[int, ...]:
        return largest_patch((500, 700), (1, 1), lambda size: divisor(size, (1, 1)), lambda p: math.prod(p) <= room)

    found = [patch(room) for room in range(300, 300_000, 5_000)]
    assert found == sorted(found)
    assert found[0] == (16, 16)
    assert patch(10**9) == (448, 640)  # the whole image, to a multiple of 64


def test_sides_of_a_patch_are_equal_in_micrometres_as_far_as_the_image_reaches() -> None:
    def patch(image: tuple[int, ...]) -> tuple[int, ...]:
        return largest_patch(image, (4, 1, 1), lambda _: (1, 1, 1), lambda p: math.prod(p) <= 64**3 // 4)

    assert patch((100, 500, 500)) == (16, 64, 64)
    assert patch((8, 500, 500))[0] == 8
    assert patch((8, 500, 500))[1] > 64


@pytest.mark.parametrize(
    ("held", "pixels", "expected"),
    [(10, 10**9, 10), (10, 100 * 16 / DATA_PART * 5, 5), (10, 100, 2), (90, 10**9, 2)],
)
def test_a_batch_fits_the_budget_and_is_a_small_part_of_the_data(held: int, pixels: float, expected: int) -> None:
    patch = (40, 40)
    assert choose_batch(patch, held, 100, round(pixels)) == expected
