"""history.py: the curves of a run, as CSV files and for TensorBoard."""

from __future__ import annotations

import csv
from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

from ..files import whole


class History:
    """``loss.csv``, ``validation.csv`` and TensorBoard events in a run's folder.

    Rows after the step that a run goes on from are dropped: they will be written again.
    """

    def __init__(self, folder: Path, done: int, *, every: int = 20, enabled: bool = True) -> None:
        self.folder, self.every, self.enabled = folder, every, enabled
        self.smooth = float("nan")
        self.waiting: list[float] = []
        if not enabled:  # one process of several writes
            return
        for name in ("loss.csv", "validation.csv"):
            keep_until(folder / name, done)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)

    def loss(self, step: int, loss: float, lr: float) -> None:
        """Note one step; the mean of every ``every`` steps is written."""
        self.smooth = loss if self.smooth != self.smooth else 0.98 * self.smooth + 0.02 * loss
        self.waiting.append(loss)
        if self.enabled and step % self.every == 0:
            mean = sum(self.waiting) / len(self.waiting)
            self.waiting.clear()
            append(self.folder / "loss.csv", {"step": step, "loss": mean, "lr": lr})
            self.board.add_scalar("loss", mean, step)
            self.board.add_scalar("lr", lr, step)

    def validation(self, step: int, scores: dict[str, float]) -> None:
        """Write the scores of one validation."""
        if not self.enabled:
            return
        append(self.folder / "validation.csv", {"step": step, **scores})
        for name, value in scores.items():
            self.board.add_scalar(f"validation/{name}", value, step)

    def close(self) -> None:
        """Flush the TensorBoard events."""
        if self.enabled:
            self.board.close()


def append(path: Path, row: dict[str, float]) -> None:
    """Add a row to a CSV file; the first one brings the header."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})


def keep_until(path: Path, step: int) -> None:
    """Drop the rows of a CSV file that come after ``step``, and a row cut short by a kill."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    rows = [r for r in rows if len(r) == len(header) and r[0].isdigit() and int(r[0]) <= step]
    with whole(path) as beside, beside.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows] if header else [])
    if not rows:
        path.unlink()
