"""The local library: found by name, compared, deleted and brought back, imported only when everything holds."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_models import INFERENCE, package

from im2im_core import models
from im2im_core.archive import pack
from im2im_core.bundle.processing import REFUSED, STEPS
from im2im_core.cli import main
from im2im_core.commands.models import ACTIONS
from im2im_core.errors import ConfigError, DataError, Im2ImError, TrustError
from im2im_core.library import (
    delete_model,
    export_model,
    find_local,
    import_model,
    list_deleted,
    restore_model,
)
from im2im_core.model_cards import card, compare, flat, provenance, size_words
from im2im_core.models import add_model, library_folder, list_models, read_model, write_notes
from im2im_core.project import Project
from im2im_core.recipe import Recipe
from im2im_core.runs import Run

RECIPE = {"task": "semantic_segmentation", "training": {"steps": 100, "optimizer": {"lr": 0.1}}, "name": "a"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Project with two models, which is the working folder."""
    made = Project.create(tmp_path / "project")
    monkeypatch.chdir(made.root)
    for name, ap, steps in (("one", 0.9, 100), ("two", 0.8, 200)):
        recipe = {**RECIPE, "training": {"steps": steps, "optimizer": {"lr": 0.1}}, "name": name}
        recorded = {"metrics": {"ap50": ap}, "recipe": recipe}
        package(made.root / "models" / name, f"{name} nuclei", provenance=recorded)
    return made


def _names() -> list[str]:
    return [m.name for m in list_models()]


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


# ---- finding and looking ----


def test_models_are_found_by_name_path_and_beginning(project: Project) -> None:
    folder = project.root / "models" / "one"
    assert {find_local(name).path for name in ("one nuclei", "one", str(folder), "one nu")} == {folder}
    with pytest.raises(ConfigError, match=r"no model 'three'.*one nuclei|no model 'three'.*two nuclei"):
        find_local("three")
    package(project.root / "models" / "copy", "one nuclei")
    with pytest.raises(ConfigError, match="2 models are called 'one nuclei'"):
        find_local("one nuclei")
    with pytest.raises(DataError, match="no model package"):
        find_local("models")  # a folder of models is none of them


def test_a_model_outside_of_all_lists_is_found_by_its_path(project: Project, tmp_path: Path) -> None:
    assert find_local(package(tmp_path / "else", "elsewhere")).name == "elsewhere"


def test_the_card_tells_what_is_known(project: Project) -> None:
    found = card(find_local("one"))
    assert found["task"] == "instance segmentation 2D"
    assert found["takes"] == "an image with 1 channel"
    assert found["makes"] == "labels (labels)"
    assert found["figures"] == {"ap50": 0.9}
    assert found["from"] == "project project"
    assert "notes" not in found


def test_figures_stand_side_by_side_and_only_differing_settings(project: Project) -> None:
    found = compare([find_local("one"), find_local("two")])
    assert found.names == ("one nuclei", "two nuclei")
    assert found.metrics == {"ap50": (0.9, 0.8)}
    assert found.settings == {"training.steps": (100, 200)}
    with pytest.raises(ConfigError, match=r"1 model\(s\) cannot be compared"):
        compare([find_local("one")])


def test_models_without_recipe_are_compared_by_what_they_are(project: Project, tmp_path: Path) -> None:
    other = {**INFERENCE, "framework": {"kind": "fcn"}, "task": "semantic_segmentation"}
    folder = package(project.root / "models" / "plain", "plain")
    content = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    content["config"]["im2im"]["inference"] = other
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(content))
    found = compare([read_model(package(tmp_path / "bare", "bare")), read_model(folder)])
    assert found.settings["framework.kind"] == ("instance", "fcn")


def test_provenance_has_recipe_run_environment_and_hashes(project: Project) -> None:
    run = project.root / "runs" / "2026_a"
    package(run / "model", "trained", provenance={"recipe": RECIPE})
    (run / "run.json").write_text("{}")
    (run / "environment.json").write_text('{"versions": {"torch": "2.10"}}')
    found = provenance(find_local("2026_a"))
    assert (found["run"], found["recipe"]) == ("2026_a", RECIPE)
    assert found["environment"] == {"versions": {"torch": "2.10"}}
    content = (run / "model" / "README.md").read_bytes()
    assert found["files"]["README.md"] == hashlib.sha256(content).hexdigest()
    assert found["hash"] == found["files"]["bioimageio.yaml"]


