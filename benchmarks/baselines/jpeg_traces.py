"""jpeg_traces.py: JPEG ghosts and the grid of JPEG's blocks, both where they differ locally."""

from __future__ import annotations

import cv2
import numpy as np

from forgemap.encode import jpeg

QUALITIES = tuple(range(50, 96, 5))
WINDOW = 17  # pixels, odd: 16 in the paper
GRID_WINDOW = 49  # pixels over which the strength of the grid is compared


def jpeg_ghost(pixels: np.ndarray) -> np.ndarray:
    """(H, W) float32: high where a lower JPEG quality than the rest's has left its minimum.

    H. Farid, "Exposing Digital Forgeries from JPEG Ghosts", IEEE TIFS 4(1), 2009: the squared
    difference to the picture saved at each quality, averaged locally and scaled to [0, 1] per pixel
    over the qualities; a ghost is a region whose value is low at a quality where others' is high.
    The paper shows all maps to a person. Here the one that splits best in two (Otsu's share of
    between-class variance) is taken, and the smaller part is the suspect: an edit that was never
    compressed shows as the reverse of a ghost. Only the grid at the picture's own corner is tried,
    of the 64 alignments.
    """
    levels = pixels.astype(np.float32)
    found = []
    for quality in QUALITIES:
        squared = ((levels - jpeg(pixels, quality)) ** 2).mean(axis=2)
        found.append(cv2.blur(squared, (WINDOW, WINDOW)))
    stack = np.stack(found)
    low, high = stack.min(axis=0), stack.max(axis=0)
    scaled = (stack - low) / np.maximum(high - low, 1e-6)
    # The last quality is the smallest difference nearly everywhere, and tells nothing.
    best = max(range(len(QUALITIES) - 1), key=lambda i: _separation(scaled[i]))
    coarse = np.rint(scaled[best] * 255).astype(np.uint8)
    cut, _ = cv2.threshold(coarse, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    ghost_is_small = (coarse > cut).mean() > 0.5
    return np.asarray(1 - scaled[best] if ghost_is_small else scaled[best], np.float32)


def _separation(values: np.ndarray) -> float:
    """Otsu's share of the variance that lies between two classes (IEEE Trans. SMC 9(1), 1979)."""
    coarse = np.rint(values * 255).astype(np.uint8)
    total = float(coarse.var())
    if total < 1:
        return 0.0
    cut, _ = cv2.threshold(coarse, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    above = coarse > cut
    share = float(above.mean())
    if not 0.005 < share < 0.995:  # a few stray pixels are no region
        return 0.0
    gap = float(coarse[above].mean()) - float(coarse[~above].mean())
    return share * (1 - share) * gap * gap / total


def block_grid(pixels: np.ndarray) -> np.ndarray:
    """(H, W) float32: high where the grid of 8 x 8 blocks that the picture has is missing.

    W. Li, Y. Yuan, N. Yu, "Passive detection of doctored JPEG image via block artifact grid
    extraction", Signal Processing 89(9), 2009: second differences of the luminance, capped so that
    edges do not count, are stronger across block borders. The picture's grid is the phase at which
    they are strongest; a region without it, or with another phase, was put there.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)[..., 0].astype(np.float32)
    contrast = _grid_contrast(grey) + _grid_contrast(np.ascontiguousarray(grey.T)).T
    spread = float(contrast.std()) + 1e-6
    return np.asarray(0.5 * (1 - np.tanh((contrast - contrast.mean()) / (2 * spread))), np.float32)


def _grid_contrast(grey: np.ndarray) -> np.ndarray:
    """(H, W): local strength of the vertical borders at the picture's phase, less other phases'."""
    second = np.abs(2 * grey - np.roll(grey, 1, axis=1) - np.roll(grey, -1, axis=1))
    second[:, [0, -1]] = 0
    second = np.minimum(second, 12)
    second -= cv2.blur(second, (9, 1))
    phase = np.arange(grey.shape[1]) % 8
    strength = [float(second[:, phase == p].mean()) for p in range(8)]
    own = phase == int(np.argmax(strength))
    weight = np.where(own, 1.0, -1.0 / 7).astype(np.float32)[None]
    return cv2.blur(second * weight, (GRID_WINDOW, GRID_WINDOW))
