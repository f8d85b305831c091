"""Projects: which one is meant, what lies where, how runs are found."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from im2im_core.errors import ConfigError, ResourceError
from im2im_core.project import Project, choose_project, find_run, known_projects, user_home
from im2im_core.recipe import Recipe
from im2im_core.runs import Run


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("IM2IM_HOME", str(folder))
    return folder


def test_home_follows_the_system(monkeypatch, tmp_path):
    monkeypatch.delenv("IM2IM_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_home().name == "im2im"


def test_open_takes_explicit_then_parent_then_default(tmp_path, monkeypatch, home):
    made = Project.create(tmp_path / "one", "First")
    inside = made.folder("data") / "deep"
    inside.mkdir()
    monkeypatch.chdir(inside)
    assert Project.open() == made
    assert made.name == "First"
    monkeypatch.chdir(tmp_path)
    assert Project.open(tmp_path / "one") == made
    assert Project.open().root == home / "default"


def test_open_refuses_a_folder_that_is_no_project(tmp_path):
    with pytest.raises(ConfigError, match=r"has no im2im\.yaml"):
        Project.open(tmp_path)


def test_create_keeps_a_project_that_is_there(tmp_path):
    Project.create(tmp_path / "one", "First")
    assert Project.create(tmp_path / "one", "Second").name == "First"


def test_registry_lists_latest_first_and_drops_the_dead(tmp_path, home):
    one, two = Project.create(tmp_path / "one"), Project.create(tmp_path / "two")
    assert known_projects() == [two, one]
    (two.root / "im2im.yaml").unlink()
    assert known_projects() == [one]
    Project.create(tmp_path / "three")
    assert str(two.root) not in json.loads((home / "projects.json").read_text())


def test_registry_that_is_broken_is_only_a_convenience(tmp_path, home):
    home.mkdir()
    (home / "projects.json").write_text("{ torn")
    assert known_projects() == []
    made = Project.create(tmp_path / "one")
    assert known_projects() == [made]


def test_paths_inside_are_relative_and_outside_absolute(tmp_path):
    project = Project.create(tmp_path / "one")
    inside = project.folder("data") / "a b" / "c.tif"
    assert project.relative(inside) == "data/a b/c.tif"
    assert project.resolve("data/a b/c.tif") == inside
    assert project.resolve(project.relative(tmp_path / "x.tif")) == tmp_path / "x.tif"


def test_run_names_sort_by_time_and_never_collide(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "one")
    moment = time.strptime("2026-11-21 12:42:33", "%Y-%m-%d %H:%M:%S")
    real = time.strftime
    monkeypatch.setattr(time, "strftime", lambda pattern, *when: real(pattern, *(when or (moment,))))
    names = []
    for _ in range(3):
        names.append(project.new_run_name("nuclei / 3D"))
        (project.folder("runs") / names[-1]).mkdir()
    assert names == ["20261121-124233_nuclei-3D", "20261121-124233_nuclei-3D-2", "20261121-124233_nuclei-3D-3"]


@pytest.mark.parametrize("name", ["", "...", "../../etc", "CON", "画像 #1", "a" * 500])
def test_fault_39_any_recipe_name_gives_a_run_inside_the_project(tmp_path, name):
    project = Project.create(tmp_path / "one")
    run = Run.create(project, Recipe(name=name))
    assert run.folder.parent == project.root / "runs"
    assert [r.name for r in project.runs()] == [run.name]


def test_find_run_by_path_name_and_ending_across_projects(tmp_path):
    one, two = Project.create(tmp_path / "one"), Project.create(tmp_path / "two")
    a, b = Run.create(one, Recipe(), "20261121-000000_nuclei"), Run.create(two, Recipe(), "20261122-000000_cells")
    assert find_run(b.folder).folder == b.folder
    assert find_run("20261121-000000_nuclei").folder == a.folder
    assert find_run("cells").folder == b.folder
    with pytest.raises(ConfigError, match="Did you mean '20261121-000000_nuclei'"):
        find_run("20261121-000000_nucleus")


def test_find_run_does_not_guess_between_two(tmp_path):
    one = Project.create(tmp_path / "one")
    for day in ("20261121", "20261122"):
        Run.create(one, Recipe(), f"{day}-000000_nuclei")
    with pytest.raises(ConfigError, match="Several runs"):
        find_run("nuclei")


def test_fault_26_a_run_of_that_name_is_not_overwritten(tmp_path):
    project = Project.create(tmp_path / "one")
    Run.create(project, Recipe(), "x")
    with pytest.raises(ResourceError, match="exists"):
        Run.create(project, Recipe(), "x")


def test_the_project_chosen_in_this_process_goes_before_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, other = Project.create(tmp_path / "here"), Project.create(tmp_path / "other")
    monkeypatch.chdir(here.root)
    try:
        choose_project(other)
        assert Project.open() == other
        assert Project.open(here.root) == here
        assert known_projects()[0] == here  # what was opened last
    finally:
        choose_project(None)
    assert Project.open() == here
