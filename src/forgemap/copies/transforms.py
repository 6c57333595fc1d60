"""transforms.py: how a region was moved: similarity transforms that several matches agree on.

Every match says by itself how its place was moved, turned, scaled and perhaps mirrored: from the
positions, sizes and directions of its two keypoints. The match with which most others near it agree
goes first, its followers leave, and so on; no chance is involved.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .keypoints import Keypoints

FEWEST = 3
"""Matches that a transform rests on."""
MOST_MATCHES = 600
MOST_TRANSFORMS = 6
NEAR = 150.0
"""Pixels within which matches are of one region to begin with ..."""
FAR = 400.0
"""... and at last."""
TOLERANCES = (6.0, 3.0, 2.5)
"""Pixels between where a match lies and where the transform expects it, round by round."""
SCALES = (0.4, 2.5)


class Moved(NamedTuple):
    """A transform, and the n matches that follow it."""

    matrix: NDArray[np.float64]
    """(2, 3) from a place to its like: the columns are x, y and 1."""
    places: NDArray[np.float64]
    """(n, 2) x and y in pixels ..."""
    likes: NDArray[np.float64]
    """(n, 2) ... and where they occur again."""
    mirrored: bool

    @property
    def scale(self) -> float:
        """How much larger the like is."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    @property
    def degrees(self) -> float:
        """By how much it is turned, clockwise, in (-180, 180]; after mirroring, if it is."""
        return float(np.rad2deg(np.arctan2(self.matrix[1, 0], self.matrix[0, 0])))


def transforms(found: Keypoints, pairs: NDArray[np.intp], mirror: bool) -> list[Moved]:
    """What matches (m, 2) agree on, the best supported first."""
    one, two = pairs[:MOST_MATCHES].T
    places, likes = found.points[one].astype(float), found.points[two].astype(float)
    scales = (found.sizes[two] / found.sizes[one]).astype(float)
    flip = -1.0 if mirror else 1.0
    turns = (found.angles[two] - flip * found.angles[one]).astype(float)
    agree = _agreement(places, likes, scales, turns, flip)
    left = np.ones(len(places), bool)
    moved = []
    for _ in range(MOST_TRANSFORMS):
        support = (agree & left).sum(1) * left
        leader = int(support.argmax()) if len(support) else 0
        if not len(support) or support[leader] < FEWEST:
            break
        members = agree[leader] & left
        near = np.hypot(*(places - places[leader]).T) < FAR
        for tolerance in TOLERANCES:
            matrix = similarity(places[members], likes[members], mirror)
            error = np.hypot(*(places @ matrix[:, :2].T + matrix[:, 2] - likes).T)
            members = left & near & (error < tolerance)
            if members.sum() < FEWEST:
                break
        left &= ~members
        left[leader] = False
        if members.sum() >= FEWEST:
            matrix = similarity(places[members], likes[members], mirror)
            one_more = Moved(matrix, places[members], likes[members], mirror)
            if SCALES[0] < one_more.scale < SCALES[1]:
                moved.append(one_more)
    return moved


def _agreement(
    places: np.ndarray, likes: np.ndarray, scales: np.ndarray, turns: np.ndarray, flip: float
) -> NDArray[np.bool_]:
    """(m, m) does the transform that a match (row) says by itself fit another one near it?"""
    cosine, sine = scales * np.cos(turns), scales * np.sin(turns)
    x, y = (places[None] - places[:, None]).transpose(2, 0, 1)
    expected = (
        cosine[:, None] * x - flip * sine[:, None] * y,
        sine[:, None] * x + flip * cosine[:, None] * y,
    )
    u, v = (likes[None] - likes[:, None]).transpose(2, 0, 1)
    distance = np.hypot(x, y)
    fits = np.hypot(expected[0] - u, expected[1] - v) < 3 + 0.2 * distance
    logs = np.log(scales)
    similar = np.abs(logs[:, None] - logs) < 0.5
    angle = (turns[:, None] - turns + np.pi) % (2 * np.pi) - np.pi
    return fits & (distance < NEAR) & similar & (np.abs(angle) < 0.5)


def similarity(places: np.ndarray, likes: np.ndarray, mirror: bool) -> NDArray[np.float64]:
    """(2, 3) the similarity transform, mirroring or not, of least squares between points (n, 2)."""
    flip = -1.0 if mirror else 1.0
    from_, to = places.mean(0), likes.mean(0)
    (x, y), (u, v) = (places - from_).T, (likes - to).T
    y = flip * y
    size = (x * x + y * y).sum() + 1e-9
    cosine, sine = (x * u + y * v).sum() / size, (x * v - y * u).sum() / size
    linear = np.array([[cosine, -flip * sine], [sine, flip * cosine]])
    return np.column_stack((linear, to - linear @ from_))
