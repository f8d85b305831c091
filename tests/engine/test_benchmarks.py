"""What measures and what is made of it: commands that fit their scripts, results that are kept, pages of a part."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Module of a script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "rivals"))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Folder of images with nothing but their names."""
    folder = tmp_path / "data" / "dsb2018_fluo"
    for part in ("IM", "GT"):
        (folder / "train" / part).mkdir(parents=True)
        for name in ("a.tif", "b.tif", "c.tif"):
            (folder / "train" / part / name).touch()
    (folder / "holdout.txt").write_text("b.tif\n")
    return tmp_path / "data"


@pytest.fixture
def places(load: Callable[[str], ModuleType], images: Path, tmp_path: Path) -> Any:
    pythons = {"own": sys.executable}
    return load("all").Places(images, tmp_path / "work", tmp_path / "work" / "results", pythons, True)


class Parsed(Exception):
    """The arguments were understood."""


# ---- the commands ---------------------------------------------------------------


def test_every_command_is_understood_by_its_script(
    load: Callable[[str], ModuleType], places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, *args: Any) -> Any:
        raise Parsed(parse(self, *args))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    seen = set()
    for step in load("all").every_step(places):
        scripts = [word for word in step.words if str(word).endswith(".py")]
        script, words = scripts[-1], step.words[step.words.index(scripts[-1]) + 1 :]
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
        with pytest.raises(Parsed):
            load(script.stem).main()
        seen.add(script.stem)
    scripts = {p.stem for p in BENCHMARKS.rglob("*.py")}
    # Helpers of others; and the time of metrics, which nothing is compared with.
    assert scripts - seen == {"all", "split", "metrics"}


def test_trying_it_leaves_the_measured_figures_alone(load: Callable[[str], ModuleType], places: Any) -> None:
    steps = load("all").every_step(places)
    assert len({s.name for s in steps}) == len(steps)
    for step in steps:
        if "--results" in step.words:
            last = len(step.words) - 1 - step.words[::-1].index("--results")
            assert step.words[last + 1].is_relative_to(places.work), step.name
        assert step.folder is None or step.folder.is_relative_to(places.work)


