"""copy_move.py: regions that occur twice in a picture, by SIFT keypoints and affine transforms."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

RATIO = 0.6  # of successive distances in the generalised two-nearest-neighbours test
NEIGHBOURS = 6
FARTHEST = 280.0  # of SIFT descriptors that may be a copy of one another
APART = 24.0  # pixels between a region and its copy
INLIERS = 6
MODELS = 4
KEYPOINTS = 6000
SIMILAR = 0.75  # correlation from which a pixel belongs to a duplicated region


def sift_copy_move(pixels: np.ndarray) -> np.ndarray:
    """(H, W) float32: 0 where nothing recurs, else up to 1 with the matches behind it.

    I. Amerini, L. Ballan, R. Caldelli, A. Del Bimbo, G. Serra, "A SIFT-Based Forensic Method for
    Copy-Move Attack Detection and Transformation Recovery", IEEE TIFS 6(3), 2011: keypoints matched
    within the picture by the g2NN test, transforms found by RANSAC. The region is where the picture
    and its transformed self correlate, as in X. Pan, S. Lyu, "Region Duplication Detection Using
    Image Feature Matching", IEEE TIFS 5(4), 2010. In place of the clustering of keypoints the next
    transform is sought among the matches that the last one leaves. Source and copy are both marked:
    the method cannot tell which is which, so an exact find has an IoU of about one half.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    heat = np.zeros(grey.shape, np.float32)
    points, places = _matches(grey)
    for _ in range(MODELS):
        if len(points) < INLIERS:
            break
        cv2.setRNGSeed(0)
        matrix, kept = cv2.estimateAffine2D(
            points, places, method=cv2.RANSAC, ransacReprojThreshold=3, maxIters=1000
        )
        inside = np.zeros(len(points), bool) if kept is None else kept.ravel() > 0
        if matrix is None or inside.sum() < INLIERS:
            break
        if _plausible(matrix):
            strength = float(np.tanh(inside.sum() / 20))
            region = _duplicated(grey, matrix, points[inside], places[inside])
            heat = np.maximum(heat, strength * region)
        points, places = points[~inside], places[~inside]
    return heat


def _matches(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of places (n, 2) float32 that look alike, each pair once."""
    nothing = np.zeros((0, 2), np.float32)
    keypoints, descriptors = cv2.SIFT_create(KEYPOINTS).detectAndCompute(grey, None)
    if descriptors is None or len(keypoints) < NEIGHBOURS + 1:
        return nothing, nothing
    found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(descriptors, descriptors, k=NEIGHBOURS + 1)
    place = np.array([keypoint.pt for keypoint in keypoints], np.float32)
    pairs = set()
    for row in found:
        others = [match for match in row if match.queryIdx != match.trainIdx]
        for nearer, farther in pairwise(others):
            if nearer.distance > min(FARTHEST, RATIO * farther.distance):
                break
            one, two = sorted((nearer.queryIdx, nearer.trainIdx))
            if np.linalg.norm(place[one] - place[two]) >= APART:
                pairs.add((one, two))
    if not pairs:
        return nothing, nothing
    ends = np.array(sorted(pairs))
    return place[ends[:, 0]], place[ends[:, 1]]


def _plausible(matrix: np.ndarray) -> bool:
    """No mirror, no extreme scale or shear, and not (nearly) the identity."""
    scales = np.linalg.svd(matrix[:, :2], compute_uv=False)
    moved = np.linalg.norm(matrix[:, 2]) + 100 * np.abs(matrix[:, :2] - np.eye(2)).max()
    return bool(
        np.linalg.det(matrix[:, :2]) > 0 and 0.4 < scales[1] <= scales[0] < 2.5 and moved > 8
    )


def _duplicated(
    grey: np.ndarray, matrix: np.ndarray, points: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """(H, W) float32 0 or 1: both ends of what the transform maps onto its like, near matches."""
    height, width = grey.shape
    inverse = cv2.invertAffineTransform(matrix)
    region = np.zeros(grey.shape, np.uint8)
    for transform, here in ((inverse, points), (matrix, places)):
        # warpAffine inverts: what `transform` maps to a place is drawn at that place.
        moved = cv2.warpAffine(grey, transform, (width, height), flags=cv2.INTER_LINEAR)
        alike = (_correlation(grey, moved) > SIMILAR).astype(np.uint8)
        alike = cv2.morphologyEx(alike, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8))
        near = np.zeros(grey.shape, np.uint8)
        cv2.fillConvexPoly(near, cv2.convexHull(np.rint(here).astype(np.int32)), 1)
        near = cv2.dilate(near, np.ones((41, 41), np.uint8))
        region |= alike & near
    closed = cv2.morphologyEx(region, cv2.MORPH_CLOSE, np.ones((11, 11), np.uint8))
    return closed.astype(np.float32)


def _correlation(one: np.ndarray, two: np.ndarray, window: int = 9) -> np.ndarray:
    """Local correlation in [-1, 1] of two pictures (H, W); 0 where either is flat."""
    a, b = one.astype(np.float32), two.astype(np.float32)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (window, window))

    covariance = mean(a * b) - mean(a) * mean(b)
    variances = np.maximum(mean(a * a) - mean(a) ** 2, 0) * np.maximum(
        mean(b * b) - mean(b) ** 2, 0
    )
    return np.asarray(
        np.where(variances > 1, covariance / np.sqrt(variances + 1e-6), 0), np.float32
    )
