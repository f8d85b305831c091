"""``im2im check``: one line per problem with its cure, an exit code, the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from im2im_core.cli import main
from im2im_core.recipe.data import DataSettings
from im2im_core.review.data import check_data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images with float targets: a is sound, b has holes, c is constant."""
    good = np.arange(64, dtype=np.float32).reshape(8, 8)
    holes = good.copy()
    holes[0, :3] = np.nan
    for name, image in (("a", good), ("b", holes), ("c", np.full((8, 8), 7, np.float32))):
        for role, pixels in (("IM", image), ("GT", 2 * good)):
            (tmp_path / role).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / role / f"{name}.tif", pixels)
    return tmp_path


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    content: dict[str, Any] = json.loads(line)
    return content


def test_fault_11_12_14_check_names_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder), "--json"]) == 3
    found = result(capsys)
    assert [s["name"] for s in found["samples"]] == ["a", "b", "c"]
    assert [(p["sample"], p["code"], p["severity"]) for p in found["problems"]] == [
        ("b", "nan_inf", "error"),
        ("c", "constant", "warning"),
        ("", "voxel_size_missing", "warning"),
    ]
    (folder / "GT" / "a.tif").unlink()
    assert main(["check", str(folder)]) == 3
    assert "error: a.tif has no target. Add the missing files" in capsys.readouterr().out


def test_warnings_alone_are_no_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder), "--data.invalid_pixels", "fill"]) == 0
    assert "warning: b: image has 3 NaN" in capsys.readouterr().out
    assert main(["check", str(folder), "--headers-only"]) == 0
    assert "no problems found" in capsys.readouterr().out


def test_the_task_decides_what_is_a_problem(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[:4, :4] = 1
    for name in "abc":
        tifffile.imwrite(folder / "GT" / f"{name}.tif", labels)
    for words in (["--task", "instance_segmentation"], ["--task=instance_segmentation"]):
        main(["check", str(folder), *words, "--json"])
        assert "few_objects" in {p["code"] for p in result(capsys)["problems"]}
    main(["check", str(folder), "--json"])
    assert "few_objects" not in {p["code"] for p in result(capsys)["problems"]}
    assert main(["check", str(folder), "--task", "instanse"]) == 2
    assert "instance_segmentation" in capsys.readouterr().err


def test_copies_in_training_and_validation_are_found(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 99, (32, 32)).astype(np.uint16)
    rows = ["IM,GT,group,part"]
    for name, part in (("a", "train"), ("b", "validation")):
        for role in ("IM", "GT"):
            tifffile.imwrite(tmp_path / f"{name}_{role}.tif", pixels)
        rows.append(f"{name}_IM.tif,{name}_GT.tif,{name},{part}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    found = check_data(DataSettings(path=str(tmp_path / "t.csv")))
    assert {"duplicate", "overlap_train_validation"} <= {p.code for p in found.problems}
