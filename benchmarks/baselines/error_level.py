"""error_level.py: error-level analysis: what changes most when the picture is saved once more."""

from __future__ import annotations

import cv2
import numpy as np

from forgemap.encode import jpeg

QUALITY = 90
WINDOW = 17  # pixels over which the error is averaged, about two JPEG blocks


def error_level(pixels: np.ndarray, quality: int = QUALITY) -> np.ndarray:
    """(H, W) float32: e / (e + mean e), e the local error of saving the picture as JPEG.

    N. Krawetz, "A Picture's Worth... Digital Image Analysis and Forensics", Black Hat Briefings,
    2007: regions that were compressed less often than the rest change more. The published use is by
    eye; the division by the picture's mean makes pictures comparable.
    """
    difference = np.abs(pixels.astype(np.float32) - jpeg(pixels, quality)).max(axis=2)
    local = cv2.blur(difference, (WINDOW, WINDOW))
    return np.asarray(local / (local + local.mean() + 1e-6), np.float32)
