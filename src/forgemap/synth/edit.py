"""edit.py: what an edit is given and gives back, and how a changed window is blended in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from forgemap.synth.masks import random_mask

if TYPE_CHECKING:
    from forgemap.synth.autoencoder import Autoencoder

Window = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Edit:
    """An edited picture.

    Attributes:
        pixels: (H, W, 3) uint8.
        mask: (H, W) uint8, 255 where the edit changed the picture; feathered pixels count from a
            blending weight of one half.
        parameters: what was drawn at random, JSON-able.
    """

    pixels: np.ndarray
    mask: np.ndarray
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Context:
    """What an edit may draw on besides the picture.

    Attributes:
        donor: draws another photo of the same split: (name, (H, W, 3) uint8); None = there is none.
        autoencoder: for the methods that need one.
        inpainter: folder of the network that fills regions; "" = the one that ships.
        area: smallest and largest share of the picture to edit.
        feather: largest width, in pixels, of the soft edge of a pasted region.
    """

    donor: Callable[[np.random.Generator], tuple[str, np.ndarray]] | None = None
    autoencoder: Autoencoder | None = None
    inpainter: str = ""
    area: tuple[float, float] = (0.005, 0.5)
    feather: int = 3

    def region(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """A random region of `image` as (H, W) bool, and its kind."""
        return random_mask(image, rng, self.area)


def window_of(mask: np.ndarray, margin: int = 0) -> Window:
    """The bounding box of a mask, `margin` pixels wider on each side where the picture allows."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin), min(mask.shape[0], int(rows[-1]) + 1 + margin)),
        slice(max(0, int(columns[0]) - margin), min(mask.shape[1], int(columns[-1]) + 1 + margin)),
    )


def blend(
    pixels: np.ndarray, patch: np.ndarray, mask: np.ndarray, window: Window, feather: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """`patch` blended into `pixels` where `mask` is set.

    Args:
        pixels: (H, W, 3) uint8.
        patch: the new content of `window`, uint8; the window must reach `feather` pixels beyond
            the mask, save at the picture's border.
        mask: (H, W) bool.
        window: rows and columns of `pixels` that `patch` covers.
        feather: half-width of the soft edge in pixels, 0 = a hard edge. Nothing farther than this
            from the mask changes. Parts of the mask thinner than the edge are left out, since
            they would show faintly and yet not be marked.

    Returns:
        New pixels, and the mask as 0/255 uint8: 255 from a blending weight of one half.
    """
    result, truth = pixels.copy(), np.zeros(mask.shape, np.uint8)
    local = mask[window]
    side = 2 * feather + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    thick = cv2.morphologyEx(local.astype(np.uint8), cv2.MORPH_OPEN, disc)
    if feather and thick.any():
        weight = cv2.GaussianBlur(thick.astype(np.float32), (side, side), 0)
        old = result[window].astype(np.float32)
        mixed = old + weight[..., None] * (patch.astype(np.float32) - old)
        result[window] = np.rint(mixed).clip(0, 255).astype(np.uint8)
        local = weight >= 0.5
    else:
        result[window] = np.where(local[..., None], patch, result[window])
    truth[window] = local.astype(np.uint8) * 255
    return result, truth
