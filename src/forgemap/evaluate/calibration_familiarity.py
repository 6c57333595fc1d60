"""calibration_familiarity.py: what a calibration's photographs look like, for `Familiarity`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from rich.console import Console

from ..errors import DataError
from ..familiarity import STATISTICS, Familiarity, scaled

FEWEST = 8
"""Photographs without which nothing can be said of what is usual."""
TAIL, UP, SIGMAS = 0.01, 0.99, 2.326
"""A statistic's range to each side is that of a normal distribution with the same percentiles."""


def usual(
    values: Sequence[Mapping[str, float] | None], photos: Sequence[str]
) -> Familiarity | None:
    """`fit_familiarity` of the pictures that are large enough for statistics; None where they come
    from too few photographs, which is said on stderr."""
    large = [(v, p) for v, p in zip(values, photos, strict=True) if v is not None]
    try:
        return fit_familiarity([v for v, _ in large], [p for _, p in large])
    except DataError as error:
        message = f"{error} Unfamiliar pictures will not be recognised."
        Console(stderr=True).print(message, highlight=False)
        return None


def fit_familiarity(
    values: Sequence[Mapping[str, float]], photos: Sequence[str], *, share: float = 0.01
) -> Familiarity:
    """Bounds of each statistic, their joint distribution, and the distance that is unfamiliar.

    Every photograph has the same weight, however many versions of it there are: they resemble each
    other, and one photograph of a white wall must not set the limit for all.

    Args:
        values: what `familiarity.statistics` says of each untouched picture.
        photos: the photograph that each was made from.
        share: of the photographs that shall be unfamiliar; with fewer than 1 / share of them the
            limit is the largest distance but for the versions of one that are further out.

    Raises:
        DataError: fewer than FEWEST photographs.
    """
    from sklearn.covariance import LedoitWolf
    from sklearn.model_selection import GroupKFold

    names, place, counts = np.unique(list(photos), return_inverse=True, return_counts=True)
    if len(names) < FEWEST:
        raise DataError(
            f"There are {len(names)} untouched photographs to learn from what is usual; "
            f"{FEWEST} are needed."
        )
    weights = 1 / counts[place]
    raw = np.array([[v[n] for n in STATISTICS] for v in values])
    table = np.array([scaled(v) for v in values])

    def fit(chosen: np.ndarray) -> Familiarity:
        rows, weight = table[chosen], weights[chosen]
        low, centre, high = (
            np.array([_quantile(column, weight, q) for column in rows.T]) for q in (TAIL, 0.5, UP)
        )
        below, above = (np.maximum(side / SIGMAS, 0.05) for side in (centre - low, high - centre))
        away = rows - centre
        away /= np.where(away < 0, below, above)
        # Each photograph's versions together weigh as much as those of any other.
        covariance = LedoitWolf(assume_centered=True).fit(
            away * np.sqrt(weight / weight.mean())[:, None]
        )
        return Familiarity(
            least=_rounded(raw[chosen].min(0)),
            most=_rounded(raw[chosen].max(0)),
            centre=_rounded(centre),
            below=_rounded(below),
            above=_rounded(above),
            precision=_rounded(covariance.precision_.ravel()),
        )

    # The limit comes from distances to fits that have not seen the photograph.
    distances = np.zeros(len(table))
    for train, test in GroupKFold(min(5, len(names))).split(table, groups=place):
        others = fit(train)
        distances[test] = [others.distance(values[i]) for i in test]
    low, high = (
        _rounded([_quantile(column, weights, q) for column in raw.T])
        for q in (share / 2, 1 - share / 2)
    )
    return replace(
        fit(np.arange(len(table))),
        low=low,
        high=high,
        limit=float(np.nextafter(_quantile(distances, weights, 1 - share), np.inf)),
        share=share,
        fitted_on=f"{len(table)} untouched pictures from {len(names)} photographs.",
    )


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The least value that values of at least `share` of the total weight do not exceed."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(reached, share - 1e-9)])


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(v), 6) for v in values)
