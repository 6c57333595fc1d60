"""trained.py: a localizer of a fixed input size as one more baseline, through windows.

Such networks, the paper's Xception among them, read a whole picture shrunk to their input. Trained
on crops at native resolution they are looked through windows of that size here, so that they see
the traces that they learned from.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from forgemap.errors import ModelError
from forgemap.windows import Windows, one_scale


class TrainedMap:
    """A model folder as a function of pixels (H, W, 3) uint8 -> (H, W) float32 in [0, 1].

    The map is the windows' logits, blended as `forgemap.windows` does, as a probability.

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
        logits = one_scale(self.model, pixels, self.windows, self.size).mask
        return (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float32)
