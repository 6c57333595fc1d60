"""foreign_origins.py: the photographs of `benchmarks.foreign`, as they are or never a JPEG.

The latter not by `forgemap.synth`, which a model was trained with: another order of the steps,
other noise, and a demosaicing (by variable numbers of gradients) that synth does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from skimage.data import __path__ as skimage_data
from sklearn.datasets import __path__ as sklearn_datasets

from forgemap.data.records import split_of
from forgemap.errors import DataError
from forgemap.image import find_images, load_image

Pixels = np.ndarray
"""(H, W, 3) uint8."""

INSTALLED = {
    skimage_data[0]: (
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "motorcycle_left.png",
        "rocket.jpg",
    ),
    f"{sklearn_datasets[0]}/images": ("china.jpg", "flower.jpg"),
}
"""Photographs that come with libraries."""
LARGEST = 1024
"""Longest side in pixels; of larger photographs a part at native resolution is taken."""
LEAST = 2.5
"""Photographs are reduced by at least this factor, so that nothing of their own JPEG is left."""
SHORTEST = 260
"""Shorter side, in pixels, that must remain."""


def reduced(photo: Pixels, rng: np.random.Generator) -> Pixels:
    """The whole photograph at 700 to 1100 pixels, by areas; a panorama less, for its shorter side.

    Args:
        photo: at least LEAST * SHORTEST pixels a side.
    """
    height, width = photo.shape[:2]
    factor = max(height, width) / rng.uniform(700, 1100)
    factor = max(LEAST, min(factor, min(height, width) / SHORTEST))
    size = (round(width / factor), round(height / factor))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA))


def camera(photo: Pixels, rng: np.random.Generator) -> Pixels:
    """`reduced`, then through the mosaic of a sensor: noise, demosaicing, sharpening."""
    small = reduced(photo, rng)
    height, width = (n - n % 2 for n in small.shape[:2])
    levels = small[:height, :width].astype(float)
    light = (levels / 255) ** 2.2
    noisy = light + rng.normal(size=light.shape) * np.sqrt(light / rng.uniform(200, 3000) + 1e-6)
    seen = np.rint(255 * noisy.clip(0, 1) ** (1 / 2.2)).astype(np.uint8)
    mosaic = seen[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = seen[::2, ::2, 0], seen[1::2, 1::2, 2]
    colours = cv2.cvtColor(mosaic, cv2.COLOR_BayerRGGB2RGB_VNG)
    amount = rng.uniform(0, 0.6)
    soft = cv2.GaussianBlur(colours, (0, 0), 1)
    return np.asarray(cv2.addWeighted(colours, 1 + amount, soft, -amount, 0))


ORIGINS = {"camera": camera, "reduced": reduced}
"""How `--origin` names them."""


def photographs(paths: Sequence[str], split: str, origin: str = "") -> list[Path]:
    """The installed ones, and those of `paths` that fall into the split; large enough for `origin`.

    Raises:
        DataError: one cannot be read, or none is left.
    """
    installed = [Path(folder) / name for folder, names in INSTALLED.items() for name in names]
    found, problems = find_images(paths)
    if problems:
        raise DataError(f"{problems[0][1]}.")
    photos = [p for p in installed if p.is_file()] + [
        path for path in found if split_of(load_image(path).sha256) == split
    ]
    if origin:
        least = LEAST * SHORTEST
        photos = [path for path in photos if min(load_image(path).pixels.shape[:2]) >= least]
        if not photos:
            raise DataError(
                f"No photograph of the split {split!r} has {least:.0f} pixels a side, which "
                f"--origin {origin} needs: name larger ones."
            )
    return photos


def shown(path: Path, origin: str, rng: np.random.Generator) -> Pixels:
    """A part of the photograph, at most LARGEST a side; or the whole of it, of another origin."""
    photo = load_image(path).pixels
    if origin:
        return ORIGINS[origin](photo, rng)
    top, left = (int(rng.integers(0, max(0, n - LARGEST) + 1)) for n in photo.shape[:2])
    return np.ascontiguousarray(photo[top : top + LARGEST, left : left + LARGEST])
