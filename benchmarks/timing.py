"""timing.py: two implementations timed in turns, so that a busy machine slows both alike."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import torch

from forgemap.detector import Detector
from forgemap.image import Image


@dataclass(frozen=True)
class Case:
    """One comparison: two functions of the same work; `check` raises if their answers differ."""

    name: str
    ours: Callable[[], object]
    literal: Callable[[], object]
    check: Callable[[], None]
    target: float | None  # the ratio that was promised, None where none was
    rounds: int | None = None  # of its own, where a round is long
    #: Operations of ours and the data type they are in, where it is arithmetic that takes the time.
    work: Callable[[], tuple[float, str]] | None = None
    #: What ours said of itself while it ran, such as a share of the time, for a column of notes.
    note: Callable[[], str] | None = None


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
    #: Share of the machine's measured peak that ours and the literal form reach; None: not counted.
    share: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def clock() -> float:
    """CPU seconds of this process and of those that it started and that have ended.

    On a busy machine the wall clock would charge the longer of two sides for the waiting.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measure(case: Case, rounds: int, peak: Callable[[str], float] | None = None) -> Measured:
    """Check the case, which warms both sides up, then time them in turns, the first one swapped.

    Both sides run on one thread; `peak` gives a data type's operations a second.
    """
    rounds = case.rounds or rounds
    case.check()
    ours: list[float] = []
    literal: list[float] = []
    for turn in range(rounds):
        pairs = [(ours, case.ours), (literal, case.literal)]
        for times, function in pairs if turn % 2 else reversed(pairs):
            begin = clock()
            function()
            times.append(clock() - begin)
    low, middle, high = quartiles([slow / fast for slow, fast in zip(literal, ours, strict=True)])
    share = None
    if case.work is not None and peak is not None:
        operations, dtype = case.work()
        share = operations / statistics.median(ours) / peak(dtype)
    return Measured(
        case.name,
        statistics.median(ours),
        statistics.median(literal),
        middle,
        low,
        high,
        rounds,
        case.target,
        share,
        case.note() if case.note else "",
    )


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper one; of a single value, that value."""
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def share_of_network(
    detector: Detector, pictures: Sequence[Image], look: Callable[[Image], object]
) -> str:
    """CPU time of a look at pictures, of what the network takes for the same ones, on one thread:
    median and quartiles."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    shares = []
    for image in pictures:
        begin = time.process_time()
        detector.predict(image.samples)
        middle = time.process_time()
        look(image)
        shares.append((time.process_time() - middle) / (middle - begin))
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])
    low, median, high = np.quantile(shares[1:], (0.25, 0.5, 0.75))  # the first one warms up
    return f"{median:.2f} ({low:.2f} - {high:.2f})"
