"""robustness.py: what happens to pictures on their way, as named changes with the published grids.

A change is applied to the picture as it is displayed, before any model's own resizing. Changes of
geometry move the mask along. Three kinds: the grids of the papers (one change, some levels), fixed
pipelines (`robustness_pipelines`), and the benign processing of `synth.benign`, drawn at random.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image as PILImage

from forgemap.errors import DataError
from forgemap.evaluate.robustness_pipelines import PIPELINES
from forgemap.synth.benign import BENIGN, Processed, process

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
    """A name in GRIDS, PIPELINES or BENIGN; None = as they are."""
    level: float = 0
    kind: str = "grid"
    """Which of the three lists the name is from: "grid", "pipeline" or "benign"."""

    @property
    def name(self) -> str:
        if self.change is None:
            return "as is"
        return (
            f"{self.change} {self.level:g}" if self.kind == "grid" else f"{self.kind} {self.change}"
        )

    def apply(self, pixels: Pixels, rng: np.random.Generator) -> Changed:
        """The changed picture; what is random comes from `rng` alone."""
        return self.apply_to(pixels, None, rng)[0]

    def apply_to(
        self, pixels: Pixels, mask: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[Changed, np.ndarray | None]:
        """The changed picture, and its mask (H, W) of 0 and 1 where the change has moved it.

        A mask that is merely resized is left to `follow`. Benign processing that would
        cut away most of the marked region is drawn anew.

        Raises:
            DataError: every draw cuts all of it away.
        """
        if self.change is None:
            return pixels, mask
        if self.kind == "grid":
            return GRIDS[self.change].change(pixels, self.level, rng), mask
        if self.kind == "pipeline":
            if mask is not None and self.change == "resaved-cropped":
                mask = mask[3:, 5:]
            return PIPELINES[self.change](pixels), mask
        if mask is None:
            done = process(self.change, pixels, rng)
        else:
            done = _in_view(self.change, pixels, mask * np.uint8(255), rng)
        changed = done.pixels if done.data is None else done.data
        return changed, None if mask is None else done.mask // 255


AS_IS = Variant()
TRIES = 20
LEAST_LEFT = 0.5  # of the edit's share of the picture: with this much in view a draw is taken


def _in_view(name: str, pixels: Pixels, marked: np.ndarray, rng: np.random.Generator) -> Processed:
    """The first draw of a processing that leaves enough of the mask, or that which leaves most."""
    best, most = None, 0.0
    for _ in range(TRIES):
        done = process(name, pixels, rng, marked)
        left = float((done.mask > 0).mean() / (marked > 0).mean())
        if left > most:
            best, most = done, left
        if left >= LEAST_LEFT:
            break
    if best is None:
        raise DataError(f"Every draw of {name!r} cuts the edit away.")
    return best


PARTS = (*GRIDS, "pipelines", "benign")  # of `--robustness`


def variants(
    recompress: int | Sequence[int] | None, robustness: bool | Sequence[str]
) -> list[Variant]:
    """The pictures as they are, then each JPEG quality asked for, then what is in the parts.

    Args:
        robustness: some of PARTS; True: all grids (but neither pipelines nor benign processing).

    Raises:
        DataError: a quality outside 1..100, or an unknown part.
    """
    qualities = [recompress] if isinstance(recompress, int) else list(recompress or ())
    if wrong := [quality for quality in qualities if not 1 <= quality <= 100]:
        raise DataError(f"A JPEG quality is a number from 1 to 100, not {wrong[0]}.")
    chosen = [AS_IS, *(Variant("jpeg", quality) for quality in qualities)]
    parts = (tuple(GRIDS) if robustness else ()) if isinstance(robustness, bool) else robustness
    for part in parts:
        if part not in PARTS:
            raise DataError(f"Unknown part of robustness {part!r}: use some of {', '.join(PARTS)}.")
        if part == "pipelines":
            chosen += [Variant(name, kind="pipeline") for name in PIPELINES]
        elif part == "benign":
            chosen += [Variant(name, kind="benign") for name in BENIGN]
        else:
            chosen += [Variant(part, level) for level in GRIDS[part].levels]
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
