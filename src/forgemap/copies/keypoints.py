"""keypoints.py: places of a picture that look like other places of it, turned, scaled or mirrored.

SIFT keypoints (Lowe, IJCV 2004) with root descriptors (Arandjelovic and Zisserman, CVPR 2012), and
the generalised two-nearest-neighbours test of Amerini et al. (IEEE TIFS 6(3), 2011), by which a
place may have more than one copy.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

MOST = 3000
"""Keypoints of a picture, the strongest."""
CONTRAST = 0.012
"""Of the weakest: a third of the usual, for smooth regions."""
EDGES = 12
BLUR = 1.4

FARTHEST = 0.5
"""Distance of root descriptors (of length 1) from which they are not alike."""
RATIO = 0.8
"""A match is nearer than the next one by this."""
MANIFOLD = 3
"""Matches of one place, at most."""
APART = 16.0
"""Pixels between a place and its copy, at least."""

_STRIP = 512

_BINS = np.arange(128).reshape(4, 4, 8)  # rows and columns about the keypoint, directions
_MIRRORED = _BINS[::-1][:, :, -np.arange(8) % 8].reshape(-1)


class Keypoints(NamedTuple):
    """n keypoints of one picture."""

    points: NDArray[np.float32]
    """(n, 2) x and y in pixels."""
    sizes: NDArray[np.float32]
    """(n,) diameters in pixels."""
    angles: NDArray[np.float32]
    """(n,) directions in radians."""
    descriptors: NDArray[np.float32]
    """(n, 128) of length 1."""


def detect(grey: np.ndarray) -> Keypoints:
    """Keypoints of a grey picture (H, W) uint8."""
    sift = cv2.SIFT.create(MOST, 3, CONTRAST, EDGES, BLUR)
    found, histograms = sift.detectAndCompute(grey, None)
    if histograms is None:
        histograms = np.zeros((0, 128), np.float32)
    totals = np.maximum(histograms.sum(1, keepdims=True), 1e-6)
    return Keypoints(
        np.array([point.pt for point in found], np.float32).reshape(-1, 2),
        np.array([point.size for point in found], np.float32),
        np.deg2rad(np.array([point.angle for point in found], np.float32)),
        np.sqrt(histograms / totals).astype(np.float32),
    )


def mirrored(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors (n, 128) of the same places in a mirror along each keypoint's direction."""
    return descriptors[:, _MIRRORED]


def matches(found: Keypoints, mirror: bool = False) -> NDArray[np.intp]:
    """Pairs (m, 2) of keypoints that are alike, the likest first; with ``mirror`` each place is
    compared with the mirrored others. A pair may come in both orders."""
    own = found.descriptors
    others = (mirrored(own) if mirror else own).T
    one, other = _squares(found.points)
    # What one strip needs, for all of them: fresh memory costs as much as the sums.
    cosines = np.empty((min(_STRIP, len(own)), len(own)), np.float32)
    apart = np.empty_like(cosines)
    pairs, distances = [np.zeros((0, 2), np.intp)], [np.zeros(0, np.float32)]
    for top in range(0, len(own), _STRIP):
        rows, here = slice(top, top + _STRIP), slice(0, min(_STRIP, len(own) - top))
        np.matmul(own[rows], others, out=cosines[here])
        np.matmul(one[rows], other, out=apart[here])
        np.putmask(cosines[here], apart[here] < APART**2, -1)
        columns, distance = _nearest(cosines[here])
        fits = (distance[:, :-1] < RATIO * distance[:, 1:]) & (distance[:, :-1] < FARTHEST)
        row, rank = np.nonzero(np.logical_and.accumulate(fits, axis=1))
        pairs.append(np.column_stack((top + row, columns[row, rank])))
        distances.append(distance[row, rank])
    order = np.argsort(np.concatenate(distances), kind="stable")
    return np.concatenate(pairs)[order]


def _squares(points: np.ndarray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, 4) and (4, n), whose product is the squared distance of every two points (n, 2)."""
    squares, ones = np.square(points).sum(1), np.ones(len(points), np.float32)
    one = np.column_stack((-2 * points, squares, ones))
    other = np.vstack((points.T, ones, squares))
    return one.astype(np.float32), other.astype(np.float32)


def _nearest(cosines: np.ndarray) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Columns and distances of the nearest in each row, one more than ``MANIFOLD``; the cosines
    are used up."""
    every = np.arange(len(cosines))
    columns = np.empty((len(cosines), MANIFOLD + 1), np.intp)
    highest = np.empty(columns.shape, np.float32)
    for rank in range(MANIFOLD + 1):
        columns[:, rank] = cosines.argmax(1)
        highest[:, rank] = cosines[every, columns[:, rank]]
        cosines[every, columns[:, rank]] = -2
    return columns, np.sqrt(2 - 2 * np.clip(highest, -1, 1))