def test_tables_of_a_provenance_stand_row_by_row(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"size": "64 × 64", "images": 3, "ap50": 0.81234}, {"size": "96 × 96", "images": 4, "ap50": 0.7}]
    package(project.root / "models" / "tabled", "tabled", provenance={"metrics_by_image_size": rows, "none": []})
    assert main(["models", "provenance", "tabled"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("metrics_by_image_size")
    assert lines[start + 1] == "  ap50 0.8123, images 3, size 64 × 64"
    assert lines[start + 2] == "  ap50 0.7, images 4, size 96 × 96"


def test_names_and_notes_are_kept_beside_the_package(project: Project) -> None:
    model = find_local("one")
    before = provenance(model)["files"]
    write_notes(model.path, name="mine", notes="for  tissue")
    found = find_local("mine")
    assert (found.path, found.notes) == (model.path, "for tissue")
    assert provenance(found)["files"] == before
    write_notes(model.path, name="")
    assert (find_local("one nuclei").notes, _names()) == ("for tissue", ["one nuclei", "two nuclei"])


def test_size_date_and_key_metric(project: Project) -> None:
    model = find_local("one")
    assert model.size == sum(p.stat().st_size for p in model.path.iterdir())
    assert model.made == pytest.approx((model.path / "bioimageio.yaml").stat().st_mtime)
    assert model.key_metric == ("ap50", 0.9)
    folder = package(project.root / "models" / "old", "old", provenance={"metrics": {"loss": 1.0, "dice": 0.7}})
    content = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump({**content, "timestamp": "1970-01-02T00:00:00+00:00"}))
    assert read_model(folder).made == 86400
    assert read_model(folder).key_metric == ("dice", 0.7)
    assert [size_words(n) for n in (0, 7, 1500, 2_500_000)] == ["", "7 bytes", "1.5 kB", "2.5 MB"]
    assert flat({"a": {"b": 1, "c": {}}}) == {"a.b": 1, "a.c": {}}


# ---- deleting ----


def test_deleted_models_lie_in_the_trash_of_their_project_and_come_back(project: Project) -> None:
    before = provenance(find_local("one"))
    deleted = delete_model(find_local("one"))
    assert _names() == ["two nuclei"]
    assert deleted.trash is not None
    assert deleted.trash.is_relative_to(project.root / "trash")
    assert list_deleted() == (deleted,)
    assert provenance(restore_model(deleted)) == before
    assert list_deleted() == ()
    assert _names() == ["one nuclei", "two nuclei"]


def test_a_place_that_is_taken_again_is_left_alone(project: Project) -> None:
    deleted = delete_model(find_local("one"))
    package(project.root / "models" / "one", "new one")
    with pytest.raises(ConfigError, match="exists again"):
        restore_model(deleted)
    assert find_local("new one").path == deleted.path
    assert list_deleted() == (deleted,)


def _run(project: Project, name: str, state: str, **training: Any) -> Run:
    recipe = Recipe.load({"task": "label_free", "framework": {"kind": "fcn"}, "training": training or {}})
    run = Run.create(project, recipe, name)
    package(run.model, f"model of {name}")
    run.set_state(state)  # type: ignore[arg-type]
    return run


def test_the_model_of_a_run_goes_and_comes_back(project: Project) -> None:
    run = _run(project, "done", "finished")
    deleted = delete_model(find_local("done"))
    assert list(run.model.iterdir()) == []
    restore_model(deleted)
    assert find_local("model of done").path == run.model


@pytest.mark.parametrize("state", ["running", "paused"])
def test_what_a_training_needs_is_not_deleted(project: Project, state: str) -> None:
    run = _run(project, "busy", state)
    with pytest.raises(ConfigError, match=f"the training busy is {state}"):
        delete_model(find_local("busy"))
    start = str(project.root / "models" / "one")
    _run(project, "second", "running", start={"kind": "model", "model": start})
    with pytest.raises(ConfigError, match="the training second starts from it"):
        delete_model(find_local("one"))
    run.set_state("finished")
    delete_model(find_local("busy"))


def test_shipped_models_stay_and_added_ones_only_leave_the_list(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "SHIPPED", tmp_path / "shipped")
    package(tmp_path / "shipped" / "s", "from shipped")
    with pytest.raises(ConfigError, match="comes with the program"):
        delete_model(find_local("from shipped"))
    folder = package(tmp_path / "mine", "mine")
    deleted = delete_model(add_model(folder) and find_local("mine"))
    assert deleted.trash is None
    assert (folder / "bioimageio.yaml").exists()
    assert "mine" not in _names()
    assert restore_model(deleted).name == "mine"


# ---- in and out ----


def _described(folder: Path) -> Path:
    """The package with the hash of its picture."""
    content = yaml.safe_load((folder / "bioimageio.yaml").read_text())
    digest = hashlib.sha256((folder / "cover.png").read_bytes()).hexdigest()
    content["attachments"] = [{"source": "cover.png", "sha256": digest}]
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_a_zip_goes_out_and_comes_in_the_same(project: Project, tmp_path: Path) -> None:
    _described(project.root / "models" / "one")
    model = find_local("one")
    path = export_model(model, tmp_path / "nuclei 1.zip")
    with pytest.raises(ConfigError, match="exists"):
        export_model(model, path)
    found = import_model(path, project)
    assert found.path == project.root / "models" / "nuclei-1"
    assert provenance(found)["hash"] == provenance(model)["hash"]
    assert import_model(path, project).path.name == "nuclei-1-2"
    assert (import_model(path).origin, import_model(path).path.parent) == ("library", library_folder())


def test_a_folder_comes_in_as_a_copy(project: Project, tmp_path: Path) -> None:
    source = package(tmp_path / "else" / "m", "from folder")
    found = import_model(source, project)
    assert (found.origin, found.name) == ("project", "from folder")
    assert source.exists()


def _changed(folder: Path) -> Path:
    (folder / "cover.png").write_bytes(b"other")
    return folder


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rdf.yaml", bytes(200 << 20))


def _slip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../evil.yaml", "name: x")


def _no_package(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")


@pytest.mark.parametrize(("make", "error"), [(_bomb, TrustError), (_slip, TrustError), (_no_package, DataError)])
def test_fault_34_35_hostile_zips_leave_nothing(project: Project, tmp_path: Path, make: Any, error: Any) -> None:
    before = sorted(project.root.rglob("*"))
    make(tmp_path / "x.zip")
    with pytest.raises(error):
        import_model(tmp_path / "x.zip", project)
    assert sorted(project.root.rglob("*")) == before


def test_fault_37_a_changed_file_is_not_imported(project: Project, tmp_path: Path) -> None:
    folder = _changed(_described(package(tmp_path / "else", "changed")))
    pack(folder, tmp_path / "x.zip")
    for source in (folder, tmp_path / "x.zip"):
        with pytest.raises(TrustError, match="sha256"):
            import_model(source, project)
    assert _names() == ["one nuclei", "two nuclei"]


def test_fault_34_links_are_not_imported(project: Project, tmp_path: Path) -> None:
    folder = package(tmp_path / "else", "linked")
    (folder / "more.txt").symlink_to("/etc/hostname")
    with pytest.raises(Im2ImError, match="is a link"):
        import_model(folder, project)


# ---- command line ----


def test_command_lists_cards_and_compares(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = said(capsys)["models"]
    assert [(r["name"], r["origin"], r["bytes"] > 0) for r in rows] == [
        ("one nuclei", "project", True),
        ("two nuclei", "project", True),
    ]
    assert main(["models", "card", "one"]) == 0
    assert "instance segmentation 2D" in capsys.readouterr().out
    assert main(["models", "compare", "one", "two", "--json"]) == 0
    assert said(capsys)["settings"] == {"training.steps": [100, 200]}
    assert main(["models", "compare", "one", "two"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if "training.steps" in line).split() == ["training.steps", "100", "200"]
    assert main(["models", "provenance", "one", "--json"]) == 0
    assert said(capsys)["recipe"]["name"] == "one"


def test_command_deletes_only_when_told_and_restores(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["models", "delete", "one"]) == 2
    assert "Add --yes" in capsys.readouterr().err
    answers = io.StringIO("no\ny\n")
    answers.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", answers)
    assert main(["models", "delete", "one"]) == 2
    assert len(_names()) == 2
    assert main(["models", "delete", "one"]) == 0
    assert main(["models", "delete", "two", "--yes", "--json"]) == 0
    assert _names() == []
    capsys.readouterr()
    assert main(["models", "restore", "one nuclei"]) == 0
    assert main(["models", "restore", "--json"]) == 0
    assert said(capsys)["restored"] == str(project.root / "models" / "two")
    assert main(["models", "restore"]) == 2


def test_command_names_notes_imports_and_exports(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "rename", "one", "mine"]) == 0
    assert main(["models", "note", "mine", "good for tissue"]) == 0
    assert main(["models", "export", "mine", str(tmp_path / "out.zip")]) == 0
    assert main(["models", "export", "mine", str(tmp_path / "out.zip")]) == 2
    assert main(["models", "import", str(tmp_path / "out.zip"), "--json"]) == 0
    assert said(capsys)["path"] == str(project.root / "models" / "out")
    assert main(["models", "import", str(tmp_path / "out.zip"), "--library"]) == 0
    assert [m.origin for m in list_models()] == ["library", "project", "project", "project"]
    assert find_local("mine").notes == "good for tissue"


def test_the_page_of_models_names_every_action_and_step_there_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert set(re.findall(r"im2im models ([a-z]+)", page)) | {"list"} == set(ACTIONS)
    assert [name for name in (*STEPS, *REFUSED) if f"`{name}`" not in page] == []


def test_models_predict_by_their_name(project: Project) -> None:
    from im2im_core.commands.predict import find_model

    assert find_model("one nuclei") == project.root / "models" / "one"
