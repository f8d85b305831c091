"""``im2im doctor``: what is installed, what the machine has, what the user trusts."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from im2im_core.commands import Command, Output, indented, simple

PACKAGES = (
    "napari-im2im",
    "torch",
    "pytorch-lightning",
    "monai",
    "numpy",
    "scikit-image",
    "tifffile",
    "tensorstore",
    "bioimageio.spec",
    "napari",
    "aicsimageio",
    "bioio",
    "aicspylibczi",
    "readlif",
    "nd2",
    "onnxruntime",
)
"""Packages that are reported, the optional ones last."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fast", action="store_true", help="do not import torch to look for devices")
    parser.add_argument(
        "--trust",
        metavar="MODULE",
        action="append",
        default=[],
        help="from now on, let recipes and models of this user name classes of this installed package, "
        "or run the code with this hash; nothing else is done",
    )


def report(fast: bool = False) -> dict[str, Any]:
    """Facts about this environment, in sections; nothing is changed and no network is used."""
    from im2im_core.project import Project, known_projects, user_home
    from im2im_core.trust import consented_modules

    projects: list[Project] = known_projects()
    facts: dict[str, Any] = {
        "python": {"version": platform.python_version(), "program": sys.executable, "system": platform.platform()},
        "packages": {name: installed(name) for name in PACKAGES},
        "machine": _machine(),
        "user": {
            "folder": str(user_home()),
            "projects": ", ".join(str(p.root) for p in projects) or "none",
            "trusted modules": ", ".join(consented_modules()) or "none",
        },
    }
    if not fast:
        facts["devices"] = _devices()
    facts["advice"] = dict(enumerate(_advice(facts["packages"]), start=1)) or {"": "nothing to mend"}
    return facts


def installed(name: str) -> str:
    """Version of a package, or "not installed"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cpu cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB free",
        "disk free here": f"{shutil.disk_usage(os.getcwd()).free / 1e9:.1f} GB",
    }


def _devices() -> dict[str, str]:
    import torch

    found = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{facts.name}, {facts.total_memory / 1e9:.1f} GB"
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def _advice(packages: dict[str, str]) -> list[str]:
    advice = []
    missing = "not installed"
    if packages["aicsimageio"] == packages["bioio"] == missing:
        advice.append("Only TIFF and OME-Zarr can be read. For others: pip install 'napari-im2im[all]'")
    if packages["pytorch-lightning"] in ("2.6.2", "2.6.3"):
        advice.append("This pytorch-lightning was malware: remove it and change all passwords")
    if packages["napari"] == missing:
        advice.append("The viewer is not installed: pip install 'napari[pyqt6]'")
    return advice


def _doctor(args: argparse.Namespace, output: Output) -> int:
    if args.trust:
        return _record_trust(args.trust, output)
    facts = report(args.fast)
    output.result(facts, indented(facts))
    return 0


def _record_trust(modules: list[str], output: Output) -> int:
    from im2im_core.trust import consent_file, record_consent

    for module in modules:
        record_consent(module)
    output.result(
        {"trusted": modules, "file": str(consent_file())},
        f"Trusted from now on: {', '.join(modules)}. Recorded in {consent_file()}; take it back there",
    )
    return 0


COMMANDS = {"doctor": Command("Report versions, devices, memory and what is trusted.", _configure, simple(_doctor))}
