"""confidence.py: how sure is the mask, place by place?

A heat map says how likely each place was edited; it does not say where the network can see at all.
In a burnt-out sky or on a plain wall there is nothing to see, and "not edited" means "don't know".
The confidence map says with which probability the mask's answer at a place (edited, or not) is
right *if one were as likely to find an edit there as not*: 0.5 is a coin, 1 is certain. That prior
is on purpose: most places of most pictures are untouched, so that "not edited" would be right
nearly everywhere even if the network were blind.

It is looked up by three things, at an eighth of the resolution: the calibrated probability, how
much texture there is, and whether the pixels are black or white. The table is counted on the
calibration's pictures (`evaluate.calibration_confidence`): reliability by histogram binning
(Zadrozny and Elkan, "Obtaining calibrated probability estimates from decision trees and naive
Bayesian classifiers", ICML 2001), made monotone in the probability and smooth between the bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from .entries import strict_entries
from .errors import ModelError

CELL = 8
"""Side in pixels of the squares that have one confidence each."""
STRIP = 128 * CELL
"""Rows that are looked at a time, so that memory does not grow with the picture."""
LOGITS = np.arange(-7.0, 7.1, 1.0)
"""Logits of the heat map's probability at which the table has entries."""
TEXTURES = np.array([0.0, 0.5, 1.5, 4.0, 12.0, 40.0])
"""The same for texture: mean size of the Laplacian of the brightness, in grey levels."""
SHAPE = (2, len(TEXTURES), len(LOGITS))
"""Of the table: not clipped or clipped, texture, probability."""


class Ground(NamedTuple):
    """What the pixels of each cell offer to see; (ceil(H / 8), ceil(W / 8)) float32 each."""

    texture: np.ndarray
    """Mean size of the Laplacian, grey levels."""
    clipped: np.ndarray
    """Share of pixels that are black or white."""


def ground(pixels: np.ndarray) -> Ground:
    """The ground of a picture (H, W, 3) uint8."""
    texture, clipped = [], []
    for top in range(0, len(pixels), STRIP):
        grey = cv2.cvtColor(pixels[top : top + STRIP], cv2.COLOR_RGB2GRAY)
        size = cv2.convertScaleAbs(cv2.Laplacian(grey, cv2.CV_16S))
        texture.append(to_cells(size))
        inside = cv2.inRange(grey, np.array(2), np.array(253))
        clipped.append(1 - to_cells(inside) / 255)
    return Ground(np.concatenate(texture), np.concatenate(clipped))


def to_cells(values: np.ndarray) -> np.ndarray:
    """(H, W) of any real kind -> (ceil(H / 8), ceil(W / 8)) float32, the mean of each cell."""
    parts = []
    for top in range(0, len(values), STRIP):
        strip = values[top : top + STRIP].astype(np.float32)
        size = -(-strip.shape[1] // CELL), -(-strip.shape[0] // CELL)
        parts.append(cv2.resize(strip, size, interpolation=cv2.INTER_AREA))
    return np.concatenate(parts)


def corners(heat: np.ndarray, where: Ground) -> tuple[np.ndarray, np.ndarray]:
    """The eight entries of the table around each cell, and their weights, which add up to 1.

    Args:
        heat: (h, w) probability of each cell.

    Returns:
        Places in the flattened table, (8, h * w) int, and weights, (8, h * w) float.
    """
    p = np.clip(heat.ravel().astype(np.float64), 1e-4, 1 - 1e-4)
    sides = []
    for values, knots in (
        (where.clipped.ravel(), np.array([0.0, 1.0])),
        (np.log2(where.texture.ravel() + 0.5), np.log2(TEXTURES + 0.5)),
        (np.log(p / (1 - p)), LOGITS),
    ):
        place = np.interp(values, knots, np.arange(len(knots)))
        low = np.minimum(place.astype(int), len(knots) - 2)
        sides.append(((low, 1 - (place - low)), (low + 1, place - low)))
    places, weights = [], []
    for c, wc in sides[0]:
        for t, wt in sides[1]:
            for k, wk in sides[2]:
                places.append((c * SHAPE[1] + t) * SHAPE[2] + k)
                weights.append(wc * wt * wk)
    return np.stack(places), np.stack(weights)


@dataclass(frozen=True)
class Confidence:
    """The table of a model; in `config.json` under `confidence`.

    Fitted by `evaluate.calibration_confidence`.
    """

    #: Probability that a place was edited, were it as likely as not; SHAPE, flattened.
    table: tuple[float, ...] = (0.5,) * math.prod(SHAPE)
    #: One sentence on the pictures that it was counted on.
    fitted_on: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", tuple(float(v) for v in self.table))
        if len(self.table) != math.prod(SHAPE):
            raise ModelError(
                f"confidence: the table needs {math.prod(SHAPE)} entries, not {len(self.table)}; "
                "calibrate the model again."
            )
        if not all(0 <= v <= 1 for v in self.table):
            raise ModelError("confidence: the entries of the table lie in 0..1.")

    def cells(
        self,
        pixels: np.ndarray,
        heat: np.ndarray,
        threshold: float,
        told: np.ndarray | None = None,
    ) -> np.ndarray:
        """How sure the mask is of each cell.

        Args:
            pixels: (H, W, 3) uint8.
            heat: (H, W) calibrated probabilities of the same picture, by the network.
            threshold: the probability from which a pixel belongs to the mask.
            told: (H, W) the same where regions that occur twice have raised them. The table knows
                what the network sees; those probabilities are for as many copies as originals, and
                hold as they are.

        Returns:
            (ceil(H / 8), ceil(W / 8)) float32 in [0.5, 1]; `enlarged` brings it to full size.
        """
        mean = to_cells(heat)
        places, weights = corners(mean, ground(pixels))
        table = np.array(self.table)
        edited = (table[places] * weights).sum(0).reshape(mean.shape)
        if told is not None:
            raised = to_cells(told > heat)  # the share of a cell
            mean = to_cells(told)
            edited = np.where(raised >= 0.5, mean, edited)
        right = np.where(mean >= threshold, edited, 1 - edited)
        return np.clip(right, 0.5, 1).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` of it gives an equal Confidence."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Confidence:
        """Strict: an unknown entry or a value of the wrong kind is a ModelError that names it."""
        return cls(**strict_entries(cls(), data, "confidence"))


def enlarged(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map of cells (h, w) -> (height, width) float32, bilinear."""
    return np.clip(cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR), 0.5, 1)


def inside(cells: np.ndarray, polygon: Sequence[Sequence[int]]) -> float:
    """Mean confidence within a region's outline, in pixels of the picture; in [0.5, 1]."""
    points = np.array(polygon) // CELL
    (x0, y0), (x1, y1) = points.min(0), points.max(0) + 1
    part = cells[y0:y1, x0:x1]
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(mask, [(points - [x0, y0]).astype(np.int32)], 1)
    return float(part[mask > 0].mean())
