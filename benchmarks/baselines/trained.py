"""trained.py: a localizer of a fixed input size as one more baseline, through windows.

Such networks, the paper's Xception among them, read a whole picture shrunk to their input. Trained
on crops at native resolution they are looked through windows of that size here, so that they see
the traces that they learned from.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from forgemap.errors import ModelError
from forgemap.windows import Windows


class TrainedMap:
    """A model folder as a function of pixels (H, W, 3) uint8 -> (H, W) float32 in [0, 1].

    The map is the mean of the windows' logits, as a probability; windows overlap by a quarter.

    Raises:
        ModelError: no such model, or one that looks at native resolution by itself.
    """

    def __init__(self, folder: str | Path) -> None:
        from forgemap.detector import Detector  # torch

        self.model = Detector.load(folder, detector=None).model
        size = self.model.preprocess.size
        if self.model.native or size is None:
            raise ModelError(f"{folder} looks at native resolution: compare it by --model.")
        self.size, self.windows = size, Windows(scales=(1,), overlap=0.25)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The picture's map; a picture smaller than a window is mirrored to its size."""
        from forgemap.tiling import localize

        height, width = pixels.shape[:2]
        more = (max(0, self.size - height), max(0, self.size - width))
        if any(more):
            pixels = cv2.copyMakeBorder(pixels, 0, more[0], 0, more[1], cv2.BORDER_REFLECT)
        total = np.zeros(pixels.shape[:2], np.float32)
        times = np.zeros(pixels.shape[:2], np.float32)
        for top in self.windows.starts(pixels.shape[0], self.size):
            for left in self.windows.starts(pixels.shape[1], self.size):
                area = np.s_[top : top + self.size, left : left + self.size]
                total[area] += localize(self.model, np.ascontiguousarray(pixels[area])).mask
                times[area] += 1
        logits = np.clip(total / times, -30, 30)
        return (1 / (1 + np.exp(-logits)))[:height, :width].astype(np.float32)
