"""local.py: benign-looking edits of a region: resampling, blur, noise, re-compression."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from forgemap.encode import jpeg
from forgemap.synth.edit import Context, Edit, blend, window_of

MARGIN = 16  # wider than any filter below, so that the window's rim does not show


def resample(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """The region scaled and scaled back, or shifted by a fraction of a pixel."""
    interpolation = {
        "linear": cv2.INTER_LINEAR,
        "cubic": cv2.INTER_CUBIC,
        "lanczos": cv2.INTER_LANCZOS4,
    }
    name = str(rng.choice(list(interpolation)))
    flag = interpolation[name]
    if rng.random() < 0.4:
        dx, dy = (float(v) for v in rng.uniform(0.2, 0.8, 2) * rng.choice([-1, 1], 2))

        def change(patch: np.ndarray) -> np.ndarray:
            matrix = np.array([[1, 0, dx], [0, 1, dy]])
            return cv2.warpAffine(
                patch, matrix, patch.shape[1::-1], flags=flag, borderMode=cv2.BORDER_REFLECT_101
            )

        return _change(
            pixels, rng, context, change, shift=[round(dx, 3), round(dy, 3)], kernel=name
        )
    factor = math.exp(rng.uniform(math.log(0.4), math.log(2.0)))

    def rescale(patch: np.ndarray) -> np.ndarray:
        size = tuple(max(2, round(side * factor)) for side in patch.shape[1::-1])
        smaller = cv2.resize(patch, size, interpolation=cv2.INTER_AREA if factor < 1 else flag)
        return cv2.resize(smaller, patch.shape[1::-1], interpolation=flag)

    return _change(pixels, rng, context, rescale, factor=round(factor, 4), kernel=name)


def blur(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """The region blurred: Gaussian of sigma 0.6 to 3 pixels, or a median of 3 or 5."""
    if rng.random() < 0.3:
        side = int(rng.choice([3, 5]))
        return _change(pixels, rng, context, lambda p: cv2.medianBlur(p, side), median=side)
    sigma = math.exp(rng.uniform(math.log(0.6), math.log(3.0)))
    return _change(
        pixels, rng, context, lambda p: cv2.GaussianBlur(p, (0, 0), sigma), sigma=round(sigma, 3)
    )


def noise(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """Gaussian noise of 2 to 12 grey levels added to the region, grey or per channel."""
    sigma = math.exp(rng.uniform(math.log(2.0), math.log(12.0)))
    channels = int(rng.choice([1, 3]))

    def add(patch: np.ndarray) -> np.ndarray:
        grain = rng.standard_normal((*patch.shape[:2], channels), dtype=np.float32)
        return np.asarray(np.rint(patch + sigma * grain).clip(0, 255).astype(np.uint8))

    return _change(pixels, rng, context, add, sigma=round(sigma, 3), channels=channels)


def jpeg_region(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """The region re-encoded as a JPEG of quality 40 to 90 on a grid of its own."""
    quality = int(rng.integers(40, 91))
    return _change(pixels, rng, context, lambda p: jpeg(p, quality), quality=quality)


def _change(
    pixels: np.ndarray, rng: np.random.Generator, context: Context, change: Any, **parameters: Any
) -> Edit:
    """Apply `change` (window of pixels -> pixels of the same shape) inside a random region."""
    mask, kind = context.region(pixels, rng)
    feather = int(rng.integers(0, context.feather + 1))
    window = window_of(mask, MARGIN)
    patch = change(np.ascontiguousarray(pixels[window]))
    result, truth = blend(pixels, patch, mask, window, feather)
    return Edit(result, truth, {"region": kind, "feather": feather, **parameters})
