"""encode.py: pictures to PNG, JPEG and WebP and back, in memory."""

from __future__ import annotations

import cv2
import numpy as np

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
