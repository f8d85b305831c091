"""Live curves: losses above, scores below, training thin and validation thick, several runs in one picture."""

from __future__ import annotations

import csv
import io
import math
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QBuffer, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from im2im_core.events import Losses, Validated
from im2im_core.files import write_atomic
from im2im_core.jobs.eventlog import merge_steps
from im2im_core.metrics import is_figure, title_of
from napari_im2im._later import Later
from napari_im2im._runs_table import WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray
    from qtpy.QtGui import QImage

    from im2im_core.jobs.eventlog import Stamped

COLOURS = ("#3b9dff", "#ff8c2e", "#3fbf6b", "#d06be0", "#e0524d", "#b8a022", "#33b5b5", "#8f8fff")
"""Seen on dark and on light ground, told apart with most kinds of colour blindness."""
DASHES = (Qt.PenStyle.SolidLine, Qt.PenStyle.DashLine, Qt.PenStyle.DotLine, Qt.PenStyle.DashDotLine)
ARROW = 14
"""Room for the arrow of a menu, pixels."""
LEGEND_ROWS = 3
"""Names of scores that stand below each other in the legend."""
NAME_LETTERS = 18
"""Letters of a run's name that fit into a legend."""
LOSSES = {
    "total": "loss",
    "dice_loss": "Dice loss",
    "cross_entropy": "cross entropy",
    "l1": "absolute difference",
    "l2": "squared difference",
    "huber": "Huber loss",
    "focal": "focal loss",
    "ssim_loss": "SSIM loss",
}
"""Loss terms in words; others are named as they are."""
SHORT = {"average_precision": "mean AP"}
"""Scores whose title is too long for a legend."""
Key = tuple[str, str]
"""Part ("train" or "validation") and name of a value."""
PARTS = {"train": "training", "validation": "validation"}


@dataclass
class RunSeries:
    """All values of one run by part and name, repeated steps merged; filled a few events at a time."""

    stamped: list[Stamped] = field(default_factory=list)
    columns: dict[Key, tuple[list[int], list[float]]] = field(default_factory=dict)

    def extend(self, events: Sequence[Stamped]) -> None:
        """Add events; a later attempt replaces what it did again."""
        fresh = [s for s in events if isinstance(s.event, Losses | Validated)]
        if not fresh:
            return
        again = bool(self.stamped) and fresh[-1].attempt > self.stamped[0].attempt
        self.stamped += fresh
        if again:
            self.stamped = merge_steps(self.stamped)
            self.columns.clear()
            fresh = self.stamped
        for stamped in fresh:
            self._add(stamped)

    def _add(self, stamped: Stamped) -> None:
        event = stamped.event
        if not isinstance(event, Losses | Validated):
            return
        part = "train" if isinstance(event, Losses) else "validation"
        for name, value in event.values.items():
            steps, values = self.columns.setdefault((part, name), ([], []))
            steps.append(event.step)
            values.append(value)

    def scores(self) -> list[str]:
        """Names of what only validation measures: metrics; before the first training loss, those with a known name."""
        trained = {name for part, name in self.columns if part == "train"}
        measured = [name for part, name in self.columns if part == "validation" and name not in trained | {"total"}]
        return measured if trained else [name for name in measured if name in WORDS or is_figure(name)]

    def losses(self) -> list[str]:
        """Names of the loss terms, the sum first."""
        scores = set(self.scores())
        names = dict.fromkeys(name for _, name in self.columns if name not in scores)
        return sorted(names, key=lambda name: name != "total")


def term_words(name: str, score: bool) -> str:
    """What a loss term or a score is called on the screen; tables keep the plain names."""
    if not score:
        return LOSSES.get(name, name.replace("_", " "))
    if name in SHORT:
        return SHORT[name]
    if name not in WORDS and is_figure(name):
        return title_of(name)
    lead, _, last = name.rpartition("_")
    return f"{lead.replace('_', ' ')} {WORDS.get(last, last)}".strip()


def smoothed(values: Sequence[float], weight: float) -> NDArray[np.float64]:
    """Moving average with memory `weight`, without the pull of the first value; gaps stay gaps.

    ``weight`` 0 gives the values themselves.
    """
    result = np.asarray(values, np.float64)
    if weight <= 0 or len(result) == 0:
        return result
    out, mean, mass = np.empty_like(result), 0.0, 0.0
    for i, value in enumerate(result.tolist()):
        if math.isfinite(value):
            mean = weight * mean + (1 - weight) * value
            mass = weight * mass + 1 - weight
        out[i] = mean / mass if mass and math.isfinite(value) else math.nan
    return out


