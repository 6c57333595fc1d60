"""report.py: a Matrix as tables for the terminal, Markdown, JSON and a heat map."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rich.table import Table

from ..evaluate.bootstrap import Interval
from ..evaluate.markdown import markdown_table
from ..evaluate.published import beside, tables_with
from ..files import whole, write_whole
from .cells import METRICS, Matrix

UNIT = "in percent, mean per edited picture (95 % interval by source photo)"
SHORT = {"iou": "IoU at 0.5", "auc": "pixel AUC"}


def write(matrix: Matrix, out: Path) -> None:
    """matrix.json, matrix.md, matrix.png and matrix-auc.png in `out`, each in one step."""
    write_whole(out / "matrix.json", json.dumps(matrix.to_dict(), indent=1, allow_nan=False) + "\n")
    write_whole(out / "matrix.md", markdown(matrix))
    for metric in METRICS:
        heat_map(
            matrix, metric, out / ("matrix.png" if metric == "iou" else f"matrix-{metric}.png")
        )


def tables(matrix: Matrix) -> list[Table]:
    """For the terminal: IoU for each value of the axis, then the means of all metrics."""
    made = []
    for value in matrix.values:
        title = f"{titled(matrix, value)}{SHORT['iou']} {UNIT}"
        made.append(_table(title, grid(matrix, value)))
    return [*made, _table("Means over the cells", overview(matrix))]


def _table(title: str, lines: list[list[str]]) -> Table:
    (first, *names), *rows = lines
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        # The interval goes below its value.
        table.add_row(*(c.replace(" (", "\n[dim](", 1) + "[/]" if " (" in c else c for c in row))
    return table


def titled(matrix: Matrix, value: str) -> str:
    return f"{matrix.facts['axis']} {value}: " if value else ""


def grid(matrix: Matrix, value: str, metric: str = "iou") -> list[list[str]]:
    """Header and rows of one matrix as text."""
    summary, best = matrix.summary[metric][value], matrix.best[metric][value]
    has_advantage = any(name.startswith("advantage/") for name in summary)
    header = ["train \\ test", *matrix.tests]
    header += ["elsewhere"] if any(name.startswith("elsewhere/") for name in summary) else []
    header += ["against others", "best in"] if has_advantage else []
    lines = [header]
    for train in matrix.trains:
        row = [train]
        for test in matrix.tests:
            known = beside(train, test) if metric == "iou" else None
            paper = "" if known is None else f" [paper {known:.1f}]"
            row.append(percent(matrix.cell(train, test, value)[metric]) + paper)
        if "elsewhere" in header:
            row.append(percent(summary.get(f"elsewhere/{train}")))
        if has_advantage:
            row.append(percent(summary.get(f"advantage/{train}"), sign=True))
            row.append(f"{best[train]:.0%}" if train in best else "–")
        lines.append(row)
    if metric == "iou":
        everything = {one["name"]: one["marking_everything"] for one in matrix.facts["sets"]}
        blank = [""] * (len(header) - 1 - len(matrix.tests))
        shares = (f"{100 * everything[test]:.1f}" for test in matrix.tests)
        lines.append(["(marking everything)", *shares, *blank])
    return lines


def overview(matrix: Matrix) -> list[list[str]]:
    """Header and rows: in- and out-of-domain mean of each value, then of the papers."""
    axis = matrix.facts["axis"]
    names = [f"{SHORT[m]}, {where} domain" for m in METRICS for where in ("in", "out of")]
    lines = [["" if axis == "sets" else axis, *names]]
    for value in matrix.values:
        found = [matrix.summary[metric][value] for metric in METRICS]
        means = [percent(f.get(name)) for f in found for name in ("in_domain", "out_of_domain")]
        lines.append([value or "these networks", *means])
    blank = [""] * (len(names) - 2)
    for table in tables_with(matrix.trains):
        means = [f"{table.in_domain:.1f}", f"{table.out_of_domain:.1f}"]
        lines.append([table.system, *means, *blank])
        lines += [[name, f"{a:.1f}", f"{b:.1f}", *blank] for name, (a, b) in table.others.items()]
    return lines


def markdown(matrix: Matrix) -> str:
    """The tables with what is needed to judge and repeat them."""
    facts = matrix.facts
    text = [f"# Train on one, test on each\n\nAll {UNIT}; the {facts['split']} split.\n"]
    for value in matrix.values:
        if value:
            text.append(f"## {facts['axis']} {value}\n")
        for metric, meaning in METRICS.items():
            text.append(f"{meaning}:\n\n" + markdown_table(grid(matrix, value, metric)))
    text.append("## Means over the cells\n\n" + markdown_table(overview(matrix)))
    text.append(
        "*elsewhere*: mean over the other sets. *against others*: the same, each cell less the "
        "mean of the other networks that the test set is foreign to; *best in*: share of the "
        "resamples in which that difference is the highest. *marking everything*: what a mask "
        "that is all white would get. The intervals hold for these trained networks: they say "
        "nothing about another seed.\n"
    )
    for table in tables_with(matrix.trains):
        text.append(f"[paper]: {table.system}; {table.metric}; {table.source}.\n")
    sets = [["set", "trained on", "validated on", "tested on"]]
    for one in facts["sets"]:
        sets.append([one["name"], *(_counted(one[s]) for s in ("train", "val", "tested"))])
    text.append("## Sets: edited + untouched pictures (photos)\n\n" + markdown_table(sets))
    text += [f"Note: {remark}\n" for remark in facts["remarks"]]
    options = {t["value"]: t["options"] for t in facts["trainings"]}
    for value, chosen in options.items():
        listed = ", ".join(f"{k} = {v!r}" for k, v in chosen.items()) or "none"
        text.append(f"Options not at their default{f', {value}' if value else ''}: {listed}.\n")
    versions = ", ".join(f"{name} {v}" for name, v in facts["versions"].items() if v)
    seconds = sum(t["seconds"] or 0 for t in facts["trainings"])
    text.append(
        f"{facts['date']}; {facts['processor']}, {facts['cores']} cores; trainings "
        f"{seconds:.0f} s; {versions}.\n"
    )
    return "\n".join(text)


def heat_map(matrix: Matrix, metric: str, file: Path) -> None:
    """One panel for each value: colour and figure are the mean, in percent."""
    from matplotlib.figure import Figure  # slow to import

    panels = len(matrix.values)
    wide, high = 0.95 * len(matrix.tests) + 1.8, 0.75 * len(matrix.trains) + 1.6
    figure = Figure(figsize=(wide * panels + 0.8, high), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    image = None
    for panel, value in zip(axes, matrix.values, strict=True):
        table = [
            [100 * matrix.cell(train, test, value)[metric].value for test in matrix.tests]
            for train in matrix.trains
        ]
        image = panel.imshow(table, vmin=0, vmax=100, cmap="viridis")
        for y, (train, row) in enumerate(zip(matrix.trains, table, strict=True)):
            for x, (test, number) in enumerate(zip(matrix.tests, row, strict=True)):
                known = beside(train, test) if metric == "iou" else None
                label = f"{number:.1f}" + ("" if known is None else f"\npaper {known:.1f}")
                colour = "black" if number > 60 else "white"
                panel.text(x, y, label, ha="center", va="center", color=colour, fontsize=8)
        panel.set_xticks(range(len(matrix.tests)), matrix.tests, rotation=30, ha="right")
        panel.set_yticks(range(len(matrix.trains)), matrix.trains)
        panel.set(xlabel="tested on", ylabel="trained on", title=titled(matrix, value).rstrip(": "))
    if image is not None:
        figure.colorbar(image, ax=list(axes), label=f"{SHORT[metric]} (%)", shrink=0.8)
    with whole(file) as unfinished:
        figure.savefig(unfinished, dpi=120, format="png")


def percent(interval: Interval | None, sign: bool = False) -> str:
    """ "51.1 (48.0–54.2)", or "–" where there is none."""
    if interval is None or math.isnan(interval.value):
        return "–"
    value, low, high = (f"{100 * n:{'+' if sign else ''}.1f}" for n in interval)
    joined = f"{low} to {high}" if sign else f"{low}–{high}"
    return value if math.isnan(interval.low) else f"{value} ({joined})"


def _counted(found: dict[str, int]) -> str:
    return f"{found['edited']} + {found['untouched']} ({found['photos']})"
