"""scoring.py: from a picture's statistics to a score, a verdict and a sentence that says why."""

from __future__ import annotations

import itertools
import math
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .entries import strict_entries
from .errors import ModelError
from .pooling import FEATURES
from .pooling import features as features


class Judgement(NamedTuple):
    """A verdict on one picture and what it rests on."""

    score: float
    """In [0, 1]: higher = more likely edited."""
    verdict: str
    """`"no sign of editing"`, `"inconclusive"` or `"manipulated"`."""
    reason: str
    """One sentence for the person who reads the report."""


@dataclass(frozen=True)
class Decision:
    """How a model's maps become a verdict. Stored in its `config.json` under `decision`.

    The defaults are those of the published code: the mean probability against one half.
    """

    #: Names of the statistics that enter the score; see `FEATURES`.
    features: tuple[str, ...] = ("logit_mean",)
    #: One factor for each of the features.
    weights: tuple[float, ...] = (1.0,)
    #: Added to the weighted sum: score = sigmoid(curve(bias + weights . features)).
    bias: float = 0.0
    #: Knots of a rising curve, linear between and beyond them, that turns the sum ...
    curve_from: tuple[float, ...] = ()
    #: ... into the log-odds that the picture is edited; both empty: the sum is taken as it is.
    curve_to: tuple[float, ...] = ()
    #: Share of edited pictures for which the score is a probability; 0: it only ranks pictures.
    prevalence: float = 0.0
    #: Scores from here on are judged manipulated.
    manipulated_at: float = 0.5
    #: Scores below are judged to show no sign of editing; in between is inconclusive.
    clear_below: float = 0.5
    #: Probability from which a pixel belongs to the mask.
    mask_threshold: float = 0.5
    #: Mask logits are multiplied by this before the sigmoid (calibration).
    mask_scale: float = 1.0
    #: Added to the scaled mask logits before the sigmoid (calibration).
    mask_shift: float = 0.0
    #: Pictures whose shorter side in pixels is below are inconclusive, whatever their score.
    min_side: int = 0
    #: JPEGs of a lower estimated quality in which nothing is found are inconclusive.
    min_jpeg_quality: int = 0
    #: Pictures of which a larger share is marked are never cleared, whatever their score.
    doubt_area: float = 1.0
    #: Pictures of which a larger share is marked are never judged manipulated: what could the
    #: marked part differ from?
    whole_area: float = 1.0
    #: Colour pictures with fewer different colours are inconclusive, whatever their score: a
    #: palette, as GIF has, leaves none of the traces.
    min_colours: int = 0
    #: Whether the maps are joined with what the blocks of a JPEG say; see `recompression`.
    recompression: bool = False
    #: One sentence on the pictures that the thresholds were chosen on; empty = not calibrated.
    calibrated_on: str = ""
    #: Scores that 0, 1 ... 100 % of the untouched among them stay below; empty = not known.
    untouched: tuple[float, ...] = ()
    #: Chances, falling, at most with which a new untouched picture of any kind that has a bound ...
    rarity: tuple[float, ...] = ()
    #: ... scores at least this high, one for each of the chances, never falling.
    rarity_at: tuple[float, ...] = ()
    #: What is promised for each kind of untouched picture, in words.
    bounds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        for name in ("weights", "curve_from", "curve_to", "untouched", "rarity", "rarity_at"):
            object.__setattr__(self, name, tuple(float(n) for n in getattr(self, name)))
        object.__setattr__(self, "bounds", tuple(self.bounds))
        if unknown := [n for n in self.features if n not in FEATURES]:
            raise ModelError(
                f"decision: unknown feature {unknown[0]!r}; valid: {', '.join(FEATURES)}."
            )
        if len(self.weights) != len(self.features) or not self.features:
            raise ModelError(
                f"decision: {len(self.features)} features need as many weights, "
                f"not {len(self.weights)}."
            )
        if not 0 <= self.clear_below <= self.manipulated_at <= 1:
            raise ModelError(
                "decision: 0 <= clear_below <= manipulated_at <= 1 must hold, not "
                f"clear_below={self.clear_below}, manipulated_at={self.manipulated_at}."
            )
        if not 0 < self.mask_threshold < 1:
            raise ModelError(
                f"decision: mask_threshold must lie between 0 and 1, not {self.mask_threshold}."
            )
        if any(a > b for a, b in zip(self.untouched, self.untouched[1:], strict=False)):
            raise ModelError("decision: the scores of untouched must rise.")
        for name, share in (("doubt_area", self.doubt_area), ("whole_area", self.whole_area)):
            if not 0 <= share <= 1:
                raise ModelError(f"decision: {name} must lie in 0..1, not {share}.")
        if not 0 <= self.prevalence < 1:
            raise ModelError(f"decision: prevalence must lie in 0..1, not {self.prevalence}.")
        lists = ("weights", "untouched", "curve_from", "curve_to", "rarity", "rarity_at")
        numbers = [n for name in lists for n in getattr(self, name)]
        if not all(map(math.isfinite, (*numbers, self.bias, self.mask_scale, self.mask_shift))):
            raise ModelError(
                "decision: weights, bias, mask_scale, mask_shift and all tables must be finite."
            )
        self._check_tables()

    def _check_tables(self) -> None:
        curves = (self.curve_from, self.curve_to)
        rising = all(a < b for knots in curves for a, b in itertools.pairwise(knots))
        if len(self.curve_from) != len(self.curve_to) or len(self.curve_to) == 1 or not rising:
            raise ModelError(
                "decision: curve_from and curve_to must rise, and have as many knots as each "
                "other: two at least, or none."
            )
        falling = all(a > b for a, b in itertools.pairwise(self.rarity))
        rising = all(a <= b for a, b in itertools.pairwise(self.rarity_at))
        within = all(0 <= n <= 1 for n in (*self.rarity, *self.rarity_at))
        if len(self.rarity) != len(self.rarity_at) or not (falling and rising and within):
            raise ModelError(
                "decision: rarity must fall and rarity_at rise, both within 0..1 and as many "
                "numbers as each other."
            )

    def heat(self, logits: np.ndarray) -> np.ndarray:
        """Mask logits (H, W) float32 -> calibrated probabilities, computed in place."""
        # 0.5 (1 + tanh(x / 2)) is the sigmoid, and cannot overflow.
        logits *= 0.5 * self.mask_scale
        logits += 0.5 * self.mask_shift
        np.tanh(logits, out=logits)
        logits *= 0.5
        logits += 0.5
        return logits

    def score(self, values: Mapping[str, float]) -> float:
        """`values` is what `features` returned; in [0, 1]."""
        total = self.log_odds(self.weighted(values))
        return 0.5 * (1 + math.tanh(total / 2))

    def weighted(self, values: Mapping[str, float]) -> float:
        """bias + weights . features."""
        if missing := [n for n in self.features if n not in values]:
            raise ModelError(
                f"decision: the feature {missing[0]!r} needs an evidence head, "
                "which this network does not have."
            )
        total = self.bias
        for name, weight in zip(self.features, self.weights, strict=True):
            total += weight * values[name]
        return total

    def log_odds(self, total: float) -> float:
        """The weighted sum through the curve."""
        if not self.curve_from:
            return total
        x, y = self.curve_from, self.curve_to  # the first and last segment go on for ever
        i = min(max(bisect(x, total) - 1, 0), len(x) - 2)
        return y[i] + (total - x[i]) * (y[i + 1] - y[i]) / (x[i + 1] - x[i])

    def chance(self, score: float) -> float | None:
        """Conformal p-value, rounded up: a new untouched picture of any kind that has a bound
        scores at least this high with at most this chance, and is not marked as a whole (see
        `whole_area`). None: not known; 1 says nothing."""
        if not self.rarity:
            return None
        place = bisect(self.rarity_at, score)  # a score that is reached counts
        return self.rarity[place - 1] if place else 1.0

    def judge(
        self,
        values: Mapping[str, float],
        *,
        width: int,
        height: int,
        jpeg_quality: int | None = None,
        colours: int | None = None,
        area: float | None = None,
    ) -> Judgement:
        """Score, verdict and reason.

        Args:
            values: what `features` returned.
            width, height: of the picture in pixels.
            jpeg_quality: estimated quality, 1-100; None when the picture is no JPEG.
            colours: how many different ones, where a palette made them few; see `palette`.
            area: share of the picture in the mask; default: the feature `area`.
        """
        score = self.score(values)
        area = values["area"] if area is None else area
        marked = f"{_percent(area)} of the picture is marked" if area else "no region is marked"
        small = min(width, height) < self.min_side
        few = colours is not None and colours < self.min_colours
        if small:
            verdict = "inconclusive"
            reason = (
                f"The shorter side has {min(width, height)} pixels; "
                f"this model needs at least {self.min_side} to judge"
            )
        elif few:
            verdict = "inconclusive"
            reason = (
                f"The picture has only {colours} different colours, no more than a GIF file: too "
                "few to hold the traces that this model looks for"
            )
        elif score >= self.manipulated_at and values["area"] > self.whole_area:
            verdict = "inconclusive"
            reason = (
                f"{_percent(values['area'])} of the picture looks edited, more than the "
                f"{_percent(self.whole_area)} up to which this model can tell an edit from a "
                f"picture that was processed or made as a whole (score {score:.3f})"
            )
        elif score >= self.manipulated_at:
            verdict = "manipulated"
            reason = (
                f"The score {score:.3f} reaches the threshold {self.manipulated_at:.3f}"
                f"{self._rare(score)}, and {marked}"
            )
        elif score >= self.clear_below:
            verdict = "inconclusive"
            reason = (
                f"The score {score:.3f} lies between {self.clear_below:.3f} (no sign of editing) "
                f"and {self.manipulated_at:.3f} (manipulated), and {marked}"
            )
        elif values["area"] > self.doubt_area:  # by the model's own threshold
            verdict = "inconclusive"
            reason = (
                f"The score {score:.3f} stays below {self.clear_below:.3f}, but the share of the "
                f"picture that looks edited, {_percent(values['area'])}, is above the "
                f"{_percent(self.doubt_area)} that untouched pictures have at most"
            )
        elif jpeg_quality is not None and jpeg_quality < self.min_jpeg_quality:
            verdict = "inconclusive"
            reason = (
                f"Nothing was found, but the picture was recompressed at about quality "
                f"{jpeg_quality}: below {self.min_jpeg_quality} traces are likely gone"
            )
        else:
            verdict = "no sign of editing"
            reason = f"The score {score:.3f} stays below {self.clear_below:.3f}, and {marked}"
        if self.prevalence and not small and not few:
            reason += (
                f"; among pictures like those that it was calibrated on, {self.prevalence:.0%} of "
                "them edited, the score is the probability of an edit"
            )
        if not self.calibrated_on:
            reason += "; this model's thresholds are not calibrated"
        return Judgement(score, verdict, reason + ".")

    def uncalibrated(self) -> Decision:
        """The same for other maps than it was calibrated on: it then promises nothing."""
        plain = replace(self, calibrated_on="", prevalence=0.0, untouched=(), bounds=())
        return replace(plain, rarity=(), rarity_at=())

    def _rare(self, score: float) -> str:
        """In words, how seldom an untouched picture scores so high; empty where that is unknown."""
        chance = self.chance(score)
        if chance is None or chance > 0.5:
            return ""
        return (
            f", as at most {100 * chance:.3g} of 100 untouched photographs like those that it was "
            "calibrated on do"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` of it gives an equal Decision."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decision:
        """Strict: an unknown entry or a value of the wrong kind is a ModelError that names it."""
        return cls(**strict_entries(cls(), data, "decision"))


def share_reaching(below: Sequence[float], score: float) -> str:
    """In words, the share of pictures whose score reaches `score`.

    Args:
        below: scores that 0, 1 ... 100 % of them stay below.
    """
    share = 1 - float(np.searchsorted(below, score, side="right") - 1) / (len(below) - 1)
    return "fewer than 1 %" if share < 0.01 else f"about {share:.0%}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "under 0.1 %"
