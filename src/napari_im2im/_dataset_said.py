"""What is said of the pairs: messages that go when the pairs change, and buttons that mend what is odd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_im2im._dataset_rows import empty_validation, overlaps, unlike

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from im2im_core.review import Problem
    from napari_im2im._dataset_rows import PairRow
    from napari_im2im._messages import Message, MessageBar

    Mend = tuple[str, Callable[[], object]]


class Said:
    """Messages about the pairs in a bar that has other messages too."""

    def __init__(self, bar: MessageBar) -> None:
        self.bar = bar
        self._messages: list[Message] = []

    def say(self, *message: Any) -> None:
        """A message that goes when the pairs are looked at again."""
        self._messages.append(self.bar.add(*message))

    def unsay(self, *, keep_errors: bool = False) -> None:
        """Remove what was said of the pairs; offers to restore labels and advice stay."""
        for message in self.bar.messages():
            if message in self._messages or (message.level == "error" and not keep_errors):
                message.dismissed.emit()
        self._messages.clear()

    def end(self, message: Message | None) -> None:
        """Remove one message where it is still there."""
        if message is not None and message in self.bar.messages():
            message.dismissed.emit()


class SetProblems:
    """What concerns all pairs, each with a button that mends it.

    Parameters
    ----------
    mends : mapping
        Code of a problem -> button that mends it.
    join : callable
        Puts copies into one group.
    drop : callable
        Leaves out the rows of the given numbers.
    """

    def __init__(
        self,
        said: Said,
        mends: Mapping[str, Mend],
        join: Callable[[], object],
        drop: Callable[[Sequence[int]], object],
    ) -> None:
        self._said, self._mends, self._join, self._drop = said, mends, join, drop
        self._found: tuple[Problem, ...] = ()

    def found(self, problems: Sequence[Problem]) -> None:
        """Keep those that concern more than one pair."""
        self._found = tuple(p for p in problems if not p.sample or p.code == "duplicate")

    def mended(self, code: str) -> None:
        """Forget the problems of one kind."""
        self._found = tuple(p for p in self._found if p.code != code)

    def show(self, rows: Sequence[PairRow]) -> None:
        """Say what was found, and what is odd about the parts and channels of `rows` as they are now."""
        self._said.unsay(keep_errors=True)
        for problem in self._found:
            text, action = self._mends.get(problem.code, (None, None))
            self._said.say(problem.text, problem.severity, "" if action else problem.cure, text, action)
        shared = overlaps(rows)
        if shared:
            more = f" ({len(shared)} such pairs)" if len(shared) > 1 else ""
            self._said.say(f"{shared[0].text}{more}", "warning", "", "Put them into one group", self._join)
        for problem in empty_validation(rows):
            self._said.say(problem.text, problem.severity, "Let an image with objects validate: see the column Part")
        odd = unlike(rows)
        if odd:
            names = ", ".join(rows[i].name for i in odd[:3])
            text = f"{len(odd)} images have another number of channels ({names})"
            self._said.say(text, "error", "", "Exclude them", lambda: self._drop(odd))
