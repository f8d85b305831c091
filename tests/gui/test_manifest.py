"""The manifest names what exists, and costs napari nothing at its start."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from napari._qt.widgets.qt_command_palette import QCommandPalette
from npe2 import PluginManifest

MANIFEST = Path(str(files("napari_im2im") / "napari.yaml"))
WIDGETS = {"Dataset", "Train", "Predict", "Evaluate", "Models"}


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_file(MANIFEST)


def test_manifest_is_valid() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "npe2.cli", "validate", str(MANIFEST)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_widgets_samples_and_menus_have_commands(manifest: PluginManifest) -> None:
    points = manifest.contributions
    commands = {c.id for c in points.commands or ()}
    assert len(commands) >= 10
    assert {w.display_name for w in points.widgets or ()} >= WIDGETS
    assert {w.command for w in points.widgets or ()} <= commands
    samples = {s.command for s in points.sample_data or ()}
    assert samples <= commands
    assert len(samples) == 6
    placed = {item.command for items in points.menus.values() for item in items}
    assert {w.command for w in points.widgets or ()} <= placed <= commands


def test_menus_are_those_that_napari_opens_to_plugins(manifest: PluginManifest) -> None:
    from napari._app_model.constants._menus import is_menu_contributable

    assert manifest.contributions.menus
    assert [m for m in manifest.contributions.menus if not is_menu_contributable(m)] == []


def test_commands_name_what_exists(manifest: PluginManifest) -> None:
    for command in manifest.contributions.commands or ():
        module, _, name = str(command.python_name).partition(":")
        assert callable(getattr(import_module(module), name)), command.python_name


def test_titles_speak_to_people(manifest: PluginManifest) -> None:
    for command in manifest.contributions.commands or ():
        assert " " in command.title
        assert "_" not in command.title


@pytest.mark.timing
def test_plugin_costs_nothing_at_the_start_of_napari() -> None:
    """Modules that `napari_im2im` adds: none but itself, within 10 ms of processor time."""
    program = (
        "import sys, time\nfrom importlib.resources import files\n"
        "before, start = set(sys.modules), time.process_time()\n"
        "import napari_im2im\n"
        "spent, added = time.process_time() - start, set(sys.modules) - before\n"
        "print(spent, *sorted(added))\n"
    )
    spent, *added = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(added) <= {"napari_im2im", "__future__"}
    assert float(spent) <= 0.010


@pytest.mark.timing
def test_reading_the_manifest_takes_little_beside_that_of_napari_itself_and_imports_no_torch() -> None:
    """What napari does with us at its start, after what all plugins share (about 9 ms of 36).

    The quickest of several readings counts: the others waited for what else the machine does.
    """
    program = (
        "import sys, time, napari_builtins\nfrom pathlib import Path\nfrom npe2 import PluginManager, PluginManifest\n"
        f"paths = {str(MANIFEST)!r}, Path(napari_builtins.__file__).parent / 'builtins.yaml'\n"
        "spent, plugins = ([], []), PluginManager()\n"
        "for _ in range(9):\n"
        "    for path, times in zip(paths, spent):\n"
        "        start = time.process_time()\n"
        "        manifest = PluginManifest.from_file(path)\n"
        "        plugins.register(manifest)\n"
        "        times.append(time.process_time() - start)\n"
        "        plugins.unregister(manifest.name)\n"
        "print(min(spent[0]) / min(spent[1]), 'torch' in sys.modules, 'napari_im2im' in sys.modules)\n"
    )
    ratio, torch, plugin = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert float(ratio) <= 0.4
    assert (torch, plugin) == ("False", "False")


def test_the_command_palette_lists_panels_and_samples_and_opens_them(
    manifest: PluginManifest, make_napari_viewer: Any, qtbot: Any, project: Any
) -> None:
    viewer = make_napari_viewer(show=True)
    (palette,) = viewer.window._qt_window.findChildren(QCommandPalette)
    titles = {command.title for command in palette._list.all_commands}
    samples = {sample.display_name for sample in manifest.contributions.sample_data or ()}
    assert titles >= {f"{name} (napari-im2im)" for name in WIDGETS} | samples
    viewer.window._toggle_command_palette()
    palette._list.update_for_text("evaluate im2im")
    palette._list.execute()
    opened = viewer.window.dock_widgets
    qtbot.waitUntil(lambda: "Evaluate (napari-im2im)" in opened, timeout=30_000)
    qtbot.waitUntil(opened["Evaluate (napari-im2im)"].isVisible, timeout=30_000)
    qtbot.wait(50)
    palette.hide()
    viewer.window.remove_dock_widget("all")


def test_forms_messages_and_samples_import_no_torch() -> None:
    program = (
        "import sys\nfrom napari_im2im import _copy_menu, _form, _messages, _samples\n"
        "print('torch' in sys.modules, 'monai' in sys.modules, 'scipy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3
