"""Milliseconds that each group of metrics takes on one core: python benchmarks/metrics.py."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import skimage.metrics

from im2im_core.metrics import METRICS, Scene, contingency, parts_of, select, while_training

if TYPE_CHECKING:
    from collections.abc import Callable

REPEATS = 5


def squares(side: int, objects: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth ``(Y, X)`` with about as many square objects in rows."""
    number = round(objects**0.5)
    step = side // number
    truth = np.kron(
        np.arange(1, number**2 + 1, dtype=np.uint32).reshape(number, number), np.ones((step, step), np.uint32)
    )
    truth[::step] = truth[:, ::step] = 0
    return np.roll(truth, 2, axis=0), truth


def milliseconds(work: Callable[[], Any]) -> float:
    """Shortest of several runs."""
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return 1000 * min(times)


def report(title: str, scene: Scene, kind: Any) -> list[str]:
    """Lines of a Markdown table: each group alone, what a training measures, and all together."""
    groups = dict.fromkeys(m.group for m in METRICS.values() if m.kind == kind and m.measurable)
    lines = [f"### {title}", "", "| group | ms | metrics |", "|---|---|---|"]
    for group in groups:
        names = ", ".join(m.name for m in METRICS.values() if m.group == group)
        took = milliseconds(lambda group=group: parts_of(scene, kind, groups={group}))
        lines.append(f"| {group} | {took:.1f} | {names} |")
    chosen = select(while_training(kind), kind)
    lines.append(
        f"| while training | {milliseconds(lambda: chosen.measure(scene)):.1f} | {', '.join(chosen.figures)} |"
    )
    lines.append(f"| all together | {milliseconds(lambda: parts_of(scene, kind)):.1f} | |")
    return lines


def main() -> list[str]:
    """Tables of all kinds."""
    rng = np.random.default_rng(0)
    small, large = squares(512, 200), squares(2048, 2000)
    image = rng.random((2, 512, 512), np.float32)
    lines = [
        *report("Objects, 512 x 512, 196 objects", Scene(*small), "labels"),
        "",
        *report("Objects, 2048 x 2048, 2025 objects", Scene(*large), "labels"),
        f"| (overlaps of objects alone) | {milliseconds(lambda: contingency(*large)):.1f} | |",
        f"| (scikit-image: variation_of_information) | "
        f"{milliseconds(lambda: skimage.metrics.variation_of_information(*large)):.1f} | |",
        f"| (scikit-image: adapted_rand_error) | "
        f"{milliseconds(lambda: skimage.metrics.adapted_rand_error(*large)):.1f} | |",
        "",
        *report("Classes, 512 x 512", Scene(small[0] % 4, small[1] % 4), "classes"),
        "",
        *report("Images, 512 x 512", Scene(image[0], image[1]), "image"),
    ]
    return lines


if __name__ == "__main__":
    print("\n".join(main()))
