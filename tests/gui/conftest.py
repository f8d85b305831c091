"""What all widget tests share: a project of their own, small layers, and nothing left behind."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest

pytest.importorskip("qtpy")
pytest.importorskip("napari")

PATIENCE = 20.0
"""Seconds in which threads, timers and children must have ended."""
KEPT_THREADS = ("QThread", "ThreadPoolExecutor", "asyncio", "pydevd", "Dummy", "IPython", "pyqtgraph", "tqdm_monitor")
"""Threads that libraries keep for the life of the process."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Project in a temporary folder, which is the working folder too."""
    from im2im_core.project import Project

    folder = tmp_path / "project"
    made = Project.create(folder)
    monkeypatch.chdir(folder)
    return made


class Layers(NamedTuple):
    """Small simulated images as arrays, for layers."""

    image: np.ndarray
    labels: np.ndarray
    transmitted: np.ndarray
    clean: np.ndarray
    scale: tuple[float, ...]


@pytest.fixture(scope="session")
def simulated() -> Layers:
    """Nuclei in a plane of 64 x 64 pixels with exact labels."""
    from im2im_core.microscope import fluorescence

    seen = fluorescence((64, 64), seed=3)
    scale = tuple(s for s in seen.voxel_size if s is not None)
    return Layers(seen.image, seen.labels, seen.transmitted, seen.clean, scale)


@pytest.fixture(autouse=True, scope="session")
def _old_objects_are_not_searched() -> None:
    """Collections look at what the tests of widgets make, not at all that the tests before them imported.

    With torch and its kin in memory a collection takes a second, and these tests collect a lot.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_left_behind(_qt_application: Any) -> Iterator[None]:
    """Fail a test that leaves threads, children, running timers or top-level widgets behind."""
    before = _inventory()
    yield
    _delete_what_is_due()
    left = _left(before)
    until = time.monotonic() + PATIENCE
    while left and time.monotonic() < until:
        _settle()
        left = _left(before)
    if left:
        pytest.fail(f"left behind: {left}")


@pytest.fixture
def children_end(qtbot: Any) -> Callable[[], None]:
    """Waits until the processes that the test started have ended.

    One that has just begun to warm up ends once Python is up, which takes its time on a busy machine.
    """
    before = {child.pid for child in _children()}
    return lambda: qtbot.waitUntil(lambda: {child.pid for child in _children()} <= before, timeout=60_000)


def _left(before: dict[str, set[str]]) -> dict[str, set[str]]:
    return {key: more for key, after in _inventory().items() if (more := after - before[key])}


@pytest.fixture(scope="session")
def _qt_application() -> Any:
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() or QApplication([])


def _inventory() -> dict[str, set[str]]:
    """Names of what lives outside the test."""
    from qtpy.QtWidgets import QApplication

    threads = {t.name for t in threading.enumerate() if t.is_alive() and not t.name.startswith(KEPT_THREADS)}
    children = {f"{c.pid} {c.name()}" for c in _children()}
    widgets = {f"{type(w).__name__} {w.windowTitle()} {id(w)}" for w in QApplication.topLevelWidgets() if _is_ours(w)}
    timers = {f"{type(t.parent()).__name__} {id(t)}" for t in _timers()}
    return {"threads": threads, "child processes": children, "widgets": widgets, "timers": timers}


def _children() -> list[psutil.Process]:
    alive = []
    for child in psutil.Process().children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE:
                alive.append(child)
        except psutil.NoSuchProcess:
            continue
    return alive


def _is_ours(widget: Any) -> bool:
    """Whether a top-level widget was made by this package; napari keeps some of its own."""
    return type(widget).__module__.startswith("napari_im2im") or any(
        type(child).__module__.startswith("napari_im2im") for child in widget.children()
    )


def _timers() -> list[Any]:
    """Running timers of our own widgets."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    ours = [w for w in QApplication.allWidgets() if type(w).__module__.startswith("napari_im2im")]
    return [t for w in ours for t in w.findChildren(QTimer) if t.isActive() and not t.isSingleShot()]


def _delete_what_is_due() -> None:
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def _settle() -> None:
    from qtpy.QtTest import QTest

    gc.collect()
    _delete_what_is_due()
    QTest.qWait(50)
