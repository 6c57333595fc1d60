"""photographs.py: synthetic photographs with a camera's grain, for tests that need many of them."""

from __future__ import annotations

import cv2
import numpy as np


def photograph(seed: int, height: int = 256, width: int = 320) -> np.ndarray:
    """(H, W, 3) uint8: structure at all scales (amplitude 1 / frequency, as in nature), grain, and
    half of the time a JPEG's traces; what varies between cameras varies with the seed."""
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    size = np.hypot(fy, fx)
    size[0, 0] = 1
    slope, planes = random.uniform(1.1, 1.5), []
    base = random.standard_normal((height, width))
    for _ in range(3):
        noise = base + 0.4 * random.standard_normal((height, width))
        plane = np.fft.ifft2(np.fft.fft2(noise) / size**slope).real
        planes.append((plane - plane.mean()) / plane.std())
    picture = random.uniform(90, 150) + random.uniform(25, 45) * np.dstack(planes)
    picture += random.uniform(1, 6) * random.standard_normal(picture.shape)
    pixels = picture.clip(0, 255).astype(np.uint8)
    return jpeg(pixels, int(random.integers(80, 98))) if random.random() < 0.5 else pixels


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """The pixels after JPEG compression."""
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
