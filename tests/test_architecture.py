"""Laws of the tree: who may import what, how long a function may be, what must never stand in it."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src"
SOURCES = sorted(SRC.rglob("*.py"))
HEAVY = ("torch", "lightning", "pytorch_lightning", "lightning_fabric", "monai", "torchmetrics")
VIEWER = ("napari", "qtpy", "superqt", "PyQt6", "PySide6", "magicgui", "psygnal")
JOB_BOUNDARIES = {
    *("cli.py", "child.py", "worker.py", "foreign_process.py"),
    *("_later.py", "_predict_job.py", "_background.py"),
}
"""Files that may catch every exception, because a job ends there."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES]


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions() -> list[tuple[Path, Function]]:
    return [(p, n) for p, tree in trees() for n in ast.walk(tree) if isinstance(n, Function)]


# ---- import law ----------------------------------------------------------------


def test_core_outside_the_engine_imports_neither_torch_nor_the_viewer() -> None:
    core = [module_name(p) for p in SOURCES if p.relative_to(SRC).parts[0] == "im2im_core"]
    light = [name for name in core if not name.startswith("im2im_core.engine")]
    assert len(light) > 40
    program = (
        "import sys\nfrom importlib import import_module\n"
        f"for name in {light!r}:\n    import_module(name)\n"
        f"print(*sorted({{name.split('.')[0] for name in sys.modules}} & set({HEAVY + VIEWER!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_engine_never_imports_the_viewer_and_the_core_never_the_plugin() -> None:
    wrong = []
    for path, tree in trees():
        inside = path.relative_to(SRC).parts[0] == "im2im_core"
        names = imported(tree) if inside else set()
        wrong += [f"{path.name}: {name}" for name in names & {*VIEWER, "napari_im2im"}]
    assert wrong == []


def test_lightning_stands_in_few_modules() -> None:
    allowed = {"train.py", "callbacks.py", "agreement.py"}
    found = {p.name for p, tree in trees() if {"pytorch_lightning", "lightning"} & imported(tree)}
    assert found <= allowed


def imported(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_plugin_imports_no_torch() -> None:
    plugin = [module_name(p) for p in SOURCES if p.relative_to(SRC).parts[0] == "napari_im2im"]
    assert plugin
    at_top = [
        f"{path.name}: {name}"
        for path, tree in trees()
        if path.relative_to(SRC).parts[0] == "napari_im2im"
        for name in imported(tree) & set(HEAVY)
    ]
    assert at_top == []


def test_public_names_are_not_hidden_by_modules_of_the_same_name() -> None:
    """A module that is imported becomes an attribute of its package and would replace the function."""
    import im2im_core

    modules = {p.stem for p in (SRC / "im2im_core").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert modules & set(im2im_core.__all__) == set()


# ---- budgets -------------------------------------------------------------------


def test_functions_are_short() -> None:
    lengths = {f"{p.name}:{f.name}": (f.end_lineno or f.lineno) - f.lineno + 1 for p, f in functions()}
    assert len(lengths) > 400
    assert {name: length for name, length in lengths.items() if length > 60} == {}
    assert statistics.median(lengths.values()) < 10


def test_public_names_are_documented() -> None:
    missing = []
    for path, tree in trees():
        if not ast.get_docstring(tree):
            missing += [] if not tree.body else [str(path.relative_to(SRC))]
        for node in tree.body:
            if isinstance(node, (*Function.__args__, ast.ClassDef)) and not node.name.startswith("_"):
                missing += [] if ast.get_docstring(node) else [f"{path.relative_to(SRC)}: {node.name}"]
    assert missing == []


# ---- what must never stand in the tree -----------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\s*(import|from) (cloudpickle|dill|joblib|marshal|shelve)\b",
        r"pickle\.(load|loads|Unpickler|dump|dumps)\b",
        r"(?<![.\w])eval\(",
        r"allow_pickle\s*=\s*True",
        r"weights_only\s*=\s*False",
        r"yaml\.(load|unsafe_load|full_load)\(",
        r"shell\s*=\s*True",
        r"os\.system\(",
        r"\bextractall\(",
    ],
)
def test_fault_30_nothing_is_unpickled_or_evaluated(pattern: str) -> None:
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert hits == []


def test_fault_36_code_of_a_model_package_runs_in_one_place() -> None:
    """The bytes whose hash the user trusted; see `engine/foreign_weights.py`."""
    found = [p.name for p in SOURCES for _ in re.findall(r"(?<![.\w])exec\(", p.read_text(encoding="utf-8"))]
    assert found == ["foreign_weights.py"]


def test_fault_38_models_of_others_run_apart() -> None:
    """Everywhere but in an export, which runs the weights that it wrote itself."""
    here = re.compile(r"apart\s*=\s*False|foreign_weights import .*\bload\b")
    found = {p.name for p in SOURCES if here.search(p.read_text(encoding="utf-8"))}
    assert found == {"export.py", "foreign.py", "foreign_process.py"}


def test_every_exception_is_caught_only_where_a_job_ends() -> None:
    wrong = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and path.name not in JOB_BOUNDARIES:
                caught = ast.unparse(node.type) if node.type else ""
                cleans_up = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if caught in ("", "Exception", "BaseException") and not cleans_up:
                    wrong.append(f"{path.relative_to(SRC)}:{node.lineno}")
    assert wrong == []


def test_nothing_is_printed() -> None:
    calls = [
        f"{path.relative_to(SRC)}:{node.lineno}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []


# ---- what must be there --------------------------------------------------------


def test_presets_are_found() -> None:
    from im2im_core import api

    on_disk = [p.name for p in files("im2im_core.presets").iterdir() if p.name.endswith(".yaml")]
    assert len(on_disk) >= 8
    assert len(api.list_presets()) == len(on_disk)


def test_manifest_at_the_root_is_the_one_of_the_plugin() -> None:
    assert (ROOT / "napari.yaml").read_bytes() == (SRC / "napari_im2im" / "napari.yaml").read_bytes()


def test_every_dependency_says_what_it_is_for() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    start = lines.index("dependencies = [")
    stop = lines.index("[project.scripts]")
    rows = [line for line in lines[start + 1 : stop] if '"' in line and not line.startswith("[")]
    assert len(rows) > 30
    assert [line for line in rows if "#" not in line] == []
