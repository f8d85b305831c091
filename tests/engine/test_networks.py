"""Networks: shapes, divisors, receptive fields, folding, tracing, norms, anisotropy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from im2im_core.engine.networks import Network, build_network
from im2im_core.engine.networks.branched import Branched
from im2im_core.engine.networks.monai_nets import flat_levels
from im2im_core.engine.networks.receptive_field import UNBOUNDED, radius
from im2im_core.engine.networks.stem import Folded, fold, unfold
from im2im_core.engine.planning.unet import choose_kernels, choose_strides
from im2im_core.engine.targets import import_target
from im2im_core.errors import ConfigError
from im2im_core.recipe.network import AttentionUnet, BasicUNet, ClassNetwork, DynUNet, UNet

SMALL = {
    "basic_unet": BasicUNet(features=(4, 4, 8, 8, 16, 4)),
    "unet": UNet(channels=(4, 8, 12)),
    "unet_plain": UNet(channels=(4, 8, 12), residual_units=0),
    "dynunet": DynUNet(filters=(4, 8, 12)),
    "dynunet_residual": DynUNet(filters=(4, 8, 12), residual=True),
    "attention_unet": AttentionUnet(channels=(4, 8, 12)),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("stem", [1, 2])
def test_output_stands_on_the_grid_of_the_input(name: str, dimensions: int, stem: int) -> None:
    network = build_network(SMALL[name].replace(stem=stem), dimensions, 2, 3)
    x = torch.rand(2, 2, *network.divisor)
    assert network(x).shape == (2, 3, *network.divisor)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_only_the_norm_asked_for_is_used(name: str, norm: str) -> None:
    network = build_network(SMALL[name].replace(norm=norm), 2, 1, 2)
    kinds = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "group": nn.GroupNorm}
    found = {type(m) for m in network.modules() if isinstance(m, tuple(kinds.values()))}
    assert found == {kinds[norm]}
    assert network(torch.rand(2, 1, *[4 * d for d in network.divisor])).isfinite().all()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_tile_with_halo_equals_the_whole_image(name: str, dimensions: int) -> None:
    """The radius is enough: what lies outside of it changes nothing."""
    if name == "basic_unet" and dimensions == 3:
        pytest.skip("the volume would be large; the same code as in 2D")
    network = build_network(SMALL[name], dimensions, 1, 1).eval()
    step, halo = network.divisor[-1], network.receptive_field[-1]
    padded = -(-halo // step) * step
    whole = torch.rand(1, 1, *network.divisor[:-1], 2 * padded + 3 * step)
    other = whole.clone()
    other[..., : padded + step - halo] = 5.0
    other[..., padded + 2 * step + halo :] = -5.0
    with torch.no_grad():
        core = slice(padded + step, padded + 2 * step)
        torch.testing.assert_close(network(whole)[..., core], network(other)[..., core])


@pytest.mark.parametrize(
    ("patch", "spacing"), [((128, 128), (1.0, 1.0)), ((96, 40), (1.0, 1.0)), ((4, 32, 32), (5.0, 1.0, 1.0))]
)
def test_tile_of_a_planned_network_equals_the_whole_image(patch: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    strides = choose_strides(patch, spacing)
    kernels = choose_kernels(patch, spacing, strides)
    settings = DynUNet(filters=(2,) * len(strides), strides=strides, kernels=kernels)
    network = build_network(settings, len(patch), 1, 1).eval()
    step, halo = network.divisor[-1], network.receptive_field[-1]
    assert halo > step
    padded = -(-halo // step) * step
    whole = torch.rand(1, 1, *network.divisor[:-1], 2 * padded + step)
    other = whole.clone()
    other[..., : padded - halo] = 5.0
    other[..., padded + step + halo :] = -5.0
    with torch.no_grad():
        core = slice(padded, padded + step)
        torch.testing.assert_close(network(whole)[..., core], network(other)[..., core])


@pytest.mark.parametrize("name", ["basic_unet", "unet", "dynunet", "attention_unet"])
def test_radius_is_reached(name: str) -> None:
    """The radius is not larger than needed: some pixel of a block is changed by the pixel just inside it."""
    network = build_network(SMALL[name], 2, 1, 1).eval().double()
    halo, step = network.receptive_field[1], network.divisor[1]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
        whole = torch.rand(1, 1, network.divisor[0], 2 * (-(-halo // step) + 2) * step, dtype=torch.float64)
        reached = False
        for phase in range(step):
            at = whole.shape[-1] // 2 + phase
            other = whole.clone()
            other[..., at] += 1e6
            changed = (network(other) - network(whole)).abs().sum((0, 1, 2)).nonzero()
            reached |= halo in (int(changed.max()) - at, at - int(changed.min()))
    assert reached


def test_radius_of_a_stack_of_convolutions_has_a_closed_form() -> None:
    body = nn.Sequential(
        nn.Conv2d(2, 4, (3, 5), padding=(1, 2)),
        nn.ReLU(),
        nn.InstanceNorm2d(4),
        nn.Conv2d(4, 1, 3, padding=2, dilation=2),
    )
    before = {key: value.clone() for key, value in body.state_dict().items()}
    assert radius(body, 2, 2, (1, 1)) == (1 + 2, 2 + 2)
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())


def test_radius_of_pooling_counts_the_worst_pixel_of_a_block() -> None:
    body = nn.Sequential(nn.MaxPool2d(4), nn.Conv2d(1, 1, 3, padding=1), nn.Upsample(scale_factor=4))
    assert radius(body, 2, 1, (4, 4)) == (7, 7)


def test_radius_of_a_network_that_sees_everything_is_bounded() -> None:
    class Global(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x.mean((2, 3), keepdim=True)

    assert radius(Global(), 2, 1, (8, 8)) == (UNBOUNDED, UNBOUNDED)


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (2, 3, 5, 8, 12)])
def test_unfold_inverts_fold(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    folded = fold(x, 2)
    assert folded.shape == (2, 12, *shape[2:-2], 4, 6)
    torch.testing.assert_close(folded[:, 1], x[:, 0, ..., ::2, 1::2], rtol=0, atol=0)
    torch.testing.assert_close(unfold(folded, 2), x, rtol=0, atol=0)


def test_folded_network_sees_blocks_as_channels() -> None:
    inner = nn.Conv2d(4, 4, 1, bias=False)
    nn.init.eye_(inner.weight.data[:, :, 0, 0])
    x = torch.rand(1, 1, 6, 8)
    torch.testing.assert_close(Folded(inner, 2)(x), x)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", ["basic_unet", "unet", "dynunet"])
def test_traces_to_torchscript(name: str, dimensions: int) -> None:
    network = build_network(SMALL[name].replace(stem=2), dimensions, 1, 2).eval()
    x = torch.rand(1, 1, *network.divisor)
    traced = torch.jit.trace(network, x)
    larger = torch.rand(2, 1, *[2 * d for d in network.divisor])
    torch.testing.assert_close(traced(larger), network(larger))


def test_channels_last_gives_the_same() -> None:
    network = build_network(SMALL["basic_unet"].replace(stem=2), 2, 1, 2).eval()
    x = torch.rand(2, 1, 32, 64)
    expected = network(x)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x.contiguous(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "flat"),
    [
        (1.0, [False] * 4),
        (1.4, [False] * 4),
        (2.0, [True, False, False, False]),
        (2.9, [True, False, False, False]),
        (4.0, [True, True, False, False]),
        (50.0, [True] * 4),
    ],
)
def test_levels_leave_z_alone_until_the_spacing_is_within_a_factor_of_two(ratio: float, flat: list[bool]) -> None:
    assert flat_levels("auto", 4, 3, (ratio, 1.0, 1.0)) == flat
    spacing = ratio / 2 ** sum(flat)
    assert 0.5 < spacing < 2 or all(flat)
    assert flat_levels("auto", 4, 2, (ratio, 1.0, 1.0)) == [False] * 4


def test_unknown_spacing_is_taken_as_isotropic() -> None:
    assert flat_levels("auto", 3, 3, (None, 0.1, 0.1)) == flat_levels("auto", 3, 3, None) == [False] * 3


@pytest.mark.parametrize("name", ["unet", "unet_plain"])
def test_flat_levels_keep_z(name: str) -> None:
    network = build_network(SMALL[name].replace(anisotropy=(True, True)), 3, 1, 1)
    assert network.divisor == (1, 4, 4)
    all_flat = build_network(SMALL[name].replace(anisotropy=(True, True, True)), 3, 1, 1)
    assert all_flat.divisor == (1, 4, 4)


def test_kernels_and_strides_are_those_of_the_settings() -> None:
    steps = {"strides": ((1, 1, 1), (1, 2, 2), (2, 2, 1)), "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3))}
    network = build_network(SMALL["dynunet"].replace(**steps), 3, 1, 1, (9.0, 1.0, 1.0))
    assert network.divisor == (2, 4, 2)
    flat = build_network(SMALL["dynunet"].replace(**steps | {"kernels": ((1, 3, 3),) * 3}), 3, 1, 1)
    downwards = [m.kernel_size for m in flat.modules() if isinstance(m, nn.Conv3d)]
    assert set(downwards) == {(1, 3, 3), (1, 1, 1)}


def test_a_network_that_was_not_planned_cannot_be_built() -> None:
    with pytest.raises(ConfigError, match=r"network\.filters is still auto\. Make a plan"):
        build_network(DynUNet(), 2, 1, 1)


def test_the_stem_counts_in_the_spacing() -> None:
    settings = SMALL["dynunet"]
    assert build_network(settings, 3, 1, 1, (2.0, 1.0, 1.0)).divisor == (2, 4, 4)
    assert build_network(settings.replace(stem=2), 3, 1, 1, (2.0, 1.0, 1.0)).divisor == (4, 8, 8)


def test_too_many_levels_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 4 levels, the network 3"):
        build_network(SMALL["unet"].replace(anisotropy=(True,) * 4), 3, 1, 1)
    with pytest.raises(ConfigError, match="at least three"):
        build_network(DynUNet(filters=(4, 8)), 3, 1, 1)


@pytest.mark.parametrize("class_path", ["monai.networks.nets.SegResNet", "monai.networks.nets.BasicUNet"])
def test_network_by_class_path(class_path: str) -> None:
    pytest.importorskip("im2im_core.trust")
    network = build_network(ClassNetwork(class_path=class_path, divisor=16), 2, 2, 3)
    assert isinstance(network, Network)
    assert network(torch.rand(2, 2, 32, 32)).shape == (2, 3, 32, 32)


def test_network_by_class_path_checks_arguments() -> None:
    pytest.importorskip("im2im_core.trust")
    settings = ClassNetwork(class_path="monai.networks.nets.BasicUNet", init_args={"feature": (4,) * 6})
    with pytest.raises(ConfigError, match="Did you mean 'features'"):
        build_network(settings, 2, 1, 1)


def test_same_seed_same_weights() -> None:
    first, second = [], []
    for weights in (first, second):
        torch.manual_seed(3)
        weights += list(build_network(SMALL["basic_unet"], 2, 1, 1).state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_targets_are_named_exactly() -> None:
    assert import_target("im2im_core.engine.networks:build_network") is build_network
    with pytest.raises(ConfigError, match="Did you mean 'build_network'"):
        import_target("im2im_core.engine.networks:buildnetwork")
    with pytest.raises(ConfigError, match=r"no module 'im2im_core\.nothing'"):
        import_target("im2im_core.nothing:at_all")


# ---- several ways up ----


@pytest.mark.parametrize("name", ["basic_unet", "dynunet", "dynunet_residual"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_network_branched_into_itself_gives_its_output_twice(name: str, dimensions: int) -> None:
    network = build_network(SMALL[name], dimensions, 1, 3).eval()
    branched = Branched([network.body, network.body])
    x = torch.rand(1, 1, *(2 * d for d in network.divisor))
    torch.testing.assert_close(branched(x), torch.cat([network(x)] * 2, 1), rtol=0, atol=0)


@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize("name", ["basic_unet", "dynunet"])
def test_branches_share_the_way_down_alone(name: str, stem: int) -> None:
    settings = SMALL[name].replace(stem=stem)
    network = build_network(settings, 2, 1, (3, 1))
    body = network.body.network if isinstance(network.body, Folded) else network.body
    y = network(torch.rand(2, 1, *network.divisor))
    assert network.out_channels == y.shape[1] == 4
    y[:, 3:].sum().backward()
    learned = {name for name, value in network.named_parameters() if value.grad is not None and value.grad.any()}
    others = {id(p) for way in (body.up[0], body.last[0]) for p in way.parameters()}
    assert all((id(p) not in others) == (name in learned) for name, p in network.named_parameters())
    single = sum(p.numel() for p in build_network(settings, 2, 1, 4).parameters())
    assert single < sum(p.numel() for p in network.parameters()) < 2 * single


def test_a_branched_network_tells_how_far_it_sees_and_can_be_traced() -> None:
    plain, branched = (build_network(SMALL["dynunet"].replace(stem=2), 2, 1, out).eval() for out in (4, (3, 1)))
    assert (branched.receptive_field, branched.divisor) == (plain.receptive_field, plain.divisor)
    x = torch.rand(1, 1, *branched.divisor)
    larger = torch.rand(2, 1, *[2 * d for d in branched.divisor])
    torch.testing.assert_close(torch.jit.trace(branched, x)(larger), branched(larger))


def test_networks_whose_levels_are_not_known_cannot_be_branched() -> None:
    said = r"branched is true, .*AttentionUnet are not known\. Choose network basic_unet or dynunet, or set"
    with pytest.raises(ConfigError, match=said):
        build_network(SMALL["attention_unet"], 2, 1, (3, 1))
