"""Messages stay until dismissed, say the cure and mend; copying says what it did."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtWidgets import QApplication, QLabel, QPushButton

from im2im_core.errors import ConfigError, DataError
from napari_im2im._copy_menu import KINDS, CopyMenu
from napari_im2im._messages import HIGHEST, MessageBar


def texts(bar: MessageBar) -> list[str]:
    return [label.text() for message in bar.messages() for label in message.findChildren(QLabel) if label.text()]


def test_message_says_cure_and_mends(qtbot: Any) -> None:
    bar, done = MessageBar(), []
    qtbot.addWidget(bar)
    assert bar.isHidden()
    message = bar.add("target is missing for 3 images", "warning", "Exclude them", "Exclude", lambda: done.append(1))
    assert texts(bar) == ["target is missing for 3 images", "Exclude them"]
    assert not bar.isHidden()
    message.button.click()
    assert done == [1]
    assert bar.messages() == ()
    assert bar.isHidden()


def test_errors_stay_until_dismissed(qtbot: Any) -> None:
    bar = MessageBar()
    qtbot.addWidget(bar)
    bar.add("fine", "info", "")
    error = bar.add_error(DataError("a.tif ends at page 3 of 20", "Copy it again"))
    assert texts(bar) == ["fine", "a.tif ends at page 3 of 20", "Copy it again"]
    bar.clear(keep_errors=True)
    assert bar.messages() == (error,)
    error.close_button.click()
    assert bar.messages() == ()


def test_same_message_stands_once_and_tags_are_text(qtbot: Any) -> None:
    bar = MessageBar()
    qtbot.addWidget(bar)
    bar.add("<b>#1</b>.tif is constant", "warning", "")
    bar.add("<b>#1</b>.tif is constant", "warning", "")
    assert len(bar.messages()) == 1
    assert texts(bar) == ["<b>#1</b>.tif is constant"]
    bar.clear()
    assert bar.messages() == ()


@pytest.mark.parametrize("highest", [HIGHEST, 2 * HIGHEST])
def test_messages_never_push_a_panel_off_the_screen(qtbot: Any, highest: int) -> None:
    from qtpy.QtWidgets import QVBoxLayout, QWidget

    panel = QWidget()
    qtbot.addWidget(panel)
    layout, bar, below = QVBoxLayout(panel), MessageBar(highest=highest), QLabel("below")
    layout.addWidget(bar)
    layout.addWidget(below, 1)
    panel.resize(300, 500)
    panel.show()
    one = bar.add("a word", "info", "")
    qtbot.wait(50)
    assert one.height() <= bar.height() < 100
    for number in range(8):
        last = bar.add(f"{number} " + "many words " * 12, "warning", "a cure " * 8, "Mend", lambda: None)
    qtbot.wait(100)
    assert bar.height() == highest
    assert panel.minimumSizeHint().height() <= highest + 100
    assert panel.height() == 500
    assert not last.visibleRegion().isEmpty()
    assert last.width() <= bar.width()
    bar.clear()
    qtbot.wait(50)
    assert below.height() > 400


def test_a_scroll_bar_for_many_messages_does_not_stay_for_one(qtbot: Any) -> None:
    from qtpy.QtWidgets import QVBoxLayout, QWidget

    panel = QWidget()
    qtbot.addWidget(panel)
    layout, bar = QVBoxLayout(panel), MessageBar()
    layout.addWidget(bar)
    layout.addStretch(1)
    scroll = bar.verticalScrollBar()
    assert scroll is not None
    for width in range(360, 460, 10):  # at one of them the words need a further line beside a scroll bar
        panel.resize(width, 500)
        panel.show()
        others = [bar.add(f"{number} " + "many words " * 12, "warning", "a cure " * 8) for number in range(4)]
        bar.add("There are 17 labelled objects in all", "warning", "Label more; 50 or more usually suffice to begin")
        qtbot.waitUntil(scroll.isVisible)
        for other in others:
            other.dismissed.emit()
        qtbot.waitUntil(lambda: not scroll.isVisible() and scroll.maximum() == 0)
        (one,) = bar.messages()
        assert one.visibleRegion().boundingRect().height() == one.height()
        bar.clear()


def test_a_message_may_have_several_buttons(qtbot: Any) -> None:
    bar, done = MessageBar(), []
    qtbot.addWidget(bar)
    others = [("Discard", lambda: done.append("discarded"))]
    message = bar.add("painted", "info", "", "Restore", lambda: done.append("restored"), others)
    restore, discard = message.findChildren(QPushButton)
    assert (restore.text(), discard.text()) == ("Restore", "Discard")
    discard.click()
    assert done == ["discarded"]
    assert bar.messages() == ()


def test_copy_puts_the_text_on_the_clipboard_and_says_so(qtbot: Any) -> None:
    menu = CopyMenu(lambda: {key: f"text of {key}" for key in KINDS})
    qtbot.addWidget(menu)
    clipboard = QApplication.clipboard()
    assert clipboard is not None
    shown = menu.menu()
    assert shown is not None
    for key, action in zip(KINDS, shown.actions(), strict=True):
        assert action.text() == KINDS[key]
        with qtbot.waitSignal(menu.copied) as heard:
            action.trigger()
        assert heard.args == [key]
        assert clipboard.text() == f"text of {key}"
        assert menu.text() == "Copied"


def test_copy_of_what_does_not_hold_says_why(qtbot: Any) -> None:
    def refuse() -> dict[str, str]:
        raise ConfigError("learning rate: must be greater than 0", "Correct it in the form")

    menu = CopyMenu(refuse)
    qtbot.addWidget(menu)
    shown = menu.menu()
    assert shown is not None
    with qtbot.waitSignal(menu.failed) as heard:
        shown.actions()[0].trigger()
    assert "learning rate" in str(heard.args[0])
    assert menu.text() == "Not copied"
