"""encode.py: pictures to PNG, JPEG and WebP and back, in memory."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image as Pillow

SUBSAMPLING = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
}


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG of an (H, W, 3) RGB or (H, W) picture; light compression, it is written in bulk."""
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return _encode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 2])


def encode_jpeg(pixels: np.ndarray, quality: int, sampling: str = "4:2:0") -> bytes:
    """Baseline JPEG at `quality` 1 to 100 with the chroma `sampling` of SUBSAMPLING."""
    return _encode(
        ".jpg",
        pixels[..., ::-1],
        [
            cv2.IMWRITE_JPEG_QUALITY,
            quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            SUBSAMPLING[sampling],
        ],
    )


Tables = list[list[int]]
"""Quantization steps of luminance and chroma, 64 each, row by row."""


def drawn_tables(rng: np.random.Generator) -> Tables:
    """Quantization tables as a camera or an editor may have them: no scaled version of the
    standard's, which OpenCV and most libraries write.

    Steps grow with the frequency by a random power; they are as coarse as those of libjpeg's
    qualities from about 60 to 99.
    """
    order = np.add.outer(np.arange(8), np.arange(8)) / 14
    first = float(np.exp(rng.uniform(0, np.log(12))))
    last = first * float(np.exp(rng.uniform(np.log(1.5), np.log(8))))
    steps = first + (last - first) * order ** float(rng.uniform(0.6, 2.0))
    steps = steps * np.exp(rng.normal(0, 0.08, (8, 8)))
    chroma = steps * float(rng.uniform(1.0, 2.2))
    return [np.rint(t).clip(1, 255).astype(int).ravel().tolist() for t in (steps, chroma)]


def encode_jpeg_by(pixels: np.ndarray, tables: Tables, sampling: str = "4:2:0") -> bytes:
    """Baseline JPEG with quantization `tables` of one's own."""
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "JPEG", qtables=tables, subsampling=sampling)
    return buffer.getvalue()


def encode_webp(pixels: np.ndarray, quality: int) -> bytes:
    """Lossy WebP at `quality` 1 to 100."""
    return _encode(".webp", pixels[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])


def _encode(suffix: str, bgr: np.ndarray, options: list[int]) -> bytes:
    return cv2.imencode(suffix, np.ascontiguousarray(bgr), options)[1].tobytes()


def decode(data: bytes) -> np.ndarray:
    """What one of these encoders wrote, (H, W, 3) uint8 RGB."""
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    return np.ascontiguousarray(bgr[..., ::-1])


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """The (H, W, 3) picture after JPEG compression at `quality` 1 to 100."""
    return decode(encode_jpeg(pixels, quality))
