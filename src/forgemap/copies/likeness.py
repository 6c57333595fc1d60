"""likeness.py: how alike a region and its supposed copy are, pixel by pixel.

Things of one kind (windows, tiles, zebras) look alike; a copy is the same but for noise and
compression. So what counts is what is left when one is laid over the other: a difference that does
not grow with the contrast, and no difference of colour or brightness (after Pan and Lyu, IEEE TIFS
5(4), 2010, who correlate them).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .transforms import Moved

WINDOW = 9
"""Side in pixels of the squares that are compared."""
ALIKE = 0.8
"""Correlation of squares that belong to the region."""
CONTRAST = 2.0
"""Standard deviation in grey levels of squares that can be compared: flat ones are alike anyway."""
MARGIN = 48
"""Pixels around the matches that the region may extend to."""
FEWEST = 160
"""Pixels of a region, two squares: in what a JPEG left of a sky, smaller ones recur by chance."""
FEWEST_POINTS = 3
"""Different places that the matches of a region lie at."""
BIN = 16
"""Grey levels that count as one tone."""
NOISE = 0.7
"""Standard deviation in pixels of the blur before the comparison, against interpolation."""

_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)


class Likeness(NamedTuple):
    """What was measured of a region and its like."""

    region: NDArray[np.bool_]
    """(h, w) of the place, in a window of the picture."""
    corner: tuple[int, int]
    """x and y of that window."""
    points: int
    """Matches at different places."""
    bits: float
    """Mean information in bits that a pixel of one has about that of the other."""
    extent: float
    """Squares that the region would fill."""
    difference: float
    """Root mean square, in grey levels, of what differs within squares (median)."""
    shift: float
    """Difference of the squares' mean colour, in levels (median)."""
    contrast: float
    """Standard deviation within squares, in grey levels (median)."""
    covered: float
    """Share of the hull of the matches that is alike."""
    two_tone: float
    """Share of the region that has one of its two commonest tones, as print and drawings do."""

    def features(self) -> dict[str, float]:
        """Numbers for a regression: larger is likelier a copy, but for the differences."""
        return {
            "points": math.log(self.points),
            "bits": self.bits,
            "extent": math.log(self.extent),
            "difference": math.log(1 + self.difference),
            "shift": math.log(1 + self.shift),
            "contrast": math.log(self.contrast),
            "covered": self.covered,
            # Letters recur in any text. Things of a faint contrast have few tones anyway.
            "print": self.two_tone * max(0.0, math.log(self.contrast) - 3.0),
        }


def smooth(pixels: np.ndarray) -> NDArray[np.float32]:
    """(H, W, 3) uint8 -> float32, without the noise of single pixels: what `compare` wants."""
    return cv2.GaussianBlur(pixels, (0, 0), NOISE).astype(np.float32)


def compare(picture: NDArray[np.float32], moved: Moved) -> Likeness | None:
    """Lay the like over its place; None where they are not alike at the matches.

    ``picture``: (H, W, 3), see `smooth`.
    """
    height, width = picture.shape[:2]
    low = np.maximum(np.floor(moved.places.min(0)).astype(int) - MARGIN, 0)
    high = np.ceil(moved.places.max(0)).astype(int) + MARGIN + 1
    (left, top), (right, bottom) = low, np.minimum(high, (width, height))
    here = picture[top:bottom, left:right]
    matrix = moved.matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ (left, top)
    there = cv2.warpAffine(
        picture,
        matrix,
        (int(right - left), int(bottom - top)),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderValue=(-1e4, -1e4, -1e4),
    )
    inside = there.min(-1) >= 0
    there[~inside] = 0
    one, two = _grey(here), _grey(there)
    mean_one, spread_one = _moments(one)
    mean_two, spread_two = _moments(two)
    covariance = _mean(one * two) - mean_one * mean_two
    correlation = covariance / np.sqrt(spread_one * spread_two + 1e-3)
    spread = np.minimum(spread_one, spread_two)
    alike = (correlation > ALIKE) & (spread > CONTRAST**2) & inside
    closed = cv2.morphologyEx(alike.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    places = np.clip(np.rint(moved.places - (left, top)).astype(int), 0, None)
    places = np.minimum(places, (closed.shape[1] - 1, closed.shape[0] - 1))
    region = _parts_at(closed, places)
    telling = region & (spread > CONTRAST**2)
    points = min(_distinct(moved.places), _distinct(moved.likes))
    if telling.sum() < FEWEST or points < FEWEST_POINTS:
        return None
    hull: np.ndarray = np.zeros(closed.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(places.astype(np.int32)), 1)
    hull = cv2.dilate(hull, np.ones((WINDOW, WINDOW), np.uint8))
    known = np.minimum(correlation[telling], 0.9995)
    differing = np.sqrt(np.maximum(spread_one + spread_two - 2 * covariance, 0))
    colours = np.abs(_mean(here) - _mean(there)).max(-1)
    return Likeness(
        region,
        (int(left), int(top)),
        points,
        float(np.mean(-0.5 * np.log2(1 - known**2))),
        float(telling.sum() / WINDOW**2),
        float(np.median(differing[region])),
        float(np.median(colours[region])),
        float(np.sqrt(np.median(spread[region]))),
        float(closed[hull > 0].mean()),
        _two_tone(one[telling]),
    )


def _parts_at(closed: np.ndarray, places: np.ndarray) -> NDArray[np.bool_]:
    """The connected parts of a mask (h, w) at places (n, 2)."""
    _, labels = cv2.connectedComponents(closed)
    names = np.unique(labels[places[:, 1], places[:, 0]])
    return np.isin(labels, names[names > 0])


def _two_tone(values: np.ndarray) -> float:
    """Share of grey values (n,) in the two commonest bins."""
    counts = np.bincount(np.clip(values, 0, 255).astype(int) // BIN)
    return float(np.sort(counts)[-2:].sum() / len(values))


def _distinct(points: np.ndarray) -> int:
    """How many points (n, 2) are more than about three pixels apart."""
    return len(np.unique(np.rint(points / 3), axis=0))


def _grey(picture: np.ndarray) -> np.ndarray:
    return cv2.transform(picture, _LUMA).reshape(picture.shape[:2])


def _mean(values: np.ndarray) -> np.ndarray:
    return cv2.blur(values, (WINDOW, WINDOW))


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance within squares."""
    mean = _mean(values)
    return mean, np.maximum(_mean(values * values) - mean * mean, 0)
