"""Writes the examples of docs/planning.md: what the rules make of typical images."""

from __future__ import annotations

from math import prod
from pathlib import Path

from im2im_core import api
from im2im_core.engine.planning.network import batch_within_budget, resolve_network
from im2im_core.plans import Facts
from im2im_core.recipe.network import DynUNet

PAGE = Path(__file__).parents[1] / "docs" / "planning.md"
START, END = "<!-- examples -->\n", "<!-- end -->"
EXAMPLES: tuple[
    tuple[str, str, tuple[int, int, int], tuple[float | None, float, float], int, dict[str, float]], ...
] = (
    ("cells", "labelfree_2d", (1, 1024, 1024), (None, 0.3, 0.3), 20, {}),
    ("the same, for a GPU", "labelfree_2d", (1, 1024, 1024), (None, 0.3, 0.3), 20, {"network.budget": 1000}),
    ("tiny images", "semantic_seg_2d", (1, 40, 40), (None, 0.3, 0.3), 500, {}),
    ("a stack with cubic voxels", "restoration_3d", (100, 400, 400), (0.3, 0.3, 0.3), 10, {}),
    ("a stack with deep voxels", "labelfree_3d", (20, 512, 512), (2.0, 0.3, 0.3), 10, {}),
    ("the same, for a GPU", "labelfree_3d", (20, 512, 512), (2.0, 0.3, 0.3), 10, {"network.budget": 1000}),
    ("stacks of one plane", "semantic_seg_3d", (1, 256, 256), (None, 0.3, 0.3), 30, {}),
)
"""Name, preset, median size, voxel size, number of images, changed settings."""


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def render(page: str) -> str:
    """Text of the page with the examples as the rules make them now."""
    head, _, rest = page.partition(START)
    columns = ("images", "preset", "median size", "voxel size, µm", "budget", "patch", "batch", "strides", "channels")
    lines = [_row(*columns), "|---" * len(columns) + "|", *(_example(*example) for example in EXAMPLES)]
    return "\n".join([head + START, *lines, "", END + rest.partition(END)[2]])


def _example(
    name: str,
    preset: str,
    shape: tuple[int, int, int],
    voxel: tuple[float | None, float, float],
    count: int,
    changes: dict[str, float],
) -> str:
    before = api.load_preset(preset).override(changes)
    dims = before.data.dimensions
    facts = Facts(count, 0, 0, "", shape, count * prod(shape), 1, 1, voxel_size=voxel)
    after = resolve_network(before, facts, {})
    network = after.network
    assert isinstance(network, DynUNet)
    assert network.strides != "auto"
    known = " × ".join("?" if v is None else f"{v:g}" for v in voxel[-dims:])
    return _row(
        f"{count}, {name}",
        preset,
        _sides(shape[-dims:]),
        known,
        f"{network.budget:g}",
        _sides(after.patch_size),
        str(batch_within_budget(after, facts)[0]),
        ", ".join("·".join(map(str, level)) for level in network.strides),
        ", ".join(map(str, network.filters)),
    )


def _sides(sizes: tuple[int, ...]) -> str:
    return " × ".join(map(str, sizes))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
