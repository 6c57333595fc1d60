"""summary.py: what the parts of a scan hold, in memory that does not grow with them."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ForgemapError
from ..files import write_whole
from ..report import VERDICTS
from .parts import Progress, read_parts, read_progress_of
from .results import read_journal

BINS = 10_000  # of the scores: quantiles are exact to 1e-4
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
FOLDERS = 100_000  # told apart; further ones are counted together
OTHER = "(other folders)"


@dataclass
class Summary:
    """Counts over all rows of a scan.

    Attributes:
        out: the folder.
        model: name of the model.
        sources: as they were given.
        pictures, unreadable, known: rows; rows with an error; items without a row because an
            earlier scan had judged them.
        complete: whether every unit is finished.
        verdicts, generated: verdict -> rows, of the localizer and of the second detector.
        errors: kind of error -> rows.
        folders, of_sources: place -> verdict (or "not readable") -> rows.
        scores: (BINS,) counts of the score over [0, 1], for each verdict.
        wall, busy: seconds of work, and those in which the network computed.
    """

    out: Path
    model: str
    sources: list[str]
    pictures: int = 0
    unreadable: int = 0
    known: int = 0
    complete: bool = False
    verdicts: Counter[str] = field(default_factory=Counter)
    generated: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    folders: dict[str, Counter[str]] = field(default_factory=dict)
    of_sources: dict[str, Counter[str]] = field(default_factory=dict)
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    wall: float = 0.0
    busy: float = 0.0

    def quantile(self, q: float) -> float | None:
        """A quantile of the scores, exact to 1 / BINS; None without any."""
        total = sum(self.scores.values(), np.zeros(BINS, np.int64))
        if not total.any():
            return None
        place = np.searchsorted(np.cumsum(total), q * total.sum(), side="left")
        return float((min(int(place), BINS - 1) + 0.5) / BINS)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``forgemap summary --json``."""
        return {
            "results": str(self.out),
            "model": self.model,
            "sources": self.sources,
            "complete": self.complete,
            "pictures": self.pictures,
            "unreadable": self.unreadable,
            "known": self.known,
            "verdicts": dict(self.verdicts),
            "generated": dict(self.generated),
            "errors": dict(self.errors.most_common()),
            "score_quantiles": {f"{q:g}": self.quantile(q) for q in QUANTILES},
            "by_source": {name: dict(counts) for name, counts in self.of_sources.items()},
            "by_folder": {name: dict(counts) for name, counts in self.folders.items()},
            "seconds": round(self.wall, 3),
            "pictures_per_second": round((self.pictures + self.known) / self.wall, 3)
            if self.wall
            else None,
            "busy": round(min(self.busy / self.wall, 1), 4) if self.wall else None,
        }


def summarize(out: str | Path) -> Summary:
    """Count what is in the results of a scan, whether or not it is complete.

    Raises:
        DataError: no results there, or a damaged part.
    """
    out = Path(out)
    journal = read_journal(out)
    found = Summary(out, str(journal.get("model")), list(journal["settings"]["sources"]))
    columns = ["source", "path", "key", "verdict", "score", "generated_verdict", "error"]
    for table, facts in read_parts(out, columns):
        found.known += facts["known"]
        found.wall += facts["wall"]
        found.busy += facts["busy"]
        for row in table.to_pylist():
            _count(found, row)
    progress: dict[int, Progress] = read_progress_of(out)
    done = sum(unit.done for unit in progress.values())
    found.complete = done == journal["listing"]["units"]
    return found


def _count(found: Summary, row: dict[str, Any]) -> None:
    found.pictures += 1
    verdict = row["verdict"] or "not readable"
    if row["error"] is not None:
        found.unreadable += 1
        found.errors[error_kind(row["error"], row["path"], row["key"])] += 1
    else:
        found.verdicts[verdict] += 1
        counts = found.scores.setdefault(verdict, np.zeros(BINS, np.int64))
        counts[min(int(row["score"] * BINS), BINS - 1)] += 1
    if row["generated_verdict"] is not None:
        found.generated[row["generated_verdict"]] += 1
    # Of a picture in a shard the shard, of others the folder.
    folder = row["path"] if row["key"] is not None else os.path.dirname(row["path"])
    if folder not in found.folders and len(found.folders) >= FOLDERS:
        folder = OTHER
    found.folders.setdefault(folder, Counter())[verdict] += 1
    found.of_sources.setdefault(row["source"], Counter())[verdict] += 1


