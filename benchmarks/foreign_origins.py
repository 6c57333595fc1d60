"""foreign_origins.py: the photographs of `benchmarks.foreign`, as they are or never a JPEG.

The latter not by `forgemap.synth`, which a model was trained with: another order of the steps,
other noise, and a demosaicing (by variable numbers of gradients) that synth does not know.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from forgemap.errors import DataError
from forgemap.image import load_image

Pixels = np.ndarray
"""(H, W, 3) uint8."""

LARGEST = 1024
"""Longest side in pixels; of larger photographs a part at native resolution is taken."""
LEAST = 2.5
"""Photographs are reduced by at least this factor, so that nothing of their own JPEG is left."""
SHORTEST = 260
"""Shorter side, in pixels, that must remain."""


def reduced(photo: Pixels, rng: np.random.Generator) -> Pixels:
    """The whole photograph at 700 to 1100 pixels, by areas.

    Raises:
        DataError: it is too small for that.
    """
    height, width = photo.shape[:2]
    factor = max(LEAST, max(height, width) / rng.uniform(700, 1100))
    if min(height, width) / factor < SHORTEST:
        raise DataError(f"too small: {width} x {height}")
    size = (round(width / factor), round(height / factor))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA))


def camera(photo: Pixels, rng: np.random.Generator) -> Pixels:
    """`reduced`, then through the mosaic of a sensor: noise, demosaicing, sharpening."""
    small = reduced(photo, rng)
    height, width = (n - n % 2 for n in small.shape[:2])
    levels = small[:height, :width].astype(float)
    light = (levels / 255) ** 2.2
    noisy = light + rng.normal(size=light.shape) * np.sqrt(light / rng.uniform(200, 3000) + 1e-6)
    seen = np.rint(255 * noisy.clip(0, 1) ** (1 / 2.2)).astype(np.uint8)
    mosaic = seen[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = seen[::2, ::2, 0], seen[1::2, 1::2, 2]
    colours = cv2.cvtColor(mosaic, cv2.COLOR_BayerRGGB2RGB_VNG)
    amount = rng.uniform(0, 0.6)
    soft = cv2.GaussianBlur(colours, (0, 0), 1)
    return np.asarray(cv2.addWeighted(colours, 1 + amount, soft, -amount, 0))


ORIGINS = {"camera": camera, "reduced": reduced}
"""How `--origin` names them."""


def large_enough(path: Path, origin: str) -> bool:
    """Whether a photograph can be given the origin."""
    try:
        shown(path, origin, np.random.default_rng(0))
    except DataError:
        return False
    return True


def shown(path: Path, origin: str, rng: np.random.Generator) -> Pixels:
    """A part of the photograph, at most LARGEST a side; or the whole of it, of another origin."""
    photo = load_image(path).pixels
    if origin:
        return ORIGINS[origin](photo, rng)
    top, left = (int(rng.integers(0, max(0, n - LARGEST) + 1)) for n in photo.shape[:2])
    return np.ascontiguousarray(photo[top : top + LARGEST, left : left + LARGEST])
