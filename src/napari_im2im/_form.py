"""A form for any settings class: the essentials first, the rest folded, every field with help, range and default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QLabel, QLineEdit, QVBoxLayout, QWidget

from im2im_core.errors import ConfigError
from napari_im2im._form_draft import Draft
from napari_im2im._form_rows import FieldRow, Panel, Section, make_child
from napari_im2im._form_words import label_of

if TYPE_CHECKING:
    from im2im_core._base import Config
    from napari_im2im._form_draft import Path

SAY_AFTER = 500
"""Milliseconds of quiet after which a problem is shown, so that nothing blinks while someone types."""
SEARCH_AFTER = 200


class ConfigForm(QWidget):
    """Editor of frozen settings.

    What is typed stays, right or wrong. As long as it is wrong the reason stands under
    the field, `valueChanged` is silent and `value()` raises the reason.

    Parameters
    ----------
    model : Config
        What is shown first, and what fields are reset to.
    essentials : tuple of str
        Dotted names of fields or sections that stand at the top, for example ``training.minutes``
        or ``network.kind``; all others are folded. Where empty, the sections are shown, each folded.
    """

    valueChanged = Signal(object)
    """New settings, exactly once per change."""
    problemsChanged = Signal(object)
    """Dotted name -> what is wrong there, in words; empty when all is well."""

    def __init__(self, model: Config, *, essentials: tuple[str, ...] = (), parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.draft = Draft(model)
        self._value = model
        self._problems: dict[Path, str] = {}
        self._said: dict[Path, str] = {}
        self._found: set[Path] | None = None
        self.placed: frozenset[Path] = frozenset(tuple(name.split(".")) for name in essentials)
        self._essential: dict[Path, Any] = {}
        self._quiet = self._timer(SAY_AFTER, self._on_quiet)
        self._search_soon = self._timer(SEARCH_AFTER, self._on_search)
        self._build([tuple(name.split(".")) for name in essentials])

    def _timer(self, milliseconds: int, slot: Any) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(slot)
        return timer

    def _build(self, essentials: list[tuple[str, ...]]) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        self._search = QLineEdit()
        self._search.setPlaceholderText("Search settings")
        self._search.setToolTip("Show only settings whose name or help holds these words")
        self._search.setAccessibleName("Search settings")
        self._search.setClearButtonEnabled(True)
        self._search.textChanged.connect(lambda: self._search_soon.start())
        layout.addWidget(self._search)
        self._top = QLabel()
        self._top.setWordWrap(True)
        self._top.hide()
        layout.addWidget(self._top)
        self._essential_layout = QVBoxLayout()
        self._essential_layout.setSpacing(2)
        layout.addLayout(self._essential_layout)
        for path in essentials:
            self._place(path)
        self._rest: Section | Panel
        self._rest = (
            Section(self, (), "More settings", "Everything else", self) if essentials else Panel(self, (), self)
        )
        layout.addWidget(self._rest)
        layout.addStretch(1)

    def _place(self, path: Path) -> None:
        """Put the field at `path` to the top; under another kind it may be absent."""
        if self.draft.info(path) is None:
            return
        child = make_child(self, path, self)
        if isinstance(child, Section):
            child.unfold()
        self._essential[path] = (self._owner(path), child)
        self._essential_layout.addWidget(child)

    # ---- public API ----

    def value(self) -> Config:
        """Settings that are entered.

        Raises
        ------
        ConfigError
            Something entered does not hold; the message names the field and the reason.
        """
        for path, reason in self._problems.items():
            raise ConfigError(f"{_place_words(path)}{reason}", "Correct it in the form")
        return self._value

    def setValue(self, value: Config) -> None:
        """Show `value`; what was entered before is gone."""
        self.draft.load(value)
        self._accept()

    def setDefault(self, value: Config) -> None:
        """Let "reset to default" mean `value`, for example another preset."""
        self.draft.load_defaults(value)
        self._refresh()

    def search(self, words: str) -> None:
        """Show only settings whose name or help holds `words`, as if they were typed into the search box."""
        self._search.setText(words)
        self._search.setFocus()

    def problems(self) -> dict[str, str]:
        """Dotted name -> what is wrong there, in words."""
        return {".".join(map(str, path)): reason for path, reason in self._problems.items()}

    # ---- what rows ask for ----

    @property
    def searching(self) -> bool:
        """Whether the search box hides some of the fields."""
        return self._found is not None

    def wanted(self, path: Path) -> bool:
        """Whether the search leaves `path` visible."""
        return self._found is None or path in self._found or not path

    def shown_problem(self, path: Path) -> str:
        """What is wrong at `path`, when it is time to say so."""
        return self._said.get(path, "")

    def edit(self, path: Path, value: Any) -> None:
        """Take over what a person entered."""
        if self.draft.get(path) != value:
            self.draft.set(path, value)
            self._accept()

    # ---- changes ----

    def _accept(self) -> None:
        """Judge the draft, show it, and tell about a change."""
        before = self._problems
        settings, self._problems = self.draft.check()
        if self._problems:
            self._said = {path: text for path, text in self._said.items() if path in self._problems}
            self._quiet.start()
        else:
            self._said = {}
            self._quiet.stop()
        self._refresh()
        if before != self._problems:
            self.problemsChanged.emit(self.problems())
        if settings is not None and settings != self._value:
            self._value = settings
            self.valueChanged.emit(settings)

    def _on_quiet(self) -> None:
        self._said = dict(self._problems)
        self._refresh()

    def _refresh(self) -> None:
        for path in self.placed:
            self._refresh_essential(path)
        self._rest.refresh()
        shown = {row.path for row in self.findChildren(FieldRow)}
        words = [f"⚠ {_place_words(path)}{text}" for path, text in self._said.items() if path not in shown]
        self._top.setText("\n".join(words))
        self._top.setVisible(bool(words))

    def _refresh_essential(self, path: Path) -> None:
        """Show an essential field; make it again when the kind it belongs to has changed."""
        owner, child = self._essential.get(path, (None, None))
        here = self._owner(path)
        if child is not None and owner is here:
            child.refresh()
        elif child is not None:
            child.setVisible(False)
        if here is not owner and self.draft.info(path) is not None:
            self._replace_essential(path, child)

    def _owner(self, path: Path) -> Any:
        """Settings class that the row at `path` was made for; a choice of kind belongs to the class above it."""
        return self.draft.class_at(path[:-2] if path[-1] == "kind" else path[:-1])

    def _replace_essential(self, path: Path, old: QWidget | None) -> None:
        self._place(path)
        new = self._essential[path][1]
        if old is not None:
            self._essential_layout.removeWidget(new)
            self._essential_layout.replaceWidget(old, new)
            old.hide()
            old.deleteLater()

    # ---- search ----

    def _on_search(self) -> None:
        words = self._search.text().lower().split()
        self._found = self._matches(words) if words and len(words[0]) > 1 else None
        self._refresh()

    def _matches(self, words: list[str]) -> set[Path]:
        """Fields whose name, label or help holds all words, the sections they stand in, all below a section found."""
        found: set[Path] = set()
        for path in self.draft.places():
            info = self.draft.info(path)
            text = f"{path[-1]} {label_of(str(path[-1]))} {info.description if info else ''}".lower()
            if all(word in text for word in words) or any(p in found and self._named(p, words) for p in _above(path)):
                found.update(_above(path), {path, (*path, "kind")})
        return found

    def _named(self, path: Path, words: list[str]) -> bool:
        return isinstance(path[-1], str) and all(word in label_of(path[-1]).lower() for word in words)


def _above(path: Path) -> list[Path]:
    return [path[:depth] for depth in range(1, len(path))]


def _place_words(path: Path) -> str:
    words = " › ".join(label_of(p) if isinstance(p, str) else str(p + 1) for p in path)
    return f"{words}: " if words else ""
