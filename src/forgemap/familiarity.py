"""familiarity.py: is a picture like those that the model's thresholds were chosen on?

A threshold holds for pictures like the ones it was chosen on. Drawings, screenshots of text, noise
and pictures enlarged from almost nothing are none of these, and a network's score of them means
nothing: the honest answer is "inconclusive", and why. Nine plain statistics of the pixels are
compared with those of the calibration's photographs, by their Mahalanobis distance (the simplest
of the detectors of strange inputs: Lee et al., "A simple unified framework for detecting
out-of-distribution samples and adversarial attacks", NeurIPS 2018, use it on features of a network;
here it stands on statistics that a reader can check).

The side length is none of them: the network reads pixels, and a larger picture is no stranger one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from .compression import BLOCK, grid, luma, patches
from .entries import strict_entries
from .errors import ModelError
from .scoring import Judgement

SMALLEST = 32
"""Pictures with a shorter side are not looked at: too few pixels for a statistic."""
FAR = 1.1
"""From how many times the limit on a picture is far outside."""
MARGIN, REACH = 0.05, 5.0
"""Leaving what any photograph shows by this share of the range counts as much as this distance."""


class Statistic(NamedTuple):
    """How a statistic is told to people, and how it is scaled for distances."""

    #: What a picture has; {} is the value.
    told: str
    #: Format of the value.
    form: str
    #: Distances are taken between log2(value + floor), for values that range over decades.
    floor: float


STATISTICS: dict[str, Statistic] = {
    "flat": Statistic("{} of the picture is perfectly flat", "share", 0.01),
    "repeated": Statistic("{} of the pixels equal their neighbour exactly", "share", 0.02),
    "clipped": Statistic("{} of the picture is pure black or white", "share", 0.01),
    "levels": Statistic("a small square holds {} levels of brightness", ".0f", 1.0),
    "noise": Statistic("the finest detail varies by {} grey levels", ".2g", 0.05),
    "sharpness": Statistic("the finest detail is {} times as strong as the next", ".2g", 0.02),
    "detail": Statistic("fine detail is {} times as strong as coarse detail", ".2g", 0.02),
    "grain": Statistic("neighbouring pixels differ by {} times the contrast", ".2g", 0.02),
    "blocks": Statistic("brightness jumps {} times more along an 8x8 grid", ".3g", 0.1),
}


def statistics(pixels: np.ndarray) -> dict[str, float] | None:
    """The STATISTICS of a picture (H, W, 3) uint8, none below zero; None below SMALLEST.

    Of at most sixteen squares of 128 pixels (see `compression.patches`), so that the cost does not
    grow with the picture; the same picture always gives the same.
    """
    if min(pixels.shape[:2]) < SMALLEST:
        return None
    parts = patches(pixels)
    grey = luma(parts)
    whole = np.rint(grey).astype(np.uint8)
    side = grey.shape[1]
    blocks = _squares(whole, BLOCK)
    equal = np.concatenate(
        [
            (parts[:, 1:] == parts[:, :-1]).all(-1).ravel(),
            (parts[:, :, 1:] == parts[:, :, :-1]).all(-1).ravel(),
        ]
    )
    squares = np.sort(_squares(whole, min(32, side)), axis=1)
    finest, fine, coarse = _diagonals(grey)
    return {
        "flat": float((blocks.max(1) == blocks.min(1)).mean()),
        "repeated": float(equal.mean()),
        "clipped": float(((whole <= 1) | (whole >= 254)).mean()),
        "levels": float(1 + (np.diff(squares, axis=1) > 0).sum(1).mean()),
        "noise": finest,
        "sharpness": finest / (fine + 0.05),
        "detail": fine / (coarse + 0.05),
        "grain": float(np.abs(np.diff(grey)).mean() / (grey.std((1, 2)).mean() + 0.05)),
        "blocks": grid(grey).strength,
    }


def _squares(values: np.ndarray, side: int) -> np.ndarray:
    """(n, s, s) -> (N, side * side), what is left over at the right and bottom not counted."""
    count = values.shape[1] // side
    values = values[:, : count * side, : count * side]
    return values.reshape(-1, count, side, count, side).swapaxes(2, 3).reshape(-1, side * side)


def _diagonals(grey: np.ndarray) -> list[float]:
    """Mean size of the diagonal Haar coefficients, at the full size, at 1/2 and at 1/4 of it."""
    sizes = []
    for _ in range(3):
        side = grey.shape[1] // 2 * 2  # of the squares
        a, b = grey[:, 0:side:2, 0:side:2], grey[:, 0:side:2, 1:side:2]
        c, d = grey[:, 1:side:2, 0:side:2], grey[:, 1:side:2, 1:side:2]
        sizes.append(float(np.abs(a - b - c + d).mean()) / 2)
        grey = (a + b + c + d) / 4
    return sizes


def scaled(values: Mapping[str, float]) -> np.ndarray:
    """(len(STATISTICS),) float64: the statistics on the scale in which distances are taken."""
    return np.array([math.log2(values[n] + s.floor) for n, s in STATISTICS.items()])


class Strangeness(NamedTuple):
    """How unlike the calibration's photographs a picture is."""

    distance: float
    """In units of the limit: above 1 it is unlike them, from FAR on far outside."""
    reason: str
    """What is furthest out, in one sentence without a full stop."""


