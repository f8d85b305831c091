"""Every fault case has its tests, and the page of reliability says what they are."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from fault_cases import CASES, UNRUN

ROOT = Path(__file__).parents[2]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load(ROOT / "tools" / "make_reliability.py")


def test_every_case_has_a_fast_test(tool: ModuleType) -> None:
    tests = tool.find_tests()
    assert list(CASES) == list(range(1, 47))
    assert {number for test in tests for number in test.cases} == set(CASES)
    assert {number for test in tests if not test.full for number in test.cases} == set(CASES)


def test_every_test_of_a_fault_is_found(tool: ModuleType) -> None:
    """None hides in a class or has a number that is no case."""
    written = [
        line
        for path in (ROOT / "tests").rglob("*.py")
        for line in path.read_text().splitlines()
        if line.lstrip().startswith("def test_fault")
    ]
    assert len(written) == len(tool.find_tests()) > 200


def test_what_has_not_run_names_tests_that_exist(tool: ModuleType) -> None:
    known = {test.key for test in tool.find_tests()}
    for _, walked in UNRUN.values():
        for key in walked:
            assert key in known or ("::" not in key and (ROOT / key).is_file()), key


def test_the_page_is_made_from_the_tests(tool: ModuleType) -> None:
    assert tool.PAGE.read_text(encoding="utf-8") == tool.render(), "run: python tools/make_reliability.py"


JUNIT = """<testsuites><testsuite timestamp="2026-11-22T01:02:03">
<testcase classname="tests.core.test_a" name="test_fault_01_b[x.y]"/>
<testcase classname="tests.core.test_a" name="test_fault_01_b[z]"><skipped message="no disk"/></testcase>
<testcase classname="tests.core.test_a" name="test_fault_02_c"><failure message="no"/></testcase>
</testsuite></testsuites>"""


def test_results_are_read_from_a_run(tool: ModuleType) -> None:
    found = tool.outcomes(fromstring(JUNIT))
    one = found["tests/core/test_a.py::test_fault_01_b"]
    assert {k: one[k] for k in (*tool.OUTCOMES, "day", "reason")} == {
        "passed": 1, "failed": 0, "skipped": 1, "day": "2026-11-22", "reason": "no disk"
    }  # fmt: skip
    assert found["tests/core/test_a.py::test_fault_02_c"]["failed"] == 1
    test = tool.FaultTest("tests/core/test_a.py::test_fault_01_b", (1,), "b", False)
    assert tool._summary([test, test], found) == "2 passed, 2 skipped (2026-11-22)"
    assert tool._summary([test], {}) == "not run yet"


def test_fault_46_a_run_of_tests_that_changes_its_inputs_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = load(ROOT / "tests" / "conftest.py")
    monkeypatch.setattr(ours, "_folders", lambda: [tmp_path])
    (tmp_path / "a.tif").write_bytes(b"pixels")
    for changes in (False, True):
        session: Any = SimpleNamespace(config=SimpleNamespace(stash=pytest.Stash()), exitstatus=0)
        ours.pytest_sessionstart(session)
        (tmp_path / "a.tif").read_bytes()
        if changes:
            os.utime(tmp_path / "a.tif", (1, 1))
            (tmp_path / "b.tif").touch()
        ours.pytest_sessionfinish(session)
        assert session.exitstatus == int(changes)
    assert f"{tmp_path / 'a.tif'}, {tmp_path / 'b.tif'}" in capsys.readouterr().err
