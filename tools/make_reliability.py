"""Writes docs/reliability.md from the fault tests themselves and from their last results.

    python tools/make_reliability.py                   the page, after a test was added or renamed
    python tools/make_reliability.py --take junit.xml  … with the results of a run in docs/reliability.json

`tox run -e test` and `tox run -e faults` leave such files in `.tox/test/tmp` and `.tox/faults/tmp`.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "docs" / "reliability.json"
TESTS = ROOT / "tests"

sys.path.insert(0, str(TESTS))

from fault_cases import CASES, UNRUN  # noqa: E402

NAME = re.compile(r"test_fault((?:_\d\d)+)_(\w+)")
OUTCOMES = ("passed", "failed", "skipped")
HEAD = """# Reliability

Made from the tests by `python tools/make_reliability.py`.

What can go wrong, what happens then, and the tests that hold it. Those of the *fast* form run with every
`tox run -e test`. The *full* form is `tox run -e faults`: real processes are killed, signalled, put on small disks and
given too little memory. `IM2IM_FAULT_KILLS` sets how often (200), `IM2IM_FAULT_SEED` which moments (0).

Exit codes are the same everywhere: 0 done, 2 a setting is wrong, 3 an image is wrong, 4 disk, memory or permission does
not suffice, 5 refused for safety, 130 after Ctrl-C, 143 after a request of the system.
"""


@dataclass(frozen=True)
class FaultTest:
    """One test function that carries the number of a case."""

    key: str
    """``tests/core/test_io.py::test_fault_…``"""
    cases: tuple[int, ...]
    words: str
    full: bool
    """Whether it only runs with ``tox run -e faults``."""


@lru_cache
def find_tests() -> list[FaultTest]:
    """All of them, by file and line."""
    return [test for path in sorted(TESTS.rglob("test_*.py")) for test in _tests_of(path)]


def _tests_of(path: Path) -> Iterator[FaultTest]:
    place = path.relative_to(ROOT).as_posix()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and (found := NAME.fullmatch(node.name)):
            numbers = tuple(int(n) for n in found[1].strip("_").split("_"))
            marks = {ast.unparse(d).partition("(")[0] for d in node.decorator_list}
            document = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
            words = found[2].replace("_", " ") + (f": {document}" if document else "")
            yield FaultTest(f"{place}::{node.name}", numbers, words, "pytest.mark.faults" in marks)


# ---- results ----


def load_results() -> dict[str, dict[str, int | str]]:
    """Outcomes by test: how often passed, failed and skipped, the day, the reason of a skip, and where."""
    found: dict[str, dict[str, int | str]] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return found


def take(files: Iterable[Path]) -> None:
    """Replace the results of the tests that ran."""
    results = load_results()
    for path in files:
        results |= outcomes(ElementTree.parse(path).getroot())
    known = {test.key for test in find_tests()}
    kept = {key: results[key] for key in sorted(results) if key in known}
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def outcomes(root: ElementTree.Element) -> dict[str, dict[str, int | str]]:
    """Outcomes by test of a junit.xml."""
    found: dict[str, dict[str, int | str]] = {}
    for suite in root.iter("testsuite"):
        day = str(suite.get("timestamp"))[:10]
        for case in suite.iter("testcase"):
            key = f"{str(case.get('classname')).replace('.', '/')}.py::{str(case.get('name')).partition('[')[0]}"
            entry = found.setdefault(key, {**dict.fromkeys(OUTCOMES, 0), "day": day, "where": _where()})
            skipped = case.find("skipped")
            if skipped is not None:
                entry["reason"] = str(skipped.get("message"))
            failed = case.find("failure") is not None or case.find("error") is not None
            outcome = "failed" if failed else "passed" if skipped is None else "skipped"
            entry[outcome] = int(entry[outcome]) + 1
    return found


def _where() -> str:
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} cores"


# ---- the page ----


def render() -> str:
    """Text of the page."""
    tests, results = find_tests(), load_results()
    full = sum(test.full for test in tests)
    counted = f"{len(CASES)} cases, {len(tests)} tests, {full} of them in full form only.{_places(tests, results)}"
    table = ["| # | what goes wrong | what happens | last result |", "|---|---|---|---|"]
    table += [_row(number, tests, results) for number in CASES]
    parts = [HEAD, counted, "", *table, "", *_unrun(), "## Tests of each case", ""]
    for number, case in CASES.items():
        parts += [f"### {number}. {case.fault}", "", *(_line(t, results) for t in _of(number, tests)), ""]
    return "\n".join(parts).rstrip() + "\n"


def _places(tests: Sequence[FaultTest], results: Mapping[str, Mapping[str, int | str]]) -> str:
    found = sorted({str(results[t.key]["where"]) for t in tests if t.key in results})
    return f" Last results from {'; '.join(found)}." if found else ""


def _of(number: int, tests: Iterable[FaultTest]) -> list[FaultTest]:
    return [test for test in tests if number in test.cases]


def _row(number: int, tests: Sequence[FaultTest], results: Mapping[str, Mapping[str, int | str]]) -> str:
    mine, case = _of(number, tests), CASES[number]
    forms = [("fast", [t for t in mine if not t.full]), ("full", [t for t in mine if t.full])]
    said = "; ".join(f"{form}: {_summary(found, results)}" for form, found in forms if found)
    return f"| {number} | {case.fault} | {case.promise} | {said} |"


def _summary(tests: Sequence[FaultTest], results: Mapping[str, Mapping[str, int | str]]) -> str:
    """Outcomes of several tests in words."""
    run = [results[t.key] for t in tests if t.key in results]
    if not run:
        return "not run yet"
    sums = {outcome: sum(int(r[outcome]) for r in run) for outcome in OUTCOMES}
    words = ", ".join(f"{count} {outcome}" for outcome, count in sums.items() if count)
    missing = f", {len(tests) - len(run)} not run yet" if len(run) < len(tests) else ""
    return f"{words}{missing} ({max(str(r['day']) for r in run)})"


def _line(test: FaultTest, results: Mapping[str, Mapping[str, int | str]]) -> str:
    place, _, name = test.key.partition("::")
    reason = results.get(test.key, {}).get("reason")
    why = f"; skipped: {reason}" if reason else ""
    form = ", full form" if test.full else ""
    return f"- {test.words} (`{name}` in `{place}`{form}) – {_summary([test], results)}{why}"


def _unrun() -> list[str]:
    """Where these tests have not run, and what walks those branches."""
    lines = ["## Where this has not run", ""]
    lines += ["The tests have run on Linux without a GPU. The branches for other places are walked there:", ""]
    for place, (differs, walked) in UNRUN.items():
        named = ", ".join(f"`{key.rpartition('::')[2]}`" for key in walked)
        lines.append(f"- **{place}**: not run. {differs} Branch tests: {named}.")
    return [*lines, ""]


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", nargs="+", type=Path, default=[], metavar="JUNIT.xml")
    options = parser.parse_args(argv)
    if options.take:
        take(options.take)
    PAGE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
