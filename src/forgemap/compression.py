"""compression.py: what the pixels alone tell of the compression that they went through last.

A screenshot of a JPEG, or a PNG made of one, has no quantisation tables; but its 8x8 blocks still
have DCT coefficients that are multiples of the steps of the table (Fan and de Queiroz,
"Identification of bitmap compression history: JPEG detection and quantizer estimation", IEEE TIP
2003), and its brightness jumps a little from block to block.

Shrinking leaves no such trace: a picture at a quarter of its size looks like one of a smaller
camera, so nothing here claims to recognise it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .jpeg import LUMINANCE

PATCH, PATCHES = 128, 4
"""What is looked at: at most PATCHES x PATCHES squares of PATCH pixels, spread evenly."""
BLOCK = 8
LARGEST = 240
"""Coefficients beyond are left out; steps up to 121 (the largest of quality 50) stay in sight."""
FINE = 4
"""Bins per grey level in the histogram of a coefficient."""
STEPS = np.arange(2, 122)
"""Steps that are tried: rounding to whole grey levels hides a step of 1."""
ORDERS = [(v, u) for v in range(BLOCK) for u in range(BLOCK) if 1 <= v + u <= 5]
"""(vertical, horizontal) frequency of the coefficients that are looked at: those that survive."""
FEWEST = 24
"""Coefficients besides zero that a frequency needs to have a say."""
CLEAR = 0.6
"""Least mean of cos(2 pi c / step) that makes coefficients multiples of a step; 1 = exactly."""


class Grid(NamedTuple):
    """Where the blocks of an earlier compression begin, and how much they show."""

    top: int
    left: int
    strength: float
    """How many times larger the jumps at the blocks' borders are than elsewhere; 1 = none."""


