"""The command line: results, JSON, exit codes; the engine is replaced by toys."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from im2im_core import api
from im2im_core.cli import COMMANDS, main
from im2im_core.commands.settings import annotated_yaml, split_settings
from im2im_core.errors import ConfigError, DataError, Im2ImError, ResourceError, Stopped, TrustError
from im2im_core.events import Failed, Losses, Progress, Validated
from im2im_core.plans import Facts, Plan, Runtime
from im2im_core.progress import describe, duration, reporter
from im2im_core.recipe import Recipe
from im2im_core.recipe.fields import walk
from im2im_core.recipe.start import TrainedModel

PRESET = "instance_seg_2d"


@dataclass
class ToyRun:
    """A run that is in one state for ever."""

    state: str = "finished"
    name: str = "toy"
    folder: Path = Path("runs/toy")
    model: Path = Path("runs/toy/model")


@dataclass
class ToyApi:
    """What the command line asked for."""

    recipes: list[Recipe] = field(default_factory=list)
    plans: list[Plan | None] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    models: list[tuple[Path, Any]] = field(default_factory=list)
    failure: Exception | None = None
    run: ToyRun = field(default_factory=ToyRun)
    signal: int | None = None

    def train(self, recipe: Recipe, **options: Any) -> ToyRun:
        self.recipes.append(recipe)
        self.plans.append(options["plan"])
        options["on_event"](Losses(1, 0.1, {"total": float("nan")}, 1e-3))
        if self.failure:
            raise self.failure
        if self.signal:
            os.kill(os.getpid(), self.signal)
            assert options["should_stop"]()
        return self.run

    def predict(self, model: Path, image: Any, *, to: Path, **options: Any) -> None:
        self.models.append((model, options["outputs"]))
        self.images.append(Path(image.info.name))
        if self.failure:
            raise self.failure
        if "bad" in image.info.name:
            raise DataError(f"{image.info.name} is truncated: 3 of 9 pages", "Copy it again")
        if self.signal:
            os.kill(os.getpid(), self.signal)
            assert options["should_stop"]()
        to.write_bytes(b"result")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ToyApi:
    found = ToyApi()
    monkeypatch.setattr(api, "train", found.train)
    monkeypatch.setattr(api, "predict", found.predict)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bioimageio.yaml").write_text("type: model")
    return found


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Folder with a.tif, bad.tif and c.png."""
    import tifffile
    from PIL import Image

    folder = tmp_path / "пробел ü 画像 #1"
    folder.mkdir()
    for name in ("a.tif", "bad.tif"):
        tifffile.imwrite(folder / name, np.arange(64, dtype=np.uint8).reshape(8, 8))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "c.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


