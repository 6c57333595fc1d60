"""finder.py: the regions of a picture that occur in it twice, and how surely one is a copy.

    found = find_copies(pixels)
    found.strength                     # log-odds, which enter the score of the picture
    marked, told = tell(found, heat)   # the heat map with them, and what a report says of each

Traces of an edit hardly survive a second compression; that a region is there twice does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .keypoints import detect, matches
from .likeness import WINDOW, Likeness, compare, smooth
from .transforms import Moved, transforms

LEAST, SHARE, LARGEST = 0.3e6, 0.3, 1e6
"""A picture is searched at this share of its pixels, so that it takes less time than the
network, but at no fewer than the first and no more than the last number of them."""
SMALLEST = 32
"""Shorter side, in pixels, of a picture that is searched."""

BIAS = 0.358
WEIGHTS = {
    "points": 2.002,
    "bits": 2.249,
    "extent": -1.45,
    "difference": 1.712,
    "shift": -2.056,
    "contrast": -1.451,
    "covered": 1.747,
    "print": -2.904,
}
"""Of `Likeness.features`: the log-odds of a copy, against what is found in untouched photographs,
if both are as frequent. Fitted by ``python -m benchmarks.copies``."""

PRINT = 0.25
"""`print` of `Likeness.features` above which a find is none: letters recur in any caption."""
HIGHEST = 8.0
"""Log-odds that are stated at most."""
SHOWN = 1.0
"""Log-odds from which a pair of regions is told and marked."""
SAME = 0.5
"""Share of the smaller one from which two finds are one."""
SHARED = 0.3
"""Share of a region that its like may overlap with: wheels, flowers and fronts of houses are
symmetric, and like themselves; counted in docs/experiments/default.md, row ao."""
GAPS = 31
"""Pixels across of what is closed between parts of a region."""


class Found(NamedTuple):
    """One region and its like."""

    strength: float
    """Log-odds that one is a copy of the other; see `WEIGHTS`."""
    moved: Moved
    """From the region to its like, in pixels of the picture that was searched."""
    likeness: Likeness

    def mask(self, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W) 0 or 1: the region, in the picture that was searched."""
        whole = np.zeros(shape, np.uint8)
        (left, top), region = self.likeness.corner, self.likeness.region
        whole[top : top + region.shape[0], left : left + region.shape[1]] = region
        x, y, width, height = cv2.boundingRect(whole)
        near = whole[max(0, y - GAPS) : y + height + GAPS, max(0, x - GAPS) : x + width + GAPS]
        # A square that reaches over the border is alike no more, and a flat one tells nothing: so
        # what was measured ends half a square early, and has gaps.
        closed = cv2.morphologyEx(near, cv2.MORPH_CLOSE, _disk(GAPS))
        grown = cv2.dilate(closed, _disk(WINDOW))
        borders, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        near[:] = cv2.drawContours(grown, borders, -1, 1, cv2.FILLED)
        return whole

    def masks(self, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The region and its like."""
        here = self.mask(shape)
        there = cv2.warpAffine(here, self.moved.matrix, shape[::-1], flags=cv2.INTER_NEAREST)
        return here, np.asarray(there, np.uint8)


class Copies(NamedTuple):
    """What was found in one picture."""

    found: tuple[Found, ...]
    """The surest first; each region and its like once."""
    shape: tuple[int, int]
    """Height and width of the picture that was searched."""

    @property
    def strength(self) -> float:
        """Of the surest, in log-odds in [0, `HIGHEST`]; 0: nothing speaks for a copy."""
        return max((found.strength for found in self.found), default=0.0)


class Search(NamedTuple):
    """What may occur twice in a picture, before it is said how surely."""

    pairs: list[tuple[Moved, Likeness]]
    shape: tuple[int, int]
    """Height and width of the picture that was searched ..."""
    factor: float
    """... and its size, of the one that was given."""


def find_copies(pixels: np.ndarray) -> Copies:
    """Search a picture (H, W, 3) uint8 RGB for regions that occur twice: moved, turned, scaled by
    .4 to 2.5, or mirrored."""
    return surest(candidates(pixels))


def surest(search: Search) -> Copies:
    """Of what may occur twice, what more speaks for than against."""
    found = [Found(strength(like.features()), moved, like) for moved, like in search.pairs]
    found = sorted((one for one in found if one.strength > 0), key=lambda one: -one.strength)
    return Copies(_once(found, search.shape), search.shape)


def candidates(pixels: np.ndarray) -> Search:
    """Regions of a picture (H, W, 3) uint8 RGB that have a like."""
    height, width = pixels.shape[:2]
    given = height * width
    factor = math.sqrt(min(1.0, min(max(LEAST, SHARE * given), LARGEST) / given))
    if factor < 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    shape = pixels.shape[0], pixels.shape[1]
    if min(shape) < SMALLEST:
        return Search([], shape, factor)
    keypoints = detect(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    moved = [
        one
        for mirror in (False, True)
        for one in transforms(keypoints, matches(keypoints, mirror), mirror)
    ]
    if not moved:
        return Search([], shape, factor)
    picture = smooth(pixels)
    likenesses = ((one, compare(picture, one)) for one in moved)
    return Search([(m, like) for m, like in likenesses if like is not None], shape, factor)


def strength(features: Mapping[str, float]) -> float:
    """Log-odds in [0, `HIGHEST`] of a copy, from `Likeness.features`."""
    if printed(features):
        return 0.0
    total = BIAS + sum(weight * features[name] for name, weight in WEIGHTS.items())
    return min(max(total, 0.0), HIGHEST)


def printed(features: Mapping[str, float]) -> bool:
    """Is it print, by `Likeness.features`?"""
    return features["print"] > PRINT


def symmetric(here: np.ndarray, there: np.ndarray) -> bool:
    """Does a region overlap with its like by more than `SHARED`? Masks (H, W), 0 or 1."""
    return bool((here & there).sum() > SHARED * min(here.sum(), there.sum()))


def _once(found: list[Found], shape: tuple[int, int]) -> tuple[Found, ...]:
    """A region and its like are found from both ends, and perhaps in parts: the surest stay. One
    thing that is symmetric hides what it consists of, and is no copy itself."""
    kept: list[Found] = []
    taken: list[NDArray[np.uint8]] = []
    for one in found:
        here, there = one.masks(shape)
        both = here | there
        if all((both & other).sum() < SAME * min(both.sum(), other.sum()) for other in taken):
            taken.append(both)
            if not symmetric(here, there):
                kept.append(one)
    return tuple(kept)


def _disk(across: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (across, across)), np.uint8)
