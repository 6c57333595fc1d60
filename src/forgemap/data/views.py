"""views.py: whole pictures as a network sees them, perturbed or not, each once per epoch."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image as PILImage
from PIL import ImageEnhance
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from ..image import Image, load_image
from ..preprocess import Preprocess
from .masks import load_mask
from .records import Record

Pixels = np.ndarray
Rng = np.random.Generator


def blur(pixels: Pixels, rng: Rng) -> Pixels:
    """Gaussian blur, sigma 0.4-2 px, window of 5 px."""
    return cv2.GaussianBlur(pixels, (5, 5), rng.uniform(0.4, 2.0))


def jitter(pixels: Pixels, rng: Rng) -> Pixels:
    """Brightness, contrast and saturation x 0.7-1.3, hue +-0.3 of a turn, in random order."""
    picture = PILImage.fromarray(pixels)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors, turn = rng.uniform(0.7, 1.3, 3), rng.uniform(-0.3, 0.3)
    for i in rng.permutation(4):
        if i < 3:
            picture = enhancers[i](picture).enhance(float(factors[i]))
        else:
            hue, *rest = picture.convert("HSV").split()
            hue = hue.point([(level + round(256 * turn)) % 256 for level in range(256)])
            picture = PILImage.merge("HSV", (hue, *rest)).convert("RGB")
    return np.array(picture)


def jpeg(pixels: Pixels, rng: Rng) -> Pixels:
    """JPEG of quality 30-100, as Pillow writes it."""
    file = io.BytesIO()
    PILImage.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(30, 101)))
    return np.array(PILImage.open(file))


#: DeCLIP's augmentations, each always applied, to the picture that was resized already: steps in
#: their order.
PERTURBATIONS: dict[str, tuple[Callable[[Pixels, Rng], Pixels], ...]] = {
    "none": (),
    "blur": (blur,),
    "jitter": (jitter,),
    "jpeg": (jpeg,),
    "all": (jitter, jpeg, blur),
}


class View(NamedTuple):
    """One whole picture, as a network sees it."""

    image: Tensor
    """(3, size, size), normalised."""
    mask: Tensor
    """(1, target, target), 0 to 1; empty where masks are not read."""
    edited: Tensor
    """Scalar: 1 if any pixel was edited, else 0."""


def perturbed(image: Image, preprocess: Preprocess, perturb: str, seed: int, number: int) -> Tensor:
    """View `number` of a picture: resized, perturbed, normalised, (3, size, size).

    What chance draws follows from ``seed``, the file's bytes and ``number``, on nothing else: not
    from the picture's place in a list, nor from what else is in it.
    """
    pixels = preprocess.resize(image.samples)
    if steps := PERTURBATIONS[perturb]:
        rng = np.random.default_rng([seed, number, int(image.sha256[:16], 16)])
        for step in steps:
            pixels = step(pixels, rng)
    return preprocess(pixels)[0]


def target_mask(record: Record, shape: tuple[int, int], side: int) -> Tensor:
    """The mask of a picture of ``shape`` (H, W), as (1, side, side) float32.

    Resized like the picture, so that pixels on a border are neither 0 nor 1 (as published).
    """
    if not record.manipulated:
        return torch.zeros(1, side, side)
    mask = PILImage.fromarray(load_mask(record, shape))
    small = mask.resize((side, side), PILImage.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small, np.float32))[None] / 255


class WholeDataset(Dataset[View]):
    """An endless, reproducible stream of epochs: sample n is a function of ``seed`` and n alone.

    Sample n belongs to epoch n // len(records); every epoch has an order of its own.

    Args:
        records: the pictures of one epoch.
        preprocess: brings every picture to the one size that the network sees.
        target: side in pixels that masks are brought to; None: masks are not read.
        perturb: a key of `PERTURBATIONS`.
        views: perturbed views of each picture, used in turn; 0: a new one in every epoch.
    """

    def __init__(
        self,
        records: Sequence[Record],
        preprocess: Preprocess,
        *,
        target: int | None,
        seed: int,
        perturb: str = "none",
        views: int = 0,
    ) -> None:
        if not records:
            raise DataError("There is no picture to train on: the train split is empty.")
        self.records, self.preprocess, self.target = list(records), preprocess, target
        self.seed, self.perturb, self.views = seed, perturb, views
        self.epoch, self.order = -1, np.zeros(0, int)

    def pick(self, n: int) -> tuple[int, int]:
        """Sample n's picture, as its index in ``records``, and the number of its view."""
        epoch, place = divmod(n, len(self.records))
        if epoch != self.epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self.epoch, self.order = epoch, rng.permutation(len(self.records))
        return int(self.order[place]), epoch % self.views if self.views else epoch

    def label(self, record: Record, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """``mask`` and ``edited`` of a record whose picture has the ``shape`` (H, W)."""
        side = self.target
        mask = torch.zeros(0) if side is None else target_mask(record, shape, side)
        return mask, torch.tensor(float(record.manipulated))

    def __getitem__(self, n: int) -> View:
        index, number = self.pick(n)
        record = self.records[index]
        image = load_image(record.image)
        pixels = perturbed(image, self.preprocess, self.perturb, self.seed, number)
        height, width = image.pixels.shape[:2]
        return View(pixels, *self.label(record, (height, width)))
