"""cells.py: the figures of a matrix: cells, in- and out-of-domain means, who generalises best.

All intervals resample the source photos, jointly over the cells: every model is tested on the same
photos, and a hard photo is hard for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluate.bootstrap import Interval, intervals, resamples
from ..evaluate.published import beside
from ..evaluate.results import ALL, NONE, UNTOUCHED, Results, Row

METRICS = {
    "iou": "IoU at 0.5, as the paper reports it",
    "auc": "pixel AUC: a short training may rank pixels well and yet mark none",
}
"""What the means are of. All lie in [0, 1] and are means over the edited pictures."""


class Cell:
    """One model on one test set.

    value: of the axis, "" if there is none. rows: as `evaluate.benchmark.measure` makes them.
    cell["iou"] is the mean over the edited pictures with its interval; so are the other metrics of
    `evaluate.results`, and "flagged" is the mean share marked in the untouched ones.
    """

    def __init__(self, value: str, train: str, test: str, rows: Sequence[Row], seed: int) -> None:
        self.value, self.train, self.test = value, train, test
        self.rows = [row for row in rows if row["error"] is None]
        self.failed = len(rows) - len(self.rows)
        results = Results({}, self.rows, seed)
        groups = {group.name: group for group in results.of("as is", "overall", "untouched")}
        self.values = dict(groups[ALL].values) if ALL in groups else {}
        if UNTOUCHED in groups:
            self.values["flagged"] = groups[UNTOUCHED]["flagged"]

    def __getitem__(self, metric: str) -> Interval:
        return self.values.get(metric, NONE)

    @property
    def edited(self) -> list[Row]:
        return [row for row in self.rows if row["manipulated"]]

    @property
    def published(self) -> float | None:
        """What a paper reports for this pair of sets, in percent."""
        return beside(self.train, self.test)

    def to_dict(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "train": self.train,
            "test": self.test,
            "edited": len(self.edited),
            "untouched": len(self.rows) - len(self.edited),
            "failed": self.failed,
            "published_iou_percent": self.published,
            "values": {name: plain(value) for name, value in self.values.items()},
        }


class Matrix:
    """All cells and their summary: `summary[metric][value]` is what `means` returns, `best[metric]
    [value]` what `share_best` does."""

    def __init__(self, cells: Sequence[Cell], facts: dict[str, Any], seed: int = 0) -> None:
        self.cells, self.facts = list(cells), facts
        self.trains = list(dict.fromkeys(cell.train for cell in cells))
        self.tests = list(dict.fromkeys(cell.test for cell in cells))
        self.values = list(dict.fromkeys(cell.value for cell in cells))
        self.summary: dict[str, dict[str, dict[str, Interval]]] = {m: {} for m in METRICS}
        self.best: dict[str, dict[str, dict[str, float]]] = {m: {} for m in METRICS}
        for metric in METRICS:
            for value in self.values:
                chosen = [cell for cell in cells if cell.value == value]
                self.summary[metric][value] = means(chosen, metric, seed)
                self.best[metric][value] = share_best(chosen, metric, seed)

    def cell(self, train: str, test: str, value: str = "") -> Cell:
        """KeyError if there is no such cell."""
        for cell in self.cells:
            if (cell.train, cell.test, cell.value) == (train, test, value):
                return cell
        raise KeyError(f"no cell {train} -> {test} {value}")

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of matrix.json; NaN (undefined) is null."""
        summary = {
            metric: {
                value: {name: plain(interval) for name, interval in found.items()}
                for value, found in values.items()
            }
            for metric, values in self.summary.items()
        }
        return {
            **self.facts,
            "trains": self.trains,
            "tests": self.tests,
            "values": self.values,
            "cells": [cell.to_dict() for cell in self.cells],
            "summary": summary,
            "best_share": self.best,
        }


def means(cells: Sequence[Cell], metric: str = "iou", seed: int = 0) -> dict[str, Interval]:
    """The summary of the cells of one value, each figure with its interval.

    - `in_domain`, `out_of_domain`: mean over the cells of equal and of different sets;
    - `elsewhere/TRAIN`: mean over the other sets, of the network trained on TRAIN;
    - `advantage/TRAIN`: the same, each cell less the mean of the other networks that the set is
      foreign to. `elsewhere` flatters the network that was trained on the hardest set, since it
      alone is spared that test; this does not. Needs three sets to train on.

    What does not exist (one set alone) is left out.
    """
    statistics, sources = _prepared(cells, metric)
    return intervals(statistics, sources, seed=seed)


def share_best(cells: Sequence[Cell], metric: str = "iou", seed: int = 0) -> dict[str, float]:
    """TRAIN -> share of the resamples in which its `advantage` is the highest; {} without one."""
    statistics, sources = _prepared(cells, metric)
    wins: dict[str, float] = {}
    for weights in resamples(sources, seed=seed) if len(sources) else ():
        found = {n: v for n, v in statistics(weights).items() if n.startswith("advantage/")}
        if len(found) < 2:
            return {}
        table = np.stack(list(found.values()))
        best = table[:, ~np.isnan(table).any(0)].argmax(0)
        for number, name in enumerate(found):
            train = name.removeprefix("advantage/")
            wins[train] = wins.get(train, 0.0) + np.count_nonzero(best == number)
    total = sum(wins.values())
    return {train: number / total for train, number in wins.items()} if total else {}


def _prepared(cells: Sequence[Cell], metric: str) -> tuple[Any, NDArray[Any]]:
    """The function of weights that `intervals` wants, and the photo of each picture."""
    rows = [(n, row) for n, cell in enumerate(cells) for row in cell.edited]
    rows = [(n, row) for n, row in rows if row[metric] is not None]  # AUC of a full mask
    member = np.array([n for n, _ in rows], int)
    score = np.array([row[metric] for _, row in rows], np.float64)
    belongs = np.eye(len(cells))[member]  # (pictures, cells)
    sources = np.array([row["source"] for _, row in rows])

    def statistics(weights: NDArray[Any]) -> Mapping[str, Any]:
        with np.errstate(invalid="ignore"):  # a resample may lack all photos of a cell
            values = ((weights * score) @ belongs) / (weights @ belongs)
        return summarise(cells, values)

    return statistics, sources


def summarise(cells: Sequence[Cell], values: NDArray[Any]) -> dict[str, Any]:
    """The figures of `means` from the cells' values (..., cells)."""
    places = {(cell.train, cell.test): n for n, cell in enumerate(cells)}
    trains = list(dict.fromkeys(cell.train for cell in cells))
    same = [n for (train, test), n in places.items() if train == test]
    other = [n for (train, test), n in places.items() if train != test]
    found: dict[str, Any] = {}
    if same:
        found["in_domain"] = values[..., same].mean(-1)
    if other:
        found["out_of_domain"] = values[..., other].mean(-1)
    for mine in trains:
        foreign = [test for train, test in places if train == mine and test != mine]
        if foreign:
            own = [places[mine, test] for test in foreign]
            found[f"elsewhere/{mine}"] = values[..., own].mean(-1)
        gaps = []
        for test in foreign:
            rivals = [places[t, test] for t in trains if t not in (mine, test)]
            if rivals:
                gaps.append(values[..., places[mine, test]] - values[..., rivals].mean(-1))
        if gaps:
            found[f"advantage/{mine}"] = np.mean(gaps, axis=0)
    return found


def plain(interval: Interval) -> list[float | None]:
    """[value, low, high], NaN as None."""
    return [None if math.isnan(n) else round(n, 6) for n in interval]