def patches(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (n, s, s, 3), squares that stand for the whole picture.

    Always the same of the same picture, and all on one 8x8 grid. s: PATCH, or the shorter side.
    """
    height, width = pixels.shape[:2]
    side = min(PATCH, height, width)

    def starts(length: int) -> list[int]:
        count = min(PATCHES, -(-length // side))
        return sorted({int(p) // BLOCK * BLOCK for p in np.linspace(0, length - side, count)})

    return np.stack(
        [
            pixels[top : top + side, left : left + side]
            for top in starts(height)
            for left in starts(width)
        ]
    )


def luma(patches: np.ndarray) -> np.ndarray:
    """(n, s, s, 3) uint8 -> (n, s, s) float32, the brightness by JPEG's formula, not rounded."""
    return patches @ np.array([0.299, 0.587, 0.114], np.float32)


def grid(luma: np.ndarray) -> Grid:
    """The 8x8 grid along which brightness jumps most; `luma` is (n, s, s), s at least 16."""
    (top, down), (left, across) = _jumps(luma.swapaxes(1, 2)), _jumps(luma)
    return Grid(top, left, float(np.sqrt(down * across)))


def _jumps(luma: np.ndarray) -> tuple[int, float]:
    """Column at which blocks begin, 0 ... 7, and by what factor jumps there exceed the others."""
    # The third difference: it is blind to slopes and curves that go on across the border.
    a, b, c, d = luma[..., :-3], luma[..., 1:-2], luma[..., 2:-1], luma[..., 3:]
    jump = np.minimum(np.abs(3 * (c - b) + a - d), 32).mean((0, 1))  # edges count no more than that
    columns = np.arange(2, 2 + len(jump)) % BLOCK
    mean = np.array([jump[columns == k].mean() for k in range(BLOCK)]) + 0.05
    return int(mean.argmax()), float(mean.max() / np.median(mean))


def palette(pixels: np.ndarray) -> int | None:
    """How many different colours a picture (H, W, 3) uint8 has, if a palette made them few.

    At most 256, as a GIF or a PNG with a palette holds. None where there are more, and for grey
    pictures, which never have more.
    """
    if len(_colours(pixels[::16, ::16])) > 256:
        return None
    found = _colours(pixels)
    grey = ((found >> 16) == (found & 255)) & ((found >> 16) == (found >> 8 & 255))
    return None if len(found) > 256 or grey.all() else len(found)


def _colours(pixels: np.ndarray) -> np.ndarray:
    """The different colours, as 0xRRGGBB, in ascending order."""
    seen = np.zeros(1 << 24, bool)
    for row in pixels:
        red, green, blue = row.astype(np.int32).T
        seen[red << 16 | green << 8 | blue] = True
    return np.flatnonzero(seen)


def lowest_quality(of_file: int | None, pixels: np.ndarray) -> int | None:
    """Of the strongest JPEG compression that the file's tables or the pixels (H, W, 3) themselves
    show: a PNG of a JPEG has lost as much."""
    shown = (of_file, pixel_quality(pixels))
    return min((quality for quality in shown if quality is not None), default=None)


def pixel_quality(pixels: np.ndarray) -> int | None:
    """1..100: the quality of the JPEG compression that the pixels (H, W, 3) uint8 show.

    None where they show none: never compressed, at a quality above about 88, or changed in size,
    turned or blurred since. Of two compressions on the same grid the stronger one shows.
    """
    if min(pixels.shape[:2]) < 4 * BLOCK:
        return None
    parts = patches(pixels)
    grey = luma(parts)
    where = grid(grey)
    # Where colours were cut off at black or white the coefficients are no longer whole steps.
    cut = ((parts == 0) | (parts == 255)).any(-1)
    ratios = _steps(grey, cut, where.top, where.left)
    if ratios is None:
        return None
    # What has steps on any grid is drawn, not compressed.
    off = _steps(grey, cut, (where.top + 4) % BLOCK, (where.left + 4) % BLOCK)
    if off is not None:
        return None
    scale = 100 * float(np.median(ratios))
    quality = 5000 / scale if scale > 100 else (200 - scale) / 2
    return int(np.clip(round(quality), 1, 100))


def _steps(grey: np.ndarray, cut: np.ndarray, top: int, left: int) -> np.ndarray | None:
    """Steps of the coefficients on a grid, in units of the standard's table; None: no steps."""
    blocks = _blocks(grey, top, left)
    blocks = blocks[~_blocks(cut, top, left).any((1, 2))]
    if not len(blocks):
        return None
    basis = _basis()
    coefficients = np.abs(basis @ blocks @ basis.T)
    wave, counted = _waves()
    found, asked = [], 0
    for v, u in ORDERS:
        values = coefficients[:, v, u]
        values = values[values < LARGEST]
        bins = np.bincount((values * FINE + 0.5).astype(int), minlength=LARGEST * FINE + 1)
        if bins[FINE:].sum() < FEWEST:
            continue
        asked += 1
        weight = bins @ counted
        likeness = np.where(weight >= FEWEST / 2, bins @ wave / np.maximum(weight, 1), 0)
        best = likeness.max()
        if best < CLEAR:
            continue
        # Multiples of 12 are multiples of 6 too: the largest step that fits is the one.
        inner = np.pad(likeness, 1)
        peak = (likeness >= inner[:-2]) & (likeness >= inner[2:]) & (likeness >= 0.85 * best)
        found.append(STEPS[np.flatnonzero(peak)[-1]] / LUMINANCE[BLOCK * v + u])
    return np.array(found) if asked >= 3 and len(found) > asked / 2 else None


def _blocks(values: np.ndarray, top: int, left: int) -> np.ndarray:
    """(n, s, s) -> (N, 8, 8), whole blocks of a grid that begins at (top, left)."""
    values = values[:, top:, left:]
    rows, columns = (n // BLOCK for n in values.shape[1:])
    values = values[:, : rows * BLOCK, : columns * BLOCK]
    return values.reshape(-1, rows, BLOCK, columns, BLOCK).swapaxes(2, 3).reshape(-1, BLOCK, BLOCK)


@lru_cache(maxsize=1)
def _basis() -> np.ndarray:
    """The orthonormal 8-point DCT, (8, 8) float32: row k is the k-th cosine."""
    k, n = np.mgrid[:BLOCK, :BLOCK]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


@lru_cache(maxsize=1)
def _waves() -> tuple[np.ndarray, np.ndarray]:
    """(bins, len(STEPS)) cos(2 pi c / step) of each bin's coefficient, and which bins count.

    What lies below 0.4 steps was rounded to zero, and fits every step.
    """
    values = np.arange(LARGEST * FINE + 1)[:, None] / FINE
    counted = values > 0.4 * STEPS
    return np.where(counted, np.cos(2 * np.pi * values / STEPS), 0.0), counted.astype(float)