def lines_of(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# ---- top level -----------------------------------------------------------------


def test_help_needs_neither_numpy_nor_pydantic_and_is_fast() -> None:
    program = (
        "import sys, io, contextlib\nfrom im2im_core.cli import main\nout = io.StringIO()\n"
        "with contextlib.redirect_stdout(out):\n    code = main(['--help'])\n"
        "assert code == 0 and 'predict' in out.getvalue()\n"
        "print(*{'numpy', 'pydantic', 'torch', 'yaml', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.timing
def test_help_answers_within_half_a_second() -> None:
    """Best of three: the machine may be busy."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "im2im_core.cli", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) <= 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_mistyped_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "Did you mean 'train'" in capsys.readouterr().err


def test_no_command_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "im2im COMMAND" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("im2im 0.")


# ---- recipes -------------------------------------------------------------------


def test_presets_as_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    assert PRESET in capsys.readouterr().out
    assert main(["presets", "--json"]) == 0
    (content,) = lines_of(capsys.readouterr().out)
    assert {"name", "task", "summary"} == set(content["presets"][0])


@pytest.mark.parametrize("preset", [p.name for p in api.list_presets()])
def test_show_prints_the_full_recipe_with_its_descriptions(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", preset]) == 0
    text = capsys.readouterr().out
    assert Recipe.load(yaml.safe_load(text)) == api.load_preset(preset)
    assert "# Patches per step and device." in text


def test_help_of_a_preset_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", PRESET, "--help"]) == 0
    text = capsys.readouterr().out
    names = [f.name for f in walk(api.load_preset(PRESET)) if f.name not in ("name", "schema_version")]
    assert len(names) > 60
    missing = [name for name in names if f"--{name}  " not in text]
    assert missing == []
    assert "--training.accumulate  whole number >= 1  [1]" in text
    assert "--framework.kind  fcn | instance | flows | embedseg | stardist" in text
    assert "degrees; 0 = off" in text


def test_settings_and_options_are_told_apart() -> None:
    words = ["--data.patch", "[64, 64]", "preset", "--training.minutes=3", "--name", "x", "--json"]
    assert split_settings(words) == (
        ["preset", "--name", "x", "--json"],
        ["--data.patch", "[64, 64]", "--training.minutes=3"],
    )


def test_annotated_yaml_of_every_choice_can_be_read_again() -> None:
    recipe = Recipe().override({"training.optimizer.kind": "sgd", "data.rescale.kind": "object_size"})
    assert Recipe.load(yaml.safe_load(annotated_yaml(recipe))) == recipe


# ---- train ---------------------------------------------------------------------


def test_train_applies_settings_with_their_types(toy: ToyApi, tmp_path: Path, images: Path) -> None:
    words = [
        "--data.path",
        str(images),
        "--data.patch",
        "[64, 96]",
        "--training.minutes",
        "0.5",
        "--training.optimizer.lr",
        "1e-4",
        "--data.rescale.kind",
        "none",
        "--logging.tensorboard",
        "true",
    ]
    assert main(["train", PRESET, *words, "--project", str(tmp_path / "project")]) == 0
    (recipe,) = toy.recipes
    assert recipe.data.path == str(images)
    assert recipe.data.patch == (64, 96)
    assert recipe.training.minutes == 0.5
    assert recipe.training.optimizer.lr == 1e-4
    assert recipe.data.rescale.kind == "none"
    assert recipe.logging.tensorboard is True


def test_data_inside_the_project_is_named_relative_to_it(toy: ToyApi, tmp_path: Path) -> None:
    (tmp_path / "project" / "images").mkdir(parents=True)
    assert main(["train", PRESET, "--data.path", "project/images", "--project", "project"]) == 0
    assert toy.recipes[0].data.path == "images"


def test_settings_beside_a_plan_change_the_plan(toy: ToyApi, tmp_path: Path) -> None:
    recipe = api.load_preset(PRESET).override({"training.batch": 2, "training.steps": 200})
    facts = Facts(3, 1, 0, "by group", (1, 64, 64), 12288, 1, 1)
    Plan(recipe, {}, facts, Runtime("cuda", 8, 3), 200, 1.0).to_file(tmp_path / "plan.yaml")
    words = ["train", "--plan", str(tmp_path / "plan.yaml")]
    assert main(words) == 0
    changes = {"training.minutes": "3", "training.device": "cpu", "training.threads": "2", "training.workers": "0"}
    assert main([*words, *(word for name, value in changes.items() for word in (f"--{name}", value))]) == 0
    same, changed = toy.plans
    assert same is not None
    assert changed is not None
    assert (same.steps, same.runtime) == (200, Runtime("cuda", 8, 3))
    assert (changed.steps, changed.recipe.training.minutes) == (None, 3)
    assert changed.runtime == Runtime("cpu", 2, 0)
    assert changed.recipe == toy.recipes[1]


def test_a_file_that_is_no_plan_exits_2(toy: ToyApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Recipe().to_file(tmp_path / "recipe.yaml")
    assert main(["train", "--plan", str(tmp_path / "recipe.yaml")]) == 2
    assert "recipe.yaml is not a plan" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mine.YAML", "mine", "mine.recipe"])
def test_a_recipe_file_of_any_ending_is_read(toy: ToyApi, tmp_path: Path, name: str) -> None:
    recipe = api.load_preset(PRESET).override({"training.steps": 7})
    recipe.to_file(tmp_path / name)
    assert main(["train", name]) == 0
    assert toy.recipes == [recipe]
    assert api.load_recipe(tmp_path / name) == recipe


@pytest.mark.parametrize("text", ["2024", "#1", "a: b", "yes"])
def test_text_settings_stay_as_typed(toy: ToyApi, text: str) -> None:
    assert main(["train", PRESET, "--training.start.kind", "model", "--training.start.model", text]) == 0
    assert toy.recipes[0].training.taught_on == text


def test_finetune_takes_from_the_model_what_was_not_given(toy: ToyApi, tmp_path: Path, images: Path) -> None:
    changes = {"network.features": [8, 8, 8, 16, 16, 8], "data.normalization.kind": "minmax", "data.patch": [64, 64]}
    model = tmp_path / "runs" / "20260101-120000_nuclei"
    model.mkdir(parents=True)
    known = api.load_preset(PRESET).override(changes)
    known.to_file(model / "recipe.yaml")
    words = ["--training.start.freeze", "['*conv_0*']", "--data.normalization.kind", "zscore", "--network.dropout=0.2"]
    assert main(["finetune", str(model), str(images), *words, "--project", str(tmp_path)]) == 0
    (recipe,) = toy.recipes
    assert recipe.training.start == TrainedModel(model="runs/20260101-120000_nuclei", freeze=("*conv_0*",))
    assert recipe.network == known.network.replace(dropout=0.2)
    assert (recipe.task, recipe.data.patch, recipe.data.normalization.kind) == (known.task, (64, 64), "zscore")
    assert (recipe.data.path, recipe.name, recipe.training.minutes) == (images.name, "nuclei-taught", 5.0)
    assert main(["finetune", str(model), str(images), "--preset", "labelfree_2d", "--training.steps", "3"]) == 0
    assert (toy.recipes[1].task, toy.recipes[1].network) == ("label_free", known.network)
    assert (toy.recipes[1].training.steps, toy.recipes[1].training.minutes) == (3, None)


def test_a_fine_tuning_as_a_command_is_the_same_recipe(toy: ToyApi) -> None:
    from im2im_core.share import as_command

    start = TrainedModel(model="runs/a b", sha256="0" * 64, freeze=("re:.*",), rates={"*x*": 0.5}, decay=0.9)
    recipe = api.load_preset(PRESET).override({"training.start": start.dump()})
    assert main(shlex.split(as_command(recipe, PRESET))[1:]) == 0
    assert toy.recipes == [recipe]


def test_finetune_says_what_is_missing(toy: ToyApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "no-such-model", "."]) == 2
    assert "no model package and no run 'no-such-model'" in capsys.readouterr().err
    (tmp_path / "w.safetensors").touch()
    assert main(["finetune", "w.safetensors"]) == 2
    assert "the images are missing" in capsys.readouterr().err
    assert main(["finetune", "w.safetensors", "."]) == 2
    assert "does not say what it is for. Name the preset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--training.minuts", "3"], "Did you mean 'minutes'"),
        (["--trainin.minutes", "3"], "Did you mean 'training'"),
        (["--training.minutes"], "has no value"),
        (["--training.minutes", "-3"], "greater than 0"),
        (["--training.minutes", "[1"], "not valid YAML"),
        (["--tile", "3"], "unrecognized arguments"),
        (["--plan", "no-such-file.yaml"], "no-such-file.yaml"),
    ],
)
def test_wrong_settings_exit_2_with_one_line(
    toy: ToyApi, words: list[str], text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", PRESET, *words, "--project", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_unknown_preset_exits_2_and_names_the_nearest(toy: ToyApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "instance_seg_2"]) == 2
    assert f"Did you mean '{PRESET}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ConfigError("setting", "mend"), 2),
        (DataError("image", "mend"), 3),
        (ResourceError("disk", "mend"), 4),
        (TrustError("pickle", "mend"), 5),
        (MemoryError(), 4),
        (OSError(28, "No space left on device"), 4),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 4),
        (Stopped("stopped"), 130),
        (KeyboardInterrupt(), 130),
        (Im2ImError("other"), 1),
        (ZeroDivisionError("surprise"), 1),
    ],
)
def test_exit_codes(toy: ToyApi, failure: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    toy.failure = failure
    assert main(["train", PRESET]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_unexpected_error_keeps_its_traceback_in_a_file(toy: ToyApi, capsys: pytest.CaptureFixture[str]) -> None:
    toy.failure = ZeroDivisionError("surprise")
    main(["train", PRESET])
    path = Path(capsys.readouterr().err.split()[-1])
    assert "in train" in path.read_text()
    path.unlink()


def test_json_of_a_training_is_events_then_the_result(toy: ToyApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", PRESET, "--json"]) == 0
    event, result = lines_of(capsys.readouterr().out)
    assert event["event"] == "Losses"
    assert event["values"] == {"total": "nan"}
    assert result["state"] == "finished"


def test_json_of_an_error_is_an_object_too(toy: ToyApi, capsys: pytest.CaptureFixture[str]) -> None:
    toy.failure = DataError("image 7 is truncated", "Copy it again")
    assert main(["train", PRESET, "--json"]) == 3
    error = lines_of(capsys.readouterr().out)[-1]
    assert error == {"error": "DataError", "message": "image 7 is truncated", "cure": "Copy it again", "exit_code": 3}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_fault_40_41_signal_saves_and_says_how_to_go_on(
    toy: ToyApi, number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.signal, toy.run = number, ToyRun(state="stopped")
    before = signal.getsignal(number)
    assert main(["train", PRESET]) == code
    assert "im2im resume toy" in capsys.readouterr().out
    assert signal.getsignal(number) is before


def test_fault_32_recipe_with_an_untrusted_class_exits_5(
    toy: ToyApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("network:\n  kind: class\n  class_path: antigravity.Network\n")
    assert main(["train", str(path)]) == 5
    assert "antigravity" not in sys.modules
    assert "--trust antigravity" in capsys.readouterr().err
    assert toy.recipes == []
    assert main(["train", str(path), "--trust", "antigravity"]) == 0
    assert main(["train", PRESET, "--network.kind", "class", "--network.class_path", "this.Network"]) == 5
    assert "this" not in sys.modules


# ---- predict -------------------------------------------------------------------


def test_fault_44_one_bad_image_does_not_stop_the_others(
    toy: ToyApi, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["predict", "model", str(images), "-o", str(out)]) == 3
    assert sorted(p.name for p in out.iterdir()) == ["a.tif", "c.tif"]
    text = capsys.readouterr().out
    assert "2 predicted" in text
    assert "bad.tif is truncated" in text


def test_fault_44_a_model_that_is_none_is_told_once(
    toy: ToyApi, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model" / "bioimageio.yaml").unlink()
    assert main(["predict", "model", str(images), "-o", str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err.count("holds no model package") == 1
    assert toy.images == []


@pytest.mark.parametrize("cause", ["permission", "folder"])
def test_fault_44_an_image_that_may_not_be_read_does_not_stop_the_others(
    toy: ToyApi, images: Path, tmp_path: Path, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "bad.tif").unlink()
    (images / "a.tif").rename(images / "z.tif")
    if cause == "folder":
        (images / "b.tif").mkdir()
    else:
        (images / "b.tif").write_bytes((images / "z.tif").read_bytes())
        (images / "b.tif").chmod(0)
        if os.access(images / "b.tif", os.R_OK):
            pytest.skip("this user may read everything")
    out = tmp_path / "out"
    assert main(["predict", "model", str(images / "b.tif"), str(images / "z.tif"), "-o", str(out)]) == 3
    assert [p.name for p in out.iterdir()] == ["z.tif"]
    assert "b.tif" in capsys.readouterr().out


def test_fault_06_a_disk_that_cannot_be_written_to_stops_all(toy: ToyApi, images: Path, tmp_path: Path) -> None:
    toy.failure = ResourceError("disk full", "Free some space")
    assert main(["predict", "model", str(images), "-o", str(tmp_path / "out")]) == 4
    assert len(toy.images) == 1


def test_predict_takes_the_name_of_a_run_and_names_of_outputs(
    toy: ToyApi, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from im2im_core.project import Project
    from im2im_core.runs import Run

    run = Run.create(Project.create(tmp_path / "project"), Recipe(), "first")
    words = [str(images / "a.tif"), "-o", str(tmp_path / "a.tif")]
    assert main(["predict", "first", *words]) == 3
    assert "no model yet" in capsys.readouterr().err
    (run.model / "rdf.yaml").write_text("type: model")
    assert main(["predict", "first", *words, "--outputs", "labels, foreground"]) == 0
    assert [(m.resolve(), names) for m, names in toy.models] == [(run.model.resolve(), ("labels", "foreground"))]
    assert main(["predict", "frist", *words, "--overwrite"]) == 2
    assert "no model package and no run 'frist'" in capsys.readouterr().err


def test_fault_08_outputs_that_exist_are_refused(
    toy: ToyApi, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.tif"
    out.write_bytes(b"precious")
    source = str(images / "a.tif")
    assert main(["predict", "model", source, "-o", str(out)]) == 2
    assert out.read_bytes() == b"precious"
    assert toy.images == []
    assert "--overwrite" in capsys.readouterr().err
    assert main(["predict", "model", source, "-o", str(out), "--overwrite"]) == 0
    assert out.read_bytes() == b"result"


def test_fault_45_resume_makes_only_what_is_missing(toy: ToyApi, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.tif").write_bytes(b"complete")
    words = ["predict", "model", str(images / "a.tif"), str(images / "c.png"), "-o", str(out)]
    assert main(words) == 2
    assert main([*words, "--resume"]) == 0
    assert [p.name for p in toy.images] == ["c.png"]
    assert (out / "a.tif").read_bytes() == b"complete"


def test_fault_40_45_interrupted_prediction_keeps_what_is_done(
    toy: ToyApi, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.signal = signal.SIGINT
    out = tmp_path / "out"
    assert main(["predict", "model", str(images), "-o", str(out), "--json"]) == 130
    result = lines_of(capsys.readouterr().out)[-1]
    assert [Path(item["output"]).name for item in result["done"]] == ["a.tif"]
    assert result["stopped"] == "SIGINT"


def test_one_image_goes_to_a_file_or_into_a_folder(toy: ToyApi, images: Path, tmp_path: Path) -> None:
    source = str(images / "a.tif")
    assert main(["predict", "model", source, "-o", str(tmp_path / "labels.tif")]) == 0
    assert (tmp_path / "labels.tif").exists()
    (tmp_path / "folder").mkdir()
    assert main(["predict", "model", source, "-o", str(tmp_path / "folder")]) == 0
    assert (tmp_path / "folder" / "a.tif").exists()


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([""], ["-o", "out.tif"]),
        ([""], ["-o", "HERE"]),
        (["a.tif"], ["-o", "HERE/a.tif"]),
        (["a.tif"], ["-o", "HERE/../HERE_NAME/a.tif"]),
        (["a.tif", "bad.tif"], ["-o", "HERE"]),
    ],
)
def test_fault_46_images_are_never_replaced(toy: ToyApi, images: Path, sources: list[str], words: list[str]) -> None:
    before = {p: p.read_bytes() for p in images.iterdir()}
    words = [word.replace("HERE_NAME", images.name).replace("HERE", str(images)) for word in words]
    assert main(["predict", "model", *(str(images / s) for s in sources), *words, "--overwrite"]) == 2
    assert {p: p.read_bytes() for p in images.iterdir()} == before


def test_further_outputs_do_not_meet_those_of_other_images(
    toy: ToyApi, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "a_foreground.tif").write_bytes((images / "a.tif").read_bytes())
    words = ["predict", "model", str(images / "a.tif"), str(images / "a_foreground.tif"), "-o", str(tmp_path / "out")]
    assert main([*words, "--outputs", "labels,foreground"]) == 3
    assert "would both be written to" in capsys.readouterr().err
    assert main([*words, "--outputs", "labels"]) == 0


def test_predict_options_are_checked(toy: ToyApi, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(images / "a.tif")
    assert main(["predict", "model", source, "-o", "x.tif", "--tile", "0"]) == 2
    assert main(["predict", "model", source, "-o", "x.tif", "--tile", "[64, 64]", "--precision", "32"]) == 0


# ---- the others ----------------------------------------------------------------


def test_evaluate_scores_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tifffile

    for folder in ("prediction", "truth"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", np.kron(np.eye(2, dtype=np.uint16), np.ones((9, 9), np.uint16)))
    words = ["evaluate", str(tmp_path / "prediction"), str(tmp_path / "truth"), "--kind", "classes", "--json"]
    assert main(words) == 0
    result = lines_of(capsys.readouterr().out)[-1]
    assert result["mean"]["dice@1"] == 1.0


def test_evaluate_writes_all_figures_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tifffile

    labels = np.kron(np.arange(4, dtype=np.uint16).reshape(2, 2), np.ones((9, 9), np.uint16))
    tifffile.imwrite(tmp_path / "a.tif", labels)
    image, table = str(tmp_path / "a.tif"), tmp_path / "figures.csv"
    assert main(["evaluate", image, image, "--kind", "labels", "--csv", str(table)]) == 0
    assert "recall@0.9" in table.read_text().splitlines()[0]
    assert "recall@0.9" not in capsys.readouterr().out
    assert main(["evaluate", image, image, "--csv", str(tmp_path / "a.tif" / "none.csv")]) == 4


def test_evaluate_of_images_alone_tells_their_resolution(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", np.random.default_rng(0).random((24, 24)).astype(np.float32))
    assert main(["evaluate", str(tmp_path / "a.tif"), "--json"]) == 0
    assert list(lines_of(capsys.readouterr().out)[-1]["mean"]) == ["single_image_resolution"]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "rdf.yaml").write_text("type: model")
    assert main(["evaluate", str(tmp_path / "model")]) == 2
    assert "no data set is named" in capsys.readouterr().err


def test_evaluate_of_a_model_goes_to_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Report:
        def to_dict(self) -> dict[str, Any]:
            return {"mean": {"dice": 0.5}}

    monkeypatch.setattr(api, "evaluate_model", lambda model, data, **_: Report())
    (tmp_path / "rdf.yaml").write_text("type: model")
    monkeypatch.setattr(Report, "table", lambda self: "dice 0.5", raising=False)
    assert main(["evaluate", str(tmp_path), "data"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "dice 0.5"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_fault_41_an_evaluation_that_is_asked_to_end_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, code: int
) -> None:
    def evaluate(model: Any, data: Any, *, should_stop: Any, **_: Any) -> None:
        os.kill(os.getpid(), number)
        assert should_stop()
        raise Stopped("Stopped after 1 of 2 images")

    monkeypatch.setattr(api, "evaluate_model", evaluate)
    (tmp_path / "rdf.yaml").write_text("type: model")
    assert main(["evaluate", str(tmp_path), "data"]) == code


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("stopped", 0), ("failed", 3)])
def test_following_a_run_ends_as_the_run_did(tmp_path: Path, state: Any, code: int) -> None:
    from im2im_core.jobs.eventlog import EventLog
    from im2im_core.project import Project
    from im2im_core.runs import Run

    run = Run.create(Project.create(tmp_path / "project"), Recipe(), "first")
    with run.claim() as attempt, EventLog(run, attempt) as log:
        if state == "failed":
            log.append(Failed("a.tif is torn", "Copy it again", 3))
        run.set_state(state)
    assert main(["runs", "--follow", "first"]) == code


def test_a_finished_run_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from im2im_core.project import Project
    from im2im_core.runs import Run

    run = Run.create(Project.create(tmp_path / "project"), Recipe(), "first")
    run.set_state("finished")
    assert main(["resume", "first"]) == 2
    assert "first is finished" in capsys.readouterr().err
    assert run.attempt == 0


def test_runs_pause_stop_and_export_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from im2im_core.project import Project
    from im2im_core.runs import Run

    project = Project.create(tmp_path / "project")
    assert main(["runs", "--project", str(project.root)]) == 0
    assert "no runs yet" in capsys.readouterr().out
    run = Run.create(project, Recipe(), "first")
    assert main(["runs", "--json"]) == 0
    (content,) = lines_of(capsys.readouterr().out)
    assert [(r["run"], r["state"]) for r in content["runs"]] == [("first", "queued")]
    assert main(["pause", "first", "--json"]) == 0
    assert [p.name for p in (run.folder / "commands").glob("*.json")] == ["001-pause.json"]
    assert main(["export", "first", str(tmp_path / "model.zip")]) == 3
    with run.claim():
        run.set_state("finished")
    assert main(["stop", "first"]) == 2
    (run.model / "rdf.yaml").write_text("type: model")
    assert main(["export", "first", str(tmp_path / "model.zip")]) == 0
    assert main(["export", "first", str(tmp_path / "model.zip")]) == 2
    assert main(["runs", "--follow", "first"]) == 0
    assert "first is finished" in capsys.readouterr().out


def test_doctor_reports_without_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--fast", "--json"]) == 0
    (content,) = lines_of(capsys.readouterr().out)
    assert content["packages"]["numpy"] == np.__version__


def test_consent_is_recorded_and_holds_for_later_commands(
    toy: ToyApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("network:\n  kind: class\n  class_path: antigravity.Network\n")
    assert main(["train", "mine.yaml"]) == 5
    assert main(["doctor", "--trust", "antigravity", "--trust", "a" * 64]) == 0
    assert "Trusted from now on: antigravity" in capsys.readouterr().out
    assert main(["train", "mine.yaml"]) == 0
    assert main(["doctor", "--fast", "--json"]) == 0
    assert "antigravity" in capsys.readouterr().out
    assert "antigravity" not in sys.modules
    assert main(["doctor", "--trust", "rm -rf"]) == 2


# ---- models --------------------------------------------------------------------


def test_models_are_listed_with_task_figures_and_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from types import SimpleNamespace

    from im2im_core import models

    assert main(["models"]) == 0
    assert capsys.readouterr().out == "There are no models yet.\n"
    inference = SimpleNamespace(task="instance_segmentation", shapes=SimpleNamespace(dimensions=2))
    found = models.LocalModel(
        Path("/m/nuclei"), "nuclei", "run", "trained in project p", inference, metrics=(("ap50", 0.91), ("f1", 0.8))
    )
    plain = models.LocalModel(Path("/m/x.zip"), "x", "added", "from /m", inference)
    monkeypatch.setattr(models, "list_models", lambda: (found, plain))
    assert main(["models"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["nuclei", "instance", "segmentation", "2D", "ap50", "0.91", "f1", "0.8", "/m/nuclei"]
    assert "no figures" in second
    assert main(["models", "--json"]) == 0
    (content,) = lines_of(capsys.readouterr().out)
    assert content["models"][0]["metrics"] == {"ap50": 0.91, "f1": 0.8}
    assert [(m["path"], m["task"]) for m in content["models"]][1] == ("/m/x.zip", "instance_segmentation")


# ---- a plan of a folder --------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "target", "preset"),
    [
        ((32, 32), "instances", "instance_seg_2d"),
        ((32, 32), "classes", "semantic_seg_2d"),
        ((32, 32), "image", "labelfree_2d"),
        ((12, 32, 32), "instances", "instance_seg_3d"),
        ((3, 32, 32), "instances", "instance_seg_2d"),
    ],
)
def test_a_folder_is_planned_with_the_preset_that_it_looks_like(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shape: tuple[int, ...],
    target: str,
    preset: str,
) -> None:
    import tifffile

    labels = np.zeros(shape, np.uint16)
    labels[..., 4:12, 4:12], labels[..., 20:28, 20:28] = 1, 2
    truth = {"instances": labels, "classes": (labels > 0).astype(np.uint8), "image": np.float32(labels) + 0.5}[target]
    axes = {"axes": "ZYX"[-len(shape) :]}
    tifffile.imwrite(tmp_path / "a_IM.tif", labels.astype(np.float32), metadata=axes)
    tifffile.imwrite(tmp_path / "a_GT.tif", truth, metadata=axes)
    recipes = []

    def plan(recipe: Recipe, **_: Any) -> Plan:
        recipes.append(recipe)
        return Plan(recipe, {"data.patch": "median image"}, Facts(1, 0, 0, "", (1, 8, 8), 64, 1, 1), Runtime())

    monkeypatch.setattr(api, "plan", plan)
    assert main(["plan", str(tmp_path), "--training.steps", "7"]) == 0
    expected = api.load_preset(preset).override({"data.path": str(tmp_path), "training.steps": 7})
    assert recipes == [expected]
    said = capsys.readouterr().out.splitlines()
    assert f"preset {preset}" in said[0]
    assert "median image" in said[1]
    assert main(["plan", str(tmp_path), "--json"]) == 0
    assert lines_of(capsys.readouterr().out)[0]["preset"] == preset


def test_a_folder_without_images_is_not_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["plan", str(tmp_path / "empty")]) == 3


# ---- progress ------------------------------------------------------------------


class Terminal:
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self, tty: bool) -> None:
        self.text, self._tty = "", tty

    def isatty(self) -> bool:
        return self._tty

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def fileno(self) -> int:
        raise OSError


EVENTS = (Progress("training", 5, 10, 60.0, 60.0), Validated(5, 1.0, {"dice": 0.5}, best=True))


def test_progress_on_a_terminal_is_a_bar_with_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream: Any = Terminal(tty=True)
    with reporter(as_json=False, stream=stream) as on_event:
        for event in EVENTS:
            on_event(event)
    assert "5/10" in stream.text
    assert "1 min 0 s left" in stream.text
    assert "\x1b[" in stream.text
    assert "dice 0.5 (best)" in stream.text


def test_progress_elsewhere_is_plain_lines_and_not_too_many() -> None:
    stream: Any = Terminal(tty=False)
    with reporter(as_json=False, stream=stream) as on_event:
        for done in range(1, 101):
            on_event(Progress("training", done, 100, done / 10, (100 - done) / 10))
    assert stream.text.splitlines() == ["training: 1/100, 0 s, 10 s left", "training: 100/100, 10 s"]


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (59.6, "1 min 0 s"), (3725, "1 h 2 min"), (None, "")])
def test_durations_are_said_as_people_do(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_every_kind_of_event_can_be_described() -> None:
    from im2im_core.events import KINDS

    assert len(KINDS) > 10
    for kind in KINDS.values():
        required = {n: 1 for n, f in kind.__dataclass_fields__.items() if f.default is f.default_factory}
        values = {n: {"a": 1.0} if n == "values" else 1 for n in required}
        assert isinstance(describe(kind(**values)), str)
