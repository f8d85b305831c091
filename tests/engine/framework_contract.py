"""The contract suite: what every learning framework must hold, whoever wrote it.

Derive a test class from `FrameworkContract` and give it a fixture ``case`` that returns a `Case`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from im2im_core.engine.frameworks.build import build_framework, geometry
from im2im_core.engine.frameworks.contract import Framework, OutputSpec, TrainContext, TranslateContext
from im2im_core.engine.networks import Network
from im2im_core.inference import Shapes
from im2im_core.recipe.network import DynUNet

SAMPLES = 8
NETWORK = DynUNet(filters=(8, 16, 16))


@dataclass(frozen=True)
class Case:
    """One framework in one world.

    Parameters
    ----------
    world : callable
        ``world(rng) -> (source, target)``, both ``(C, Z, Y, X)``.
    watch : str
        Loss term that must fall to `factor` of its start within `steps` when eight patches are overfitted;
        where empty, the sum of all terms must fall.
    """

    name: str
    settings: Any
    shapes: Shapes
    world: Callable[[np.random.Generator], tuple[NDArray[Any], NDArray[Any]]]
    watch: str
    factor: float = 0.4
    steps: int = 30

    def build(self, seed: int = 0) -> Framework:
        torch.manual_seed(seed)
        return build_framework(self.settings, NETWORK, self.shapes)

    def batch(self, framework: Framework, unknown: bool = True) -> dict[str, Tensor]:
        """Eight encoded samples; a part of each is unknown, which cuts one of two objects that stand side by side."""
        rng = np.random.default_rng(0)
        rows: list[dict[str, NDArray[Any]]] = []
        for _ in range(SAMPLES):
            source, target = self.world(rng)
            weight = np.ones((1, *source.shape[1:]), np.float32)
            if unknown:
                weight[..., : weight.shape[-2] // 2, : 3 * weight.shape[-1] // 8] = 0
            rows.append({"source": source, "weight": weight, **framework.encode({"target": target}, weight)})
        planes = self.shapes.dimensions == 2
        return {key: torch.from_numpy(np.stack([r[key][:, 0] if planes else r[key] for r in rows])) for key in rows[0]}


def turn(framework: Framework, batch: dict[str, Tensor], player: str, step: int = 0) -> dict[str, Tensor]:
    """Losses of one player's turn, with gradients in its parameters alone."""
    others = [p for other in framework.players() if other.name != player for p in other.parameters]
    for parameter in others:
        parameter.requires_grad_(False)
    framework.zero_grad(set_to_none=True)
    terms = framework.losses(batch, player, TrainContext(step, torch.Generator().manual_seed(step)))
    weights = framework.loss_weights()
    sum((weights[name] * value for name, value in terms.items()), torch.zeros(())).backward()
    for parameter in others:
        parameter.requires_grad_(True)
    return terms


def drive(framework: Framework, batch: dict[str, Tensor], steps: int) -> list[dict[str, float]]:
    """Train on one batch; loss terms of every step."""
    optimizers = {p.name: torch.optim.Adam(p.parameters, 5e-3) for p in framework.players()}
    history = []
    for step in range(steps):
        row: dict[str, float] = {}
        for player in framework.players():
            if step % player.every == 0:
                row |= {name: value.item() for name, value in turn(framework, batch, player.name, step).items()}
                optimizers[player.name].step()
        history.append(row)
    return history


def gradients(framework: Framework) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in framework.named_parameters() if p.grad is not None}


