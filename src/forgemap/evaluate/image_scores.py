"""image_scores.py: the poolings of a picture's maps as scores in [0, 1], and all of them fitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..pooling import COPIES, EVIDENCE_POOLINGS, HEAT_POOLINGS, LOSSY
from .metrics import detection_metrics
from .probability import fit_score
from .results import Row


class Pooling(NamedTuple):
    """One way from a picture's maps to a score in [0, 1]."""

    score: Callable[[Mapping[str, float]], float]
    """Of the values that `Look.observe` notes of a picture; KeyError where the network has none."""
    meaning: str


def value(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda values: values[name]


def sigmoid_of(name: str) -> Callable[[Mapping[str, float]], float]:
    return lambda values: sigmoid(values[name])


def sigmoid(logit: float) -> float:
    return 0.5 * (1 + math.tanh(logit / 2))


def first_line(function: Callable[..., Any]) -> str:
    return str(function.__doc__).split("\n")[0]


POOLINGS: dict[str, Pooling] = {
    "mean": Pooling(value("mean"), first_line(HEAT_POOLINGS["mean"])),
    "mean_logit": Pooling(
        sigmoid_of("mean_logit"),
        "Sigmoid of the mean logit: what DeCLIP's image-level training averages.",
    ),
    **{
        name: Pooling(value(name), first_line(pool))
        for name, pool in HEAT_POOLINGS.items()
        if name != "mean"
    },
    **{
        name: Pooling(sigmoid_of(name), f"Sigmoid of: {first_line(pool)}")
        for name, pool in EVIDENCE_POOLINGS.items()
    },
    "head": Pooling(
        sigmoid_of("head"),
        "The evidence head as it was trained: sigmoid of a sharp log-mean-exp of its logits.",
    ),
    "decision": Pooling(value("decision"), "The model's own calibrated score."),
}
"""Every pooling by name; "fitted" comes on top where there are pictures to fit it on."""

FITTED = Pooling(
    value("fitted"), "Logistic regression over all poolings, fitted on other pictures."
)


def score_all(rows: list[Row], fitting: list[Row]) -> list[str]:
    """Put `scores` into every sound row; the names of the poolings that they have.

    Args:
        rows: of `Look.observe`, with "values" or an "error".
        fitting: the same of the pictures that "fitted" is fitted on; they get the scores of folds
            that did not see them. Empty: there is no such score.

    Raises:
        DataError: every row has an error.
    """
    sound = [row for row in (*rows, *fitting) if row["error"] is None]
    if not any(row["error"] is None for row in rows):
        raise DataError(f"No picture could be looked at. The first: {rows[0]['error']}")
    present = sound[0]["values"]
    names = [n for n in POOLINGS if n in present]
    for row in sound:
        row["scores"] = {name: POOLINGS[name].score(row["values"]) for name in names}
    fitting = [row for row in fitting if row["error"] is None]
    if not fitting:
        return names
    # Logits of what lies in [0, 1]: a regression wants values without ends. Not the model's own
    # score, which may have been calibrated on the very pictures that are fitted on.
    inputs = [n for n in present if n not in (*HEAT_POOLINGS, "decision", LOSSY, COPIES)]
    table = _table(fitting, inputs)
    edited = np.array([row["manipulated"] for row in fitting])
    weights, bias, held_out = fit_score(table, edited, [row["source"] for row in fitting])
    for row, score in zip(fitting, held_out, strict=True):
        row["scores"]["fitted"] = float(score)  # by folds that did not see its photo
    for row in rows:
        if row["error"] is None:
            total = float(_table([row], inputs)[0] @ weights + bias)
            row["scores"]["fitted"] = sigmoid(total)
    return [*names, "fitted"]


def _table(rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    return np.array([[row["values"][name] for name in names] for row in rows])


def best_thresholds(fitting: Sequence[Row], names: Sequence[str]) -> dict[str, float]:
    """The threshold with the best accuracy on the fitting pictures, both classes weighing alike."""
    rows = [row for row in fitting if row["error"] is None]
    if not rows:
        return {}
    labels = np.array([row["manipulated"] for row in rows])
    weights = np.where(labels, 1 / labels.sum(), 1 / (~labels).sum())
    found = {}
    for name in names:
        scores = np.array([row["scores"][name] for row in rows])
        found[name] = float(detection_metrics(scores, labels, weights=weights)["best_threshold"])
    return found
