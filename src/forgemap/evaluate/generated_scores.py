"""generated_scores.py: scores of generated pictures, and their figures generator by generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import classifiers as kinds
from ..classifiers import Classifier
from ..data.generated import REAL
from ..errors import DataError
from ..models.crops import aggregate
from .bootstrap import RESAMPLES, Interval, intervals
from .embed import Model
from .embeddings import Embeddings
from .metrics import detection_metrics
from .results import Group

POOLED, MEAN = "all, pooled", "mean of all"
THRESHOLD = float(np.nextafter(0.5, 1))  # a classifier says "generated" above 0.5, not at it
METRICS = {  # the first three: share judged right
    "real": "real",
    "fake": "generated",
    "accuracy": "both",
    "auc": "AUC",
    "ap": "AP",
    "tpr_at_fpr_1": "TPR at 1%",
    "tpr_at_fpr_5": "TPR at 5%",
    "ece": "ECE",
}
LARGE = 50_000  # pictures above which intervals are drawn from fewer resamples


@dataclass(frozen=True, eq=False)
class Scored:
    """The pictures of one data set and their scores, one per classifier; columns of length n.

    Attributes:
        columns: path, generator, key, group, split, variant, label; see `embeddings.Row`.
        scores: classifier -> (n,) in [0, 1]; NaN where the picture was fitted on.
    """

    columns: dict[str, NDArray[Any]]
    scores: dict[str, NDArray[np.float64]]


def score(tested: Embeddings, chosen: dict[str, Classifier], aggregation: str) -> Scored:
    starts = np.flatnonzero(tested["crop"] == 0)
    names = ("path", "generator", "key", "group", "split", "variant", "label")
    columns = {name: tested[name][starts] for name in names}
    scores = {
        name: scores_of(tested, classifier, aggregation, starts)
        for name, classifier in chosen.items()
    }
    return Scored(columns, scores)


def scores_of(
    tested: Embeddings, classifier: Classifier, aggregation: str, starts: NDArray[np.intp]
) -> NDArray[np.float64]:
    """One score per picture, whose crops begin at the rows `starts`."""
    each = classifier.scores(tested.vectors)
    if len(starts) == len(tested):
        return each
    ends = [*starts[1:], len(tested)]
    scores = np.empty(len(starts))
    for n, (a, b) in enumerate(zip(starts, ends, strict=True)):
        known = each[a:b]

        def scorer(vectors: np.ndarray, known: np.ndarray = known) -> np.ndarray:
            same = len(vectors) == len(known) and aggregation != "mean-embedding"
            return known if same else classifier.scores(vectors)

        scores[n] = aggregate(tested.vectors[a:b], scorer, aggregation)
    return scores


def groups_by_variant(scored: Scored, scores: NDArray[np.float64], seed: int) -> list[Group]:
    """The figures of every variant: each generator, pooled, and the mean of the generators."""
    made: list[Group] = []
    for variant in dict.fromkeys(scored.columns["variant"]):
        here = scored.columns["variant"] == variant
        made += groups_of(variant, _Part(scored, scores, here), seed)
    return made


@dataclass(frozen=True, eq=False)
class _Part:
    """The pictures of one variant."""

    scored: Scored
    all_scores: NDArray[np.float64]
    chosen: NDArray[np.bool_]

    def column(self, name: str) -> NDArray[Any]:
        return self.scored.columns[name][self.chosen]

    @property
    def scores(self) -> NDArray[np.float64]:
        return self.all_scores[self.chosen]


def groups_of(variant: str, part: _Part, seed: int) -> list[Group]:
    """Of one variant. A generator is compared with its own real pictures where it has some."""
    generator, group, key = (part.column(name) for name in ("generator", "group", "key"))
    labels, scores = part.column("label") != 0, part.scores
    members = {
        name: (generator == name) | (~labels & np.isin(group, ("", name)))
        for name in sorted({*generator[labels]})
    }
    made = []
    for kind, name, chosen in (
        *(("generator", name, chosen) for name, chosen in members.items()),
        ("overall", POOLED, np.ones(len(labels), bool)),
    ):
        values = _intervals(lambda w, c=chosen: figures(scores[c], labels[c], w), key[chosen], seed)
        fakes = int(labels[chosen].sum())
        made.append(Group(variant, kind, name, fakes, len({*key[chosen]}), values))

    def mean(weights: NDArray[Any]) -> dict[str, Any]:
        each = [figures(scores[c], labels[c], weights[..., c]) for c in members.values()]
        return {name: np.mean([f[name] for f in each], axis=0) for name in METRICS}

    if len(members) > 1:
        values = _intervals(mean, key, seed)
        made.append(Group(variant, "mean", MEAN, int(labels.sum()), len({*key}), values))
    return made


def figures(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], weights: NDArray[Any]
) -> dict[str, Any]:
    """`METRICS` of n pictures, weights (..., n): see `detection_metrics`. NaN without a class."""
    found = detection_metrics(scores, labels, threshold=THRESHOLD, weights=weights)
    right = (scores > 0.5) == labels
    with np.errstate(invalid="ignore", divide="ignore"):
        found["real"] = (weights * (right & ~labels)).sum(-1) / (weights * ~labels).sum(-1)
        found["fake"] = (weights * (right & labels)).sum(-1) / (weights * labels).sum(-1)
    return {name: found[name] for name in METRICS}


def _intervals(statistics: Any, keys: NDArray[Any], seed: int) -> dict[str, Interval]:
    """With 95 % intervals, resampling photos (keys); fewer resamples of very many pictures."""
    number = RESAMPLES if len(keys) <= LARGE else max(1, RESAMPLES * LARGE // len(keys) // 10)
    return intervals(statistics, keys, number=number, seed=seed)


def left_out(
    tested: Embeddings,
    learned: Embeddings,
    model: Model,
    names: list[str],
    aggregation: str,
    scored: Scored,
    seed: int,
) -> dict[str, list[Group]]:
    """For each kind, the figures of classifiers that never saw the generator they are judged on."""
    makers = sorted({*tested["generator"]} - {REAL})
    for maker in makers:
        if not {*learned["generator"]} - {REAL, maker}:
            raise DataError(
                f"Without {maker} there is no generator to fit on: leaving one out needs two."
            )
    result = {}
    starts = np.flatnonzero(tested["crop"] == 0)
    columns = scored.columns
    for kind in names:
        rows: list[Group] = []
        for variant in dict.fromkeys(columns["variant"]):
            each: list[Group] = []
            for maker in makers:
                # With its own real pictures, where it has some.
                rest = learned.where((learned["generator"] != maker) & (learned["group"] != maker))
                fitted = kinds.fit(kind, rest.vectors, rest["label"], model.source)
                scores = scores_of(tested, fitted, aggregation, starts)
                own = np.isin(columns["group"], ("", maker)) & (columns["label"] == 0)
                chosen = (columns["variant"] == variant) & ((columns["generator"] == maker) | own)
                part = _Part(scored, scores, chosen)
                each += [g for g in groups_of(variant, part, seed) if g.kind == "generator"]
            rows += each
            if len(each) > 1:
                values = {
                    m: Interval(float(np.mean([g[m].value for g in each])), np.nan, np.nan)
                    for m in METRICS
                }
                total = sum(g.pictures for g in each)
                rows.append(Group(variant, "mean", MEAN, total, each[0].photos, values))
        result[f"left out, {kind}"] = rows
    return result
