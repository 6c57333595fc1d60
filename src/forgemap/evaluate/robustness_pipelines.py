"""robustness_pipelines.py: fixed ways from a camera to a screen: social media, screenshots.

What a service does with a picture is not published and changes; these are the steps that its files
show: a limit on the longer side, JPEG with coarse chroma at 70-85, no metadata (compare Moltisanti
et al., "Image manipulation on Facebook for forensics evidence", ICIAP 2015, and Sun et al., "On the
robustness of image forensics over social networks", ACM TIFS 2022). Nothing here is random.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image as PILImage

from ..image import load_image

Pixels = np.ndarray  # (H, W, 3) uint8 RGB
Changed = Pixels | bytes


def resaved(pixels: Pixels) -> Changed:
    """Saved as JPEG 90, opened, saved as JPEG 80; the grids coincide."""
    return save(shown(save(pixels, 90)), 80)


def resaved_cropped(pixels: Pixels) -> Changed:
    """Saved as JPEG 90, three rows and five columns cut off, saved as JPEG 80: the grids differ."""
    return save(shown(save(pixels, 90))[3:, 5:], 80)


def messenger_1600(pixels: Pixels) -> Changed:
    """At most 1600 pixels a side, JPEG 75."""
    return save(limit(pixels, 1600), 75)


def messenger_1280(pixels: Pixels) -> Changed:
    """At most 1280 pixels a side, JPEG 70."""
    return save(limit(pixels, 1280), 70)


def feed_1080(pixels: Pixels) -> Changed:
    """At most 1080 pixels a side, lightly sharpened, JPEG 78."""
    small = limit(pixels, 1080)
    return save(cv2.addWeighted(small, 1.3, cv2.GaussianBlur(small, (0, 0), 0.8), -0.3, 0), 78)


def forwarded(pixels: Pixels) -> Changed:
    """Sent on three times by a messenger (1600 pixels, JPEG 75)."""
    for _ in range(2):
        pixels = shown(messenger_1600(pixels))
    return messenger_1600(pixels)


def web(pixels: Pixels) -> Changed:
    """60 % of the size (Lanczos), WebP 80."""
    return save(scale(pixels, 0.6, PILImage.Resampling.LANCZOS), 80, "WEBP")


def thumbnail(pixels: Pixels) -> Changed:
    """At most 640 pixels a side and at most half the size, JPEG 85."""
    height, width = pixels.shape[:2]
    return save(scale(pixels, min(0.5, 640 / max(height, width)), PILImage.Resampling.LANCZOS), 85)


def screenshot(pixels: Pixels) -> Changed:
    """Shown at 80 % of its size (bilinear) and captured without loss."""
    return scale(pixels, 0.8, PILImage.Resampling.BILINEAR)


def screenshot_sent(pixels: Pixels) -> Changed:
    """Captured at 80 %, then sent by a messenger (1280 pixels, JPEG 70)."""
    return messenger_1280(shown(screenshot(pixels)))


PIPELINES: dict[str, Callable[[Pixels], Changed]] = {
    "resaved": resaved,
    "resaved-cropped": resaved_cropped,
    "messenger-1600": messenger_1600,
    "messenger-1280": messenger_1280,
    "feed-1080": feed_1080,
    "forwarded": forwarded,
    "web": web,
    "thumbnail": thumbnail,
    "screenshot": screenshot,
    "screenshot-sent": screenshot_sent,
}


def save(pixels: Pixels, quality: int, format: str = "JPEG") -> bytes:
    """A file; JPEG with chroma at half resolution, as most programs write it."""
    buffer = io.BytesIO()
    PILImage.fromarray(np.ascontiguousarray(pixels)).save(buffer, format, quality=quality)
    return buffer.getvalue()


def shown(changed: Changed) -> Pixels:
    """What a viewer shows of it."""
    return changed if isinstance(changed, np.ndarray) else load_image(changed).samples


def limit(pixels: Pixels, side: int) -> Pixels:
    """Reduced to at most `side` pixels of the longer side."""
    longer = max(pixels.shape[:2])
    return pixels if longer <= side else scale(pixels, side / longer, PILImage.Resampling.BICUBIC)


def scale(pixels: Pixels, factor: float, kernel: PILImage.Resampling) -> Pixels:
    """Both sides times the factor, antialiased."""
    height, width = pixels.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(PILImage.fromarray(pixels).resize(size, kernel))
