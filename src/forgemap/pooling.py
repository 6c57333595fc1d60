"""pooling.py: statistics of a heat map and of evidence logits: how suspicious is a picture?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_CELL = 8
"""Side in pixels of the squares over which the heat map is averaged before pooling."""


class Maps(NamedTuple):
    """What the poolings read."""

    heat: np.ndarray
    """(H, W) float32, probability that each pixel was edited."""
    cells: np.ndarray
    """(ceil(H / 8), ceil(W / 8)) float64, the heat map averaged over 8x8 squares."""
    evidence: np.ndarray
    """(h, w) logits of the network's image-level head; (0, 0) where it has none."""


def mean(maps: Maps) -> float:
    """Mean of the mask's probabilities: the image-level score of DeCLIP's published code."""
    return float(maps.heat.mean(dtype=np.float64))


def highest(maps: Maps) -> float:
    """Probability of the single most suspicious pixel."""
    return float(maps.heat.max())


def area(maps: Maps) -> float:
    """Share of the pixels with a probability above one half."""
    return float(np.count_nonzero(maps.heat > 0.5) / maps.heat.size)


def top(maps: Maps) -> float:
    """Mean of the most suspicious 1 % of the picture, in 8x8 squares."""
    return _mean_of_top(maps.cells, 0.01)


def peak16(maps: Maps) -> float:
    """Highest mean over a square of 16x16 pixels."""
    return _highest_box(maps.cells, 2)


def peak32(maps: Maps) -> float:
    """Highest mean over a square of 32x32 pixels."""
    return _highest_box(maps.cells, 4)


def peak64(maps: Maps) -> float:
    """Highest mean over a square of 64x64 pixels."""
    return _highest_box(maps.cells, 8)


def evidence_mean(maps: Maps) -> float:
    """Mean of the evidence logits."""
    return float(maps.evidence.mean())


def evidence_max(maps: Maps) -> float:
    """Highest evidence logit."""
    return float(maps.evidence.max())


def evidence_top(maps: Maps) -> float:
    """Mean of the highest 1 % of the evidence logits."""
    return _mean_of_top(maps.evidence, 0.01)


def evidence_peak(maps: Maps) -> float:
    """Highest mean over 3x3 neighbouring evidence logits."""
    return _highest_box(maps.evidence, 3)


def evidence_lse(maps: Maps) -> float:
    """Logarithm of the mean of exp(evidence): between the mean and the maximum."""
    shift = maps.evidence.max()
    return float(shift + np.log(np.mean(np.exp(maps.evidence - shift))))


HEAT_POOLINGS: dict[str, Callable[[Maps], float]] = {
    "mean": mean,
    "max": highest,
    "area": area,
    "top": top,
    "peak16": peak16,
    "peak32": peak32,
    "peak64": peak64,
}
"""Values in [0, 1]; each is also offered as `logit_<name>`, which is unbounded."""

EVIDENCE_POOLINGS: dict[str, Callable[[Maps], float]] = {
    "evidence_mean": evidence_mean,
    "evidence_max": evidence_max,
    "evidence_top": evidence_top,
    "evidence_peak": evidence_peak,
    "evidence_lse": evidence_lse,
}
"""Values are logits; only for networks with an evidence head."""

LOSSY = "lossy"
"""1 of a file whose format discards detail, else 0. By itself it says nothing of edits, but empty
maps mean less where a compression came last."""

COPIES = "copies"
"""Log-odds in [0, 8] that a region of the picture occurs twice since it was copied; see
`copies.find_copies`. 0: nothing speaks for it, or it was not asked."""

STATISTICS = (*HEAT_POOLINGS, *(f"logit_{n}" for n in HEAT_POOLINGS), *EVIDENCE_POOLINGS)
"""What the maps have: every name that a score may be by itself."""

FEATURES = (*STATISTICS, LOSSY, COPIES)
"""Every name that a `Decision` may use."""


def features(
    heat: np.ndarray, evidence: np.ndarray | None, lossy: bool = False, copies: float = 0.0
) -> dict[str, float]:
    """Image-level statistics of a probability map (H, W) and of evidence logits (h, w) or None;
    ``lossy`` is `Image.lossy`, ``copies`` the strength of `Copies`."""
    cells = _average_cells(heat)
    maps = Maps(heat, cells, np.zeros((0, 0)) if evidence is None else evidence.astype(float))
    values = {name: pool(maps) for name, pool in HEAT_POOLINGS.items()}
    values |= {f"logit_{name}": _logit(value) for name, value in values.items()}
    if evidence is not None:
        values |= {name: pool(maps) for name, pool in EVIDENCE_POOLINGS.items()}
    return values | {LOSSY: float(lossy), COPIES: copies}


def _average_cells(heat: np.ndarray) -> np.ndarray:
    """Means over 8x8 squares; those at the right and bottom may be smaller."""
    height, width = heat.shape
    rows, columns = np.arange(0, height, _CELL), np.arange(0, width, _CELL)
    sums = np.add.reduceat(np.add.reduceat(heat, columns, axis=1), rows, axis=0, dtype=np.float64)
    heights = np.minimum(_CELL, height - rows)
    widths = np.minimum(_CELL, width - columns)
    return sums / (heights[:, None] * widths)


def _highest_box(values: np.ndarray, side: int) -> float:
    """Highest mean over side x side neighbours; over all there are where the map is smaller."""
    rows, columns = min(side, values.shape[0]), min(side, values.shape[1])
    sums = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    boxes = sums[rows:, columns:] - sums[:-rows, columns:]
    boxes -= sums[rows:, :-columns] - sums[:-rows, :-columns]
    return float(boxes.max() / (rows * columns))


def _mean_of_top(values: np.ndarray, share: float) -> float:
    """Mean of the highest `share` of the values, of one at least."""
    count = max(1, round(share * values.size))
    return float(np.partition(values, values.size - count, axis=None)[-count:].mean())


def _logit(probability: float) -> float:
    """Clipped, so that 0 and 1 stay finite: the result lies within +-13.8."""
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))
