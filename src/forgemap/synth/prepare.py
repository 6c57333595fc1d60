"""prepare.py: a photo's life before and after an edit, the same for edited and untouched."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

from forgemap.encode import (
    SUBSAMPLING,
    decode,
    drawn_tables,
    encode_jpeg,
    encode_jpeg_by,
    encode_png,
    encode_webp,
)
from forgemap.synth.edit import Edit

RESIZERS = {
    "area": Pillow.Resampling.BOX,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}
Parameters = dict[str, Any]


def prepare(
    pixels: np.ndarray, rng: np.random.Generator, *, crop: int | None = None, vary: bool = False
) -> tuple[np.ndarray, Parameters]:
    """A photo made ready for an edit: cropped, processed and compressed as asked.

    Args:
        pixels: (H, W, 3) uint8.
        crop: at most this many pixels a side, from a random place. Half of the crops of a photo
            that is much larger show it reduced, as the web does; the others are native pixels.
        vary: also light global processing (tone, saturation, sharpening, denoising) and an earlier
            life as JPEG or WebP, each with some probability.

    Returns:
        Pixels, and what was drawn.
    """
    parameters: Parameters = {}
    if crop is not None:
        pixels, parameters = _crop(pixels, rng, crop)
    if vary:
        pixels, processing = _process(pixels, rng)
        pixels, earlier = _compress(pixels, rng)
        parameters.update(processing, **earlier)
    return np.ascontiguousarray(pixels), parameters


def finish(
    edit: Edit, rng: np.random.Generator, *, vary: bool = False
) -> tuple[bytes, str, np.ndarray, Parameters]:
    """The edited picture as a file.

    Args:
        edit: pixels and mask; what is drawn does not depend on them.
        vary: sometimes resized, and encoded as PNG, JPEG or WebP; otherwise PNG at full size.

    Returns:
        The file's bytes, its suffix, the mask of the final size (uint8, 0/255), what was drawn.
    """
    pixels, mask = edit.pixels, edit.mask
    parameters: Parameters = {}
    if not vary:
        return encode_png(pixels), ".png", mask, parameters
    if rng.random() < 0.15:
        factor = float(rng.uniform(0.6, 1.0))
        kernel = str(rng.choice(list(RESIZERS)))
        size = tuple(max(1, round(side * factor)) for side in pixels.shape[1::-1])
        pixels = _resize(pixels, size, kernel)
        mask = np.asarray(
            np.where(cv2.resize(mask, size, interpolation=cv2.INTER_AREA) >= 128, 255, 0), np.uint8
        )
        parameters["final_resize"] = [round(factor, 4), kernel]
    choice = rng.random()
    if choice < 0.3:
        return encode_png(pixels), ".png", mask, parameters
    if choice < 0.85:
        data, parameters["final_jpeg"] = _jpeg(pixels, rng)
        return data, ".jpg", mask, parameters
    quality = int(rng.integers(60, 101))
    parameters["final_webp"] = quality
    return encode_webp(pixels, quality), ".webp", mask, parameters


def _resize(pixels: np.ndarray, size: tuple[int, ...], kernel: str) -> np.ndarray:
    """Resized to (width, height) with antialiasing, as photo editors and web sites do."""
    return np.asarray(Pillow.fromarray(pixels).resize((size[0], size[1]), RESIZERS[kernel]))


def _crop(pixels: np.ndarray, rng: np.random.Generator, side: int) -> tuple[np.ndarray, Parameters]:
    height, width = pixels.shape[:2]
    parameters: Parameters = {}
    factor, kernel = 1.0, ""
    if max(height, width) > 1.5 * side and min(height, width) > side and rng.random() < 0.5:
        least = side / min(height, width)
        factor = math.exp(rng.uniform(math.log(least), 0))
        kernel = str(rng.choice(list(RESIZERS)))
        parameters["downscale"] = [round(factor, 4), kernel]
    # Only the part of the photo that the crop shows is resized.
    taken = [min(n, round(side / factor)) for n in (height, width)]
    start = [int(rng.integers(0, n - t + 1)) for n, t in zip((height, width), taken, strict=True)]
    if rng.random() < 0.5:
        # The photo's own JPEG grid stays where a whole photo has it: at the corner.
        start = [s - s % 16 for s in start]
    top, left = start
    pixels = pixels[top : top + taken[0], left : left + taken[1]]
    parameters["crop"] = [left, top, left + taken[1], top + taken[0]]
    if factor < 1:
        size = tuple(max(1, min(side, round(t * factor))) for t in reversed(taken))
        pixels = _resize(np.ascontiguousarray(pixels), size, kernel)
    return pixels, parameters


def _process(pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Parameters]:
    """Light changes to the whole picture, each drawn on its own."""
    parameters: Parameters = {}
    if rng.random() < 0.15:
        strength = int(rng.integers(3, 16))
        pixels = cv2.bilateralFilter(pixels, 5, strength, 3)
        parameters["denoise"] = strength
    if rng.random() < 0.25:
        gamma, contrast = float(rng.uniform(0.8, 1.25)), float(rng.uniform(0.85, 1.15))
        levels = (np.arange(256) / 255) ** gamma
        levels = ((levels - 0.5) * contrast + 0.5).clip(0, 1)
        pixels = cv2.LUT(pixels, np.rint(levels * 255).astype(np.uint8))
        parameters["tone"] = [round(gamma, 3), round(contrast, 3)]
    if rng.random() < 0.2:
        factor = float(rng.uniform(0.6, 1.4))
        grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        pixels = cv2.addWeighted(pixels, factor, grey, 1 - factor, 0)
        parameters["saturation"] = round(factor, 3)
    if rng.random() < 0.25:
        amount, sigma = float(rng.uniform(0.2, 1.0)), float(rng.uniform(0.6, 1.5))
        soft = cv2.GaussianBlur(pixels, (0, 0), sigma)
        pixels = cv2.addWeighted(pixels, 1 + amount, soft, -amount, 0)
        parameters["sharpen"] = [round(amount, 3), round(sigma, 3)]
    return pixels, parameters


def _compress(pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Parameters]:
    """An earlier life: none, JPEG, JPEG twice with the grid shifted in between, or WebP."""
    life = str(rng.choice(["none", "jpeg", "jpeg twice", "webp"], p=[0.35, 0.4, 0.15, 0.1]))
    if life == "none":
        return pixels, {}
    if life == "webp":
        quality = int(rng.integers(60, 101))
        return decode(encode_webp(pixels, quality)), {"earlier_webp": quality}
    drawn: list[list[Any]] = []
    shift = [0, 0]
    for turn in range(2 if life == "jpeg twice" else 1):
        if turn:
            shift = [int(v) for v in rng.integers(0, 8, 2)]
            pixels = pixels[shift[1] :, shift[0] :]
        data, way = _jpeg(pixels, rng)
        pixels = decode(data)
        drawn.append(way)
    return pixels, {"earlier_jpeg": drawn, **({"grid_shift": shift} if len(drawn) > 1 else {})}


def _jpeg(pixels: np.ndarray, rng: np.random.Generator) -> tuple[bytes, list[Any]]:
    """JPEG of quality 60-100, or, three times in ten, with tables of another encoder's."""
    sampling = str(rng.choice(list(SUBSAMPLING)))
    if rng.random() < 0.3:
        tables = drawn_tables(rng)
        return encode_jpeg_by(pixels, tables, sampling), ["tables", tables[0][0], sampling]
    quality = int(rng.integers(60, 101))
    return encode_jpeg(pixels, quality, sampling), [quality, sampling]
