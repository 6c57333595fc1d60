"""noise.py: where the noise is stronger or weaker than in the rest of the picture."""

from __future__ import annotations

import cv2
import numpy as np

BLOCK = 16  # pixels a side, 8 x 8 wavelet coefficients
FLOOR = 0.15  # grey levels: less noise than this is none


def noise_variance(pixels: np.ndarray) -> np.ndarray:
    """(H, W) float32: tanh of how far a block's noise is from the picture's, in octaves.

    B. Mahdian, S. Saic, "Using noise inconsistencies for blind image forensics", Image and Vision
    Computing 27(10), 2009: the noise of each block is the median absolute deviation of the finest
    diagonal wavelet band / 0.6745 (D. L. Donoho, I. M. Johnstone, Biometrika 81(3), 1994). Haar's
    wavelet here; the paper then merges blocks into regions, where this keeps the deviation itself.
    Texture counts as noise: a limit that the paper names.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    height, width = (side // BLOCK * BLOCK for side in grey.shape)
    if not height or not width:
        return np.zeros(grey.shape, np.float32)
    a, b = grey[0:height:2, 0:width:2], grey[0:height:2, 1:width:2]
    c, d = grey[1:height:2, 0:width:2], grey[1:height:2, 1:width:2]
    diagonal = np.abs(a - b - c + d) / 2
    half = BLOCK // 2
    blocks = diagonal.reshape(height // BLOCK, half, width // BLOCK, half).transpose(0, 2, 1, 3)
    sigma = np.median(blocks.reshape(*blocks.shape[:2], -1), axis=2) / 0.6745
    octaves = np.log2(np.maximum(sigma, FLOOR))
    strange = np.tanh(np.abs(octaves - np.median(octaves)) / 2).astype(np.float32)
    grown = cv2.resize(strange, (width, height), interpolation=cv2.INTER_LINEAR)
    bottom, right = grey.shape[0] - height, grey.shape[1] - width
    return cv2.copyMakeBorder(grown, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
