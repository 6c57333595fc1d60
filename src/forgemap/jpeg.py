"""jpeg.py: what the quantisation tables of a JPEG tell: the quality at which it was saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image as PILImage

# The luminance table of the JPEG standard (ITU-T T.81, table K.1), which the IJG library scales.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()


def jpeg_quality(tables: Mapping[int, Sequence[int]] | None) -> int | None:
    """1..100: the quality at which the IJG library writes the table nearest to this picture's.

    ``tables``: number -> 64 steps, row by row, as in Pillow's ``im.quantization``; the first is the
    luminance table. None where there is none, or where none of the hundred comes within 30 % of it
    on average: cameras and editors with tables of their own have no such number.
    """
    if not tables:
        return None
    table = np.array(tables[min(tables)])
    if table.shape != (64,) or not table.any():
        return None
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    candidates = np.clip((LUMINANCE * scale + 50) // 100, 1, 255)
    misfit = np.abs(candidates - table).sum(1) / table.sum()
    best = int(misfit.argmin())
    return best + 1 if misfit[best] <= 0.3 else None


def luminance_table(im: PILImage.Image) -> tuple[int, ...] | None:
    """The 64 luminance steps of an opened JPEG, row by row; None of other files, and of those that
    hold colours other than luma and chroma."""
    tables = getattr(im, "quantization", None)
    luma = im.mode in ("L", "RGB") and im.info.get("adobe_transform", 1) != 0
    if not tables or not luma:
        return None
    table = tuple(int(step) for step in tables[min(tables)])
    return table if len(table) == 64 and min(table) > 0 else None
