"""results.py: Results, one row per picture summarised per method, overall and per source folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ..errors import DataError
from ..files import write_whole
from ..report import VERDICTS
from .bootstrap import Interval, intervals, mean_interval
from .markdown import markdown
from .metrics import detection_metrics

Row = dict[str, Any]  # see benchmark.measure for what it holds

ALL = "all methods"
UNTOUCHED = "untouched"
PIXEL = {"iou": "IoU", "f1_fixed": "F1 at 0.5", "f1_best": "F1 best", "ap": "AP", "auc": "AUC"}
IMAGE = {
    "image_auc": "AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "tpr_at_fpr_1": "TPR, FPR 1%",
    "tpr_at_fpr_5": "TPR, FPR 5%",
    "ece": "ECE",
}
VERDICT = {
    "judged_manipulated": "manipulated",
    "judged_inconclusive": "inconclusive",
    "judged_clear": "no sign",
    "flagged": "area flagged",
    "flagged_max": "at most",
}
FOLDER = {"iou": "IoU", "flagged": "untouched area flagged", "alarms": "untouched manipulated"}
JUDGED = {
    "judged_manipulated": VERDICTS[2],
    "judged_inconclusive": VERDICTS[1],
    "judged_clear": VERDICTS[0],
}
NONE = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Group:
    """The numbers of some pictures in one variant, each with its 95 % interval."""

    variant: str
    kind: str
    """One of "method", "overall" (methods pooled), "untouched", "benign" (untouched pictures by
    their processing), "folder" (of the source photos)."""
    name: str
    pictures: int
    photos: int
    """Source photos behind them, which are what the intervals resample."""
    values: dict[str, Interval]

    def __getitem__(self, metric: str) -> Interval:
        return self.values.get(metric, NONE)

    def to_dict(self) -> dict[str, Any]:
        values = {
            name: [None if math.isnan(n) else n for n in value]
            for name, value in self.values.items()
        }
        return {**vars(self), "values": values}


class Results:
    """What `evaluate` found.

    facts: what was evaluated, with what, when and where, JSON-able. rows: one per picture and
    variant, failed ones included. groups: their summary; see `group` for one of them.
    """

    def __init__(self, facts: dict[str, Any], rows: Sequence[Row], seed: int = 0) -> None:
        self.facts = facts
        self.rows = list(rows)
        self.groups = list(_summarise(self.rows, seed))

    @property
    def errors(self) -> list[Row]:
        """The rows of pictures that could not be evaluated."""
        return [row for row in self.rows if row["error"] is not None]

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(row["variant"] for row in self.rows))

    def group(self, name: str = ALL, variant: str = "as is", kind: str | None = None) -> Group:
        """The group of that method (or `ALL`, `UNTOUCHED`, a folder's name); KeyError if none."""
        for group in self.groups:
            if (group.name, group.variant) == (name, variant) and kind in (None, group.kind):
                return group
        raise KeyError(f"no group {name!r} in the variant {variant!r}")

    def of(self, variant: str, *kinds: str) -> list[Group]:
        """The groups of a variant that are of one of the kinds, in the order of the tables."""
        return [g for g in self.groups if g.variant == variant and g.kind in kinds]

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of results.json; NaN (undefined) is null."""
        groups = [group.to_dict() for group in self.groups]
        return {**self.facts, "groups": groups, "rows": self.rows}

    def save(self, folder: str | Path) -> Path:
        """Write results.json and its tables, results.md; each appears whole or not at all.

        Raises DataError if they cannot be written.
        """
        file = Path(folder) / "results.json"
        write(file, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")
        write(file.with_suffix(".md"), markdown(self))
        return file

    def tables(self) -> list[Table]:
        """Tables for the terminal: where, whether and false alarms of each variant, then folders.

        With many variants (robustness) one line for each instead.
        """
        shown = self.variants if len(self.variants) <= 4 else self.variants[:1]
        made = [table for variant in shown for table in self._block(variant)]
        if shown != self.variants:
            made.append(self._overview())
        return made

    def _block(self, variant: str) -> list[Table]:
        edited = self.of(variant, "method", "overall")
        everything = self.of(variant, "method", "overall", "untouched")
        folders = self.of(variant, "folder")
        made = [_table(f"Verdicts, pictures {variant}", "method", everything, VERDICT)]
        if edited:
            where = _table(f"Where: pixels of edited pictures, {variant}", "method", edited, PIXEL)
            made.insert(0, where)
        if edited and self.of(variant, "untouched"):
            title = f"Whether: edited against untouched pictures, {variant}"
            made.insert(1, _table(title, "method", edited, IMAGE))
        if len(folders) > 1:
            made.append(_table(f"By folder of the source photos, {variant}", "", folders, FOLDER))
        return made

    def _overview(self) -> Table:
        """IoU of each method, image AUC and false alarms, one line per variant."""
        methods = list(dict.fromkeys(g.name for g in self.groups if g.kind == "method"))
        table = Table(
            "variant", *methods, ALL, "image AUC", "area flagged", "untouched manipulated"
        )
        table.title = "Robustness: IoU of each method"
        for variant in self.variants:
            found = {g.name: g for g in self.of(variant, "method", "overall", "untouched")}
            empty = Group(variant, "", "", 0, 0, {})
            ious = [found.get(name, empty)["iou"] for name in (*methods, ALL)]
            rest = (
                found.get(ALL, empty)["image_auc"],
                found.get(UNTOUCHED, empty)["flagged"],
                found.get(UNTOUCHED, empty)["judged_manipulated"],
            )
            table.add_row(variant, *(_number(v.value) for v in (*ious, *rest)))
        return table


def write(file: Path, text: str) -> None:
    """A text file, whole or not at all; DataError if it cannot be written."""
    try:
        write_whole(file, text)
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror or error}.") from error


def _summarise(rows: Sequence[Row], seed: int) -> Iterable[Group]:
    sound = [row for row in rows if row["error"] is None]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        here = [row for row in sound if row["variant"] == variant]
        edited = [row for row in here if row["manipulated"]]
        untouched = [row for row in here if not row["manipulated"]]
        methods = sorted({row["method"] for row in edited})
        for name in methods:
            some = [row for row in edited if row["method"] == name]
            yield _group(variant, "method", name, some, _edited(some, untouched, seed))
        if edited:
            yield _group(variant, "overall", ALL, edited, _edited(edited, untouched, seed))
        if untouched:
            values = {
                "flagged": _mean(untouched, "flagged", seed),
                "flagged_max": Interval(_column(untouched, "flagged").max(), math.nan, math.nan),
                **_judged(untouched, seed),
            }
            yield _group(variant, "untouched", UNTOUCHED, untouched, values)
        lives = sorted({n for row in untouched for n in row.get("benign", "").split("+")} - {""})
        for name in lives:
            some = [row for row in untouched if name in row["benign"].split("+")]
            values = {"flagged": _mean(some, "flagged", seed), **_judged(some, seed)}
            yield _group(variant, "benign", name, some, values)
        for folder in sorted({row["folder"] for row in here}):
            some = [row for row in here if row["folder"] == folder]
            yield _group(variant, "folder", folder, some, _folder(some, seed))


def _group(
    variant: str, kind: str, name: str, rows: list[Row], values: dict[str, Interval]
) -> Group:
    return Group(variant, kind, name, len(rows), len({row["source"] for row in rows}), values)


def _edited(edited: list[Row], untouched: list[Row], seed: int) -> dict[str, Interval]:
    values = {name: _mean(edited, name, seed) for name in PIXEL} | _judged(edited, seed)
    if untouched:
        both = [*edited, *untouched]
        scores, labels = _column(both, "score"), _column(both, "manipulated")

        def detection(weights: NDArray[Any]) -> dict[str, Any]:
            found = detection_metrics(scores, labels, weights=weights)
            found["image_auc"], found["image_ap"] = found.pop("auc"), found.pop("ap")
            return found

        values |= intervals(detection, [row["source"] for row in both], seed=seed)
    return values


def _folder(rows: list[Row], seed: int) -> dict[str, Interval]:
    edited = [row for row in rows if row["manipulated"]]
    untouched = [row for row in rows if not row["manipulated"]]
    return {
        "iou": _mean(edited, "iou", seed),
        "flagged": _mean(untouched, "flagged", seed),
        "alarms": _judged(untouched, seed)["judged_manipulated"],
    }


def _judged(rows: list[Row], seed: int) -> dict[str, Interval]:
    sources = [row["source"] for row in rows]
    return {
        name: mean_interval([row["verdict"] == verdict for row in rows], sources, seed=seed)
        for name, verdict in JUDGED.items()
    }


def _mean(rows: list[Row], metric: str, seed: int) -> Interval:
    return mean_interval(_column(rows, metric), [row["source"] for row in rows], seed=seed)


def _column(rows: list[Row], name: str) -> NDArray[np.float64]:
    return np.array([math.nan if row[name] is None else row[name] for row in rows], np.float64)


def _table(title: str, first: str, groups: list[Group], columns: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for header in ("pictures", *columns.values()):
        table.add_column(header, justify="right")
    for group in groups:
        cells = [_cell(group[metric]) for metric in columns]
        table.add_row(group.name, f"{group.pictures}\n[dim]{group.photos} photos[/]", *cells)
    return table


def _cell(value: Interval) -> str:
    if math.isnan(value.low):
        return _number(value.value)
    return f"{_number(value.value)}\n[dim]{_number(value.low)}–{_number(value.high)}[/]"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
