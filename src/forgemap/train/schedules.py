"""schedules.py: how long a run is, when it validates, and its learning rate at every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Timetable:
    """Steps and epochs of a run.

    Attributes:
        steps: of the whole run.
        batch: samples in one step, over all devices.
        pictures: samples of one epoch; 0 where samples are an endless stream.
        every: steps between validations; 0: at the end of every epoch.

    Every step has a full batch, which may reach over the end of an epoch: no picture is left out,
    and none comes twice in one epoch.
    """

    steps: int
    batch: int
    pictures: int
    every: int

    @classmethod
    def of(cls, config: Any, pictures: int) -> Timetable:
        """The timetable of a configuration over so many training pictures."""
        if config.samples == "crops":
            return cls(config.steps, config.batch, 0, config.validate_every)
        steps = (
            math.ceil(config.epochs * pictures / config.batch) if config.epochs else config.steps
        )
        return cls(steps, config.batch, pictures, config.validate_every)

    def epochs(self, step: int) -> int:
        """Whole epochs seen after ``step`` steps."""
        return step * self.batch // self.pictures if self.pictures else 0

    def validates(self, step: int) -> bool:
        """Whether a validation follows step number ``step``, counted from 1."""
        if step >= self.steps:
            return True
        if self.every:
            return step % self.every == 0
        return self.epochs(step) > self.epochs(step - 1)


class Schedule(Protocol):
    """A learning rate that may follow the validation scores."""

    def rate(self, step: int) -> float:
        """The learning rate of step ``step``, counted from 0."""

    def observe(self, score: float) -> None:
        """Take note of a validation's score (higher is better)."""

    @property
    def finished(self) -> bool:
        """Whether the run may end before its last step."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold, as plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; from the start if it is empty."""


@dataclass
class Trapezoid:
    """Warm-up, a constant stretch, then a straight line down to 0 at the last step.

    Attributes:
        lr: the rate of the constant stretch.
        steps: of the whole run.
        warmup: steps of the rise.
        decay: share of the run over which the rate falls.
    """

    lr: float
    steps: int
    warmup: int
    decay: float
    finished = False

    def rate(self, step: int) -> float:
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        start = self.steps * (1 - self.decay)
        fall = 1.0 if step < start else (self.steps - step) / max(1.0, self.steps - start)
        return self.lr * rise * fall

    def observe(self, score: float) -> None:
        """The validations change nothing."""

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Everything follows from the step."""


@dataclass
class Plateau:
    """The rate falls when validation stands still, and the run ends where it would fall too low.

    As DeCLIP's published code does it: after ``patience`` validations in a row without an
    improvement of at least ``tolerance`` the rate is multiplied by ``factor`` and the comparison
    starts anew; below ``floor`` training is over.
    """

    lr: float
    warmup: int
    factor: float
    floor: float
    patience: int
    tolerance: float
    drops: int = 0
    waited: int = 0
    best: float = -math.inf

    def rate(self, step: int) -> float:
        return self.lr * self.factor**self.drops * min(1.0, (step + 1) / max(1, self.warmup))

    def observe(self, score: float) -> None:
        if score >= self.best + self.tolerance:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.drops, self.waited, self.best = self.drops + 1, 0, -math.inf

    @property
    def finished(self) -> bool:
        return self.lr * self.factor**self.drops < self.floor * (1 - 1e-9)  # 1e-3 / 10^3 counts

    def state(self) -> dict[str, Any]:
        return {"drops": self.drops, "waited": self.waited, "best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        for name in self.state().keys() & state.keys():
            setattr(self, name, state[name])


#: The schedules by name: made from a configuration and the steps of the whole run.
SCHEDULES: dict[str, Callable[[Any, int], Schedule]] = {
    "trapezoid": lambda c, steps: Trapezoid(c.lr, steps, c.warmup, c.decay),
    "plateau": lambda c, steps: Plateau(
        c.lr, c.warmup, c.lr_factor, c.lr_floor, c.patience, c.tolerance
    ),
}
