"""Writes down what is painted within two seconds, and offers it again after a crash."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication, QWidget

from im2im_core.errors import DataError, Im2ImError, ResourceError
from im2im_core.events import Event, Message
from im2im_core.journal import Journal, blocks_at, list_journals
from napari_im2im._later import Later
from napari_im2im._layer_pairs import LABELLING, PREFILLED, TAUGHT_FROM, file_of, kind_of
from napari_im2im._layers import AXES_KEY, is_result

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer
    from napari.layers import Labels

    from im2im_core.journal import JournalInfo, Place
    from im2im_core.project import Project
    from napari_im2im._messages import MessageBar

POLL_MILLISECONDS = 1000
PAINT_MILLISECONDS = 300
OFFERED = 3
"""Journals that are offered at once; the others come at the next start."""
NOTED = (LABELLING, AXES_KEY, PREFILLED, TAUGHT_FROM)
"""Metadata of a layer that is restored with it."""
PAINTING = ("paint", "erase", "fill", "polygon")
"""Modes of a layer in which it is painted on."""
LARGEST = 2**31
"""Lazy labels of more bytes are not read into memory by us: they might fill it."""
CALM = 4.0
"""A full look at a layer is repeated after this many times its own duration, at least every second."""


@dataclass
class _Watched:
    """One labels layer and what is known of its journal."""

    layer: Labels
    journal: Journal
    touched: set[Place] = field(default_factory=set)
    painted: bool = False
    """Whether strokes are to be written, also those that were made before the first look."""
    whole: bool = False
    """Whether the array was replaced, so that a look at a few blocks does not do."""
    next_look: float = 0.0
    running: Future[tuple[int, float]] | None = None


def watch_labels(viewer: Viewer, project: Project | None = None) -> JournalWatch:
    """The watch over the labels of `viewer`; begun where no panel began it yet, it lasts as long as the window.

    Parameters
    ----------
    project : Project, optional
        Where the journals of a new watch are kept; the nearest project if not given.
    """
    from im2im_core.project import Project

    owner = main_window(viewer) or QApplication.instance()
    for watch in owner.findChildren(JournalWatch) if owner is not None else ():
        if watch.watches(viewer):
            return watch
    watch = JournalWatch(viewer, project or Project.open(), owner)
    watch.start()
    return watch


def main_window(viewer: Viewer) -> QObject | None:
    """Window of the viewer; None for a viewer without one."""
    menu = getattr(getattr(viewer, "window", None), "plugins_menu", None)
    return None if menu is None else _bare(menu.parent())


def _size(data: Any) -> int:
    """Bytes of an array that may be lazy."""
    return math.prod(map(int, data.shape)) * int(np.dtype(data.dtype).itemsize)


def _strokes_of(layer: Labels) -> bool:
    """Whether it was painted in this viewer already; napari tells nobody but its undo."""
    return bool(getattr(layer, "_undo_history", ()))


def _bare(thing: Any) -> Any:
    """What napari may have wrapped for a plugin."""
    return getattr(thing, "__wrapped__", thing)


class JournalWatch(QObject):
    """Watches the Labels layers of a viewer; pixels are read and written in threads, one after the other.

    Strokes are known from the layer's events. A change of ``layer.data`` that nobody announced
    is found by comparing hashes of blocks. Nothing is written for a layer that does not change.
    Layers that were painted before the watch began are written whole; results of a model only
    after the first stroke on them.
    """

    written = Signal(str)
    """Name of a layer whose changes are on disk now."""

    def __init__(self, viewer: Viewer, project: Project, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._project = viewer, project
        self._bar: ReferenceType[MessageBar] | None = None
        self._unsaid: list[tuple[Any, ...]] = []
        self._watched: dict[str, _Watched] = {}
        self._warned: set[str] = set()
        self._lazy_strokes: dict[str, int] = {}
        self._last: Future[Any] | None = None
        self._later = Later(self)
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.timeout.connect(self._on_tick)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(PAINT_MILLISECONDS)
        self._soon.timeout.connect(self._on_tick)
        self._closed = False

    def watches(self, viewer: Viewer) -> bool:
        """Whether this is the watch over `viewer`, and goes on."""
        return not self._closed and _bare(self._viewer.layers) is _bare(viewer.layers)

    def start(self) -> None:
        """Begin to watch, and offer what an earlier viewer left."""
        for layer in self._viewer.layers:
            self._add(layer)
        self._viewer.layers.events.inserted.connect(self._on_inserted)
        self._viewer.layers.events.removed.connect(self._on_removed)
        self._timer.start()
        owner = self.parent()
        if isinstance(owner, QWidget):
            owner.installEventFilter(self)
        self.offer()

    def attach(self, bar: MessageBar) -> None:
        """Speak in `bar` from now on, and say there what nobody heard yet."""
        self._bar = ref(bar)
        unsaid, self._unsaid = self._unsaid, []
        for words in unsaid:
            bar.add(*words)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Write what was announced before the window closes; there may be no later."""
        if event is not None and event.type() == QEvent.Type.Close:
            self.flush()
        return False

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
            self._submit(_end, watched.journal, watched.layer.data, file_of(watched.layer))
        self._watched.clear()
        if self._last is not None:
            wait([self._last])
        self.deleteLater()

    def flush(self) -> None:
        """Write what was announced at once, because there may be no later."""
        for watched in list(self._watched.values()):
            if not self._closed and (watched.whole or watched.touched):
                self._look(watched)

    def settle(self, layer: Labels) -> None:
        """What `layer` holds now is kept elsewhere: its journal can go."""
        watched = self._watched.get(layer.unique_id.hex)
        if watched is not None:
            watched.painted = False
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

    # ---- saying ----

    def _say(self, *words: Any) -> None:
        """A message in the bar that was attached last; without one a note of napari, and the message waits."""
        bar = self._bar() if self._bar is not None else None
        if bar is not None and isalive(bar):
            bar.add(*words)
            return
        if any(said[0] == words[0] for said in self._unsaid):
            return
        from napari.utils.notifications import show_info, show_warning

        self._unsaid.append(words)
        text, level, cure, *_ = (*words, "", "", "")
        (show_info if level == "info" else show_warning)(f"{text}. {cure or 'Open Dataset to see more'}")

    # ---- restoring ----

    def offer(self) -> None:
        """Look in a thread for what can be restored; each of the latest journals is a message with buttons."""
        project = self._project
        self._later.ask("offer", lambda: [(j, j.info()) for j in list_journals(project)[:OFFERED]], self._on_found)

    def _on_found(self, found: list[tuple[Journal, JournalInfo]]) -> None:
        for journal, info in found:
            text = f"{_described(info)} was painted {_ago(time.time() - info.changed)} and not saved"
            discard = ("Discard it", partial(self._on_discard, journal, info))
            self._say(text, "info", "", "Restore it", partial(self._on_restore, journal), [discard])

    def _on_discard(self, journal: Journal, info: JournalInfo) -> None:
        """Ask once more: nothing brings it back."""
        restore = ("Restore it", partial(self._on_restore, journal))
        self._say(f"{_described(info)} will be gone for good", "warning", "", "Delete it", journal.discard, [restore])

    def _on_restore(self, journal: Journal) -> None:
        def work() -> tuple[Journal, JournalInfo, np.ndarray, list[Event]]:
            damage: list[Event] = []
            return journal, journal.info(), journal.restore(damage.append), damage

        self._later.ask(f"restore {journal.uuid}", work, self._on_restored, self._on_lost)

    def _on_lost(self, error: BaseException) -> None:
        if not isinstance(error, (Im2ImError, OSError)):
            raise error
        self._say(str(getattr(error, "message", error)), "error", getattr(error, "cure", ""))

    def _on_restored(self, found: tuple[Journal, JournalInfo, np.ndarray, list[Event]]) -> None:
        journal, info, pixels, damage = found
        for event in damage:
            if isinstance(event, Message):
                self._say(event.text, event.level, event.cure)
        about = {k: tuple(v) for k, v in info.about.items() if k in ("scale", "translate", "units", "axis_labels")}
        noted = {k: info.about[k] for k in NOTED if k in info.about}
        layer = self._viewer.add_labels(pixels, name=info.name, metadata=noted, **about)
        watched = self._watched[layer.unique_id.hex]
        # The old journal goes only after the new one has it all.
        self._submit(_move, journal, watched.journal, pixels, info.name, info.about)

    # ---- watching ----

    def _add(self, layer: Any) -> None:
        if kind_of(layer) != "labels":
            return
        if layer.multiscale or not isinstance(layer.data, np.ndarray):
            layer.events.mode.connect(self._on_lazy_mode)
            layer.events.paint.connect(self._on_lazy_paint)
            layer.events.data.connect(self._on_lazy_data)
            return
        journal = Journal(self._project, layer.unique_id.hex)
        if journal.exists or not (_strokes_of(layer) or is_result(layer)):
            self._watch(layer, journal)
            self._submit(_begin, journal, layer.data)
        elif _strokes_of(layer):
            self._add_painted(layer, journal)
        else:
            # What a model found comes again with a click; it is worth a journal once somebody painted on it.
            layer.events.paint.connect(self._on_result_painted)

    def _add_painted(self, layer: Labels, journal: Journal) -> None:
        """Watch a layer that was painted before it could be watched."""
        self._watch(layer, journal).whole = True
        self._submit(_begin_painted, journal, layer.data, file_of(layer))

    def _watch(self, layer: Labels, journal: Journal) -> _Watched:
        """The layer with its journal; from now on its changes are written."""
        watched = self._watched[layer.unique_id.hex] = _Watched(layer, journal)
        layer.events.paint.connect(self._on_paint)
        layer.events.data.connect(self._on_data)
        return watched

    def _on_result_painted(self, event: Any) -> None:
        """Begin with the first stroke; nothing was looked at before, so that all that the layer holds is written."""
        layer = event.source
        if not isalive(self) or self._closed or layer.unique_id.hex in self._watched:
            return
        watched = self._watch(layer, Journal(self._project, layer.unique_id.hex))
        watched.painted = watched.whole = True
        self._soon.start()

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
            self._submit(_end, watched.journal, watched.layer.data, file_of(watched.layer))

    def _on_paint(self, event: Any) -> None:
        watched = self._watched.get(event.source.unique_id.hex)
        if watched is None or not isalive(self):
            return
        watched.painted = True
        for atom in event.value:
            if isinstance(atom, tuple) and len(atom) == 3:
                watched.touched |= blocks_at(atom[0])
            else:  # napari keeps strokes in forms of its own
                watched.whole = True
        self._soon.start()

    def _on_lazy_mode(self, event: Any) -> None:
        if isalive(self) and str(event.source.mode) in PAINTING:
            self._warn_of(event.source)

    def _on_lazy_paint(self, event: Any) -> None:
        if isalive(self):
            key = event.source.unique_id.hex
            self._lazy_strokes[key] = self._lazy_strokes.get(key, 0) + 1
            self._warn_of(event.source)

    def _warn_of(self, layer: Labels) -> None:
        """Strokes on what is read lazily go into its file or are nowhere but in memory; on an array they are kept."""
        if layer.unique_id.hex in self._warned or self._closed:
            return
        self._warned.add(layer.unique_id.hex)
        text = f"“{layer.name}” is read from its file piece by piece, so that strokes on it cannot be kept safe"
        if layer.multiscale or _size(layer.data) > LARGEST:
            self._say(text, "warning", "Save the part that you need as a TIFF, and paint there")
            return
        cure = "Read it into memory: then every stroke is kept"
        self._say(text, "warning", cure, "Read it into memory", partial(self._on_read, layer))

    def _on_read(self, layer: Labels) -> None:
        strokes = self._lazy_strokes.get(layer.unique_id.hex, 0)
        data, done = layer.data, partial(self._on_in_memory, layer, strokes)
        self._later.ask(f"read {layer.unique_id}", lambda: np.array(data), done, partial(self._on_unread, layer.name))

    def _on_unread(self, name: str, error: BaseException) -> None:
        text = getattr(error, "message", "") or str(error) or type(error).__name__
        self._say(f"“{name}” cannot be read: {text}", "error", getattr(error, "cure", ""))

    def _on_in_memory(self, layer: Labels, strokes: int, pixels: np.ndarray) -> None:
        if layer not in self._viewer.layers or isinstance(layer.data, np.ndarray):
            return
        if self._lazy_strokes.get(layer.unique_id.hex, 0) > strokes:  # painted while it was read
            self._on_read(layer)
        else:
            layer.data = pixels

    def _on_lazy_data(self, event: Any) -> None:
        """Watch a layer from the moment on that it is in memory, whoever put it there."""
        layer = event.source
        if not isalive(self) or self._closed or layer.multiscale or not isinstance(layer.data, np.ndarray):
            return
        self._forget_lazy(layer)
        if self._lazy_strokes.pop(layer.unique_id.hex, 0):
            self._add_painted(layer, Journal(self._project, layer.unique_id.hex))
        else:
            self._add(layer)

    def _forget_lazy(self, layer: Any) -> None:
        events = layer.events
        for emitter, slot in (
            (events.mode, self._on_lazy_mode),
            (events.paint, self._on_lazy_paint),
            (events.data, self._on_lazy_data),
        ):
            with suppress(ValueError):
                emitter.disconnect(slot)

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
            self._say(f"What you paint cannot be kept safe: {error.message}", "warning", error.cure)
            watched.painted = watched.whole = True
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
        painted, watched.painted = watched.painted, False
        watched.touched.clear()
        watched.whole = False
        about = {
            "scale": [float(s) for s in layer.scale],
            "translate": [float(t) for t in layer.translate],
            "units": [str(u) for u in layer.units],
            "axis_labels": [str(a) for a in layer.axis_labels],
            **{k: layer.metadata[k] for k in NOTED if isinstance(layer.metadata.get(k), (str, bool))},
        }
        journal, file = watched.journal, file_of(layer)
        watched.running = self._submit(_write, journal, data, places, painted, layer.name, about, file)


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


