"""timing.py: two implementations timed in turns, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Case:
    """One comparison: two functions of the same work; `check` raises if their answers differ."""

    name: str
    ours: Callable[[], object]
    literal: Callable[[], object]
    check: Callable[[], None]
    target: float | None  # the ratio that was promised, None where none was
    rounds: int | None = None  # of its own, where a round is long


@dataclass(frozen=True)
class Measured:
    """CPU seconds (medians), and literal / ours: its median and quartiles over the rounds."""

    name: str
    ours: float
    literal: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    target: float | None

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(case: Case, rounds: int) -> Measured:
    """Check the case, then time both sides in turns; the order within a round alternates.

    The time is this process's CPU time (both sides run on one thread): on a busy machine the wall
    clock would charge the longer side for the waiting.
    """
    rounds = case.rounds or rounds
    case.check()
    case.ours(), case.literal()
    ours: list[float] = []
    literal: list[float] = []
    for turn in range(rounds):
        pairs = [(ours, case.ours), (literal, case.literal)]
        for times, function in pairs if turn % 2 else reversed(pairs):
            begin = time.process_time()
            function()
            times.append(time.process_time() - begin)
    ratios = [slow / fast for slow, fast in zip(literal, ours, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Measured(
        case.name,
        statistics.median(ours),
        statistics.median(literal),
        middle,
        low,
        high,
        rounds,
        case.target,
    )
