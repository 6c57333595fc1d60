"""robustness.py: what happens to pictures on their way, as named changes with the published grids.

A change is applied to the picture as it is displayed, before any model's own resizing. Changes of
geometry move the mask along.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image as PILImage

from forgemap.errors import DataError

Pixels = np.ndarray  # (H, W, 3) uint8 RGB
Changed = Pixels | bytes  # bytes: a file, so that its encoding reaches the model too


def jpeg(pixels: Pixels, quality: float, rng: np.random.Generator) -> Changed:
    """Saved as JPEG; quality 1..100, chroma at half resolution as most programs do."""
    return _encode(pixels, "JPEG", quality=int(quality))


def webp(pixels: Pixels, quality: float, rng: np.random.Generator) -> Changed:
    """Saved as lossy WebP; quality 0..100."""
    return _encode(pixels, "WEBP", quality=int(quality))


def blur(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Changed:
    """Gaussian blur; sigma in pixels."""
    return cv2.GaussianBlur(pixels, (0, 0), sigma)


def blur_kernel(pixels: Pixels, side: float, rng: np.random.Generator) -> Changed:
    """Gaussian blur by the side of its kernel in pixels, odd, as IMDL-BenCo counts it."""
    return cv2.GaussianBlur(pixels, (int(side), int(side)), 0)


def noise(pixels: Pixels, variance: float, rng: np.random.Generator) -> Changed:
    """Gaussian noise, each channel on its own; variance in squared 8-bit levels."""
    spread = np.float32(np.sqrt(variance))
    noisy = pixels + spread * rng.standard_normal(pixels.shape, np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def resize(pixels: Pixels, factor: float, rng: np.random.Generator) -> Changed:
    """Both sides times the factor, bicubic (antialiased where it shrinks)."""
    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(PILImage.fromarray(pixels).resize(size, PILImage.Resampling.BICUBIC))


@dataclass(frozen=True)
class Grid:
    """A change and the levels at which it is measured."""

    change: Callable[[Pixels, float, np.random.Generator], Changed]
    levels: tuple[float, ...]
    unit: str
    """What a level is, for the axis of a plot."""


# Grids of the papers: JPEG and blur of DeCLIP, kernel and noise of IMDL-BenCo.
GRIDS = {
    "jpeg": Grid(jpeg, (100, 90, 80, 70, 60, 50, 40, 30), "JPEG quality"),
    "webp": Grid(webp, (95, 85, 75, 65, 50), "WebP quality"),
    "blur": Grid(blur, (0.5, 1, 1.5, 2, 3, 4), "blur sigma (pixels)"),
    "blur_kernel": Grid(blur_kernel, (3, 7, 11, 15, 19, 23), "blur kernel (pixels)"),
    "noise": Grid(noise, (3, 7, 11, 15, 19, 23), "noise variance"),
    "resize": Grid(resize, (0.5, 0.75, 1.5, 2), "factor of resizing"),
}


@dataclass(frozen=True)
class Variant:
    """One column of an evaluation: the pictures as they are, or one change at one level."""

    change: str | None = None
    """A name in GRIDS; None = as they are."""
    level: float = 0

    @property
    def name(self) -> str:
        return "as is" if self.change is None else f"{self.change} {self.level:g}"

    def apply(self, pixels: Pixels, rng: np.random.Generator) -> Changed:
        """The changed picture; what is random comes from `rng` alone."""
        return pixels if self.change is None else GRIDS[self.change].change(pixels, self.level, rng)


AS_IS = Variant()


def variants(recompress: int | Sequence[int] | None, robustness: bool) -> list[Variant]:
    """The pictures as they are, then each JPEG quality asked for, then the grids; none twice.

    Raises DataError for a quality outside 1..100.
    """
    qualities = [recompress] if isinstance(recompress, int) else list(recompress or ())
    if wrong := [quality for quality in qualities if not 1 <= quality <= 100]:
        raise DataError(f"A JPEG quality is a number from 1 to 100, not {wrong[0]}.")
    chosen = [AS_IS, *(Variant("jpeg", quality) for quality in qualities)]
    if robustness:
        chosen += [Variant(name, level) for name, grid in GRIDS.items() for level in grid.levels]
    return list(dict.fromkeys(chosen))


def follow(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) of a picture that now has `shape`; nearest neighbour, so it stays binary."""
    if mask.shape == shape:
        return mask
    return cv2.resize(mask, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def _encode(pixels: Pixels, format: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, format, quality=quality)
    return buffer.getvalue()
