"""augment.py: random processing of a training crop, the same for real and edited pictures."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..encode import (
    SUBSAMPLING,
    decode,
    drawn_tables,
    encode_jpeg,
    encode_jpeg_by,
    encode_webp,
)
from .graphics import draw_graphics
from .textures import draw_textures

Pixels = np.ndarray
Rng = np.random.Generator

INTERPOLATIONS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


def jpeg(pixels: Pixels, rng: Rng, low: int = 50, high: int = 100) -> Pixels:
    """JPEG of random quality in [low, high] and random chroma subsampling; one time in four with
    tables of another encoder's."""
    sampling = str(rng.choice(list(SUBSAMPLING)))
    if rng.random() < 0.25:
        return decode(encode_jpeg_by(pixels, drawn_tables(rng), sampling))
    return decode(encode_jpeg(pixels, int(rng.integers(low, high + 1)), sampling))


def webp(pixels: Pixels, rng: Rng) -> Pixels:
    """WebP of random quality in [50, 100)."""
    return decode(encode_webp(pixels, int(rng.integers(50, 100))))


def blur(pixels: Pixels, rng: Rng) -> Pixels:
    """Gaussian blur, sigma 0.3-1.0 px."""
    return cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 1.0))


def sharpen(pixels: Pixels, rng: Rng) -> Pixels:
    """Unsharp mask, sigma 0.7-2 px, amount 0.2-1.2."""
    soft = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.7, 2.0))
    amount = rng.uniform(0.2, 1.2)
    return cv2.addWeighted(pixels, 1 + amount, soft, -amount, 0)


def noise(pixels: Pixels, rng: Rng) -> Pixels:
    """White Gaussian noise, sigma 1-5 grey levels."""
    grain = rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(1, 5)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def denoise(pixels: Pixels, rng: Rng) -> Pixels:
    """3x3 median or a small bilateral filter: what phones do to shadows."""
    if rng.random() < 0.5:
        return cv2.medianBlur(pixels, 3)
    return cv2.bilateralFilter(pixels, 5, rng.uniform(8, 30), 2)


def tone(pixels: Pixels, rng: Rng) -> Pixels:
    """Gamma 0.6-1.6, contrast 0.75-1.3, brightness within 20 levels, channel gains 0.9-1.1."""
    levels = np.linspace(0, 1, 256, dtype=np.float32)[:, None] ** rng.uniform(0.6, 1.6)
    levels = (levels - 0.5) * rng.uniform(0.75, 1.3) * rng.uniform(0.9, 1.1, 3) + 0.5
    table = np.clip(levels * 255 + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table[None])


def saturation(pixels: Pixels, rng: Rng) -> Pixels:
    """Saturation x 0-1.6; one time in six no colour at all."""
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    keep = 0.0 if rng.random() < 1 / 6 else rng.uniform(0.3, 1.6)
    return cv2.addWeighted(pixels, keep, grey, 1 - keep, 0)


PHOTOMETRIC: dict[str, Callable[[Pixels, Rng], Pixels]] = {
    "blur": blur,
    "sharpen": sharpen,
    "noise": noise,
    "denoise": denoise,
    "tone": tone,
    "saturation": saturation,
}


