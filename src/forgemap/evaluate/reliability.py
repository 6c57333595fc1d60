"""reliability.py: do the scores hold as probabilities? Shares of edited pictures, bin by bin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bootstrap import Interval, intervals
from .metrics import CALIBRATION_BINS, detection_metrics

REPETITIONS = 200


class Bin(NamedTuple):
    """The pictures whose score lies in a fifteenth of [0, 1]."""

    low: float
    high: float
    pictures: int
    score: float
    """Mean of their scores."""
    share: Interval
    """Share of them that is edited, with 95 % by photo; no bounds where they are of one photo."""


class Reliability(NamedTuple):
    """How far scores are from probabilities."""

    bins: list[Bin]
    """Those that hold pictures, from low to high."""
    error: Interval
    """Expected calibration error (`metrics.detection_metrics`), with 95 % by photo."""
    chance: float
    """What that error would be on average, by chance alone, if the scores were probabilities."""
    pictures: int
    edited: int

    def rows(self) -> list[list[str]]:
        """Header and one row a bin."""
        body = [
            [f"{b.low:.2f}-{b.high:.2f}", str(b.pictures), f"{b.score:.2f}", cell(b.share)]
            for b in self.bins
        ]
        return [["score", "pictures", "mean score", "share that is edited"], *body]

    def sentence(self) -> str:
        """The error in words."""
        return (
            f"Expected calibration error {cell(self.error, 3)} on {self.edited} edited and "
            f"{self.pictures - self.edited} untouched pictures; on so few, scores that hold "
            f"exactly would show {self.chance:.3f} by chance."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; NaN (undefined) is null."""

        def sound(values: Sequence[float]) -> list[float | None]:
            return [None if math.isnan(v) else round(v, 6) for v in values]

        return {
            "error": sound(self.error),
            "chance": round(self.chance, 6),
            "pictures": self.pictures,
            "edited": self.edited,
            "bins": [
                {**b._asdict(), "score": round(b.score, 6), "share": sound(b.share)}
                for b in self.bins
            ],
        }


def reliability(
    scores: ArrayLike, edited: ArrayLike, photos: ArrayLike, *, seed: int = 0
) -> Reliability:
    """Compare scores with what the pictures are.

    Args:
        scores: (n,) in [0, 1], of pictures that the score was not fitted on.
        edited: (n,) bool; both values must occur.
        photos: (n,) the photo behind each picture: what the intervals resample.
        seed: of the resamples and of the chance.
    """
    score, label = np.asarray(scores, np.float64), np.asarray(edited, bool)
    photo = np.asarray(photos)
    place = np.minimum((score * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    filled = np.unique(place)
    inside = (place[:, None] == filled).astype(float)  # (n, bins)

    def shares(weights: NDArray[Any]) -> dict[str, Any]:
        with np.errstate(invalid="ignore"):  # a resample may leave a bin empty
            found = (weights * label) @ inside / (weights @ inside)
        values = {str(number): found[..., i] for i, number in enumerate(filled)}
        values["error"] = detection_metrics(score, label, weights=np.atleast_2d(weights))["ece"]
        if weights.ndim == 1:
            values["error"] = values["error"][0]
        return values

    found = intervals(shares, photo, seed=seed)
    bins = [
        Bin(
            float(number / CALIBRATION_BINS),
            float((number + 1) / CALIBRATION_BINS),
            int(np.count_nonzero(place == number)),
            float(score[place == number].mean()),
            found[str(number)]
            if len(set(photo[place == number].tolist())) > 1
            else Interval(found[str(number)].value, math.nan, math.nan),
        )
        for number in filled
    ]
    chance = by_chance(score, place, seed)
    return Reliability(bins, found["error"], chance, score.size, int(label.sum()))


def by_chance(score: NDArray[Any], place: NDArray[Any], seed: int) -> float:
    """The mean calibration error of scores that hold exactly, on as many pictures."""
    rng = np.random.default_rng(seed)
    inside = np.eye(CALIBRATION_BINS)[place]
    drawn = rng.random((REPETITIONS, score.size)) < score
    return float((np.abs((drawn - score) @ inside).sum(1) / score.size).mean())


def cell(found: Interval, digits: int = 2) -> str:
    """A value with its interval."""
    if math.isnan(found.low):
        return f"{found.value:.{digits}f}"
    return f"{found.value:.{digits}f} ({found.low:.{digits}f}-{found.high:.{digits}f})"
