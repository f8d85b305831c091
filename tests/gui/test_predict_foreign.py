"""Models of other tools in the Predict panel, with the real process: their test tensors, several images, consent."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from im2im_core.trust import consented_modules
from napari_im2im._predict_widget import PredictWidget

PATIENCE = 60_000
"""Milliseconds that a busy machine may need to start two processes that import torch."""
PACKAGES = Path(os.environ.get("IM2IM_TEST_DATA", "")) / "bioimageio_models"
real = pytest.mark.skipif(not os.environ.get("IM2IM_TEST_DATA"), reason="IM2IM_TEST_DATA is not set")
CODE = """
import pathlib, torch
pathlib.Path({canary!r}).touch()
class Net(torch.nn.Module):
    def forward(self, x):
        return {factor} * x
"""


@pytest.fixture
def panel(make_napari_viewer: Any, qtbot: Any, project: Any) -> Iterator[PredictWidget]:
    """The panel with the process that it has in napari; predictions of one thread on the CPU."""
    viewer = make_napari_viewer()
    widget = PredictWidget(viewer)
    qtbot.addWidget(widget)
    yield widget
    widget.job.close().join(15)


def results(widget: PredictWidget) -> list[Any]:
    return [layer for layer in widget._viewer.layers if "im2im" in layer.metadata]


def predict(widget: PredictWidget, qtbot: Any) -> None:
    """Click and wait until the panel is at rest again."""
    qtbot.waitUntil(widget.button.isEnabled, timeout=PATIENCE)
    widget.button.click()
    qtbot.waitUntil(lambda: not widget.job.running and widget.button.text() == "Predict", timeout=PATIENCE)


def tensors(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Planes of the recorded inputs and outputs of a package by name."""
    content = yaml.safe_load((folder / "bioimageio.yaml").read_text(encoding="utf-8"))
    given, made = (
        {t["id"]: np.load(folder / t["test_tensor"]["source"])[0, 0] for t in content[kind]}
        for kind in ("inputs", "outputs")
    )
    return given, made


@real
@pytest.mark.slow
def test_a_package_of_two_images_gives_its_test_tensors_whole_and_tiled(panel: PredictWidget, qtbot: Any) -> None:
    given, made = tensors(PACKAGES / "unet2d_multi_tensor")
    for name, pixels in given.items():
        panel._viewer.add_image(pixels, name=name)
    panel.models.add(PACKAGES / "unet2d_multi_tensor")
    qtbot.waitUntil(lambda: list(panel.outputs) == list(made), timeout=PATIENCE)
    first, *others = given
    panel.set_image(panel._viewer.layers[first])
    panel.more_images.setValue({name: panel._viewer.layers[name] for name in others})
    for box in panel.outputs.values():
        box.setChecked(True)
    for tile in (None, (224, 224)):
        if tile is not None:
            panel.more.setChecked(True)
            qtbot.waitUntil(lambda: panel._form is not None, timeout=PATIENCE)
            panel._form.edit(("tile",), tile)
        before = set(results(panel))
        predict(panel, qtbot)
        assert not [m.text for m in panel.messages.messages() if m.level == "error"]
        layers = {layer.metadata["im2im"]["output"]: layer for layer in results(panel) if layer not in before}
        assert layers.keys() == made.keys()
        for name, expected in made.items():
            assert np.abs(np.asarray(layers[name].data) - expected).max() <= 1e-4


@real
@pytest.mark.slow
def test_a_package_of_one_size_gives_its_test_tensor_and_what_the_command_line_gives(
    panel: PredictWidget, qtbot: Any, tmp_path: Path
) -> None:
    folder = PACKAGES / "unet2d_nuclei_broad"
    given, made = tensors(folder)
    (pixels,), (expected,) = given.values(), made.values()
    panel._viewer.add_image(pixels, name="nuclei")
    panel.models.add(folder)
    predict(panel, qtbot)
    (layer,) = results(panel)
    assert np.abs(np.asarray(layer.data) - expected).max() <= 1e-4
    panel._viewer.layers.remove(layer)
    wide = np.pad(pixels, [(0, 40), (0, 200)], mode="symmetric")
    panel.set_image(panel._viewer.add_image(wide, name="wide"))
    predict(panel, qtbot)
    (layer,) = results(panel)
    assert layer.data.shape == wide.shape
    image, result = tmp_path / "wide.tif", tmp_path / "result.tif"
    tifffile.imwrite(image, wide)
    command = ["predict", str(folder), str(image), "-o", str(result)]
    subprocess.run([sys.executable, "-m", "im2im_core.cli", *command], check=True, timeout=300)
    assert np.abs(np.asarray(layer.data) - np.squeeze(tifffile.imread(result))).max() <= 1e-4


# ---- consent -------------------------------------------------------------------


def python_package(folder: Path, factor: int) -> str:
    """Hash of the code in a package whose network multiplies, and leaves a trace wherever it is imported."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "state.pt").exists():  # in a process of its own: the viewer's imports no torch
        program = "import sys, torch; torch.save({}, sys.argv[1])"
        subprocess.run([sys.executable, "-c", program, str(folder / "state.pt")], check=True, timeout=120)
    (folder / "net.py").write_text(CODE.format(canary=str(folder / "canary"), factor=factor))
    axes = [{"type": "batch"}, {"type": "channel", "channel_names": ["c"]}]
    axes += [{"type": "space", "id": a, "size": {"min": 8, "step": 1}} for a in "yx"]
    entry = {
        name: {"source": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
        for name in ("net.py", "state.pt")
    }
    weights = {**entry["state.pt"], "architecture": {**entry["net.py"], "callable": "Net"}, "pytorch_version": "2.0"}
    content = {
        "format_version": "0.5.4",
        "type": "model",
        "name": "theirs",
        "inputs": [{"id": "raw", "axes": axes}],
        "outputs": [{"id": "result", "axes": axes}],
        "weights": {"pytorch_state_dict": weights},
    }
    (folder / "bioimageio.yaml").write_text(yaml.safe_dump(content))
    return entry["net.py"]["sha256"]


@pytest.mark.slow
def test_fault_36_code_waits_for_consent_to_its_hash(panel: PredictWidget, qtbot: Any, project: Any) -> None:
    folder = project.root / "models" / "theirs"
    first = python_package(folder, 3)
    panel._viewer.add_image(np.ones((16, 16), np.float32), name="ones")
    panel.set_model(folder)
    predict(panel, qtbot)
    (message,) = panel.messages.messages()
    assert first in message.text
    assert not (folder / "canary").exists()
    assert not results(panel)
    message.button.click()
    qtbot.waitUntil(lambda: bool(results(panel)) and not panel.job.running, timeout=PATIENCE)
    assert consented_modules() == (first,)
    assert (np.asarray(results(panel)[0].data) == 3).all()
    (folder / "canary").unlink()
    second = python_package(folder, 5)  # other code at the same place
    panel.messages.clear()
    predict(panel, qtbot)
    assert second in panel.messages.messages()[0].text
    assert not (folder / "canary").exists()
    assert len(results(panel)) == 1