class _Legend(pg.LegendItem):
    """Legend that is not moved any more once its plot is gone; a closing viewer deletes the plot first."""

    def _GraphicsWidgetAnchor__geometryChanged(self) -> None:
        with suppress(RuntimeError):
            super()._GraphicsWidgetAnchor__geometryChanged()


class CurvesWidget(QWidget):
    """Curves of any number of runs; it is told events and never asks for any."""

    exported = Signal(str)
    """Path of a picture or table that was written."""
    refused = Signal(object)
    """Error because of which nothing was written."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._later = Later(self)
        self._series: dict[str, RunSeries] = {}
        self._curves: dict[tuple[str, str, str], pg.PlotDataItem] = {}
        self._hidden: set[str] = set()
        self._known: set[tuple[str, bool]] = set()
        self._look: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._colours: dict[str, str] = {}
        self._area = pg.GraphicsLayoutWidget(parent=self)
        self._area.setMinimumHeight(170)
        self._loss = self._add_plot(0, "loss")
        self._score = self._add_plot(1, "score")
        self._score.setXLink(self._loss)
        self._score.setLabel("bottom", "step")
        self._reading = QLabel("Point at a curve to read it")
        self._reading.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(self._make_tools())
        layout.addWidget(self._area, 1)
        layout.addWidget(self._reading)
        self._area.scene().sigMouseMoved.connect(self._on_mouse)
        self.setColours("#23242b", "#f0f1f2")
        self._arrange()

    # ---- building ----

    def _add_plot(self, row: int, name: str) -> pg.PlotItem:
        plot = self._area.addPlot(row=row, col=0, enableMenu=False)
        plot.setLabel("left", name)
        plot.getAxis("left").setWidth(52)
        plot.getAxis("left").enableAutoSIPrefix(False)  # 0.83 stands in the table, so not 830 (x0.001) here
        plot.showGrid(x=True, y=True, alpha=0.15)
        plot.setDownsampling(auto=True, mode="peak")
        plot.setClipToView(True)
        plot.hideButtons()
        plot.legend = _Legend(offset=(-4, 2), labelTextSize="8pt", verSpacing=-6)
        plot.legend.setParentItem(plot.vb)
        return plot

    def _make_tools(self) -> QHBoxLayout:
        self._log = QCheckBox("log")
        self._log.setToolTip("Logarithmic loss axis")
        self._log.setAccessibleName("Logarithmic loss axis")
        self._log.toggled.connect(self._on_log)
        self._smooth = QSlider(Qt.Orientation.Horizontal)
        self._smooth.setRange(0, 99)
        self._smooth.setMaximumWidth(90)
        self._smooth.setToolTip("Smoothing of the training curves")
        self._smooth.setAccessibleName("Smoothing")
        self._smooth.valueChanged.connect(self.refresh)
        self._terms = QToolButton()
        self._terms.setText("Show")
        self._terms.setToolTip("Choose which losses and scores are drawn")
        self._terms.setAccessibleName("Losses and scores that are drawn")
        self._terms.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._terms.setMenu(QMenu(self._terms))
        # napari draws the arrow of the menu over the text where there is no room beside it.
        self._terms.setMinimumWidth(self._terms.fontMetrics().horizontalAdvance("Show") + 2 * ARROW)
        fit = QToolButton()
        fit.setText("Fit")
        fit.setToolTip("Show everything again after zooming")
        fit.setAccessibleName("Show everything")
        fit.clicked.connect(self.fit)
        save = QToolButton()
        save.setText("Save…")
        save.setToolTip("Picture (PNG) or table (CSV) of what is drawn")
        save.setAccessibleName("Save the curves")
        save.clicked.connect(self._on_save)
        row = QHBoxLayout()
        for widget in (QLabel("smooth"), self._smooth, self._log):
            row.addWidget(widget)
        row.addStretch(1)
        for widget in (self._terms, fit, save):
            row.addWidget(widget)
        return row

    def setColours(self, background: str, text: str) -> None:
        """Ground and text, as the viewer's theme has them."""
        self._area.setBackground(background)
        for plot in (self._loss, self._score):
            for side in ("left", "bottom"):
                axis = plot.getAxis(side)
                axis.setPen(text)
                axis.setTextPen(text)
            plot.legend.setLabelTextColor(text)
            for _, label in plot.legend.items:  # those that stand there keep their colour otherwise
                label.setText(label.text, color=text)
        self._text = text
        self._arrange()

    # ---- content ----

    def names(self) -> list[str]:
        """Runs that are drawn, in the order of their colours."""
        return list(self._series)

    def add(self, name: str, events: Sequence[Stamped]) -> None:
        """Add events of the run `name`; draws at once."""
        self._series.setdefault(name, RunSeries()).extend(events)
        self._colours.setdefault(name, self._free_colour())
        self.refresh()

    def remove(self, name: str) -> None:
        """Take a run out of the picture."""
        self._series.pop(name, None)
        self._colours.pop(name, None)
        for key in [k for k in self._curves if k[0] == name]:
            self._drop(key)
        self.refresh()
        self._arrange()

    def clear(self) -> None:
        """Take all runs out of the picture."""
        for name in self.names():
            self.remove(name)

    def colour(self, name: str) -> str | None:
        """Colour of a run, for marks elsewhere."""
        return self._colours.get(name)

    def _free_colour(self) -> str:
        used = set(self._colours.values())
        return next((c for c in COLOURS if c not in used), COLOURS[len(used) % len(COLOURS)])

    # ---- drawing ----

    def refresh(self) -> None:
        """Draw what is there now."""
        look = (tuple(self._scores()), tuple(self._series))
        if look != self._look:  # what is a loss, and which colours and names tell the runs apart, is seen otherwise now
            self._look = look
            self._drop_all()
        self._hide_new_terms()
        before = len(self._curves)
        for name, series in self._series.items():
            for (part, term), (steps, values) in series.columns.items():
                if self._is_shown(term):
                    self._draw((name, part, term), steps, values)
        if len(self._curves) != before:
            self._arrange()

    def _hide_new_terms(self) -> None:
        """At first the sum of the losses and all scores are drawn, not the terms of the sum."""
        scores, losses = self._scores(), self._loss_names()
        self._hidden |= {t for t in losses[1:] if (t, False) not in self._known}
        self._hidden -= {t for t in scores if (t, True) not in self._known}
        self._known |= {(t, False) for t in losses} | {(t, True) for t in scores}

    def _draw(self, key: tuple[str, str, str], steps: list[int], values: list[float]) -> None:
        curve = self._curves.get(key) or self._make_curve(key)
        weight = self._smooth.value() / 100 if key[1] == "train" else 0.0
        curve.setData(np.asarray(steps, np.float64), smoothed(values, weight), connect="finite")

    def _make_curve(self, key: tuple[str, str, str]) -> pg.PlotDataItem:
        name, part, term = key
        validation = part == "validation"
        shown = [t for t in self._all_names() if t in self._scores()] if term in self._scores() else self._loss_names()
        order = shown.index(term)
        alone = len(self._series) == 1
        colour = COLOURS[order % len(COLOURS)] if alone else self._colours[name]
        pen = pg.mkPen(colour, width=2.5 if validation else 1, style=DASHES[0 if alone else order % len(DASHES)])
        marks = {"symbol": "o", "symbolSize": 5, "symbolBrush": colour, "symbolPen": None} if validation else {}
        score = term in self._scores()
        words = term_words(term, score)
        title = {"train": f"{words}, training", "validation": words if score else f"{words}, validation"}
        plot = self._score if term in self._scores() else self._loss
        label = title[part] if alone else f"{self._short(name)}: {title[part]}"
        self._curves[key] = plot.plot(pen=pen, name=label, antialias=False, **marks)
        self._curves[key].setLogMode(False, self._log.isChecked() and plot is self._loss)
        return self._curves[key]

    def _short(self, name: str) -> str:
        """Name of a run for the legend, which is narrow: without the time it begins with where that says enough."""
        ends = {run: run.partition("_")[2] or run for run in self._series}
        short = ends[name] if list(ends.values()).count(ends[name]) == 1 else name.partition("-")[2] or name
        return short if len(short) <= NAME_LETTERS else f"{short[: NAME_LETTERS - 1]}…"

    def _drop(self, key: tuple[str, str, str]) -> None:
        curve = self._curves.pop(key)
        for plot in (self._loss, self._score):
            if curve in plot.items:
                plot.removeItem(curve)

    def _drop_all(self) -> None:
        for key in list(self._curves):
            self._drop(key)

    def _redraw(self) -> None:
        self._drop_all()
        self.refresh()
        self._arrange()

    def _arrange(self) -> None:
        """Scores take room only when there are some; the menu lists what can be drawn."""
        scores = any(k[2] in self._scores() for k in self._curves)
        self._score.setVisible(scores)
        self._loss.setLabel("bottom", "" if scores else "step")
        self._area.ci.layout.setRowStretchFactor(0, 3)
        self._area.ci.layout.setRowStretchFactor(1, 2 if scores else 0)
        self._area.ci.layout.setRowMaximumHeight(1, 10000 if scores else 0)
        names = len(self._score.legend.items)
        # The plot of the scores is low; names of several runs are too long to stand side by side.
        self._score.legend.setColumnCount(max(-(-names // LEGEND_ROWS), 1) if len(self._series) == 1 else 1)
        menu = self._terms.menu()
        menu.clear()
        for term in self._all_names():
            action = menu.addAction(term_words(term, term in self._scores()))
            action.setCheckable(True)
            action.setChecked(self._is_shown(term))
            action.toggled.connect(lambda on, t=term: self._on_term(t, on))

    # ---- what is shown ----

    def _loss_names(self) -> list[str]:
        return list(dict.fromkeys(n for s in self._series.values() for n in s.losses()))

    def _scores(self) -> list[str]:
        return list(dict.fromkeys(n for s in self._series.values() for n in s.scores()))

    def _all_names(self) -> list[str]:
        return self._loss_names() + self._scores()

    def _is_shown(self, term: str) -> bool:
        return term not in self._hidden

    def shown_names(self) -> list[str]:
        """Losses and scores that are drawn."""
        return [k for k in dict.fromkeys(k[2] for k in self._curves) if self._is_shown(k)]

    # ---- handlers ----

    def _on_term(self, term: str, on: bool) -> None:
        if on:
            self._hidden.discard(term)
        else:
            self._hidden.add(term)
        self._redraw()

    def _on_log(self, on: bool) -> None:
        self._loss.setLogMode(y=on)
        self.fit()

    def fit(self) -> None:
        """Show everything."""
        for plot in (self._loss, self._score):
            plot.enableAutoRange()

    def _on_mouse(self, place: Any) -> None:
        plot = next(
            (p for p in (self._loss, self._score) if p.isVisible() and p.sceneBoundingRect().contains(place)), None
        )
        if plot is not None:
            step = plot.vb.mapSceneToView(place).x()
            self._reading.setText(self.read(step, plot is self._score))

    def read(self, step: float, scores: bool = False) -> str:
        """Values of the drawn curves at the step nearest to `step`, in words."""
        found: list[str] = []
        nearest = None
        for (name, part, term), curve in self._curves.items():
            x, y = curve.getOriginalDataset()
            if (term in self._scores()) is not scores or x is None or len(x) == 0:
                continue
            index = int(np.abs(x - step).argmin())
            nearest = x[index] if nearest is None or abs(x[index] - step) < abs(nearest - step) else nearest
            owner = "" if len(self._series) == 1 else f"{name}: "
            found.append(f"{owner}{term_words(term, scores)}{'' if scores else f' ({PARTS[part]})'} {y[index]:.4g}")
        return f"step {nearest:.0f}: {', '.join(found)}" if found else "Point at a curve to read it"

    # ---- export ----

    def _on_save(self) -> None:
        filters = "Picture (*.png);;Table (*.csv)"
        chosen_path, chosen = QFileDialog.getSaveFileName(self, "Save the curves", "curves.png", filters)
        if not chosen_path:
            return
        path = Path(chosen_path)
        wants_table = path.suffix.lower() == ".csv" or (chosen.startswith("Table") and not path.suffix)
        path = path if path.suffix else path.with_suffix(".csv" if wants_table else ".png")
        content = self._table() if wants_table else self._picture()
        done, refused = self.exported.emit, self.refused.emit
        self._later.ask("save", lambda: write_atomic(path, content()), lambda _: done(str(path)), refused)

    def save_picture(self, path: str | Path) -> None:
        """PNG of the curves at twice the size of the screen."""
        write_atomic(Path(path), self._picture()())

    def save_table(self, path: str | Path) -> None:
        """CSV with one row per run, part, name and step: every value, smoothed or hidden nothing."""
        write_atomic(Path(path), self._table()())

    def _picture(self) -> Callable[[], bytes]:
        """Gives the picture as PNG; it is drawn now and may be packed in a thread."""
        from pyqtgraph.exporters import ImageExporter

        exporter = ImageExporter(self._area.scene())
        exporter.parameters()["width"] = int(self._area.width() * 2)
        return partial(_png, exporter.export(toBytes=True))

    def _table(self) -> Callable[[], bytes]:
        """Gives the table as CSV; the values are those of now, the words may be made in a thread."""
        columns = [
            (name, *key, list(steps), list(values))
            for name, series in self._series.items()
            for key, (steps, values) in series.columns.items()
        ]
        return partial(_csv, columns)


def _png(picture: QImage) -> bytes:
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    picture.save(buffer, "PNG")
    return bytes(buffer.data().data())


def _csv(columns: Iterable[tuple[str, str, str, list[int], list[float]]]) -> bytes:
    lines = io.StringIO(newline="")
    writer = csv.writer(lines)
    writer.writerow(("run", "part", "name", "step", "value"))
    for name, part, term, steps, values in columns:
        writer.writerows((name, part, term, step, value) for step, value in zip(steps, values, strict=True))
    return lines.getvalue().encode()
