"""calibration_confidence.py: how often the mask was right, and where, for `Confidence`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..confidence import LOGITS, SHAPE, Confidence, Ground, corners, ground, to_cells
from ..errors import DataError
from ..scoring import Decision

FEWEST_CELLS = 4
"""Cells of a kind that a photograph needs to count as one that has it."""


class Seen(NamedTuple):
    """One calibration picture, in cells of 8x8 pixels; (h, w) each."""

    source: str
    """The photograph that it was made from."""
    heat: np.ndarray
    """Calibrated probability."""
    edited: np.ndarray
    """Share of the cell that was edited."""
    where: Ground
    """What there is to see."""


def cells_of(pixels: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """What must be remembered of a picture's pixels (H, W, 3) and mask (H, W) uint8 until its heat
    map is calibrated: the entries `texture`, `clipped` and `edited` of `Seen`, half precision."""
    where = ground(pixels)
    edited = to_cells((mask > 0).astype(np.uint8))
    found = {"texture": where.texture, "clipped": where.clipped, "edited": edited}
    return {name: values.astype(np.float16) for name, values in found.items()}


def seen_of(source: str, maps: Path, decision: Decision) -> Seen:
    """A picture whose logits (`mask`) and `cells_of` lie in a file, under a calibration of maps."""
    with np.load(maps) as stored:
        heat = to_cells(decision.heat(stored["mask"].astype(np.float32)))
        texture, clipped, edited = (
            stored[name].astype(np.float32) for name in ("texture", "clipped", "edited")
        )
    return Seen(source, heat, edited, Ground(texture, clipped))


def fit_confidence(pictures: Iterable[Seen]) -> Confidence:
    """The table of a model: for each kind of ground, how telling its probabilities are.

    Edited and untouched places of a kind weigh the same, however few the edited ones are; every
    picture weighs the same, whatever its size. A kind of ground of which few photographs have both
    is pulled towards 0.5: what has hardly been tried is not known.

    Raises:
        DataError: no edited place, or no untouched one.
    """
    from sklearn.isotonic import IsotonicRegression

    mass = np.zeros((2, math.prod(SHAPE)))
    sources: list[list[set[str]]] = [[set() for _ in range(SHAPE[0] * SHAPE[1])] for _ in range(2)]
    pictures_seen, photos = 0, set()
    for seen in pictures:
        pictures_seen += 1
        photos.add(seen.source)
        places, weights = corners(seen.heat, seen.where)
        edited = seen.edited.ravel().astype(np.float64)
        for kind, share in enumerate((1 - edited, edited)):
            counts = np.bincount(places.ravel(), (weights * share).ravel(), mass.shape[1])
            mass[kind] += counts / edited.size
            of_kind = counts.reshape(-1, SHAPE[2]).sum(1)
            for ground_kind in np.flatnonzero(of_kind >= FEWEST_CELLS).tolist():
                sources[kind][ground_kind].add(seen.source)
    if not mass.sum(1).all():
        raise DataError("A confidence map needs edited and untouched places to count.")
    table = []
    for bin, (plain, edited) in enumerate(mass.reshape(2, -1, SHAPE[2]).swapaxes(0, 1)):
        support = min(len(sources[kind][bin]) for kind in (0, 1))
        doubt = 1 / SHAPE[2] / (1 + support)
        plain, edited = (side / max(side.sum(), 1e-12) + doubt for side in (plain, edited))
        rising = IsotonicRegression(y_min=0, y_max=1)
        table += list(rising.fit(LOGITS, edited / (edited + plain), plain + edited).predict(LOGITS))
    return Confidence(
        tuple(round(float(q), 4) for q in table),
        f"{pictures_seen} pictures from {len(photos)} photographs.",
    )
