"""Model packages that mean harm or are nonsense: the command line refuses them in words and runs nothing."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tifffile
import yaml

from im2im_core.archive import unpack
from im2im_core.cli import main
from im2im_core.microscope import fluorescence

GOLDEN = Path(__file__).parents[1] / "data" / "golden_0.1.0_bundle.zip"
CANARY = "canary"


class Evil:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path(CANARY),)


def _set(path: str, value: Any) -> Callable[[Path, dict[str, Any]], None]:
    """Edit that replaces one entry of the description."""

    def edit(folder: Path, content: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            content = content[name]
        content[last] = value

    return edit


def _inference(path: str, value: Any) -> Callable[[Path, dict[str, Any]], None]:
    return _set(f"config.im2im.inference.{path}", value)


def _pickled_weights(folder: Path, content: dict[str, Any]) -> None:
    """With the right hash."""
    evil = pickle.dumps({"w": Evil()})
    ours = content["config"]["im2im"]["weights"]
    (folder / ours["source"]).write_bytes(evil)
    ours["sha256"] = hashlib.sha256(evil).hexdigest()


def _link(folder: Path, content: dict[str, Any]) -> None:
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").symlink_to("/etc/hostname")


OURS = "config.im2im.weights"
HOSTILE: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "class path": _inference(
        "network", {"kind": "class", "class_path": "os.system", "init_args": {"command": "touch"}}
    ),
    "class path detour": _inference("network", {"kind": "class", "class_path": "monai.utils.module.os.system"}),
    "class path to import": _inference("network", {"kind": "class", "class_path": "antigravity.Net"}),
    "weights above": _set(f"{OURS}.source", "../../evil"),
    "weights absolute": _set(f"{OURS}.source", "/etc/hostname"),
    "weights from afar": _set(f"{OURS}.source", "https://example.org/w.safetensors"),
    "weights of windows": _set(f"{OURS}.source", "C:\\evil"),
    "weights by link": _link,
    "weights that are a pickle": _pickled_weights,
    "other hash": _set(f"{OURS}.sha256", "0" * 64),
}
NONSENSE: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "no hash": _set(f"{OURS}.sha256", None),
    "hash is a number": _set(f"{OURS}.sha256", 7),
    "weights are a list": _set(OURS, []),
    "inference is text": _set("config.im2im.inference", "text"),
    "config is empty": _set("config", None),
    "config is a list": _set("config", [1, 2]),
    "inputs are empty": _set("inputs", None),
    "unknown framework": _inference("framework", {"kind": "evil"}),
    "unknown setting": _inference("surprise", 1),
    "size zero": _inference("divisor", [0, 0]),
    "negative patch": _inference("patch", [-32, 32]),
    "patch without end": _inference("patch", [float("inf"), 32]),
    "scale zero": _set("config.im2im.inference.outputs", [{"name": "a", "kind": "labels", "scale": ["0", "1/0", "1"]}]),
    "outputs are numbers": _inference("outputs", [1, 2]),
    "newer version": _inference("schema_version", 99),
    "name is a mapping": _set("name", {"a": 1}),
    "network of another shape": _inference("network", {"kind": "unet", "channels": [8, 16]}),
    "normalization by class": _inference("input", {"normalization": {"kind": "class", "class_path": "os.system"}}),
}
TEXTS = {
    "tag": (5, "!!python/object/apply:os.system ['touch canary']"),
    "laughs": (5, "a0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30))),
    "doubled key": (2, "name: a\nname: b"),
    "a list": (None, "[1, 2]"),
    "nothing": (None, ""),
    "deep": (None, "[" * 100_000),
    "zeros": (None, "\0" * 100),
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with a good package, a link to nothing, and an image; the working folder."""
    monkeypatch.chdir(tmp_path)
    unpack(GOLDEN, tmp_path / "model")
    tifffile.imwrite(tmp_path / "a.tif", fluorescence((32, 32), seed=1).image)
    return tmp_path


def predicted(world: Path) -> int:
    """Exit code; nothing was run or written, whatever it is."""
    before = {p for p in world.rglob("*") if "model" not in p.parts}
    code = main(["predict", str(world / "model"), "a.tif", "-o", "out.tif"])
    assert not list(world.rglob(CANARY))
    assert "antigravity" not in sys.modules
    assert code == 0 or {p for p in world.rglob("*") if "model" not in p.parts} == before
    return code


def described(folder: Path, edit: Callable[[Path, dict[str, Any]], None]) -> None:
    path = folder / "bioimageio.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    edit(folder, content)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def test_the_package_is_good_before(world: Path) -> None:
    assert predicted(world) == 0


@pytest.mark.parametrize("name", HOSTILE)
def test_fault_30_32_34_37_hostile_packages(world: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    described(world / "model", HOSTILE[name])
    assert predicted(world) == 5
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", NONSENSE)
def test_fault_10_packages_that_are_nonsense(world: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    described(world / "model", NONSENSE[name])
    # Our own part holds all that prediction needs; without it the standard part serves.
    unused = name in ("inputs are empty", "name is a mapping", "config is empty", "config is a list")
    assert predicted(world) in ((0, 2, 3) if unused else (2, 3, 5))
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", TEXTS)
def test_fault_33_descriptions_that_mean_harm(world: Path, name: str) -> None:
    wanted, text = TEXTS[name]
    (world / "model" / "bioimageio.yaml").write_text(text, encoding="utf-8")
    code = predicted(world)
    assert code == wanted if wanted else code in (2, 3, 5)
