"""Writes down what is painted within two seconds, and offers it again after a crash."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QObject, QTimer, Signal

from im2im_core.errors import DataError, Im2ImError, ResourceError
from im2im_core.events import Event, Message
from im2im_core.journal import Journal, blocks_at, list_journals
from napari_im2im._layer_pairs import file_of, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer
    from napari.layers import Labels

    from im2im_core.journal import Place
    from im2im_core.project import Project
    from napari_im2im._messages import MessageBar

POLL_MILLISECONDS = 1000
PAINT_MILLISECONDS = 300
OFFERED = 3
"""Journals that are offered at once; the others come at the next start."""
CALM = 4.0
"""A full look at a layer is repeated after this many times its own duration, at least every second."""


@dataclass
class _Watched:
    """One labels layer and what is known of its journal."""

    layer: Labels
    journal: Journal
    touched: set[Place] = field(default_factory=set)
    whole: bool = False
    """Whether the array was replaced, so that a look at a few blocks does not do."""
    next_look: float = 0.0
    running: Future[tuple[int, float]] | None = None


class JournalWatch(QObject):
    """Watches the Labels layers of a viewer; pixels are read and written in threads, one after the other.

    Strokes are known from the layer's events. A change of ``layer.data`` that nobody announced
    is found by comparing hashes of blocks. Nothing is written for a layer that does not change.
    """

    written = Signal(str)
    """Name of a layer whose changes are on disk now."""

    def __init__(self, viewer: Viewer, project: Project, messages: MessageBar, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._project, self._messages = viewer, project, messages
        self._watched: dict[str, _Watched] = {}
        self._last: Future[Any] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.timeout.connect(self._on_tick)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(PAINT_MILLISECONDS)
        self._soon.timeout.connect(self._on_tick)
        self._closed = False

    def start(self) -> None:
        """Begin to watch, and offer what an earlier viewer left."""
        for layer in self._viewer.layers:
            self._add(layer)
        self._viewer.layers.events.inserted.connect(self._on_inserted)
        self._viewer.layers.events.removed.connect(self._on_removed)
        self._timer.start()
        self.offer()

    def stop(self) -> None:
        """Write what is not on disk yet, and end the thread."""
        if self._closed:
            return
        self._closed = True
        self._timer.stop()
        self._soon.stop()
        with suppress(ValueError):  # the viewer dropped its callbacks already
            self._viewer.layers.events.inserted.disconnect(self._on_inserted)
            self._viewer.layers.events.removed.disconnect(self._on_removed)
        for watched in list(self._watched.values()):
            self._disconnect(watched)
            self._look(watched)
            self._submit(watched.journal.release)
        self._watched.clear()
        if self._last is not None:
            wait([self._last])

    def flush(self) -> None:
        """Write what was announced at once, because there may be no later."""
        for watched in list(self._watched.values()):
            if not self._closed and (watched.whole or watched.touched):
                self._look(watched)

    def settle(self, layer: Labels) -> None:
        """What `layer` holds now is kept elsewhere: its journal can go."""
        watched = self._watched.get(layer.unique_id.hex)
        if watched is not None:
            self._submit(_forget, watched.journal, layer.data)

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Result to come of a function that runs in a thread after all that were submitted before.

        The thread ends with its function, so that none is left when this object is destroyed;
        the interpreter waits for it at its own end, so that nothing announced is lost.
        """
        pool = ThreadPoolExecutor(1, "journal")
        self._last = pool.submit(_after, self._last, function, arguments)
        pool.shutdown(wait=False)
        return self._last

    # ---- restoring ----

    def offer(self) -> None:
        """A message with a button for each of the latest journals that can be restored."""
        for journal in list_journals(self._project)[:OFFERED]:
            info = journal.info()
            size = " × ".join(map(str, info.shape))
            self._messages.add(
                f"“{info.name}” ({size}) was painted {_ago(time.time() - info.changed)} and not saved",
                "info",
                "",
                "Restore it",
                partial(self._on_restore, journal),
            )

    def _on_restore(self, journal: Journal) -> None:
        from napari_im2im._layer_pairs import LABELLING

        try:
            info = journal.info()
            pixels = journal.restore(self._on_damage)
        except Im2ImError as error:
            self._messages.add_error(error)
            return
        about = {k: tuple(v) for k, v in info.about.items() if k in ("scale", "translate", "units", "axis_labels")}
        noted = {k: info.about[k] for k in (LABELLING, "axes") if k in info.about}
        layer = self._viewer.add_labels(pixels, name=info.name, metadata=noted, **about)
        watched = self._watched[layer.unique_id.hex]
        # The old journal goes only after the new one has it all.
        self._submit(_move, journal, watched.journal, pixels, info.name, info.about)

    def _on_damage(self, event: Event) -> None:
        if isinstance(event, Message):
            self._messages.add(event.text, event.level, event.cure)

    # ---- watching ----

    def _add(self, layer: Any) -> None:
        if kind_of(layer) != "labels" or layer.multiscale or not isinstance(layer.data, np.ndarray):
            return
        watched = _Watched(layer, Journal(self._project, layer.unique_id.hex))
        self._watched[layer.unique_id.hex] = watched
        layer.events.paint.connect(self._on_paint)
        layer.events.data.connect(self._on_data)
        self._submit(_begin, watched.journal, layer.data)

    def _disconnect(self, watched: _Watched) -> None:
        with suppress(ValueError):
            watched.layer.events.paint.disconnect(self._on_paint)
            watched.layer.events.data.disconnect(self._on_data)

    def _on_inserted(self, event: Any) -> None:
        if isalive(self):
            self._add(event.value)

    def _on_removed(self, event: Any) -> None:
        watched = self._watched.pop(event.value.unique_id.hex, None)
        if watched is not None and not self._closed:
            self._disconnect(watched)
            self._look(watched)
            self._submit(watched.journal.release)

    def _on_paint(self, event: Any) -> None:
        watched = self._watched.get(event.source.unique_id.hex)
        if watched is None or not isalive(self):
            return
        for atom in event.value:
            if isinstance(atom, tuple) and len(atom) == 3:
                watched.touched |= blocks_at(atom[0])
            else:  # napari keeps strokes in forms of its own
                watched.whole = True
        self._soon.start()

    def _on_data(self, event: Any) -> None:
        watched = self._watched.get(event.source.unique_id.hex)
        if watched is not None and isalive(self):
            watched.whole = True
            self._soon.start()

    def _on_tick(self) -> None:
        for watched in list(self._watched.values()):
            self._collect(watched)
            urgent = watched.whole or watched.touched
            if watched.running is None and (urgent or time.monotonic() >= watched.next_look):
                self._look(watched)

    def _collect(self, watched: _Watched) -> None:
        """Take the result of a look that has ended."""
        if watched.running is None or not watched.running.done():
            return
        future, watched.running = watched.running, None
        try:
            count, seconds = future.result()
        except (ResourceError, DataError) as error:
            self._messages.add(f"What you paint cannot be kept safe: {error.message}", "warning", error.cure)
            watched.whole = True
            return
        watched.next_look = time.monotonic() + CALM * seconds
        if count:
            self.written.emit(watched.layer.name)

    def _look(self, watched: _Watched) -> None:
        """Compare and write in the thread; the layer itself is asked here, on the main thread."""
        layer = watched.layer
        data = layer.data
        if not isinstance(data, np.ndarray):
            return
        places = None if watched.whole or not watched.touched else set(watched.touched)
        watched.touched.clear()
        watched.whole = False
        about = {
            "scale": [float(s) for s in layer.scale],
            "translate": [float(t) for t in layer.translate],
            "units": [str(u) for u in layer.units],
            "axis_labels": [str(a) for a in layer.axis_labels],
            **{k: str(layer.metadata[k]) for k in ("labelling", "axes") if k in layer.metadata},
        }
        watched.running = self._submit(_write, watched.journal, data, places, layer.name, about, file_of(layer))