def expected_shape(spec: OutputSpec, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Shape without batch of an output on a network grid [Z], Y, X."""
    letters = "ZYX"[-len(grid) :]
    scaled = {a: int(n * spec.scale["ZYX".index(a)]) for a, n in zip(letters, grid, strict=True)}
    return (spec.channels, *(scaled[a] for a in letters if a in spec.axes))


class FrameworkContract:
    """Tests over a fixture ``case``."""

    @pytest.fixture
    def framework(self, case: Case) -> Framework:
        return case.build()

    @pytest.fixture
    def batch(self, case: Case, framework: Framework) -> dict[str, Tensor]:
        return case.batch(framework)

    def test_encodes_what_it_declares(self, case: Case, framework: Framework) -> None:
        source, target = case.world(np.random.default_rng(0))
        encoded = framework.encode({"target": target}, None)
        assert {spec.name for spec in framework.targets} == set(encoded) - {"weight"}
        for spec in framework.targets:
            assert encoded[spec.name].shape == (spec.channels, *source.shape[1:])
            assert encoded[spec.name].dtype == spec.dtype

    def test_losses_are_finite_scalars_with_known_names(self, framework: Framework, batch: dict[str, Tensor]) -> None:
        names: set[str] = set()
        for player in framework.players():
            terms = framework.losses(batch, player.name, TrainContext(0, torch.Generator().manual_seed(0)))
            assert all(value.ndim == 0 and value.isfinite() for value in terms.values())
            assert not names & set(terms)
            names |= set(terms)
        assert names == set(framework.loss_weights())

    def test_every_parameter_has_one_player(self, framework: Framework) -> None:
        owned = [id(p) for player in framework.players() for p in player.parameters]
        assert len(owned) == len(set(owned))
        assert set(owned) == {id(p) for p in framework.parameters()}

    def test_gradients_reach_the_player_and_nobody_else(self, framework: Framework, batch: dict[str, Tensor]) -> None:
        for player in framework.players():
            turn(framework, batch, player.name)
            own = {id(p) for p in player.parameters}
            for name, parameter in framework.named_parameters():
                if id(parameter) in own:
                    assert parameter.grad is not None, f"{player.name} does not reach {name}"
                    assert parameter.grad.isfinite().all()
                    if parameter.ndim > 1:
                        assert (parameter.grad != 0).any(), f"{player.name} does not move {name}"
                else:
                    assert parameter.grad is None, f"{player.name} reaches {name}"

    def test_what_is_unknown_leaves_no_trace(self, case: Case, framework: Framework, batch: dict[str, Tensor]) -> None:
        painted = dict(batch)
        for spec in framework.targets:
            target = batch[spec.name]
            garbage = torch.nan if target.is_floating_point() else torch.iinfo(target.dtype).max
            painted[spec.name] = torch.where(batch["weight"] == 0, torch.full_like(target, garbage), target)
            assert not torch.equal(painted[spec.name], target)
        for player in framework.players():
            results = []
            for given in (batch, painted):
                fresh = case.build()
                terms = turn(fresh, given, player.name)
                results.append({**terms, **gradients(fresh)})
            first, second = results
            assert first.keys() == second.keys()
            assert all(torch.equal(first[key], second[key]) for key in first)

    def test_a_sample_without_any_weight_is_harmless(self, framework: Framework, batch: dict[str, Tensor]) -> None:
        batch = {**batch, "weight": torch.zeros_like(batch["weight"])}
        for player in framework.players():
            terms = turn(framework, batch, player.name)
            assert all(value.isfinite() for value in terms.values())
            assert all(g.isfinite().all() for g in gradients(framework).values())

    def test_steps_are_a_function_of_the_seed(self, case: Case) -> None:
        histories = []
        for _ in range(2):
            framework = case.build()
            histories.append(drive(framework, case.batch(framework), 3))
        assert histories[0] == histories[1]

    def test_overfits_a_few_patches(self, case: Case, framework: Framework) -> None:
        history = drive(framework, case.batch(framework, unknown=False), case.steps)
        curve = [row[case.watch] if case.watch else sum(row.values()) for row in history]
        assert np.mean(curve[-5:]) < case.factor * np.mean(curve[:3]), curve[:: case.steps // 10]

    def test_translate_makes_what_it_declares(self, case: Case, framework: Framework, batch: dict[str, Tensor]) -> None:
        framework.eval()
        grid = tuple(batch["source"].shape[2:])
        with torch.no_grad():
            maps = framework.translate(batch["source"], TranslateContext())
            again = framework.translate(batch["source"], TranslateContext())
        assert set(maps) == {spec.name for spec in framework.outputs}
        for spec in framework.outputs:
            made = maps[spec.name]
            assert made.shape == (SAMPLES, *expected_shape(spec, grid))
            assert made.isfinite().all()
            assert torch.equal(made, again[spec.name])
            if spec.kind == "probability":
                assert 0 <= made.min() <= made.max() <= 1

    def test_a_tile_does_not_depend_on_its_neighbours_in_the_batch(
        self, framework: Framework, batch: dict[str, Tensor]
    ) -> None:
        framework.eval()
        with torch.no_grad():
            one = framework.translate(batch["source"][:1], TranslateContext())
            all_ = framework.translate(batch["source"], TranslateContext())
        for name, made in one.items():
            if type(framework).__name__ != "ToyDiffusion":  # its noise is drawn for the whole batch
                torch.testing.assert_close(made, all_[name][:1], rtol=1e-4, atol=1e-5)

    def test_results_are_what_it_declares(self, framework: Framework, batch: dict[str, Tensor]) -> None:
        framework.eval()
        with torch.no_grad():
            maps = {k: v[0].numpy() for k, v in framework.translate(batch["source"], TranslateContext()).items()}
        results = framework.postprocess(maps, TranslateContext())
        grid = tuple(batch["source"].shape[2:])
        assert {spec.name for spec in framework.results} == set(results)
        for spec in framework.results:
            assert results[spec.name].shape == expected_shape(spec, grid)
            if spec.kind == "labels":
                assert results[spec.name].dtype.kind == "u"

    def test_metrics_are_numbers_and_know_the_truth(self, case: Case, framework: Framework) -> None:
        framework.eval()
        source, target = case.world(np.random.default_rng(3))
        truth = target[:, 0] if case.shapes.dimensions == 2 else target
        x = torch.from_numpy(source[:, 0] if case.shapes.dimensions == 2 else source)[None]
        with torch.no_grad():
            maps = {k: v[0].numpy() for k, v in framework.translate(x, TranslateContext()).items()}
        figures = framework.metrics(framework.postprocess(maps, TranslateContext()), {"target": truth}, None)
        assert all(isinstance(value, float) and np.isfinite(value) for value in figures.values())
        assert framework.monitor in {"loss", *figures}

    def test_save_and_load_predict_the_same(self, case: Case, framework: Framework, batch: dict[str, Tensor]) -> None:
        drive(framework, batch, 2)
        file = io.BytesIO()
        torch.save(framework.state_dict(), file)
        file.seek(0)
        other = case.build(seed=1)
        other.load_state_dict(torch.load(file, weights_only=True))
        with torch.no_grad():
            first, second = (f.eval().translate(batch["source"], TranslateContext()) for f in (framework, other))
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_state_round_trip_goes_on_alike(self, case: Case, framework: Framework, batch: dict[str, Tensor]) -> None:
        drive(framework, batch, 3)
        file = io.BytesIO()
        torch.save(framework.state(), file)
        file.seek(0)
        other = case.build(seed=1)
        other.load_state_dict(framework.state_dict())
        other.load_state(torch.load(file, weights_only=True))
        assert drive(framework, batch, 2) == drive(other, batch, 2)

    def test_geometry_covers_its_networks(self, case: Case, framework: Framework) -> None:
        divisor, halo = geometry(framework)
        assert len(divisor) == len(halo) == case.shapes.dimensions
        for network in (m for m in framework.modules() if isinstance(m, Network)):
            assert all(d % n == 0 for d, n in zip(divisor, network.divisor, strict=True))
            assert all(h >= r for h, r in zip(halo, network.receptive_field, strict=True))

    def test_its_modules_are_on_the_cpu_until_moved(self, framework: Framework) -> None:
        tensors = [*framework.parameters(), *framework.buffers()]
        assert {t.device.type for t in tensors} == {"cpu"}
