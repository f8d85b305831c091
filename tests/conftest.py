"""What all tests share: no network, a home of their own, real images where there are some."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

INPUTS = pytest.StashKey[dict[str, tuple[int, int]]]()


def inputs(*folders: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file that tests read and must not change."""
    found = {}
    for path in (p for folder in folders for p in folder.rglob("*")):
        status = path.stat()
        if not path.is_dir():
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def _folders() -> list[Path]:
    named = os.environ.get("IM2IM_TEST_DATA")
    return [Path(__file__).parent / "data", *([Path(named)] if named and Path(named).is_dir() else [])]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Note what the real images and the golden files are like before all tests."""
    if not hasattr(session.config, "workerinput"):
        session.config.stash[INPUTS] = inputs(*_folders())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run of tests that changed them (fault case 46)."""
    before = session.config.stash.get(INPUTS, None)
    if before is None:
        return
    after = inputs(*_folders())
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        sys.stderr.write(f"\nThe tests changed what they may only read: {', '.join(changed)}\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Widget tests begin first and keep to one process, as they share a screen; other files may go to any process."""
    items.sort(key=lambda item: not _needs_screen(item))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("gui" if _needs_screen(item) else item.path.name))


def _needs_screen(item: pytest.Item) -> bool:
    return item.path.parent.name == "gui"


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registry, default project and consent of a user who does not exist."""
    monkeypatch.setenv("IM2IM_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("IM2IM_TRUST", raising=False)


@pytest.fixture(autouse=True)
def _no_shipped_models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of models hold what the test put there."""
    monkeypatch.setattr("im2im_core.models.SHIPPED", tmp_path_factory.getbasetemp() / "no_models_shipped")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves the machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        local = self.family == getattr(socket, "AF_UNIX", None) or str(address[0]) in ("127.0.0.1", "::1", "localhost")
        if not local:
            raise RuntimeError(f"a test wanted to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with real images; the test is skipped where there is none."""
    folder = os.environ.get("IM2IM_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("IM2IM_TEST_DATA does not name a folder with real images")
    return Path(folder)
