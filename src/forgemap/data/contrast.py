"""contrast.py: pairs of a real and a generated picture -> the eight views of a contrastive step."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from ..image import Image, load_image
from .generated import Labelled, Pairs
from .transforms import Pixels, Rng, some, window

VIEWS = ("plain", "augmented", "whole", "part")  # of each picture, in this order

#: What is done about the files' encodings, so that none of them tells the class.
ENCODINGS = {
    "none": "files are taken as they are",
    "match": "a lossless file first gets a JPEG quality of the training set's JPEGs",
    "again": "every file first gets one more JPEG encoding of such a quality",
}


@dataclass(frozen=True)
class ViewSettings:
    """How a picture becomes four views; nothing here knows whether it is real."""

    side: int = 224
    """Side in pixels of a view."""
    transforms: int = 2
    """Most transforms of one view."""
    fit: str = "crop"
    """How a view gets its side: "crop" (random, never resized) or "resize" (see `resize_fit`)."""
    window: int = 0
    """Pictures are first cut to at most so many pixels a side; 0: not."""
    global_area: tuple[float, float] = (0.4, 1.0)
    """Share of the area in a large crop."""
    local_area: tuple[float, float] = (0.05, 0.4)
    """Share of the area in a small crop."""
    native: bool = False
    """Whether crops keep their resolution (see `native_crop`) or are resized to the side."""
    encodings: str = "match"
    """A key of `ENCODINGS`."""
    augment: float = 0.0
    """Strength of the processing of a labelled crop, 0 to 1 (see `twins.processed`)."""
    graphics: float = 0.0
    """Share of the labelled crops over which logos, captions or boxes are drawn."""
    honest: Callable[[Pixels, Rng], Pixels] | None = None
    """What a labelled crop's picture goes through first, such as honest processing; None: nothing.
    A function of the draws and the picture's size alone, so that twins are treated alike."""
    qualities: tuple[int, ...] = ()
    """JPEG qualities to draw from (see `jpeg_qualities`); none: nothing is encoded."""


def jpeg_qualities(pictures: Sequence[Labelled], most: int = 200) -> tuple[int, ...]:
    """The JPEG qualities of some of the pictures, spread evenly over the list."""
    picks = np.linspace(0, len(pictures) - 1, min(most, len(pictures))).round().astype(int)
    found = (load_image(pictures[i].image).jpeg_quality for i in picks)
    return tuple(sorted(quality for quality in found if quality is not None))


def encoded(image: Image, settings: ViewSettings, rng: Rng) -> Pixels:
    """The picture as if it had come to us in the encoding that all have (see `ENCODINGS`)."""
    wanted = settings.encodings == "again" or (
        settings.encodings == "match" and image.format != "JPEG"
    )
    quality = int(rng.choice(settings.qualities)) if settings.qualities else None
    if not wanted or quality is None:
        return image.samples
    file = io.BytesIO()
    PILImage.fromarray(image.samples).save(file, "JPEG", quality=quality)
    return np.array(PILImage.open(file))


def four_views(pixels: Pixels, settings: ViewSettings, rng: Rng) -> list[Pixels]:
    """The `VIEWS` of one picture, each (side, side, 3) uint8."""
    if settings.window:
        pixels = window(pixels, settings.window, rng, padded=False)
    fit = FITS[settings.fit]
    side, most = settings.side, settings.transforms
    crop = native_crop if settings.native else resized_crop
    views = [pixels, some(pixels, rng, most)]
    for area in (settings.global_area, settings.local_area):
        views.append(some(crop(pixels, side, area, rng), rng, most))
    return [fit(view, side, rng) for view in views]


def resized_crop(pixels: Pixels, side: int, area: tuple[float, float], rng: Rng) -> Pixels:
    """A random part of the picture, aspect ratio 3/4 to 4/3, resized to (side, side).

    After Szegedy et al., "Going deeper with convolutions" (2015), section 6.
    """
    height, width = pixels.shape[:2]
    for _ in range(10):
        share = rng.uniform(*area) * height * width
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((share * ratio) ** 0.5), round((share / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            break
    else:  # a picture so narrow that hardly any part has such a ratio
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    part = PILImage.fromarray(pixels[top : top + h, left : left + w])
    return np.array(part.resize((side, side), PILImage.Resampling.BICUBIC))


def native_crop(pixels: Pixels, side: int, area: tuple[float, float], rng: Rng) -> Pixels:
    """A random square of the picture, mirrored at its borders until it is (side, side).

    It has a share in ``area`` of the view's area. Nothing is resampled: what resizing wipes out,
    such as the traces of a good decoder, a crop of any size still shows.
    """
    part = window(pixels, max(2, round(side * rng.uniform(*area) ** 0.5)), rng, padded=False)
    below, right = (side - size for size in part.shape[:2])
    return np.pad(part, ((0, below), (0, right), (0, 0)), "reflect")


def resize_fit(pixels: Pixels, side: int, rng: Rng) -> Pixels:
    """The shorter side resized to side / 0.9 (bicubic), then the middle: the published script's."""
    height, width = pixels.shape[:2]
    factor = int(side / 0.9) / min(height, width)
    size = (max(side, round(width * factor)), max(side, round(height * factor)))
    pixels = np.array(PILImage.fromarray(pixels).resize(size, PILImage.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]


#: How a view gets its final size.
FITS: dict[str, Callable[[Pixels, int, Rng], Pixels]] = {"crop": window, "resize": resize_fit}


class PairViews(NamedTuple):
    """What a pair of pictures contributes to a step."""

    real: Tensor
    """(4, 3, side, side) uint8, in the order of `VIEWS`."""
    fake: Tensor
    """The same of the generated picture."""


class ViewDataset(Dataset[PairViews]):
    """Sample n is the views of pair n: a function of the seed and n alone."""

    def __init__(self, pairs: Pairs, settings: ViewSettings, seed: int) -> None:
        self.pairs, self.settings, self.seed = pairs, settings, seed

    def __getitem__(self, n: int) -> PairViews:
        cv2.setNumThreads(1)  # the readers are many already
        pair = self.pairs[n]
        return PairViews(self.views(pair.real, n, 0), self.views(pair.fake, n, 1))

    def views(self, picture: Labelled, n: int, stream: int) -> Tensor:
        """The four views; ``stream`` keeps the chances of a pair's two pictures apart."""
        rng = np.random.default_rng([self.seed, n, stream])
        pixels = encoded(load_image(picture.image), self.settings, rng)
        if min(pixels.shape[:2]) < 8:
            raise DataError(f"{picture.key}: a picture of under 8 pixels cannot be learned from.")
        views = four_views(pixels, self.settings, rng)
        return torch.from_numpy(np.stack(views).transpose(0, 3, 1, 2).copy())