def _begin_painted(journal: Journal, data: np.ndarray, file: Path | None) -> None:
    """Take strokes from before the watch for a change, unless the file of the layer holds them."""
    journal.look(data)
    if _base(journal, data, file) is data:
        journal.discard()  # what was looked at; nothing is on disk yet


def _write(
    journal: Journal,
    data: np.ndarray,
    places: set[Place] | None,
    painted: bool,
    name: str,
    about: dict[str, Any],
    file: Path | None,
) -> tuple[int, float]:
    """Blocks written and seconds it took; the journal begins with the first change.

    A stroke is one even where nothing differs: it may have been made before the first look, which takes its time.
    """
    begin = time.monotonic()
    if journal.exists and journal.info().shape == data.shape and journal.info().dtype == data.dtype.str:
        count = journal.write_changes(data, places)
    elif painted or journal.differs(data, places):
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


def _end(journal: Journal, data: np.ndarray, file: Path | None) -> None:
    """Let others offer what was painted, unless it was saved over the file of the layer."""
    if journal.exists and file is not None and file.is_file():
        with suppress(DataError, ResourceError):
            if journal.looked_at(file, data):
                journal.discard()
                return
    journal.release()


def _forget(journal: Journal, data: np.ndarray) -> None:
    journal.discard()
    journal.look(data)


def _move(old: Journal, new: Journal, pixels: np.ndarray, name: str, about: dict[str, Any]) -> None:
    new.note_base(pixels, name=name, about=about)
    old.discard()


def _described(info: JournalInfo) -> str:
    return f"“{info.name}” ({' × '.join(map(str, info.shape))})"


def _ago(seconds: float) -> str:
    """Time that has passed, in words."""
    if seconds < 90:
        return "a minute ago"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago" if seconds < 129_600 else f"{seconds / 86_400:.0f} days ago"
