"""photos.py: photographs decoded once into crops that stay in memory, to train generators on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from ..data.augment import resized, window
from ..data.records import split_of
from ..errors import DataError, ForgemapError
from ..files import whole
from ..image import find_images, load_image

CELL = 0.15e6  # pixels; a photograph of n times as many gives sqrt(n) times as many crops
SMALLEST = 0.2  # of the scales at which crops are seen
MOST = 8  # times as many crops from one photograph as from the smallest


def photo_crops(
    photos: Sequence[str], split: str, side: int, each: int, cache: str = "", seed: int = 0
) -> np.ndarray:
    """Crops of the photographs of one split, half of them at native resolution, half reduced.

    Args:
        photos: files and folders.
        split: see `split_of`.
        side: of the crops, in pixels.
        each: crops of a small photograph; large ones give more, by the root of their area.
        cache: folder where the crops are kept for the next run; "" = nowhere.
        seed: of the places and scales; the order of the photographs does not matter.

    Returns:
        (N, side, side, 3) uint8.

    Raises:
        DataError: no readable photograph of the split that is large enough.
    """
    chosen: dict[str, Path] = {}
    for path in find_images(photos)[0]:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if split_of(digest) == split:
            chosen[digest] = path
    if not chosen:
        raise DataError(
            f"{', '.join(map(str, photos))}: no photograph of the split {split!r}; "
            "give more photographs."
        )
    key = hashlib.sha256(repr((sorted(chosen), side, each, seed)).encode()).hexdigest()[:16]
    file = Path(cache) / f"crops-{split}-{key}.npy" if cache else None
    if file is not None and file.is_file():
        return np.load(file, allow_pickle=False)
    crops = []
    for digest in track(
        sorted(chosen), f"Reading photos ({split})", console=Console(stderr=True), transient=True
    ):
        try:
            pixels = load_image(chosen[digest]).pixels
        except ForgemapError:
            continue  # find_images has seen its name only; one bad file ends no training
        crops += _crops(pixels, side, each, np.random.default_rng([seed, int(digest, 16)]))
    if not crops:
        raise DataError(
            f"{', '.join(map(str, photos))}: no photograph of the split {split!r} can be read and "
            f"has {side} pixels a side."
        )
    found = np.stack(crops)
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with whole(file) as beside, beside.open("wb") as stream:
                np.save(stream, found)
        except OSError as error:
            raise DataError(f"{file}: cannot be written ({error.strerror}).") from error
    return found


def _crops(pixels: np.ndarray, side: int, each: int, rng: np.random.Generator) -> list[np.ndarray]:
    least = side / min(pixels.shape[:2])
    if least > 1:
        return []
    nothing = np.zeros(pixels.shape[:2], np.uint8)
    count = round(each * min(MOST, max(1.0, math.sqrt(nothing.size / CELL))))
    crops = []
    for number in range(count):
        scale = math.exp(rng.uniform(math.log(max(SMALLEST, least)), 0)) if number % 2 else 1.0
        part = window(pixels, nothing, max(8, round(side / scale)), rng)
        crops.append(resized(*part, side, rng)[0])
    return crops
