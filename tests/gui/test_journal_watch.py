"""What is journaled: what a person painted, in every layer and from the first panel or sample on; no predictions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.layers._source import Source

from im2im_core.events import OutputBegun, TileDone
from im2im_core.jobs.messages import create_array
from im2im_core.journal import Journal, list_journals
from napari_im2im._journal_watch import JournalWatch, main_window, watch_labels
from napari_im2im._layers import is_result, take_snapshot
from napari_im2im._live_result import LiveResults
from napari_im2im._predict_job import Result

SIZE = 64
TILE = 16
FACTS = {"name": "labels", "kind": "labels", "axes": "YX", "scale": [1.0, 1.0], "translate": [0.0, 0.0], "facts": {}}


@pytest.fixture
def watched(make_napari_viewer: Any, project: Any) -> Iterator[tuple[Any, JournalWatch]]:
    """Viewer with an image, and the watch over it."""
    viewer = make_napari_viewer()
    viewer.add_image(np.zeros((SIZE, SIZE), np.float32), name="cells")
    watch = JournalWatch(viewer, project)
    watch.start()
    yield viewer, watch
    watch.stop()


def predict(viewer: Any, qtbot: Any, folder: Path) -> Any:
    """Layer of a result that came tile by tile, slowly enough for several looks."""
    live = LiveResults(viewer, take_snapshot([viewer.layers["cells"]]), "model", "labels", {})
    path = folder / "0-labels.npy"
    array = create_array(path, (1, 1, 1, SIZE, SIZE), np.uint32)
    live.begin(OutputBegun("labels", str(path), FACTS))
    for number, start in enumerate(range(0, SIZE, TILE), start=1):
        array[:, :, :, start : start + TILE] = number
        live.take(TileDone("labels", (0, 0, 0, start, 0), (1, 1, 1, start + TILE, SIZE)))
        qtbot.wait(150)
    return live.finish(Result({"labels": str(path)}, (FACTS,), 1.0))["labels"]


def looks(watch: JournalWatch, qtbot: Any) -> None:
    """Several full looks at all layers."""
    for _ in range(3):
        watch._on_tick()
        qtbot.wait(50)


def test_predictions_are_not_journaled(watched: Any, qtbot: Any, project: Any, tmp_path: Path) -> None:
    viewer, watch = watched
    layer = predict(viewer, qtbot, tmp_path)
    assert is_result(layer)
    looks(watch, qtbot)
    watch.stop()
    assert list_journals(project) == ()
    assert not (project.root / "journal").exists() or not list((project.root / "journal").iterdir())


def test_a_stroke_on_a_finished_result_is_journaled_with_all_of_it(
    watched: Any, qtbot: Any, project: Any, tmp_path: Path
) -> None:
    viewer, watch = watched
    layer = predict(viewer, qtbot, tmp_path)
    layer.paint((5, 5), 99)
    journal = Journal(project, layer.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists and bool((journal.restore() == layer.data).all()), timeout=30_000)
    layer.data[40, 40] = 77  # from now on it is watched like any other
    qtbot.waitUntil(lambda: journal.restore()[40, 40] == 77, timeout=30_000)
    watch.stop()
    assert [j.uuid for j in list_journals(project)] == [journal.uuid]


def test_what_was_painted_before_the_watch_began_is_journaled(
    make_napari_viewer: Any, qtbot: Any, project: Any
) -> None:
    viewer = make_napari_viewer()
    painted = viewer.add_labels(np.zeros((SIZE, SIZE), np.uint16), name="painted")
    viewer.add_labels(np.ones((SIZE, SIZE), np.uint16), name="only opened")
    painted.paint((5, 5), 3)
    kept = viewer.add_labels(np.zeros((SIZE, SIZE), np.uint16), name="kept")
    kept.paint((5, 5), 3)
    tifffile.imwrite(project.root / "kept.tif", kept.data, metadata={"axes": "YX"})
    kept._source = Source(path=str(project.root / "kept.tif"))
    watch = JournalWatch(viewer, project)
    watch.start()
    journal = Journal(project, painted.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists, timeout=30_000)
    watch.stop()
    assert [j.uuid for j in list_journals(project)] == [journal.uuid]
    np.testing.assert_array_equal(journal.restore(), painted.data)
    assert not Journal(project, kept.unique_id.hex).exists


def test_what_was_saved_over_its_file_is_not_offered(watched: Any, qtbot: Any, project: Any) -> None:
    viewer, watch = watched
    journals = []
    for name in ("saved", "not saved"):
        file = project.root / f"{name}.tif"
        tifffile.imwrite(file, np.zeros((SIZE, SIZE), np.uint16), metadata={"axes": "YX"})
        layer = viewer.add_labels(tifffile.imread(file), name=name)
        layer._source = Source(path=str(file))
        layer.paint((5, 5), 3)
        journals.append(Journal(project, layer.unique_id.hex))
    qtbot.waitUntil(lambda: all(journal.exists for journal in journals), timeout=30_000)
    tifffile.imwrite(project.root / "saved.tif", viewer.layers["saved"].data, metadata={"axes": "YX"})
    watch.stop()
    assert [j.uuid for j in list_journals(project)] == [journals[1].uuid]
    np.testing.assert_array_equal(journals[1].restore(), layer.data)


def test_painting_on_a_sample_is_kept_safe_without_a_panel(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    viewer = make_napari_viewer()
    viewer.open_sample("napari-im2im", "painted_corner")
    window = main_window(viewer)
    assert window is not None
    qtbot.waitUntil(lambda: bool(window.findChildren(JournalWatch)), timeout=30_000)
    layer = viewer.layers["painted labels"]
    layer.paint((300, 300), 2)
    journal = Journal(project, layer.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists and bool((journal.restore() == layer.data).all()), timeout=30_000)
    watch_labels(viewer).stop()


def test_lazy_labels_are_read_into_memory_where_they_are_to_be_painted(
    watched: Any, qtbot: Any, project: Any, monkeypatch: Any
) -> None:
    import dask.array as da

    viewer, watch = watched
    said: list[tuple[Any, ...]] = []
    monkeypatch.setattr(watch, "_say", lambda *words: said.append(words))
    before = np.zeros((SIZE, SIZE), np.uint16)
    before[:4, :4] = 8
    layer = viewer.add_labels(da.from_array(before), name="lazy")
    assert said == []
    layer.mode = "paint"
    layer.mode = "erase"
    ((text, level, _, button, read),) = said
    assert (level, button) == ("warning", "Read it into memory")
    assert "“lazy” is read from its file piece by piece" in text
    read()
    qtbot.waitUntil(lambda: isinstance(layer.data, np.ndarray), timeout=30_000)
    layer.mode = "paint"
    layer.paint((40, 40), 3)
    journal = Journal(project, layer.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists and bool((journal.restore() == layer.data).all()), timeout=30_000)
    assert journal.restore()[0, 0] == 8
    assert len(said) == 1


def test_a_stroke_before_the_first_look_is_kept(watched: Any, qtbot: Any, project: Any) -> None:
    viewer, watch = watched
    watch._submit(time.sleep, 0.5)  # the thread has other work
    layer = viewer.add_labels(np.zeros((SIZE, SIZE), np.uint16), name="quick")
    layer.paint((40, 40), 3)
    journal = Journal(project, layer.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists and bool((journal.restore() == layer.data).all()), timeout=30_000)


def test_a_stroke_that_is_kept_elsewhere_is_not_offered_again(watched: Any, qtbot: Any, project: Any) -> None:
    viewer, watch = watched
    layer = viewer.add_labels(np.zeros((SIZE, SIZE), np.uint16), name="saved")
    layer.paint((40, 40), 3)
    watch.settle(layer)  # before the stroke was written
    looks(watch, qtbot)
    journal = Journal(project, layer.unique_id.hex)
    assert not journal.exists
    layer.paint((10, 10), 3)
    qtbot.waitUntil(lambda: journal.exists and bool((journal.restore() == layer.data).all()), timeout=30_000)


def test_strokes_on_lazy_labels_are_kept_once_they_are_read(
    watched: Any, qtbot: Any, project: Any, monkeypatch: Any
) -> None:
    import dask.array as da

    viewer, watch = watched
    said: list[tuple[Any, ...]] = []
    monkeypatch.setattr(watch, "_say", lambda *words: said.append(words))
    layer = viewer.add_labels(da.zeros((SIZE, SIZE), dtype=np.uint16, chunks=SIZE), name="lazy")
    layer.paint((10, 10), 3)
    said[0][4]()
    layer.paint((50, 50), 4)  # while it is read
    qtbot.waitUntil(lambda: isinstance(layer.data, np.ndarray), timeout=30_000)
    assert set(np.unique(layer.data)) == {0, 3, 4}
    journal = Journal(project, layer.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists and bool((journal.restore() == layer.data).all()), timeout=30_000)


def test_lazy_labels_that_somebody_read_are_watched_from_then_on(watched: Any, qtbot: Any, project: Any) -> None:
    import dask.array as da

    viewer, watch = watched
    layer = viewer.add_labels(da.zeros((SIZE, SIZE), dtype=np.uint16), name="lazy")
    layer.data = np.asarray(layer.data)
    qtbot.waitUntil(lambda: watch._last is not None and watch._last.done(), timeout=30_000)  # nobody is faster
    layer.paint((40, 40), 3)
    journal = Journal(project, layer.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists and bool((journal.restore() == layer.data).all()), timeout=30_000)


def test_lazy_labels_that_are_too_large_or_broken_are_told(watched: Any, qtbot: Any, monkeypatch: Any) -> None:
    import dask.array as da

    from napari_im2im import _journal_watch as module

    def broken(block: Any) -> Any:
        raise RuntimeError("chunk 3 is damaged")

    viewer, watch = watched
    said: list[tuple[Any, ...]] = []
    monkeypatch.setattr(watch, "_say", lambda *words: said.append(words))
    layer = viewer.add_labels(da.zeros((SIZE, SIZE), dtype=np.uint16), name="lazy")
    data = da.zeros((SIZE, SIZE), dtype=np.uint16).map_blocks(broken, dtype=np.uint16)
    watch._later.ask("read", lambda: np.array(data), lambda _: None, lambda e: watch._on_unread("lazy", e))
    qtbot.waitUntil(lambda: bool(said), timeout=30_000)
    assert said.pop()[:2] == ("“lazy” cannot be read: chunk 3 is damaged", "error")
    monkeypatch.setattr(module, "LARGEST", 10)
    layer.mode = "paint"
    assert len(said[0]) == 3  # no button
    assert "TIFF" in said[0][2]


def test_a_viewer_is_made_safe_without_a_panel(make_napari_viewer: Any, qtbot: Any, project: Any) -> None:
    """As the startup script in the documentation does it."""
    page = (Path(__file__).parents[2] / "docs" / "tutorial-segmentation.md").read_text(encoding="utf-8")
    start = page.index("    from napari_im2im import")
    lines = page[start : page.index("\n\n", start)].splitlines()
    viewer = make_napari_viewer()
    exec(compile("\n".join(line.strip() for line in lines), "startup script", "exec"), {})
    layer = viewer.add_labels(np.zeros((SIZE, SIZE), np.uint16), name="painted")
    layer.paint((5, 5), 3)
    journal = Journal(project, layer.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists and bool((journal.restore() == layer.data).all()), timeout=30_000)
    watch_labels(viewer).stop()


def test_corrections_come_back_as_corrections(watched: Any, qtbot: Any, project: Any) -> None:
    """Restored as plain labels they would be learned from everywhere, and from no model."""
    viewer, watch = watched
    about = {"labelling": "sparse", "prefilled": True, "taught_from": "models/nuclei", "axes": "YX"}
    painted = viewer.add_labels(np.ones((SIZE, SIZE), np.uint32), name="corrections", metadata=about)
    painted.paint((5, 5), 7)
    journal = Journal(project, painted.unique_id.hex)
    qtbot.waitUntil(lambda: journal.exists, timeout=30_000)
    viewer.layers.remove("corrections")
    watch._on_restore(journal)
    qtbot.waitUntil(lambda: "corrections" in viewer.layers, timeout=30_000)
    restored = viewer.layers["corrections"]
    assert dict(restored.metadata) == about
    np.testing.assert_array_equal(restored.data, painted.data)
