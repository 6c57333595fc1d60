"""robustness_report.py: what a change does to a model's answers: robustness.md, .json and plots.

Three questions, each with intervals over source photos: how well edits are still found after each
grid and pipeline, where the verdict flips against that on the picture as it is, and how many
untouched pictures are accused after each benign processing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report import VERDICTS
from . import plots
from .bootstrap import Interval, mean_interval
from .markdown import cell, markdown_table
from .plots import COLOURS
from .results import ALL, NONE, Results, Row, write
from .robustness import GRIDS
from .robustness_pipelines import PIPELINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANIPULATED = VERDICTS[2]
AS_IS = "as is"
ALLOWED = 0.05  # of untouched pictures that any benign processing may make "manipulated"

# How a picture's verdict can change against that on the picture as it is.
FLIPS = {
    "changed": "verdict changed",
    "accused": "untouched, newly manipulated",
    "cleared": "untouched, no longer manipulated",
    "found": "edited, newly manipulated",
    "lost": "edited, no longer manipulated",
}


def summarise(results: Results, seed: int = 0) -> dict[str, Any]:
    """The JSON object of robustness.json.

    `flips`: variant -> share of pictures for each of FLIPS, as [value, low, high]: of all pictures,
    of the untouched, of the edited. `alarms`: variant -> of untouched pictures: `pictures`,
    `photos`, `accused` [value, low, high], `at_most` (see `upper_bound`), `inconclusive`,
    `flagged` (mean share of area) and `flagged_most`. `iou`, `judged`, `auc`: variant -> method ->
    [value, low, high] of mean IoU, of the share that is judged manipulated, of the image AUC.
    Undefined numbers are null.
    """
    sound = [row for row in results.rows if row["error"] is None]
    before = {row["image"]: row["verdict"] for row in sound if row["variant"] == AS_IS}
    found: dict[str, Any] = {"facts": results.facts}
    variants = results.variants
    here = {v: [row for row in sound if row["variant"] == v] for v in variants}
    found["flips"] = {v: _flips(here[v], before, seed) for v in variants if v != AS_IS}
    found["alarms"] = {
        v: _alarms([row for row in here[v] if not row["manipulated"]], seed)
        for v in variants
        if any(not row["manipulated"] for row in here[v])
    }
    metrics = {"iou": "iou", "judged": "judged_manipulated", "auc": "image_auc"}
    for key, metric in metrics.items():
        found[key] = {
            v: {g.name: _numbers(g[metric]) for g in results.of(v, "method", "overall")}
            for v in variants
        }
    return found


def upper_bound(hits: int, total: int, level: float = 0.95) -> float:
    """The exact one-sided upper bound of a share (Clopper and Pearson, 1934).

    With no hit in 60 it is 4.9 %: a bootstrap of zeros would call it 0.
    """
    if hits >= total:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(hits + 1, total - hits, level))


def _flips(rows: Sequence[Row], before: dict[str, str], seed: int) -> dict[str, list[float | None]]:
    pairs = [(row, before[row["image"]]) for row in rows if row["image"] in before]

    def share(subject: bool | None, what: Any) -> list[float | None]:
        some = [p for p in pairs if subject is None or p[0]["manipulated"] == subject]
        values = [what(row["verdict"], old) for row, old in some]
        sources = [row["source"] for row, _ in some]
        return _numbers(mean_interval(values, sources, seed=seed) if some else NONE)

    def newly(new: str, old: str) -> bool:
        return new == MANIPULATED != old

    def no_longer(new: str, old: str) -> bool:
        return old == MANIPULATED != new

    return {
        "changed": share(None, lambda new, old: new != old),
        "accused": share(False, newly),
        "cleared": share(False, no_longer),
        "found": share(True, newly),
        "lost": share(True, no_longer),
    }


def _alarms(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    sources = [row["source"] for row in rows]
    accused = [row["verdict"] == MANIPULATED for row in rows]
    photos = {*sources}
    guilty = {source for source, hit in zip(sources, accused, strict=True) if hit}
    flagged = [row["flagged"] for row in rows]
    return {
        "pictures": len(rows),
        "photos": len(photos),
        "accused": _numbers(mean_interval(accused, sources, seed=seed)),
        "at_most": upper_bound(len(guilty), len(photos)),
        "inconclusive": float(np.mean([row["verdict"] == VERDICTS[1] for row in rows])),
        "flagged": float(np.mean(flagged)),
        "flagged_most": float(np.max(flagged)),
    }


def _numbers(value: Interval) -> list[float | None]:
    return [None if math.isnan(number) else float(number) for number in value]


# --- Markdown -------------------------------------------------------------------------------------


def markdown(found: dict[str, Any]) -> str:
    """The summary as tables: grids, pipelines, flips, false alarms."""
    facts = found["facts"]
    parts = [
        "# Robustness\n",
        f"`{facts['model']}`, {facts.get('date', '')}, {facts.get('processor', '')}. "
        "95 % intervals over source photos in brackets.\n",
    ]
    iou = found["iou"]
    methods = list(iou.get(AS_IS, {}))
    for change, grid in GRIDS.items():
        shown = [AS_IS, *(v for v in (f"{change} {level:g}" for level in grid.levels) if v in iou)]
        if len(shown) > 1 and methods:
            heads = [f"IoU; {grid.unit}", *(v.removeprefix(change + " ") for v in shown)]
            lines = [[m, *(_cell(iou[v].get(m), 2) for v in shown)] for m in methods]
            parts += [f"## {change}\n", markdown_table([heads, *lines])]
    pipelines = [v for v in (f"pipeline {name}" for name in PIPELINES) if v in iou]
    if pipelines and methods:
        shown = [AS_IS, *pipelines]
        names = [v.removeprefix("pipeline ") for v in shown]
        lines = [
            [n, *(_cell(iou[v].get(m), 2) for m in methods)]
            for v, n in zip(shown, names, strict=True)
        ]
        parts += ["## Pipelines: IoU by method\n", markdown_table([["", *methods], *lines])]
        heads = ["", "image AUC", "edited, judged manipulated"]
        rows = [
            [n, *(_cell(found[key][v].get(ALL), 2) for key in ("auc", "judged"))]
            for v, n in zip(shown, names, strict=True)
        ]
        parts += ["## Pipelines: the whole picture\n", markdown_table([heads, *rows])]
        about = [f"- `{name}`: {function.__doc__}\n" for name, function in PIPELINES.items()]
        parts += ["".join(about)]
    if found["flips"]:
        lines = [[v, *(_cell(flips[k], 2) for k in FLIPS)] for v, flips in found["flips"].items()]
        parts += ["## Where the verdict flips\n", markdown_table([["", *FLIPS.values()], *lines])]
    if found["alarms"]:
        parts += ["## False alarms on untouched pictures\n", _alarm_table(found["alarms"])]
    return "\n".join(parts)


def _alarm_table(alarms: dict[str, dict[str, Any]]) -> str:
    heads = ["", "pictures", "judged manipulated", "at most (photos, 95 %)", "inconclusive"]
    heads += ["area marked, mean", "most"]
    lines = [
        [
            variant, str(row["pictures"]), _cell(row["accused"], 3), f"{row['at_most']:.3f}",
            f"{row['inconclusive']:.3f}", f"{row['flagged']:.4f}", f"{row['flagged_most']:.3f}",
        ]
        for variant, row in alarms.items()
    ]  # fmt: skip
    return markdown_table([heads, *lines])


def _cell(value: list[float | None] | None, digits: int) -> str:
    if value is None:
        return ""
    return cell(Interval(*(math.nan if number is None else number for number in value)), digits)


# --- files ----------------------------------------------------------------------------------------


def save(results: Results, folder: Path, seed: int = 0) -> list[Path]:
    """robustness.md, robustness.json, flips.png and benign.png (where there is what they show)."""
    found = summarise(results, seed)
    files = [folder / "robustness.json", folder / "robustness.md"]
    write(files[0], json.dumps(found, indent=1, allow_nan=False) + "\n")
    write(files[1], markdown(found))
    if found["flips"]:
        height = 2 + 0.22 * len(found["flips"])
        files.append(
            plots._save(folder / "flips.png", lambda axes: flip_bars(found, axes), (7, height))
        )
    benign = [v for v in found["alarms"] if v.startswith("benign ")]
    if benign:
        height = 2 + 0.22 * len(benign)
        files.append(
            plots._save(folder / "benign.png", lambda axes: alarm_bars(found, axes), (7, height))
        )
    return files


def flip_bars(found: dict[str, Any], axes: Axes) -> None:
    """Shares of untouched pictures newly accused and of edited ones no longer found."""
    names = list(found["flips"])
    sides = {"accused": (COLOURS[1], 0.2), "lost": (COLOURS[0], -0.2)}
    for key, (colour, offset) in sides.items():
        values = [found["flips"][name][key] for name in names]
        _bars(axes, np.arange(len(names)) + offset, values, 0.4, colour, FLIPS[key])
    _label(axes, names, "share of the untouched, of the edited (95 % interval)")
    axes.legend(fontsize="small")


def alarm_bars(found: dict[str, Any], axes: Axes) -> None:
    """Untouched pictures judged manipulated after each benign processing, against the limit."""
    names = [v for v in found["alarms"] if v == AS_IS or v.startswith("benign ")]
    values = [found["alarms"][name]["accused"] for name in names]
    _bars(axes, np.arange(len(names), dtype=float), values, 0.7, COLOURS[1], "judged manipulated")
    axes.axvline(ALLOWED, color="0.3", lw=1, ls="--", label=f"{ALLOWED:.0%}")
    _label(axes, [n.removeprefix("benign ") for n in names], "share of untouched pictures")
    axes.legend(fontsize="small")


def _bars(
    axes: Axes,
    place: np.ndarray,
    values: list[list[float | None]],
    width: float,
    colour: str,
    label: str,
) -> None:
    value = np.array(values, float).reshape(len(values), 3)
    error = np.nan_to_num(np.abs(value[:, 1:] - value[:, :1]).T)
    shown = np.nan_to_num(value[:, 0])
    axes.barh(place, shown, width, color=colour, label=label, xerr=error, ecolor="0.4")


def _label(axes: Axes, names: list[str], unit: str) -> None:
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel=unit, xlim=(0, None))
