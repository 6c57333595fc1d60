"""twins.py: a picture and its generated twin -> one crop of each, processed alike."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..image import load_image
from .augment import augment
from .contrast import PairViews, ViewSettings, encoded
from .generated import Labelled, Pairs
from .transforms import Pixels, Rng

SAME = 0.7
"""Share of the pairs of which both pictures get the same draws: with twins, the same crop."""


def processed(pixels: Pixels, settings: ViewSettings, rng: Rng) -> Pixels:
    """A crop (side, side, 3) uint8, processed as the localizer's training crops are: resampling,
    light, graphics, re-encoding (see `augment.augment`), after `settings.honest`."""
    if settings.honest:
        pixels = settings.honest(pixels, rng)
    nothing = np.zeros(pixels.shape[:2], np.uint8)
    return augment(
        pixels, nothing, rng, settings.side, settings.augment, graphics=settings.graphics
    )[0]


class ProcessedDataset(Dataset[PairViews]):
    """Sample n is one processed crop of each picture of pair n: a function of the seed and n alone.

    Where the pair shows the same photograph as it is and as a generator gives it back, nothing but
    the generator tells the two apart. Three pairs in ten get draws of their own, so that both
    classes are seen side by side after unequal processing too.
    """

    def __init__(self, pairs: Pairs, settings: ViewSettings, seed: int) -> None:
        self.pairs, self.settings, self.seed = pairs, settings, seed

    def __getitem__(self, n: int) -> PairViews:
        cv2.setNumThreads(1)  # the readers are many already
        pair = self.pairs[n]
        alike = np.random.default_rng([self.seed, n]).random() < SAME
        return PairViews(self.view(pair.real, n, 0), self.view(pair.fake, n, 0 if alike else 1))

    def view(self, picture: Labelled, n: int, stream: int) -> Tensor:
        """(1, 3, side, side) uint8; pictures of one size and ``stream`` get the same draws."""
        rng = np.random.default_rng([self.seed, n, stream])
        pixels = processed(
            encoded(load_image(picture.image), self.settings, rng), self.settings, rng
        )
        return torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
