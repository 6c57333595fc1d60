"""metrics.py: every number of the evaluation tables, as pure functions on arrays.

Pixel metrics compare a map of probabilities with a mask; image metrics compare one score per
picture with a label. Manipulated = 1 everywhere. All pixel metrics of a picture come from one sort.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgemap.errors import DataError
from forgemap.evaluate.ranking import Ranking, eroded_dilated, f1

CALIBRATION_BINS = 15

# --- pixels ---------------------------------------------------------------------------------------


def localization_metrics(
    prob: ArrayLike, mask: ArrayLike, threshold: float = 0.5
) -> dict[str, float]:
    """All pixel metrics of one picture: `iou`, `f1_fixed`, `f1_best`, `ap`, `auc`.

    prob: (H, W) probabilities in [0, 1], compared as float32. mask: (H, W), non-zero = manipulated.
    A pixel is predicted where prob > threshold; pixels of equal probability fall together.

    Where a literal reading gives nonsense:
    - empty mask: IoU and F1 are 1 if nothing is predicted and 0 if anything is; best F1 is 1, since
      some threshold predicts nothing; AP and AUC do not exist: NaN, to be left out of means;
    - full mask: AP is 1, AUC is NaN; best F1 is 1, since some threshold predicts everything;
    - a mask that erosion would wipe out is scored whole, so that a small edit counts when it is
      found and costs when it is missed (see `scored_regions`).

    Raises DataError for shapes that differ, empty arrays, NaN, or values outside [0, 1].
    """
    ranking = Ranking.of(*_checked(prob, mask))
    intersection, union = ranking.overlap(threshold)
    return {
        "iou": intersection / union if union else 1.0,
        "f1_fixed": ranking.f1_at(threshold),
        "f1_best": ranking.f1_best(),
        "ap": ranking.average_precision(),
        "auc": ranking.auc(),
    }


def iou(prob: ArrayLike, mask: ArrayLike, threshold: float = 0.5) -> float:
    """Intersection over union of {prob > threshold} and the mask, in [0, 1]; both empty: 1."""
    probabilities, inside = _checked(prob, mask)
    predicted = probabilities > np.float32(threshold)
    union = np.count_nonzero(predicted | inside)
    return np.count_nonzero(predicted & inside) / union if union else 1.0


def cuts(values: np.ndarray, mask: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A map (H, W) cut at each of n levels, such as {values > level}: the share of its area that
    lies above, and the IoU with the mask (H, W) bool, both (n,); NaN where the mask is empty."""
    inside, outside = values[mask], values[~mask]
    hits = np.array([np.count_nonzero(inside > level) for level in levels])
    misses = np.array([np.count_nonzero(outside > level) for level in levels])
    overlap = hits / (inside.size + misses) if inside.size else np.full(len(levels), np.nan)
    return (hits + misses) / mask.size, overlap


def f1_fixed(prob: ArrayLike, mask: ArrayLike, threshold: float = 0.5) -> float:
    """F1 of {prob > threshold} with the mask's border ignored (`scored_regions`), in [0, 1]."""
    probabilities, inside = _checked(prob, mask)
    positives, negatives = scored_regions(inside)
    predicted = probabilities > np.float32(threshold)
    found, false_alarms, wanted = (
        int(np.count_nonzero(pixels))
        for pixels in (predicted & positives, predicted & negatives, positives)
    )
    return f1(found, false_alarms, wanted)


def f1_best(prob: ArrayLike, mask: ArrayLike) -> float:
    """The highest F1 of any threshold on this picture, the mask's border ignored, in [0, 1]."""
    return Ranking.of(*_checked(prob, mask)).f1_best()


def average_precision(prob: ArrayLike, mask: ArrayLike) -> float:
    """Area under the pixels' precision-recall steps, border included; NaN for an empty mask."""
    return Ranking.of(*_checked(prob, mask)).average_precision()


def pixel_auc(prob: ArrayLike, mask: ArrayLike) -> float:
    """Chance that a manipulated pixel outranks an untouched one, ties half; NaN with one class."""
    return Ranking.of(*_checked(prob, mask)).auc()


