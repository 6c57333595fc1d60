"""steering.py: the progress bar, the line of a validation, and how Ctrl-C ends a run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turns the first SIGINT or SIGTERM into an event; a second one acts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, before[number])  # type: ignore[index]

    for number in before:
        signal.signal(number, note)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def anywhere(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set in any process: all of them must stop after the same step."""
    if fabric.world_size == 1:
        return flag
    return bool(fabric.all_reduce(torch.tensor(float(flag)), reduce_op="sum"))


def progress_bar(console: Console, enabled: bool) -> Progress:
    """Steps done, loss, time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns,
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not enabled,
    )


def summary(step: int, scores: dict[str, float]) -> str:
    """One line of a validation."""
    shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
    return f"step {step}: {shown}"