def window(pixels: Pixels, mask: np.ndarray, side: int, rng: Rng) -> tuple[Pixels, np.ndarray]:
    """A random square of ``side`` pixels, or of the picture's shorter side if that is less.

    It lies near the mask four times in five.
    """
    height, width = mask.shape
    side = min(side, height, width)
    top, left = (int(rng.integers(0, n - side + 1)) for n in (height, width))
    if mask.any() and rng.random() < 0.8:
        ys, xs = np.nonzero(mask)
        i = int(rng.integers(len(ys)))
        shift = rng.integers(-side // 3, side // 3 + 1, 2) - side // 2
        top = int(np.clip(ys[i] + shift[0], 0, height - side))
        left = int(np.clip(xs[i] + shift[1], 0, width - side))
    if rng.random() < 0.5:
        # Where the picture's own JPEG grid, if it has one, is that of the crop's re-encoding: the
        # usual case, since whole pictures are saved anew.
        top, left = top - top % 8, left - left % 8
    area = np.s_[top : top + side, left : left + side]
    return pixels[area], mask[area]


def resized(pixels: Pixels, mask: np.ndarray, size: int, rng: Rng) -> tuple[Pixels, np.ndarray]:
    """The square resampled to ``size``, in one of several ways, if it has another side."""
    side = len(mask)
    if side != size:
        how = int(rng.choice(INTERPOLATIONS[0 if side > size else 1 :]))
        pixels = cv2.resize(pixels, (size, size), interpolation=how)
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
    return pixels, mask


def augment(
    pixels: Pixels,
    mask: np.ndarray,
    rng: Rng,
    size: int,
    strength: float = 1.0,
    graphics: float = 0.0,
    textures: float = 0.0,
    compressed: float = 0.0,
) -> tuple[Pixels, np.ndarray]:
    """One training crop: window, resampling, flips, light processing, graphics, re-encoding.

    Nothing here looks at whether the picture is edited, so that no processing can stand for the
    answer. The crop is cut out of a slightly larger re-encoded window, so that the JPEG grid falls
    anywhere on it.

    Args:
        pixels: (H, W, 3) uint8.
        mask: (H, W) uint8, 0 or 255.
        rng: the only source of chance.
        size: side of the crop in pixels.
        strength: 0 = random window and flips alone; 1 = as the bundled default was trained;
            between, every kind of processing is that much rarer.
        graphics: share of the crops over which logos, captions or boxes are drawn, whatever the
            strength; see `draw_graphics`.
        textures: share of the crops in which things of a strong texture are drawn, whatever the
            strength: two in three before all is shrunk and saved as JPEG, as part of the scene, one
            in three afterwards, as an edit; see `draw_textures`.
        compressed: share of the crops that are saved as JPEG or WebP at the end, where that is more
            than the half of ``strength`` that are anyhow.

    Returns:
        pixels (size, size, 3) uint8 and mask (size, size) uint8, 0 or 1.
    """
    margin = 16
    scale = float(np.exp(rng.uniform(np.log(0.5), np.log(1.5))))
    if rng.random() >= 0.35 * strength:
        scale = 1.0
    texture = ""
    if textures > 0 and rng.random() < textures:
        texture = "pasted" if rng.random() < 1 / 3 else "scene"
    if texture == "scene":
        scale = float(rng.uniform(0.5, 0.75))
    pixels, mask = window(pixels, mask, max(8, round((size + margin) / scale)), rng)
    if texture == "scene":
        pixels, mask = draw_textures(pixels, mask, rng)
    pixels, mask = resized(pixels, mask, size + margin, rng)
    if texture == "pasted":
        pixels, mask = draw_textures(pixels, mask, rng, edit=True)

    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    pixels, mask = np.rot90(pixels, turns), np.rot90(mask, turns)
    if flip:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    pixels = np.ascontiguousarray(pixels)

    if rng.random() < 0.35 * strength:
        for name in rng.choice(list(PHOTOMETRIC), size=int(rng.integers(1, 3)), replace=False):
            pixels = PHOTOMETRIC[str(name)](pixels, rng)
    if graphics and rng.random() < graphics:
        pixels, mask = draw_graphics(pixels, mask, rng)
    draw, lossy = rng.random(), max(0.5 * strength, compressed)
    if texture == "scene" or (texture == "pasted" and rng.random() < 0.5):
        pixels = jpeg(pixels, rng, low=75)
    elif draw < 0.9 * lossy:
        pixels = jpeg(pixels, rng)
    elif draw < lossy:
        pixels = webp(pixels, rng)

    top, left = (int(n) for n in rng.integers(0, margin + 1, 2))
    area = np.s_[top : top + size, left : left + size]
    return np.ascontiguousarray(pixels[area]), (mask[area] > 127).astype(np.uint8)