def scored_regions(mask: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The pixels that F1 counts as (positives, negatives), both (H, W): TruFor's rule.

    Positives: the mask eroded by a square of 15 px. Negatives: the outside of the mask dilated by a
    square of 11 px. The band between is ignored, since its truth is a matter of the annotator's
    hand. What lies outside the picture neither erodes nor dilates. A mask that erosion would wipe
    out is taken whole.
    """
    inside = (np.asarray(mask) != 0).view(np.uint8)
    eroded, dilated = eroded_dilated(inside)
    return eroded.view(bool), ~dilated.view(bool)


def _checked(prob: ArrayLike, mask: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    probabilities = np.ascontiguousarray(prob, np.float32)
    inside = np.ascontiguousarray(np.asarray(mask) != 0)
    if probabilities.ndim != 2 or probabilities.shape != inside.shape or not probabilities.size:
        raise DataError(
            f"a probability map of shape {probabilities.shape} cannot be compared with a mask of "
            f"shape {inside.shape}: both must be the same (H, W), not empty"
        )
    if not (probabilities.min() >= 0 and probabilities.max() <= 1):  # false for NaN too
        raise DataError(
            "the probability map holds NaN or values outside [0, 1]: the model's output is broken"
        )
    return probabilities, inside


# --- pictures -------------------------------------------------------------------------------------


def detection_metrics(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    threshold: float = 0.5,
    weights: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """All image-level metrics of n pictures, judged manipulated where score >= threshold.

    scores: (n,) in [0, 1]. labels: (n,), non-zero = manipulated. Equal scores fall together.
    weights: None, or (..., n) how often each picture counts (the bootstrap's resamples): then every
    value is an array of shape (...) instead of a float. All values lie in [0, 1]:

    - `accuracy`, `balanced_accuracy` (mean of both classes' hit rates) at the threshold;
    - `best_accuracy`, `best_threshold`: the best of the scores as thresholds; of equally good ones
      the highest (fewest false alarms); halfway between the classes where they separate. The order
      of the pictures does not matter;
    - `ap` (by steps, as in `average_precision`), `auc`;
    - `tpr_at_fpr_1`, `tpr_at_fpr_5`: the highest true-positive rate at a false-positive rate of at
      most 1 % and 5 %, without interpolation;
    - `ece`: expected calibration error over 15 bins of equal width: |mean score - share of
      manipulated pictures| of each bin, averaged with the bins' numbers of pictures as weights.

    NaN where a class that a value needs is missing. Raises DataError for empty or broken input.
    """
    score = np.asarray(scores, np.float64)
    label = np.asarray(labels) != 0
    if score.ndim != 1 or score.shape != label.shape or not score.size:
        raise DataError(
            f"{score.shape} scores do not fit {label.shape} labels: both must be (n,), n > 0"
        )
    if not (score.min() >= 0 and score.max() <= 1):
        raise DataError(
            "the image scores hold NaN or values outside [0, 1]: the model's output is broken"
        )
    weight = np.ones(score.size) if weights is None else np.asarray(weights, np.float64)

    order = np.argsort(-score, kind="stable")
    score, label, weight = score[order], label[order], weight[..., order]
    last = np.flatnonzero(
        np.append(score[1:] != score[:-1], True)
    )  # last picture of each distinct score
    tp = np.cumsum(weight * label, -1)[
        ..., last
    ]  # pictures at or above each distinct score, descending
    fp = np.cumsum(weight * ~label, -1)[..., last]
    positives, negatives = tp[..., -1], fp[..., -1]
    total = positives + negatives

    above = np.count_nonzero(score >= threshold)
    hits = (weight * label)[..., :above].sum(-1)
    passes = negatives - (weight * ~label)[..., :above].sum(-1)
    tp_steps, fp_steps = np.diff(tp, prepend=0), np.diff(fp, prepend=0)
    present = tp_steps + fp_steps > 0  # a resample may lack the pictures that have some score
    accuracies = np.where(present, tp + negatives[..., None] - fp, 0) / total[..., None]
    best = np.argmax(accuracies, -1)
    best_threshold = score[last][best]
    if weights is None and positives and negatives and score[label].min() > score[~label].max():
        best_threshold = (score[label].min() + score[~label].max()) / 2

    bins = np.minimum((score * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = (weight * (score - label)) @ np.eye(CALIBRATION_BINS)[bins]
    with np.errstate(invalid="ignore", divide="ignore"):  # a missing class gives NaN, as documented
        precision = tp / np.maximum(tp + fp, 1e-300)
        rate = tp / positives[..., None]
        allowed = fp / negatives[..., None]
        result = {
            "accuracy": (hits + passes) / total,
            "balanced_accuracy": (hits / positives + passes / negatives) / 2,
            "best_accuracy": accuracies.max(-1),
            "best_threshold": best_threshold,
            "ap": (tp_steps * precision).sum(-1) / positives,
            "auc": ((tp - tp_steps / 2) * fp_steps).sum(-1) / (positives * negatives),
            "tpr_at_fpr_1": _highest_rate(rate, allowed, 0.01),
            "tpr_at_fpr_5": _highest_rate(rate, allowed, 0.05),
            "ece": np.abs(gaps).sum(-1) / total,
        }
    return {name: float(value) for name, value in result.items()} if weight.ndim == 1 else result


def _highest_rate(rate: NDArray[Any], allowed: NDArray[Any], limit: float) -> NDArray[Any]:
    missing = np.isnan(allowed[..., -1]) | np.isnan(rate[..., -1])
    return np.where(missing, np.nan, np.max(np.where(allowed <= limit + 1e-12, rate, 0.0), -1))
