"""bootstrap.py: confidence intervals by resampling source photos, not single pictures.

Several edits of one photo stand or fall together: resampling pictures would feign a precision that
is not there. The photos are drawn with replacement, each with everything made from it (the cluster
bootstrap), and the interval is the middle part of the values that come out (percentile method).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 1000
LEVEL = 0.95
CHUNK = 100  # resamples at a time, so that memory stays at CHUNK x pictures


class Interval(NamedTuple):
    """A value and its confidence interval; the bounds are NaN where there are too few photos."""

    value: float
    low: float
    high: float


def resamples(
    clusters: ArrayLike, *, number: int = RESAMPLES, seed: int = 0
) -> Iterator[NDArray[np.int64]]:
    """How often each picture counts in each resample, in chunks of (at most CHUNK, n) integers.

    clusters: (n,) the photo from which each picture was made, in any sortable type.
    """
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    photos = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    for begin in range(0, number, CHUNK):
        size = min(CHUNK, number - begin)
        yield rng.multinomial(photos, np.full(photos, 1 / photos), size=size)[:, member]


def mean_interval(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    number: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """The mean of (n,) values with its interval. NaN values (undefined) are left out.

    clusters: (n,) as in `resamples`; None: every value stands alone. NaN for no values at all.
    """
    value = np.asarray(values, np.float64)
    cluster = np.arange(value.size) if clusters is None else np.asarray(clusters)
    defined = ~np.isnan(value)
    value, cluster = value[defined], cluster[defined]

    def mean(weights: NDArray[Any]) -> dict[str, Any]:
        return {"mean": weights @ value / weights.sum(-1)}

    return intervals(mean, cluster, number=number, level=level, seed=seed).get(
        "mean", Interval(np.nan, np.nan, np.nan)
    )


def intervals(
    statistics: Callable[[NDArray[Any]], Mapping[str, Any]],
    clusters: ArrayLike,
    *,
    number: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Interval]:
    """Named statistics of n pictures with their intervals.

    statistics: takes weights (..., n), how often each picture counts, and returns arrays (...).
    Resamples in which a value is undefined are left out of its interval. No pictures: {}.
    """
    cluster = np.asarray(clusters)
    if not cluster.size:
        return {}
    found = {name: float(value) for name, value in statistics(np.ones(cluster.size)).items()}
    if np.unique(cluster).size < 2:  # nothing to resample
        return {name: Interval(value, np.nan, np.nan) for name, value in found.items()}
    drawn: dict[str, list[NDArray[Any]]] = {name: [] for name in found}
    for weights in resamples(cluster, number=number, seed=seed):
        for name, values in statistics(weights).items():
            drawn[name].append(values)
    tail = (1 - level) / 2
    result = {}
    for name, value in found.items():
        values = np.concatenate(drawn[name])
        values = values[~np.isnan(values)]
        low, high = np.quantile(values, [tail, 1 - tail]) if values.size else (np.nan, np.nan)
        result[name] = Interval(value, float(low), float(high))
    return result
