"""Nothing in the tree unpickles, evaluates or unpacks unchecked: found by the syntax tree, under any alias."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "tests", "tools", "benchmarks", "docs")
REFUSED = {
    "eval": "runs text",
    "exec": "runs text",
    "builtins.eval": "runs text",
    "builtins.exec": "runs text",
    "runpy.run_path": "runs a file",
    "runpy.run_module": "runs a module",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "pickle.load": "unpickles",
    "pickle.loads": "unpickles",
    "pickle.Unpickler": "unpickles",
    "_pickle.load": "unpickles",
    "_pickle.loads": "unpickles",
    "cloudpickle.load": "unpickles",
    "cloudpickle.loads": "unpickles",
    "dill.load": "unpickles",
    "dill.loads": "unpickles",
    "joblib.load": "unpickles",
    "marshal.load": "reads code",
    "marshal.loads": "reads code",
    "shelve.open": "unpickles",
    "pandas.read_pickle": "unpickles",
    "torch.hub.load": "runs code from the network",
    "torch.jit.load": "reads a program",
    "torch.package.PackageImporter": "runs code of a package",
    "yaml.load": "makes Python objects, by its loader",
    "yaml.load_all": "makes Python objects, by its loader",
    "yaml.full_load": "makes Python objects",
    "yaml.full_load_all": "makes Python objects",
    "yaml.unsafe_load": "makes Python objects",
    "yaml.unsafe_load_all": "makes Python objects",
    "shutil.unpack_archive": "unpacks without limits",
    "tempfile.mktemp": "another program may take the name",
}
"""Function that is never called -> why."""
REFUSED_METHODS = {
    "extractall": "unpacks without limits",
    "load_from_checkpoint": "unpickles",
    "read_pickle": "unpickles",
}
"""Method that is never called, whatever it belongs to -> why."""
REFUSED_ARGUMENTS = {"allow_pickle": True, "weights_only": False, "shell": True}
"""Argument -> value that is never given."""
EXCEPTIONS = {
    ("src/im2im_core/engine/foreign_weights.py", "exec"): "code of a model package, after consent to its hash",
    ("src/im2im_core/engine/foreign_weights.py", "torch.jit.load"): "TorchScript of a package, whose hash was compared",
    ("tests/gui/test_journal_watch.py", "exec"): "runs the script that our own page tells people to copy",
    ("tests/core/test_share.py", "exec"): "runs the Python text that was copied, made by ourselves",
    ("tests/core/io_contract.py", "pickle.loads"): "a copy of a reader as a worker process gets it",
    ("tests/engine/test_cache.py", "pickle.loads"): "a copy of a cache as a worker process gets it",
    ("tests/core/test_bundle.py", "pickle.loads"): "shows that the crafted file would have run code",
    ("tests/engine/test_faults_hostile.py", "pickle.loads"): "shows that the crafted pickles would do harm",
    ("tests/core/test_journal.py", "numpy.save"): "crafts the file that must not be loaded",
    ("tests/engine/test_foreign.py", "numpy.save"): "crafts the file that must not be loaded",
}
"""File and call -> why it may stand there."""


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def findings(source: str) -> Iterator[str]:
    """Calls in `source` that are refused, by the names of the functions."""
    tree = ast.parse(source)
    aliases = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func, aliases)
            if name and is_refused(name, node):
                yield name


def imported(tree: ast.Module) -> dict[str, str]:
    """Name in the file -> full name of what was imported under it."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                      for alias in node.names}  # fmt: skip
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def dotted(function: ast.expr, aliases: dict[str, str]) -> str:
    """Full name of what is called; begins with a dot where its owner is an expression."""
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    head = aliases.get(function.id, function.id) if isinstance(function, ast.Name) else ""
    return ".".join([head, *reversed(parts)])


def is_refused(name: str, call: ast.Call) -> bool:
    given = {word.arg: word.value for word in call.keywords}
    if name in REFUSED or name.rpartition(".")[2] in REFUSED_METHODS:
        return True
    if any(is_constant(given.get(argument), value) for argument, value in REFUSED_ARGUMENTS.items()):
        return True
    if name == "torch.load":
        return not is_constant(given.get("weights_only"), True)
    return name == "numpy.load" and "allow_pickle" in given and not is_constant(given["allow_pickle"], False)


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_fault_30_nothing_in_the_tree_unpickles_or_evaluates() -> None:
    files = sources()
    assert len(files) > 200
    found = {
        (str(path.relative_to(ROOT).as_posix()), name)
        for path in files
        for name in findings(path.read_text(encoding="utf-8"))
    }
    assert found - set(EXCEPTIONS) == set()
    assert set(EXCEPTIONS) - found == set()  # an exception that is not needed any more


def test_modules_that_exist_to_unpickle_are_not_imported() -> None:
    """pickle itself is: multiprocessing and tests of copies need it."""
    unwanted = {"cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
    names = {
        (path.name, full.split(".")[0])
        for path in sources()
        for full in imported(ast.parse(path.read_text(encoding="utf-8"))).values()
    }
    assert {row for row in names if row[1] in unwanted} == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "import pickle as p\np.loads(b)",
        "from pickle import loads as read\nread(b)",
        "from pickle import Unpickler\nUnpickler(f).load()",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=safe)",
        "import torch\ntorch.load(path, weights_only=False)",
        "from torch import load\nload(path)",
        "import torch\ntorch.jit.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=wanted)",
        "reader(path, allow_pickle=True)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nyaml.unsafe_load(text)",
        "eval('1')",
        "exec(code)",
        "import shelve\nshelve.open(path)",
        "import joblib\njoblib.load(path)",
        "import zipfile\nzipfile.ZipFile(path).extractall(folder)",
        "archive.extractall()",
        "Model.load_from_checkpoint(path)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import os\nos.system(text)",
    ],
)
def test_what_is_refused_is_found(source: str) -> None:
    assert list(findings(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import json\njson.loads(text)",
        "import yaml\nyaml.safe_load(text)",
        "model.eval()",
        "import pickle\npickle.dumps(thing)",
    ],
)
def test_what_is_harmless_is_not(source: str) -> None:
    assert not list(findings(source))
