"""timing.py: two implementations timed in turns, so that a busy machine slows both alike."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One comparison: two functions of the same work; `check` raises if their answers differ."""

    name: str
    ours: Callable[[], object]
    literal: Callable[[], object]
    check: Callable[[], None]
    target: float | None  # the ratio that was promised, None where none was


@dataclass(frozen=True)
class Measured:
    """Times in seconds (medians) and literal / ours: its median and quartiles over the rounds."""

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
    """Check the case, then time both sides in turns; the order within a round alternates."""
    case.check()
    case.ours(), case.literal()
    ours, literal = [], []
    for turn in range(rounds):
        pairs = [(ours, case.ours), (literal, case.literal)]
        for times, function in pairs if turn % 2 else reversed(pairs):
            begin = time.perf_counter()
            function()
            times.append(time.perf_counter() - begin)
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


def machine() -> dict[str, object]:
    """What a reader needs to judge a number: the date, the processor, the cores, the versions."""
    packages = (
        "numpy",
        "scipy",
        "opencv-contrib-python-headless",
        "scikit-learn",
        "torch",
        "torchmetrics",
    )
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    family = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return f"{facts.get('model name', platform.processor())} ({family})"
