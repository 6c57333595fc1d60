"""benign_lives.py: a picture saved anew in each format, and the ways on which pictures travel."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pillow

from forgemap.encode import SUBSAMPLING, decode, encode_jpeg, encode_png, encode_webp
from forgemap.synth.benign_parts import Mask, Pixels, Processed, Rng, drawn_kernel, scaled

# --- saved anew -----------------------------------------------------------------------------------


def jpeg(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """JPEG, quality 50-100, any chroma subsampling, by OpenCV or (progressive) by Pillow."""
    quality, sampling = int(rng.integers(50, 101)), _sampling(rng)
    if rng.random() < 0.7:
        data, progressive = encode_jpeg(pixels, quality, sampling), False
    else:
        data = _pillow(pixels, "JPEG", quality=quality, subsampling=sampling, progressive=True)
        progressive = True
    drawn = {"quality": quality, "sampling": sampling, "progressive": progressive}
    return Processed(decode(data), mask, drawn, data, ".jpg")


def webp(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Lossy WebP, quality 50-100."""
    quality = int(rng.integers(50, 101))
    data = encode_webp(pixels, quality)
    return Processed(decode(data), mask, {"quality": quality}, data, ".webp")


def avif(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """AVIF, quality 50-90, by Pillow; one thread, so that the bytes depend on nothing else."""
    quality = int(rng.integers(50, 91))
    data = _pillow(pixels, "AVIF", quality=quality, speed=8, max_threads=1)
    return Processed(_shown(data), mask, {"quality": quality}, data, ".avif")


def heic(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """HEIC, quality 50-90, as phones save it, by libheif."""
    import pillow_heif  # slow to import

    quality = int(rng.integers(50, 91))
    buffer = io.BytesIO()
    made = pillow_heif.from_pillow(Pillow.fromarray(pixels))
    made.save(buffer, quality=quality)
    data = buffer.getvalue()
    found = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
    shown = np.array(found.to_pillow().convert("RGB"))
    return Processed(shown, mask, {"quality": quality}, data, ".heic")


def gif(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """GIF: 64-256 colours, with or without dithering."""
    colours, dithered = int(rng.choice([64, 128, 256])), bool(rng.random() < 0.7)
    dither = Pillow.Dither.FLOYDSTEINBERG if dithered else Pillow.Dither.NONE
    # A palette first: quantize() dithers only towards a palette that it is given.
    picture = Pillow.fromarray(pixels)
    palette = picture.quantize(colours, Pillow.Quantize.MEDIANCUT)
    buffer = io.BytesIO()
    picture.quantize(palette=palette, dither=dither).save(buffer, "GIF")
    data = buffer.getvalue()
    return Processed(_shown(data), mask, {"colours": colours, "dither": dithered}, data, ".gif")


def lossless(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """PNG, TIFF, BMP or lossless WebP: the pixels stay, the file is new."""
    format, suffix, options = (
        ("PNG", ".png", {}),
        ("TIFF", ".tif", {"compression": "tiff_lzw"}),
        ("BMP", ".bmp", {}),
        ("WEBP", ".webp", {"lossless": True}),
    )[int(rng.integers(4))]
    data = _pillow(pixels, format, **options)
    return Processed(pixels, mask, {"format": format}, data, suffix)


# --- ways to the viewer ---------------------------------------------------------------------------


def resaved(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Saved as JPEG twice, qualities 70-98 and 60-95, the grids aligned."""
    first, second = int(rng.integers(70, 99)), int(rng.integers(60, 96))
    samplings = [_sampling(rng), _sampling(rng)]
    data = encode_jpeg(decode(encode_jpeg(pixels, first, samplings[0])), second, samplings[1])
    return Processed(decode(data), mask, {"qualities": [first, second]}, data, ".jpg")


def web(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Shrunk for a web page: 0.35-0.85 times the size, lightly sharpened, JPEG or WebP 70-90."""
    factor, kernel = float(rng.uniform(0.35, 0.85)), drawn_kernel(rng)
    amount, quality = float(rng.uniform(0, 0.5)), int(rng.integers(70, 91))
    as_webp = bool(rng.random() < 0.3)
    pixels, mask, factor = scaled(pixels, mask, factor, kernel)
    pixels = cv2.addWeighted(pixels, 1 + amount, cv2.GaussianBlur(pixels, (0, 0), 0.8), -amount, 0)
    data = encode_webp(pixels, quality) if as_webp else encode_jpeg(pixels, quality)
    drawn = {"factor": round(factor, 4), "sharpen": round(amount, 3), "quality": quality}
    return Processed(decode(data), mask, drawn, data, ".webp" if as_webp else ".jpg")


def screenshot(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Shown on a screen and captured: resampled by 0.5-1.4, a few border pixels lost, PNG."""
    factor, cut = float(rng.uniform(0.5, 1.4)), rng.integers(0, 12, 4)
    kernel = ("bilinear", "bicubic")[int(rng.integers(2))]
    pixels, mask, factor = scaled(pixels, mask, factor, kernel)
    height, width = mask.shape
    if min(height, width) >= 128:
        window = (slice(cut[0], height - cut[1]), slice(cut[2], width - cut[3]))
        pixels, mask = pixels[window], np.ascontiguousarray(mask[window])
    data = encode_png(pixels)
    return Processed(pixels, mask, {"factor": round(factor, 4)}, data, ".png")


def messenger(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Sent by a messenger: at most 1600 or 1280 pixels a side, JPEG 70-80 with coarse chroma.

    A picture that is already smaller is treated half of the time as a piece of a larger one and
    shrunk by 0.5-0.95, since crops stand for photos in training.
    """
    side, quality = (1600, 1280)[int(rng.integers(2))], int(rng.integers(70, 81))
    smaller, factor = rng.random() < 0.5, float(rng.uniform(0.5, 0.95))
    longer = max(mask.shape)
    if longer > side:
        factor = side / longer
    elif not smaller:
        factor = 1.0
    kernel = ("bilinear", "area", "lanczos")[int(rng.integers(3))]
    floor = 1 if longer > side else 256
    pixels, mask, factor = scaled(pixels, mask, factor, kernel, floor)
    data = encode_jpeg(pixels, quality, "4:2:0")
    drawn = {"factor": round(factor, 4), "quality": quality}
    return Processed(decode(data), mask, drawn, data, ".jpg")


def _sampling(rng: Rng) -> str:
    return list(SUBSAMPLING)[int(rng.integers(len(SUBSAMPLING)))]


def _pillow(pixels: Pixels, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def _shown(data: bytes) -> Pixels:
    """What a viewer shows of a file just written here."""
    return np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"))
