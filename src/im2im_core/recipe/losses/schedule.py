"""How the weight of a loss changes over the training: functions of the used part of its budget."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from annotated_types import Ge, Interval
from pydantic import Field, model_validator

from im2im_core._base import Config

Part = Annotated[float, Interval(ge=0, le=1)]
Factor = Annotated[float, Ge(0)]


class AlwaysOn(Config):
    """The weight does not change."""

    kind: Literal["constant"] = "constant"

    def factor(self, used: float) -> float:
        """Factor of the weight when the part `used` of the budget is spent."""
        return 1.0

    def words(self) -> str:
        """What a methods paragraph says of it."""
        return ""


class Ramp(Config):
    """The weight changes linearly from one moment of the training to another."""

    kind: Literal["ramp"] = "ramp"
    start: Part = 0.0
    """Part of the budget (steps, epochs or minutes) after which the change begins."""
    end: Part = 1.0
    """Part of the budget after which it is over."""
    first: Factor = 0.0
    """Factor of the weight before the change."""
    last: Factor = 1.0
    """Factor of the weight after it."""

    def factor(self, used: float) -> float:
        """Factor of the weight when the part `used` of the budget is spent."""
        part = (used - self.start) / (self.end - self.start)
        return self.first + (self.last - self.first) * min(max(part, 0.0), 1.0)

    def words(self) -> str:
        """What a methods paragraph says of it."""
        return (
            f", its weight changed linearly from {self.first:g} to {self.last:g} times that between "
            f"{self.start:.0%} and {self.end:.0%} of the training"
        )

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}; kind start switches a term on at once")
        return self


class StartAt(Config):
    """The term counts only after a part of the training."""

    kind: Literal["start"] = "start"
    at: Part = 0.5
    """Part of the budget (steps, epochs or minutes) after which the term counts."""

    def factor(self, used: float) -> float:
        """Factor of the weight when the part `used` of the budget is spent."""
        return 1.0 if used >= self.at else 0.0

    def words(self) -> str:
        """What a methods paragraph says of it."""
        return f", counted after {self.at:.0%} of the training"


ScheduleSettings = Annotated[AlwaysOn | Ramp | StartAt, Field(discriminator="kind")]