def test_a_result_is_found_under_the_name_that_its_run_gives_it(
    load: Callable[[str], ModuleType], places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality, every = load("quality"), load("all")
    step = every.nuclei(places, "flows_2d", known=5)
    monkeypatch.setattr(sys, "argv", [str(w) for w in step.words])
    monkeypatch.setattr(quality, "command", lambda *words: [sys.executable, "-c", ""])
    monkeypatch.setattr(quality, "write_table", lambda *args: None)
    monkeypatch.setattr(quality, "training_facts", lambda *args: {"precision": "fp32"})
    monkeypatch.setattr(quality, "score_labels", lambda *args: {})
    assert not step.done()
    quality.main()
    assert step.done()


# ---- measuring ------------------------------------------------------------------


@pytest.fixture
def three(
    load: Callable[[str], ModuleType], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Measures `first`, `second` and `foreign`, which write files of their names; the words are given to the first."""
    every = load("all")
    script = tmp_path / "measure.py"
    script.write_text("import sys, pathlib\nprint('said')\npathlib.Path(sys.argv[1]).write_text(sys.argv[2])\n")
    first = ["1"]

    def steps(p: Any) -> list[Any]:
        def step(name: str, words: list[str], python: str = "own") -> Any:
            words = [str(script), str(tmp_path / name), *words]
            return every.Step(name, tuple(words), 1.0, (tmp_path / name).exists, python)

        return [step("first", first), step("second", ["2"]), step("foreign", ["3"], "cellpose")]

    def measure(*words: str) -> int:
        first[:] = words
        monkeypatch.setattr(sys, "argv", ["all.py", "--data", str(images), "--work", str(tmp_path / "work")])
        code: int = every.main()
        return code

    monkeypatch.setattr(every, "every_step", steps)
    return measure


def test_one_that_fails_stops_no_other_and_only_it_is_measured_again(
    three: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert three() == 1
    assert (tmp_path / "second").read_text() == "2"
    said = capsys.readouterr().out.splitlines()
    assert ["FAILED with 1" in said[0], "measured in" in said[1], "--cellpose is not given" in said[2]] == [True] * 3
    assert "IndexError" in (tmp_path / "work/logs/first.log").read_text()
    (tmp_path / "second").write_text("kept")
    assert three("1") == 0
    assert (tmp_path / "first").read_text() == "1"
    assert (tmp_path / "second").read_text() == "kept"
    assert "said" in (tmp_path / "work/logs/first.log").read_text()


# ---- the pages ------------------------------------------------------------------


def test_a_new_picture_of_a_framework_takes_the_place_of_the_old_one(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS.parent / "tools"))
    figures = load("make_framework_figures")
    assert set(figures.SHOWN) == set(figures.OUTPUTS) == set(figures.PRESETS)
    for name in figures.SHOWN:
        page = tmp_path / f"{name}.md"
        shutil.copy(figures.DOCS / "frameworks" / page.name, page)
        figures.show(name, 2, page)
        once = page.read_text()
        assert f"](../images/framework_{name}.png)\n" in once
        figures.show(name, 3, page)
        assert page.read_text() == once.replace("; 2 minutes", "; 3 minutes")


@pytest.fixture
def page(load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """Page made of the results in a folder."""
    report = load("report")

    def write(results: Path) -> str:
        words = ["report.py", "--results", str(results), "--page", str(tmp_path / "page.md")]
        monkeypatch.setattr(sys, "argv", words)
        report.main()
        return (tmp_path / "page.md").read_text()

    return write


def test_each_result_alone_makes_a_page(page: Callable[[Path], str], tmp_path: Path) -> None:
    empty = page(tmp_path / "nothing")
    assert empty.startswith("# Benchmarks")
    assert "##" not in empty
    files = sorted((BENCHMARKS / "results").rglob("*.json"))
    files = [path for path in files if "_known" not in path.stem]  # few labels are compared with all of them
    assert len(files) > 10
    for number, path in enumerate(files):
        folder = tmp_path / str(number)
        target = folder / path.relative_to(BENCHMARKS / "results")
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
        assert "## " in page(folder), path


MACHINE = {"processor": "p", "cores": 2, "python": "3"}
AP = {"0.5": 0.5, "0.6": 0.4, "0.7": 0.3, "0.75": 0.25, "0.8": 0.2, "0.9": 0.1}
TRAINED = {"seed": 0, "minutes": 10, "threads": 2, "steps": 5, "seconds_to_checkpoint": 590, "machine": MACHINE}
OURS = {**TRAINED, "method": "flows_2d", "recipe_hash": "h", "command": "c", "ap": AP, "settings": {}}


@pytest.mark.parametrize(
    ("files", "line"),
    [
        (
            {"quality/a": OURS, "quality/b": {**OURS, "percent_known": 5, "ap": {**AP, "0.5": 0.45}}},
            "| flows_2d | 0 | 5 % | 0.450 | 0.500 | 0.900 |",
        ),
        (
            {
                "quality/a": {**OURS, "method": "instance_seg_2d"},
                "quality/b": {**TRAINED, "method": "cellpose 3", "ap": AP, "cpu_seconds": 1062, "seed": 0},
            },
            "* cellpose 3: AP50 0.500 (mean of 1), about 5 steps, 90% of the two threads",
        ),
        (
            {"volumes/a": {**TRAINED, "method": "embedseg_3d", "ap": AP, "command": "c"}},
            "| embedseg_3d | 10 | 0.500 | 0.400 | 0.300 | 0.250 | 0.200 | 0.100 |",
        ),
        (
            {
                "quality/a": {**OURS, "minutes": 3, "validation": {"ap50": 0.5, "ap75": 0.25}},
                "volumes_choice": {
                    "validation": {"distance": {"0.5": 0.5, "0.75": 0.25}},
                    "volumes": ["a.tif"],
                    "steps": 300,
                    "seed": 0,
                    "command": "c",
                },
            },
            "| `framework.maps = distance` | 0.500 | 0.250 | 0.375 |",
        ),
        (
            {"membranes/a": {"method": "m", "adapted_rand_error": 0.125, "machine": MACHINE, "command": "c"}},
            "| m |  | 0.1250 |",
        ),
        (
            {
                "decoding": {
                    "a": {
                        "method": "a",
                        "maps": "exact",
                        "objects": 2000,
                        "seconds": 2.0,
                        "objects_per_second": 1000,
                        "rounds": 5,
                        "threads": 2,
                        "command": "c",
                    }
                }
            },
            "| a | exact | 2000 | 2.0 | 1000 | 5 | 2 |",
        ),
    ],
)
def test_results_that_are_still_to_come_have_their_place(
    page: Callable[[Path], str], tmp_path: Path, files: dict[str, Any], line: str
) -> None:
    for name, facts in files.items():
        path = tmp_path / "results" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts))
    assert line in page(tmp_path / "results").splitlines()


def test_a_result_of_another_precision_is_kept(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    result = tmp_path / "a_2d_0_1_seed0.json"
    load("quality").set_aside(result, "bf16")  # nothing is there yet
    result.write_text(json.dumps({"steps": 1}))
    load("quality").set_aside(result, "fp32")
    assert result.exists()
    load("quality").set_aside(result, "bf16")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a_2d_0_1_fp32_seed0.json": '{"steps": 1}'}