@dataclass(frozen=True)
class Familiarity:
    """What the photographs of a calibration look like; in `config.json` under `familiarity`.

    Fitted by `evaluate.calibration_familiarity`.
    """

    #: Of which statistic each place of the other entries tells.
    names: tuple[str, ...] = tuple(STATISTICS)
    #: Values that nearly all of the photographs have at least, one for each statistic.
    low: tuple[float, ...] = (0.0,) * len(STATISTICS)
    #: Values that nearly all of them have at most.
    high: tuple[float, ...] = (1.0,) * len(STATISTICS)
    #: The lowest and
    least: tuple[float, ...] = (0.0,) * len(STATISTICS)
    #: the highest value of any of them.
    most: tuple[float, ...] = (1.0,) * len(STATISTICS)
    #: Medians of the scaled statistics.
    centre: tuple[float, ...] = (0.0,) * len(STATISTICS)
    #: How far they range below their medians: what would be a standard deviation.
    below: tuple[float, ...] = (1.0,) * len(STATISTICS)
    #: The same above, since few of them range as far to both sides.
    above: tuple[float, ...] = (1.0,) * len(STATISTICS)
    #: Inverse covariance of the deviations in these units, row by row.
    precision: tuple[float, ...] = tuple(np.eye(len(STATISTICS)).ravel().tolist())
    #: Distances above are unfamiliar.
    limit: float = 1.0
    #: Share of held-out photographs that lie above the limit.
    share: float = 0.01
    #: One sentence on the photographs.
    fitted_on: str = ""

    def __post_init__(self) -> None:
        n = len(STATISTICS)
        for name in ("low", "high", "least", "most", "centre", "below", "above", "precision"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        object.__setattr__(self, "names", tuple(self.names))
        if self.names != tuple(STATISTICS):
            raise ModelError(
                f"familiarity: names must be {', '.join(STATISTICS)}; calibrate the model again."
            )
        bounds = (self.low, self.high, self.least, self.most)
        lists = (*bounds, self.centre, self.below, self.above)
        if any(len(values) != n for values in lists) or len(self.precision) != n * n:
            raise ModelError(f"familiarity: {n} statistics need as many numbers in each list.")
        numbers = [self.limit, *self.precision, *(value for values in lists for value in values)]
        if not all(math.isfinite(v) for v in numbers):
            raise ModelError("familiarity: numbers must be finite.")
        if min(*self.below, *self.above, self.limit) <= 0 or min(map(min, bounds)) < 0:
            raise ModelError(
                "familiarity: below, above and limit must be above 0, and no bound below."
            )

    def distance(self, values: Mapping[str, float]) -> float:
        """How unlike the photographs a picture is; unfamiliar above `limit`.

        The Mahalanobis distance of its statistics, or how far the one that is furthest out lies
        outside everything that was seen, which a distance over all of them may hide.
        """
        here = scaled(values)
        away = here - self.centre
        away /= np.where(away < 0, self.below, self.above)
        matrix = np.reshape(self.precision, (len(away), len(away)))
        least, most = self._scaled(self.least), self._scaled(self.most)
        half = (most - least) * (0.5 + MARGIN) + 0.05
        beyond = float(np.max(np.abs(here - (least + most) / 2) / half))
        return max(math.sqrt(max(0.0, float(away @ matrix @ away))), REACH * beyond)

    def _scaled(self, bounds: tuple[float, ...]) -> np.ndarray:
        return scaled(dict(zip(self.names, bounds, strict=True)))

    def judge(self, pixels: np.ndarray) -> Strangeness | None:
        """`pixels` (H, W, 3) uint8; None for a familiar picture, or one too small to tell."""
        values = statistics(pixels)
        if values is None:
            return None
        distance = self.distance(values) / self.limit
        return Strangeness(distance, self._why(values)) if distance > 1 else None

    def _why(self, values: Mapping[str, float]) -> str:
        ends = self._scaled(self.low), self._scaled(self.high)
        here, spread = scaled(values), np.maximum(ends[1] - ends[0], 1e-3)
        out = np.maximum(ends[0] - here, here - ends[1]) / spread
        worst = int(out.argmax())
        name = self.names[worst]
        statistic = STATISTICS[name]
        low, high = (_value(b[worst], statistic.form) for b in (self.low, self.high))
        told = statistic.told.format(_value(values[name], statistic.form))
        usual = f"at most {high}" if here[worst] > ends[1][worst] else f"at least {low}"
        if out[worst] <= 0:
            return f"its properties do not occur together in photographs; above all, {told}"
        return f"{told}; nearly all photographs that this model was checked on have {usual}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` of it gives an equal Familiarity."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Familiarity:
        """Strict: an unknown entry or a value of the wrong kind is a ModelError that names it."""
        return cls(**strict_entries(cls(), data, "familiarity"))


def temper(judgement: Judgement, strange: Strangeness | None) -> Judgement:
    """A verdict that does not say more than it can of an unfamiliar picture.

    Of an unfamiliar picture "no sign of editing" becomes "inconclusive": that nothing was found
    says little where the network does not know what untouched looks like. "Manipulated" stays,
    since heavy editing itself makes pictures unusual; but far outside (from FAR times the limit on:
    drawings, text, noise) it becomes "inconclusive" too, because there no threshold was ever tried
    and an accusation would be a guess.
    """
    if strange is None or judgement.verdict == "inconclusive":
        return judgement
    far = strange.distance >= FAR
    if judgement.verdict == "manipulated" and not far:
        return judgement
    found = (
        "Nothing was found"
        if judgement.verdict == "no sign of editing"
        else f"The score is {judgement.score:.3f}"
    )
    reason = f"{found}, but the picture is {'very ' if far else ''}unlike those that the thresholds"
    return Judgement(judgement.score, "inconclusive", f"{reason} were chosen on: {strange.reason}.")


def _value(value: float, form: str) -> str:
    if form != "share":
        return format(value, form)
    return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{value:.1%}"
