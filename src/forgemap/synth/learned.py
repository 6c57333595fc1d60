"""learned.py: regions filled by a small network, trained on photographs (`train inpainter`)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from forgemap.errors import ModelError
from forgemap.synth.edit import Context, Edit, blend, window_of

MARGIN = 48  # pixels around a region that the network sees
LARGE = 256  # pixels: wider windows are filled at half the size first
CELL = 8  # pixels: the network's sides are multiples of it


def inpaint_learned(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """The region filled by a network of gated convolutions."""
    mask, kind = context.region(pixels, rng)
    window = window_of(mask, MARGIN)
    seed = int(rng.integers(2**32))
    patch = fill(_network(context.inpainter), pixels[window], mask[window], seed)
    result, truth = blend(pixels, patch, mask, window)
    return Edit(result, truth, {"region": kind, "noise": seed})


def fill(network: Any, pixels: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
    """A picture with its region filled.

    Args:
        network: see `load_inpainter`.
        pixels: (H, W, 3) uint8.
        mask: (H, W) bool, the region; its pixels are not looked at.
        seed: of the noise that becomes grain.

    Returns:
        (H, W, 3) uint8, equal to `pixels` outside the region.
    """
    rng = np.random.default_rng(seed)
    filled = _fill(network, pixels.astype(np.float32) / 255, mask, rng)
    filled = np.rint(filled.clip(0, 1) * 255).astype(np.uint8)
    return np.where(mask[..., None], filled, pixels)


def _fill(
    network: Any, pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1], filled coarse to fine: what is too far from a region's rim to
    be known there is known from a smaller picture, where it is nearer."""
    import torch

    from forgemap.models.generators import smooth_fill
    from forgemap.synth.autoencoder import tiled

    height, width = mask.shape
    if max(height, width) <= LARGE:
        images = torch.from_numpy(np.moveaxis(pixels, -1, 0).copy())[None]
        masks = torch.from_numpy(mask.astype(np.float32))[None, None]
        base = np.moveaxis(smooth_fill(images, masks)[0].numpy(), 0, -1)
    else:
        base = np.where(mask[..., None], _from_half(network, pixels, mask, rng), pixels)
    rim = ((0, -height % CELL), (0, -width % CELL))
    base = np.pad(base, (*rim, (0, 0)), mode="edge")
    region = np.pad(mask, rim)
    noise = rng.standard_normal(region.shape, dtype=np.float32)
    planes = np.concatenate([np.moveaxis(base, -1, 0), region[None], noise[None]])

    def run(y: slice, x: slice) -> np.ndarray:
        part = planes[:, y.start * CELL : y.stop * CELL, x.start * CELL : x.stop * CELL]
        if not part[3].any():
            return part[:3]
        seen = torch.from_numpy(np.ascontiguousarray(part, np.float32))[None]
        with torch.inference_mode():
            return np.asarray(network(seen[:, :3], seen[:, 3:4], seen[:, 4:])[0].numpy())

    filled = tiled(run, region.shape[0] // CELL, region.shape[1] // CELL, CELL)
    return np.moveaxis(filled, 0, -1)[:height, :width]


def _from_half(
    network: Any, pixels: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The picture filled at half the size, enlarged again."""
    height, width = mask.shape
    rim = ((0, height % 2), (0, width % 2))
    half = ((width + 1) // 2, (height + 1) // 2)
    known = np.pad(~mask, rim, mode="edge").astype(np.float32)[..., None]
    weights = cv2.resize(known, half, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(
        np.pad(pixels, (*rim, (0, 0)), mode="edge") * known, half, interpolation=cv2.INTER_AREA
    )
    small = sums / np.maximum(weights, 1e-6)[..., None]
    filled = _fill(network, small.astype(np.float32), weights == 0, rng)
    size = (2 * half[0], 2 * half[1])
    return cv2.resize(filled, size, interpolation=cv2.INTER_CUBIC)[:height, :width]


def load_inpainter(folder: str | Path = "") -> Any:
    """The network that fills regions.

    Args:
        folder: written by `forgemap train inpainter`; "" = the one that ships.

    Raises:
        ModelError: no such network.
    """
    from forgemap.models.generators import INPAINTER, bundled_generator, load_generator

    path = Path(folder) if folder else bundled_generator(INPAINTER)
    network: Any = load_generator(path)
    if network.config["architecture"] != INPAINTER:
        raise ModelError(f"{path} holds an autoencoder, not an inpainting network.")
    return network


_network = functools.lru_cache(maxsize=2)(load_inpainter)
