"""image_tables.py: a Comparison of poolings as figures, tables, Markdown and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ..files import write_whole
from .bootstrap import Interval, intervals
from .image_level import Comparison
from .image_scores import FITTED, POOLINGS
from .markdown import markdown_table
from .metrics import detection_metrics
from .results import Row

MIXED = "everything"
AREAS = {"under 2 % edited": (0.0, 0.02), "2 to 10 %": (0.02, 0.1), "over 10 %": (0.1, 1.01)}
COLUMNS = {
    "auc": "AUC",
    "ap": "AP",
    "accuracy": "accuracy at 0.5",
    "best_accuracy": "at best",
    "fitted_accuracy": "at fitted",
    "tpr_at_fpr_1": "TPR, FPR 1%",
    "tpr_at_fpr_5": "TPR, FPR 5%",
    "ece": "ECE",
}

Figures = dict[str, dict[str, dict[str, Interval]]]  # group -> pooling -> metric


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """What the poolings are compared on, in the order of the tables.

    Everything mixed; each variant, if there are several; each method, and each band of edited area,
    against all untouched pictures; each folder of the source photos with both kinds.
    """
    plain = [row for row in rows if not row["manipulated"]]
    edited = [row for row in rows if row["manipulated"]]
    found = {MIXED: list(rows)}
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    if len(variants) > 1:
        found |= {v: [row for row in rows if row["variant"] == v] for v in variants}
    for method in sorted({row["method"] for row in edited}):
        found[method] = [*(row for row in edited if row["method"] == method), *plain]
    for band, (low, high) in AREAS.items():
        found[band] = [*(row for row in edited if low <= row["edited"] < high), *plain]
    folders = sorted({row["folder"] for row in rows})
    if len(folders) > 1:
        found |= {f"folder {f}": [r for r in rows if r["folder"] == f] for f in folders}
    return {
        name: some for name, some in found.items() if len({r["manipulated"] for r in some}) == 2
    }


def figures(comparison: Comparison, seed: int = 0) -> Figures:
    """Every metric of every pooling on every group, with 95 % intervals by source photo."""
    found: Figures = {}
    for group, rows in groups(comparison.rows).items():
        labels = np.array([row["manipulated"] for row in rows])
        sources = [row["source"] for row in rows]
        found[group] = {}
        for name in comparison.names:
            scores = np.array([row["scores"][name] for row in rows])
            statistics = _statistics(scores, labels, comparison.thresholds.get(name))
            found[group][name] = intervals(statistics, sources, seed=seed)
    return found


def _statistics(
    scores: NDArray[Any], labels: NDArray[Any], threshold: float | None
) -> Callable[[NDArray[Any]], dict[str, Any]]:
    def statistics(weights: NDArray[Any]) -> dict[str, Any]:
        found = detection_metrics(scores, labels, weights=weights)
        if threshold is not None:
            at = detection_metrics(scores, labels, threshold=threshold, weights=weights)
            found["fitted_accuracy"] = at["accuracy"]
        return found

    return statistics


def overview(comparison: Comparison, found: Figures) -> list[list[str]]:
    """Header and rows: every pooling on everything mixed, all metrics."""
    columns = [c for c in COLUMNS if c != "fitted_accuracy" or comparison.thresholds]
    lines = [["pooling", *(COLUMNS[c] for c in columns)]]
    for name in comparison.names:
        lines.append([name, *(_cell(found[MIXED][name][c]) for c in columns)])
    return lines


def by_group(comparison: Comparison, found: Figures, metric: str = "auc") -> list[list[str]]:
    """Header and rows: one metric of every pooling on every group; the best of a row in stars."""
    lines = [["", "edited + untouched", *comparison.names]]
    members = groups(comparison.rows)
    for group, poolings in found.items():
        edited = sum(row["manipulated"] for row in members[group])
        best = max(poolings[name][metric].value for name in comparison.names)
        cells = []
        for name in comparison.names:
            number = poolings[name][metric].value
            cells.append(f"*{number:.2f}*" if number == best else f"{number:.2f}")
        lines.append([group, f"{edited} + {len(members[group]) - edited}", *cells])
    return lines


def tables(comparison: Comparison, found: Figures) -> list[Table]:
    """For the terminal: all metrics on everything, then the AUC on every group."""
    rows = comparison.rows
    edited, photos = sum(r["manipulated"] for r in rows), len({r["source"] for r in rows})
    first = Table(
        *overview(comparison, found)[0],
        title=f"Edited or not: {edited} edited and {len(rows) - edited} untouched pictures of "
        f"{photos} photos, all mixed",
        title_justify="left",
    )
    for line in overview(comparison, found)[1:]:
        first.add_row(*(_dim(cell) for cell in line))
    # Groups are the columns here: a terminal has room for few names side by side.
    _, *lines = by_group(comparison, found)
    made = [first]
    for begin in range(0, len(lines), 8):
        part = Table(title="AUC on", title_justify="left")
        part.add_column("pooling")
        for line in lines[begin : begin + 8]:
            part.add_column(line[0], justify="right", overflow="fold")
        for number, name in enumerate(comparison.names, start=2):
            part.add_row(name, *(line[number].strip("*") for line in lines[begin : begin + 8]))
        made.append(part)
    return made


def markdown(comparison: Comparison, found: Figures) -> str:
    """Both tables, what the poolings are, and the facts of the run."""
    facts = comparison.facts
    rows = comparison.rows
    edited, photos = sum(r["manipulated"] for r in rows), len({r["source"] for r in rows})
    text = [
        f"# Edited or not: one score from a map\n\n{edited} edited and {len(rows) - edited} "
        f"untouched pictures of {photos} photos ({', '.join(facts['variants'])}); "
        "95 % intervals by source photo.\n",
        "## Everything mixed\n\n" + markdown_table(overview(comparison, found)),
        "*at best*: accuracy at the threshold that is best on these very pictures, which nobody "
        "knows beforehand. *at fitted*: at the threshold that is best on the pictures of --fit. "
        "*ECE*: expected calibration error, how far the score is from the share of edited pictures "
        "among those that score alike; only *decision* and *fitted* are meant as such a share.\n",
        "## AUC, group by group\n\n" + markdown_table(by_group(comparison, found)),
        "## TPR at 5 % FPR, group by group\n\n"
        + markdown_table(by_group(comparison, found, "tpr_at_fpr_5")),
        "## The poolings\n\n"
        + "".join(f"- *{name}*: {what}\n" for name, what in meanings(comparison)),
    ]
    kind = "the network's own" if facts["raw"] else "calibrated"
    versions = ", ".join(f"{name} {v}" for name, v in facts["versions"].items() if v)
    text.append(
        f"{facts['model']}, {kind} probabilities; {facts['fitted_on']} rows fitted on; "
        f"{facts['date']}; {facts['processor']}, {facts['cores']} cores; "
        f"{facts['wall_seconds']} s; {versions}.\n"
    )
    return "\n".join(text)


def meanings(comparison: Comparison) -> list[list[str]]:
    known = {**POOLINGS, "fitted": FITTED}
    return [[name, known[name].meaning] for name in comparison.names]


def to_dict(comparison: Comparison, found: Figures) -> dict[str, Any]:
    """JSON-able; NaN (undefined) is null."""
    return {
        **comparison.facts,
        "thresholds": comparison.thresholds,
        "groups": {
            group: {
                name: {
                    m: [None if math.isnan(n) else round(n, 6) for n in v] for m, v in ms.items()
                }
                for name, ms in poolings.items()
            }
            for group, poolings in found.items()
        },
    }


def save(comparison: Comparison, found: Figures, out: Path) -> None:
    """image-level.json and image-level.md, each in one step."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_dict(comparison, found), indent=1, allow_nan=False) + "\n"
    for name, content in (
        ("image-level.json", text),
        ("image-level.md", markdown(comparison, found)),
    ):
        write_whole(out / name, content)


def _cell(found: Interval) -> str:
    if math.isnan(found.value):
        return "–"
    if math.isnan(found.low):
        return f"{found.value:.2f}"
    return f"{found.value:.2f} ({found.low:.2f}–{found.high:.2f})"


def _dim(cell: str) -> str:
    value, bracket, rest = cell.partition(" (")
    return f"{value}\n[dim]({rest}[/]" if bracket else cell
