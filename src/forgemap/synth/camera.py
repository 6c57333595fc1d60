"""camera.py: a photograph taken anew: a sensor's noise and colour mosaic, developed without JPEG.

Most photographs were a JPEG once, and those that never were (developed from raw files, TIFFs of
older cameras) look strange to a network that has not seen any: their neighbouring pixels depend on
each other in the rhythm of the mosaic, and no JPEG has taken their finest grain. A camera's way is
gone through again: light, noise, mosaic, demosaicing, smoothed colours, tone, sharpening. The
photograph is reduced first, where it is large enough, which takes the traces of its own JPEG.
"""

from __future__ import annotations

import cv2
import numpy as np

from forgemap.encode import encode_png
from forgemap.synth.benign_parts import Mask, Pixels, Processed, Rng, drawn_kernel, scaled, to_uint8

GAMMA = 2.2
LEAST_REDUCED = 0.6  # of the side: half of the pixels and more, or a JPEG's blocks are still seen
DEMOSAICINGS = ("bilinear", "edge-aware", "gradient-corrected")

# Weights of Malvar, He & Cutler, "High-quality linear interpolation for demosaicing of
# Bayer-patterned color images" (ICASSP 2004), figure 2, in eighths.
_GREEN = np.array(
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
)
_IN_ROW = np.array(
    [
        [0, 0, 0.5, 0, 0],
        [0, -1, 0, -1, 0],
        [-1, 4, 5, 4, -1],
        [0, -1, 0, -1, 0],
        [0, 0, 0.5, 0, 0],
    ]
)
_DIAGONAL = np.array(
    [
        [0, 0, -1.5, 0, 0],
        [0, 2, 0, 2, 0],
        [-1.5, 0, 6, 0, -1.5],
        [0, 2, 0, 2, 0],
        [0, 0, -1.5, 0, 0],
    ]
)


def developed(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Reduced to 0.25-0.6 of its side (no shorter than 256 pixels), exposed on a sensor, developed.

    A picture of less than 427 pixels is reduced by less, and keeps more of its earlier life.
    """
    factor, kernel = float(rng.uniform(0.25, LEAST_REDUCED)), drawn_kernel(rng)
    pixels, mask, factor = scaled(pixels, mask, factor, kernel)
    way = DEMOSAICINGS[int(rng.integers(len(DEMOSAICINGS)))]
    gains = np.array([rng.uniform(1.3, 2.4), 1.0, rng.uniform(1.3, 2.4)], np.float32)
    electrons = float(np.exp(rng.uniform(np.log(300), np.log(20000))))
    read = float(rng.uniform(2, 12))
    radius = int(rng.choice([0, 0, 1, 2]))
    amount, sigma = float(rng.uniform(0, 1.2)), float(rng.uniform(0.5, 1.3))
    bend = float(rng.uniform(-0.1, 0.4))
    phase = int(rng.integers(2)), int(rng.integers(2))

    light = (pixels.astype(np.float32) / 255) ** GAMMA / gains
    light = exposed(light, electrons, read, rng)
    colours = demosaiced(mosaic(light, phase), phase, way) * gains
    if radius:
        colours = _smooth_colours(colours, 2 * radius + 1)
    shown = np.clip(colours, 0, 1) ** (1 / GAMMA)
    shown = shown + bend * (shown * shown * (3 - 2 * shown) - shown)
    soft = cv2.GaussianBlur(shown, (0, 0), sigma)
    shown = to_uint8(255 * (shown + amount * (shown - soft)))
    drawn = {
        "factor": round(factor, 4),
        "demosaicing": way,
        "electrons": round(electrons),
        "sharpen": [round(amount, 3), round(sigma, 3)],
    }
    return Processed(shown, mask, drawn, encode_png(shown), ".png")


def exposed(light: np.ndarray, electrons: float, read: float, rng: Rng) -> np.ndarray:
    """With the noise of a sensor: that of the light's own grain, and that of reading it out.

    Args:
        light: (H, W, 3) float32, 1 = a full well.
        electrons: that a full well holds.
        read: standard deviation of the readout, in electrons.
    """
    spread = np.sqrt(light / electrons + (read / electrons) ** 2)
    return light + spread * rng.standard_normal(light.shape, np.float32)


def mosaic(colours: np.ndarray, phase: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) -> (H, W): what a Bayer sensor sees, red at (row, column) `phase` of each 2 x 2."""
    row, column = phase
    seen = np.array(colours[..., 1])
    seen[row::2, column::2] = colours[row::2, column::2, 0]
    seen[1 - row :: 2, 1 - column :: 2] = colours[1 - row :: 2, 1 - column :: 2, 2]
    return seen


def demosaiced(seen: np.ndarray, phase: tuple[int, int], way: str) -> np.ndarray:
    """(H, W) float32 of a sensor -> (H, W, 3): the missing two thirds of the values.

    Args:
        phase: (row, column) of red in each 2 x 2 pixels.
        way: one of DEMOSAICINGS: OpenCV's first two, or Malvar, He & Cutler's.
    """
    if way == "gradient-corrected":
        return _malvar(seen, *phase)
    # An offset keeps what noise has brought below zero.
    raw = np.clip(np.rint((seen + 0.1) / 1.3 * 65535), 0, 65535).astype(np.uint16)
    pattern = {(0, 0): "RGGB", (0, 1): "GRBG", (1, 0): "GBRG", (1, 1): "BGGR"}[phase]
    ending = "_EA" if way == "edge-aware" else ""
    colours = cv2.cvtColor(raw, getattr(cv2, f"COLOR_Bayer{pattern}2RGB{ending}"))
    return np.asarray(colours, np.float32) / 65535 * 1.3 - 0.1


def _malvar(seen: np.ndarray, row: int, column: int) -> np.ndarray:
    def filtered(weights: np.ndarray) -> np.ndarray:
        return cv2.filter2D(
            seen, cv2.CV_32F, (weights / 8).astype(np.float32), borderType=cv2.BORDER_REFLECT_101
        )

    green, in_row, diagonal = (filtered(weights) for weights in (_GREEN, _IN_ROW, _DIAGONAL))
    in_column = filtered(_IN_ROW.T)
    colours = np.repeat(seen[..., None], 3, axis=2)
    for own, other, r, c in ((0, 2, row, column), (2, 0, 1 - row, 1 - column)):
        colours[r::2, c::2, 1] = green[r::2, c::2]
        colours[r::2, c::2, other] = diagonal[r::2, c::2]
        # A green pixel has neighbours of this colour to its sides, or above and below.
        colours[r::2, 1 - c :: 2, own] = in_row[r::2, 1 - c :: 2]
        colours[1 - r :: 2, c::2, own] = in_column[1 - r :: 2, c::2]
    return colours


def _smooth_colours(colours: np.ndarray, side: int) -> np.ndarray:
    """The colours' difference from green, by a median: what cameras do against false colours."""
    green = colours[..., 1]
    for channel in (0, 2):
        apart = np.ascontiguousarray(colours[..., channel] - green, np.float32)
        colours[..., channel] = green + cv2.medianBlur(apart, side)
    return colours
