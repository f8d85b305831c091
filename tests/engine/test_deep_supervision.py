"""Losses at every scale of a network: targets that shrink rightly, heads that learn and are never asked to predict."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_world import Training, same_state, small_recipe, split_of

from im2im_core import api
from im2im_core.engine import session
from im2im_core.engine.frameworks.build import build_framework
from im2im_core.engine.frameworks.contract import Framework, TrainContext, TranslateContext
from im2im_core.engine.losses.scales import over_scales, sum_scales
from im2im_core.engine.losses.shrink import shrink_classes, shrink_image
from im2im_core.engine.networks import Network, build_network
from im2im_core.engine.networks.deep_heads import DeepHeads
from im2im_core.errors import ConfigError
from im2im_core.inference import Shapes
from im2im_core.methods import methods_paragraph
from im2im_core.recipe.framework import FcnSettings
from im2im_core.recipe.losses import L1, CrossEntropy
from im2im_core.recipe.network import AttentionUnet, BasicUNet, ClassNetwork, DynUNet, UNet

NETWORKS = {
    "dynunet": DynUNet(filters=(4, 8, 8, 12)),
    "basic_unet": BasicUNet(features=(4, 4, 8, 8, 8, 4)),
    "unet": UNet(channels=(4, 8, 8, 12)),
    "unet_plain": UNet(channels=(4, 8, 8, 12), residual_units=0),
}
FLAT = {
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
    "kernels": ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)),
}


# ---- targets -------------------------------------------------------------------


def test_classes_shrink_by_vote_of_what_is_known() -> None:
    target = torch.tensor([[1, 1, 2, 0], [0, 2, 2, 0], [9, 9, 0, 1], [9, 9, 1, 0]])[None, None]
    weight = torch.tensor([[1, 1, 1, 1], [1, 3, 0, 0.5], [0, 0, 1, 1], [0, 0, 1, 1.0]])[None, None]
    small, by = shrink_classes(target, weight, (2, 2), 3)
    # The weight of 3 outvotes two pixels; an unknown pixel has no vote; a block of nothing known is unknown; a tie.
    assert small[0, 0].tolist() == [[2, 0], [0, 0]]
    assert by[0, 0].tolist() == [[1.5, 0.625], [0, 1]]


def test_images_shrink_to_the_mean_of_what_is_known() -> None:
    values = torch.tensor(
        [[1.0, 2, 5, torch.nan], [3, 4, torch.inf, 7], [torch.nan] * 2 + [1, 1], [torch.nan] * 2 + [1, 1]]
    )
    weight = torch.tensor([[1, 1, 1, 0], [1, 3, 0, 3], [0, 0, 1, 1], [0, 0, 1, 1.0]])
    small, by = shrink_image(values[None, None], weight[None, None], (2, 2))
    expected = [[(1 + 2 + 3 + 3 * 4) / 6, (5 + 3 * 7) / 4], [0, 1]]
    np.testing.assert_allclose(small[0, 0], expected, rtol=1e-6)
    assert by[0, 0].tolist() == [[1.5, 1], [0, 1]]


@pytest.mark.parametrize("classes", [None, 3])
def test_every_scale_gets_a_target_of_its_grid(classes: int | None) -> None:
    predictions = [torch.zeros(1, 2, 4, 16, 16), torch.zeros(1, 2, 4, 8, 8), torch.zeros(1, 2, 2, 4, 4)]
    target = torch.ones(1, 1, 4, 16, 16)
    levels = over_scales(predictions, target.long() if classes else target, torch.ones(1, 1, 4, 16, 16), classes)
    assert [t.shape[2:] for _, t, _ in levels] == [p.shape[2:] for p in predictions]
    assert all((t == 1).all() and (w == 1).all() for _, t, w in levels)


def test_each_scale_counts_half_of_the_finer_one() -> None:
    values = [torch.tensor(v) for v in (1.0, 2.0, 5.0)]
    assert sum_scales(values).item() == pytest.approx((4 * 1 + 2 * 2 + 1 * 5) / 7)
    assert sum_scales(values[:1]).item() == 1.0


# ---- heads ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NETWORKS, "dynunet_flat"])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("stem", [1, 2])
def test_heads_predict_on_coarser_grids(name: str, dimensions: int, stem: int) -> None:
    torch.manual_seed(0)
    settings = NETWORKS[name.removesuffix("_flat")]
    if name.endswith("_flat"):
        settings = settings.replace(**{k: [level[-dimensions:] for level in v] for k, v in FLAT.items()})
    network = build_network(settings.replace(stem=stem), dimensions, 1, 3, deep=2)
    x = torch.randn(2, 1, *(2 * d for d in network.divisor))
    scales = network.scales(x)
    assert [y.shape[:2] for y in scales] == [(2, 3)] * 3
    assert scales[0].shape[2:] == x.shape[2:]
    for fine, coarse in itertools.pairwise(scales):
        ratios = [n // m for n, m in zip(fine.shape[2:], coarse.shape[2:], strict=True)]
        assert ratios[-2:] == [2, 2]
        assert set(ratios) <= {1, 2}
    sum(y.square().mean() for y in scales[1:]).backward()  # type: ignore[union-attr]
    assert all((p.grad != 0).any() for p in network.heads.parameters())


def test_heads_leave_the_network_alone() -> None:
    plain, deep = (_seeded(d) for d in (0, 2))
    own = {k: v for k, v in deep.state_dict().items() if not k.startswith("heads.")}
    assert own.keys() == plain.state_dict().keys()
    assert all(torch.equal(own[k], v) for k, v in plain.state_dict().items())
    x = torch.randn(1, 1, 16, 16)
    plain.eval(), deep.eval()
    assert torch.equal(plain(x), deep(x))
    assert plain.receptive_field == deep.receptive_field
    assert len(plain.scales(x)) == 1
    other = copy.deepcopy(deep)
    nn.init.zeros_(other.heads.layers[0].weight)
    assert not torch.equal(other.scales(x)[1], deep.scales(x)[1])
    assert all(not m._forward_hooks for m in deep.modules())


def _seeded(deep: int) -> Network:
    torch.manual_seed(3)
    return build_network(NETWORKS["dynunet"], 2, 1, 2, deep=deep)


def test_statistics_are_not_touched_by_the_probe() -> None:
    deep = _seeded(1)
    counted = [int(b) for n, b in deep.named_buffers() if n.endswith("num_batches_tracked")]
    assert counted
    assert set(counted) == {0}
    assert deep.training
    assert deep.body.training


@pytest.mark.parametrize(
    ("settings", "deep", "text"),
    [
        (NETWORKS["dynunet"], 3, "Use at most 2"),
        (BasicUNet(), 4, "Use at most 3"),
        (AttentionUnet(channels=(4, 8, 8)), 1, "Choose network dynunet"),
        (ClassNetwork(class_path="monai.networks.nets.SegResNet"), 1, "Choose network dynunet"),
    ],
)
def test_networks_without_such_levels_are_refused(settings: Any, deep: int, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build_network(settings, 2, 1, 1, deep=deep)


# ---- the framework ---------------------------------------------------------------


def fcn(deep: int, output: str = "segmentation", losses: tuple[Any, ...] = (), dimensions: int = 2) -> Framework:
    torch.manual_seed(0)
    settings = FcnSettings(output=output, losses=losses, deep_supervision=deep)  # type: ignore[arg-type]
    shapes = Shapes(dimensions=dimensions, input_channels=1, classes=3)
    return build_framework(settings, NETWORKS["dynunet"], shapes)


def batch_of(dimensions: int = 2, classes: int = 3) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    shape = (2, 1, *((16,) * dimensions))
    weight = (torch.rand(shape, generator=g) > 0.3).float()
    return {
        "source": torch.rand(shape, generator=g),
        "target": torch.randint(0, classes, shape, generator=g).byte(),
        "weight": weight,
    }


def terms_of(framework: Framework, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return framework.losses(batch, "network", TrainContext(0, torch.Generator()))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_losses_run_over_the_scales_while_learning_only(dimensions: int) -> None:
    framework, batch = fcn(2, losses=(CrossEntropy(),), dimensions=dimensions), batch_of(dimensions)
    network: Any = framework.network
    loss = framework.terms[0].loss  # type: ignore[union-attr,index]
    with torch.no_grad():
        full, half, quarter = network.scales(batch["source"])
        values = [loss(full, batch["target"], batch["weight"])]
        for k, coarse in ((2, half), (4, quarter)):
            values.append(loss(coarse, *shrink_classes(batch["target"], batch["weight"], (k,) * dimensions, 3)))
        expected = (4 * values[0] + 2 * values[1] + values[2]) / 7
        torch.testing.assert_close(terms_of(framework, batch)["cross_entropy"], expected)
        framework.eval()
        own = loss(network(batch["source"]), batch["target"], batch["weight"])
        torch.testing.assert_close(terms_of(framework, batch)["cross_entropy"], own)


@pytest.mark.parametrize("output", ["segmentation", "image"])
def test_deep_losses_never_see_the_unknown(output: str) -> None:
    batch = batch_of()
    if output == "image":
        batch["target"] = batch["target"].float()
    garbage = torch.nan if output == "image" else 255
    painted = {**batch, "target": batch["target"].masked_fill(batch["weight"] == 0, garbage)}
    found = []
    for given in (batch, painted):
        framework = fcn(2, output)
        terms = terms_of(framework, given)
        sum(terms.values()).backward()  # type: ignore[union-attr]
        found.append([*terms.values(), *(p.grad for p in framework.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(t.isfinite().all() for t in found[0])


def test_every_head_learns_and_none_predicts() -> None:
    framework, batch = fcn(2), batch_of()
    sum(terms_of(framework, batch).values()).backward()  # type: ignore[union-attr]
    (heads,) = (m for m in framework.modules() if isinstance(m, DeepHeads))
    assert all((p.grad != 0).any() for p in heads.parameters())
    (player,) = framework.players()
    assert {id(p) for p in player.parameters} == {id(p) for p in framework.parameters()}
    framework.eval()
    before = framework.translate(batch["source"], TranslateContext())
    nn.init.constant_(heads.layers[0].weight, torch.nan)
    after = framework.translate(batch["source"], TranslateContext())
    assert before.keys() == after.keys() == {"probability"}
    assert torch.equal(before["probability"], after["probability"])
    assert after["probability"].shape == (2, 3, 16, 16)


def test_one_class_everywhere_makes_every_scale_right() -> None:
    framework = fcn(1, "image", (L1(),))
    for p in framework.parameters():
        nn.init.zeros_(p)
    batch = batch_of()
    batch["target"] = torch.full((2, 1, 16, 16), 0.25)
    assert terms_of(framework, batch)["l1"].item() == pytest.approx(0.25)


def deep_recipe(**changes: Any) -> Any:
    network = {"network.kind": "dynunet", "network.filters": [4, 8, 8]}
    return small_recipe("semantic_seg_2d", framework__deep_supervision=1).override({**network, **changes})


def test_a_training_with_deep_supervision_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session._Session, "_export", lambda *_: None)
    whole, parts = (Training(tmp_path / n, deep_recipe(), split_of(task="classes")) for n in ("whole", "parts"))
    assert whole.run().state == "finished"
    assert parts.pause_after(2).step == 2
    assert parts.run().state == "finished"
    assert same_state(whole.checkpoint, parts.checkpoint)
    assert any(".heads." in k for k in whole.checkpoint.weights)


def test_a_model_learned_with_deep_supervision_is_packed_and_predicts(tmp_path: Path) -> None:
    assert "at 1 coarser level (deep supervision" in methods_paragraph(deep_recipe())
    training = Training(tmp_path / "run", deep_recipe(), split_of(task="classes"))
    assert training.run().state == "finished"
    image = np.random.default_rng(0).normal(100, 10, (40, 52)).astype(np.float32)
    assert np.asarray(api.predict(training.folder / "model", image)).shape == image.shape