# ---- in the thread -------------------------------------------------------------


def _after(before: Future[Any] | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if before is not None:
        wait([before])
    return function(*arguments)


def _begin(journal: Journal, data: np.ndarray) -> None:
    """Know what is there already; what was painted since an earlier watch ended is then a change."""
    with suppress(DataError):
        if journal.exists:
            journal.look(journal.restore())
            return
    journal.look(data)


def _write(
    journal: Journal,
    data: np.ndarray,
    places: set[Place] | None,
    name: str,
    about: dict[str, Any],
    file: Path | None,
) -> tuple[int, float]:
    """Blocks written and seconds it took; the journal begins with the first change."""
    begin = time.monotonic()
    if journal.exists and journal.info().shape == data.shape and journal.info().dtype == data.dtype.str:
        count = journal.write_changes(data, places)
    elif journal.differs(data, places):
        journal.note_base(_base(journal, data, file), name=name, about=about)
        count = max(journal.write_changes(data), 1)
    else:
        count = 0
    return count, time.monotonic() - begin


def _base(journal: Journal, data: np.ndarray, file: Path | None) -> np.ndarray | Path:
    """The file that the layer was opened from where it still holds what was looked at first, else the array."""
    if file is None or not file.is_file() or journal.exists:
        return data
    try:
        return file if journal.looked_at(file, data) else data
    except (DataError, ResourceError):
        return data


def _forget(journal: Journal, data: np.ndarray) -> None:
    journal.discard()
    journal.look(data)


def _move(old: Journal, new: Journal, pixels: np.ndarray, name: str, about: dict[str, Any]) -> None:
    new.note_base(pixels, name=name, about=about)
    old.discard()


def _ago(seconds: float) -> str:
    """Time that has passed, in words."""
    if seconds < 90:
        return "a minute ago"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago" if seconds < 129_600 else f"{seconds / 86_400:.0f} days ago"
