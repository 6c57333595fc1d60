"""telling.py: what a report says of regions that occur twice, and their marks in the heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..outlines import Box, outline
from .finder import SHOWN, Copies, Found

DIRECTION = 0.9
"""Log-odds that a region is the copy and its like the original, for each unit by which its pixels'
mean log-odds of an edit, by the network, are higher. Fitted by ``python -m benchmarks.copies``."""
SURE = 4.0
"""Log-odds at most."""
SEEN = 0.5
"""Share of a region from which the network counts as having marked it."""
MOST = 10
"""Pairs that are told of."""


@dataclass(frozen=True)
class Copy:
    """A region that occurs twice. Pixels are those of the picture as it is displayed."""

    score: float
    """Probability in [0, 1] that one is a copy of the other, if as many pictures have copies as
    have none."""
    box: Box
    """Of the region that is likelier the copy: (x0, y0, x1, y1); x1 and y1 are just outside."""
    polygon: list[list[int]]
    """[[x, y], ...] its outer border, simplified; at least three points."""
    origin_box: Box
    """The same of the region that it seems to be copied from ..."""
    origin_polygon: list[list[int]]
    """... and its border."""
    direction: float
    """Probability in [0.5, 1] that it was not the other way round; 0.5: nobody knows."""
    degrees: float
    """By how much it was turned, clockwise, in (-180, 180]; after mirroring, if it was."""
    scale: float
    """How much larger it was made; 1: not at all."""
    mirrored: bool
    """Was it?"""

    def words(self) -> str:
        """Where, what was done to it, and how sure that is."""
        done = [
            *(["mirrored"] if self.mirrored else []),
            *([f"turned by {self.degrees:.0f}°"] if abs(self.degrees) >= 0.5 else []),
            *([f"{self.scale:.2f} times as large"] if abs(self.scale - 1) >= 0.01 else []),
        ]
        how = f", {', '.join(done)}" if done else ""
        return (
            f"{_corners(self.box)} shows {_corners(self.origin_box)} once more{how} (a copy with a "
            f"probability of {self.score:.2f}; the other way round with {1 - self.direction:.2f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        boxes = {"box": list(self.box), "origin_box": list(self.origin_box)}
        return asdict(self) | boxes


def tell(copies: Copies, heat: np.ndarray) -> tuple[np.ndarray, list[Copy]]:
    """The pairs that are sure enough, and the heat map with them.

    Where the network itself has marked most of either region, its borders are the better ones, and
    the map stays as it is. Else each pixel of the copy gets the probability that there is a copy
    and that it is this one; one half at least, since of a pair one is to be marked. Those of its
    origin get the rest.

    Args:
        copies: what `find_copies` found.
        heat: (H, W) float32 by the network, of the same picture; stays as it is.

    Returns:
        A new heat map, or the same where there is nothing to tell; the surest pair first.
    """
    told, marked = [], heat
    for found in copies.found[:MOST]:
        if found.strength < SHOWN:
            break
        here, there = places(copies, found, heat.shape)
        if not here.any() or not there.any():
            continue
        odds = max(-SURE, min(SURE, DIRECTION * suspicion(heat, here, there)))
        moved = found.moved
        degrees, scale = moved.degrees, moved.scale
        if odds < 0:  # `here` is the copy: all the other way round
            here, there, odds = there, here, -odds
            degrees, scale = degrees if moved.mirrored else -degrees, 1 / scale
        score, direction = _sigmoid(found.strength), _sigmoid(odds)
        if all(np.mean(heat[mask > 0] >= 0.5) < SEEN for mask in (here, there)):
            marked = heat.copy() if marked is heat else marked
            marked[there > 0] = np.maximum(marked[there > 0], max(0.5, score * direction))
            marked[here > 0] = np.maximum(marked[here > 0], score * (1 - direction))
        (box, polygon), (origin_box, origin_polygon) = outline(there), outline(here)
        told.append(
            Copy(
                score,
                box,
                polygon,
                origin_box,
                origin_polygon,
                direction,
                round(degrees, 1),
                round(scale, 3),
                moved.mirrored,
            )
        )
    return marked, told


def sentence(copies: Sequence[Copy]) -> str:
    """For the reason of a verdict; empty if there are none."""
    if not copies:
        return ""
    others = f", and {len(copies) - 1} more" if len(copies) > 1 else ""
    return f" A region occurs twice: {copies[0].words()}{others}."


def _corners(box: Box) -> str:
    return f"({box[0]}, {box[1]} – {box[2]}, {box[3]})"


def places(copies: Copies, found: Found, shape: Sequence[int]) -> list[NDArray[np.uint8]]:
    """The region of one find, and its like: masks (H, W) of a picture of that size, 0 or 1."""
    size = shape[1], shape[0]
    return [
        np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        for mask in found.masks(copies.shape)
    ]


def suspicion(heat: np.ndarray, here: np.ndarray, there: np.ndarray) -> float:
    """By how much the mean log-odds of an edit are higher ``there`` than ``here``: (H, W) masks."""
    odds = []
    for mask in (here, there):
        inside = np.clip(heat[mask > 0].astype(float), 1e-4, 1 - 1e-4)
        odds.append(float(np.mean(np.log(inside / (1 - inside)))))
    return odds[1] - odds[0]


def _sigmoid(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))
