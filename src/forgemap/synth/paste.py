"""paste.py: edits that paste a region of a photograph: splices from a donor, and copy-move."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from forgemap.encode import jpeg
from forgemap.errors import DataError
from forgemap.synth.edit import Context, Edit, Window, blend, window_of
from forgemap.synth.masks import random_mask


def splice(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """A region of a donor photo, resized, sometimes re-encoded and colour-matched, pasted in."""
    patch, mask, window, parameters = _donor_region(pixels, rng, context)
    feather = int(rng.integers(0, context.feather + 1))
    if rng.random() < 0.5:
        strength = float(rng.uniform(0.3, 1.0))
        patch = match_colours(patch, pixels[window], strength)
        parameters["colour_match"] = round(strength, 3)
    result, truth = blend(pixels, patch, mask, window, feather)
    return Edit(result, truth, {**parameters, "feather": feather})


def splice_poisson(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """A region of a donor photo blended by its gradients (Perez et al., SIGGRAPH 2003)."""
    patch, mask, window, parameters = _donor_region(pixels, rng, context)
    mixed = bool(rng.random() < 0.3)
    # The solver wants a rim of known pixels all around, also at the picture's border.
    rim = ((2, 2), (2, 2))
    local = np.pad(mask[window].astype(np.uint8) * 255, rim)
    left, top, width, height = cv2.boundingRect(local)
    cloned = cv2.seamlessClone(
        np.pad(patch, (*rim, (0, 0)), mode="reflect"),
        np.pad(pixels[window], (*rim, (0, 0)), mode="reflect"),
        local,
        (left + width // 2, top + height // 2),
        cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE,
    )
    result, truth = blend(pixels, cloned[2:-2, 2:-2], mask, window)
    return Edit(result, truth, {**parameters, "gradients": "mixed" if mixed else "donor"})


def copy_move(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """A region of the picture itself, moved, often turned and scaled; the mask is its new place."""
    low, high = context.area
    high = max(low, min(high, 0.3))  # a larger region would mostly land on itself
    height, width = pixels.shape[:2]
    feather = int(rng.integers(0, context.feather + 1))
    for _ in range(20):
        source, kind = random_mask(pixels, rng, (low, high))
        rows, columns = window_of(source)
        centre = ((columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2)
        angle = float(rng.uniform(-180, 180)) if rng.random() < 0.5 else 0.0
        scale = math.exp(rng.uniform(math.log(0.6), math.log(1.6))) if rng.random() < 0.5 else 1.0
        matrix = cv2.getRotationMatrix2D(centre, angle, scale)
        if rng.random() < 0.25:  # mirrored about its own vertical axis
            matrix = matrix @ np.array([[-1, 0, 2 * centre[0]], [0, 1, 0], [0, 0, 1]])
        goal = rng.uniform(0, 1, 2) * (width, height)
        shift = np.rint(goal - centre)  # whole pixels: an unturned copy is an exact copy
        matrix[:, 2] += shift
        moved = cv2.warpAffine(source.astype(np.uint8) * 255, matrix, (width, height)) >= 128
        count = np.count_nonzero(moved)
        if low <= count / moved.size <= context.area[1] and (
            np.count_nonzero(moved & source) <= 0.1 * count
        ):
            break
    else:
        raise DataError("no place was found for a copied region; ask for a smaller area")
    window = window_of(moved, feather + 1)
    offset = matrix - np.array([[0, 0, window[1].start], [0, 0, window[0].start]])
    size = (window[1].stop - window[1].start, window[0].stop - window[0].start)
    patch = cv2.warpAffine(
        pixels, offset, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    result, truth = blend(pixels, patch, moved, window, feather)
    parameters = {
        "region": kind,
        "angle": round(angle, 2),
        "scale": round(scale, 4),
        "mirrored": bool(np.linalg.det(matrix[:, :2]) < 0),
        "shift": [int(shift[0]), int(shift[1])],
        "feather": feather,
    }
    return Edit(result, truth, parameters)


def match_colours(patch: np.ndarray, target: np.ndarray, strength: float) -> np.ndarray:
    """`patch` moved towards the per-channel mean and spread of `target` (Reinhard et al., 2001)."""
    mean, spread = patch.mean((0, 1)), patch.std((0, 1)) + 1e-3
    gain = np.clip(target.std((0, 1)) / spread, 0.5, 2.0)
    matched = (patch - mean) * gain + target.mean((0, 1))
    return np.asarray(np.rint(patch + strength * (matched - patch)).clip(0, 255).astype(np.uint8))


def _donor_region(
    pixels: np.ndarray, rng: np.random.Generator, context: Context
) -> tuple[np.ndarray, np.ndarray, Window, dict[str, Any]]:
    """A region of a donor: (patch for the window, (H, W) bool mask, window, parameters).

    The donor is seen through a view of at most the picture's size, so that the region follows the
    donor's objects and not the picture's.
    """
    if context.donor is None:
        raise DataError("a splice needs a second photo of the same split to take a region from")
    name, donor = context.donor(rng)
    height, width = pixels.shape[:2]
    scale = math.exp(rng.uniform(math.log(0.4), math.log(2.0))) if rng.random() < 0.75 else 1.0
    low, high = context.area
    # A donor too small for the region that was asked for is enlarged more.
    least = math.sqrt(2 * low * height * width / (donor.shape[0] * donor.shape[1]))
    scale = max(scale, least)
    rows, take_rows = _fit(height, donor.shape[0], scale, rng)
    columns, take_columns = _fit(width, donor.shape[1], scale, rng)
    view = donor[take_rows, take_columns]
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    if view.shape[:2] != shape:
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        view = cv2.resize(view, shape[::-1], interpolation=method)
    parameters: dict[str, Any] = {"donor": name, "scale": round(scale, 4)}
    if rng.random() < 0.5:
        quality = int(rng.integers(50, 96))
        view = jpeg(view, quality)
        parameters["donor_jpeg"] = quality
    share = height * width / (shape[0] * shape[1])
    local, kind = random_mask(view, rng, (min(low * share, 0.9), min(high * share, 0.9)))
    parameters["region"] = kind
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = local
    window = window_of(mask, context.feather)
    # The view ends where the donor does; beyond it the blend's margin repeats its last pixels.
    reach = [
        (max(0, view_.start - window_.start), max(0, window_.stop - view_.stop))
        for view_, window_ in zip((rows, columns), window, strict=True)
    ]
    view = np.pad(view, (*reach, (0, 0)), mode="edge")
    top = window[0].start - rows.start + reach[0][0]
    left = window[1].start - columns.start + reach[1][0]
    patch = view[
        top : top + window[0].stop - window[0].start, left : left + window[1].stop - window[1].start
    ]
    return np.ascontiguousarray(patch), mask, window, parameters


def _fit(side: int, donor: int, scale: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Along one axis: where the view lies in the picture, and which part of the donor it shows."""
    length = min(side, max(1, round(donor * scale)))
    start = int(rng.integers(0, side - length + 1))
    part = min(donor, max(1, round(length / scale)))
    first = int(rng.integers(0, donor - part + 1))
    return slice(start, start + length), slice(first, first + part)