def error_kind(error: str, path: str, key: str | None) -> str:
    """What a sentence says without which picture it says it of, and without its numbers."""
    for name in filter(None, (f"{path}/{key}", path, key)):
        error = error.replace(repr(name), "").replace(name, "")
    what = error.partition(":")[0].partition(" after ")[0]
    return re.sub(r"\d[\d,.]*", "N", what).strip() or "unknown"


def print_summary(found: Summary, folders: int) -> None:
    """Tables on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    state = "complete" if found.complete else "not complete: the same scan goes on"
    console.print(f"{found.out}: {found.pictures:,} rows, {state}; model {found.model}")
    if found.known:
        console.print(f"{found.known:,} pictures were known from an earlier scan and have no row.")
    table = Table("verdict", box=None, pad_edge=False)
    table.add_column("pictures", justify="right")
    table.add_column("share", justify="right")
    counts = {verdict: found.verdicts[verdict] for verdict in VERDICTS[::-1]}
    for name, number in {**counts, "not readable": found.unreadable}.items():
        table.add_row(name, f"{number:,}", f"{number / max(found.pictures, 1):.1%}")
    for name, number in found.generated.most_common():
        table.add_row(f"as a whole: {name}", f"{number:,}", f"{number / found.pictures:.1%}")
    console.print(table)
    if found.scores:
        marks = ", ".join(f"{q:.0%} {found.quantile(q):.3f}" for q in QUANTILES)
        console.print(f"Scores: {marks}")
    for name, number in found.errors.most_common(20):
        console.print(f"Error, {number:,} times: {name}")
    for title, places in (("source", found.of_sources), ("folder or shard", found.folders)):
        if len(places) > 1 and folders:
            _print_places(console, title, places, folders)
    if found.wall:
        rate = (found.pictures + found.known) / found.wall
        busy = min(found.busy / found.wall, 1)
        console.print(
            f"{rate:.1f} pictures/s over {found.wall:,.0f} s; the network computed {busy:.0%} of it"
        )


def _print_places(console: Any, title: str, places: dict[str, Counter[str]], most: int) -> None:
    from rich.table import Table

    names = (*VERDICTS[::-1], "not readable")
    table = Table(title, box=None, pad_edge=False)
    for name in ("pictures", *names):
        table.add_column(name, justify="right")
    order = sorted(places, key=lambda name: (-places[name].total(), name))
    for place in order[:most]:
        counts = places[place]
        table.add_row(place, f"{counts.total():,}", *(f"{counts[name]:,}" for name in names))
    if len(order) > most:
        table.add_row(f"… and {len(order) - most:,} more")
    console.print(table)


def plot_scores(found: Summary, path: Path) -> None:
    """A histogram of the scores by verdict, as a PNG; ForgemapError if it cannot be written."""
    from io import BytesIO

    from matplotlib.figure import Figure

    colours = {"manipulated": "#d55e00", "inconclusive": "#e69f00", VERDICTS[0]: "#009e73"}
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0, 1, 51)
    below = np.zeros(50)
    for verdict in VERDICTS:
        counts = found.scores.get(verdict, np.zeros(BINS)).reshape(50, -1).sum(1)
        label = f"{verdict} ({int(counts.sum()):,})"
        axes.bar(edges[:-1], counts, 0.02, below, align="edge", color=colours[verdict], label=label)
        below = below + counts
    axes.set(xlim=(0, 1), xlabel="score", ylabel="pictures", title=f"{found.pictures:,} pictures")
    axes.legend()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    try:
        write_whole(path, buffer.getbuffer())
    except OSError as error:
        raise ForgemapError(
            f"{path} cannot be written ({error.strerror or error}): name another file."
        ) from None
