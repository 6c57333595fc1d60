"""benign_parts.py: what all benign processing shares: its answer, resizing, soft fields."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image as Pillow

Pixels = np.ndarray  # (H, W, 3) uint8 RGB
Mask = np.ndarray  # (H, W) uint8, 0 or 255
Rng = np.random.Generator

KERNELS = {
    "area": Pillow.Resampling.BOX,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}
SMALLEST = 256  # pixels: nothing here shrinks the shorter side below this


class Processed(NamedTuple):
    """A processed picture: (H, W, 3) uint8, its mask (H, W) uint8, and what was drawn."""

    pixels: Pixels
    mask: Mask
    parameters: dict[str, Any]
    data: bytes | None = None
    """The file, where the processing ends with one; `pixels` is then what it shows."""
    suffix: str = ""


def drawn_kernel(rng: Rng) -> str:
    return list(KERNELS)[int(rng.integers(len(KERNELS)))]


def scaled(
    pixels: Pixels, mask: Mask, factor: float, kernel: str, floor: int = SMALLEST
) -> tuple[Pixels, Mask, float]:
    """Both resized by `factor`, shrunk no further than to `floor` pixels of the shorter side.

    Returns the factor that was used as well.
    """
    height, width = mask.shape
    if factor < 1:
        factor = max(factor, min(1.0, floor / min(height, width)))
    elif kernel == "area":
        kernel = "bicubic"  # enlarged by areas, pixels would only be repeated
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size == (width, height):
        return pixels, mask, 1.0
    resized = np.asarray(Pillow.fromarray(pixels).resize(size, KERNELS[kernel]))
    return resized, scaled_mask(mask, size), factor


def scaled_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """The mask at (width, height): a pixel is marked if at least half of it was."""
    if not mask.any():
        return np.zeros(size[::-1], np.uint8)
    shrinks = size[0] <= mask.shape[1] and size[1] <= mask.shape[0]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return binary(cv2.resize(mask, size, interpolation=way))


def binary(mask: np.ndarray) -> Mask:
    """Resampled masks made 0 or 255 again."""
    return np.where(mask >= 128, 255, 0).astype(np.uint8)


def soft_field(shape: tuple[int, int], rng: Rng, cells: int = 3) -> np.ndarray:
    """A smooth random surface (H, W) float32 in [0, 1]: `cells` bumps along the longer side."""
    height, width = shape
    longer = max(height, width)
    grid = (max(2, round(cells * height / longer) + 1), max(2, round(cells * width / longer) + 1))
    knots = rng.random((cells + 2, cells + 2), dtype=np.float32)[: grid[0], : grid[1]]
    field = cv2.resize(knots, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(field, 0, 1)


def to_uint8(values: np.ndarray) -> Pixels:
    """Levels 0..255 in float -> uint8, rounded and clipped."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
