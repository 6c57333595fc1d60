"""regenerate.py: edits through an image autoencoder, the fingerprint of latent diffusion."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from forgemap.errors import DataError
from forgemap.synth.edit import Context, Edit, blend, window_of

MARGIN = 32  # of picture around a region, so that its reconstruction does not see the window's rim
VARIANTS = ("donor", "shift", "shuffle", "smooth", "noise")


def autoencoder_paste(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """A region of the picture's reconstruction by the autoencoder, pasted back."""
    autoencoder = _autoencoder(context)
    mask, kind = context.region(pixels, rng)
    feather = int(rng.integers(0, context.feather + 1))
    window = window_of(mask, MARGIN)
    result, truth = blend(pixels, autoencoder.reconstruct(pixels[window]), mask, window, feather)
    return Edit(result, truth, {"region": kind, "feather": feather})


def latent_edit(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """The whole picture encoded and decoded, the latents of a region changed in between.

    Every pixel carries the decoder's trace; the mask marks only the region whose content was
    changed, in whole latent cells (8 x 8 pixels).
    """
    autoencoder = _autoencoder(context)
    mask, kind = context.region(pixels, rng)
    height, width = pixels.shape[:2]
    stride = autoencoder.stride
    latents = autoencoder.encode_pixels(pixels)
    rows, columns = latents.shape[1:]
    padded = np.pad(
        mask.astype(np.float32),
        ((0, rows * stride - height), (0, columns * stride - width)),
        mode="edge",
    )
    covered = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)
    cells = covered >= min(0.5, float(covered.max()))
    variants = [name for name in VARIANTS if name != "donor" or context.donor is not None]
    variant = str(rng.choice(variants))
    changed, parameters = _change_latents(latents, cells, variant, rng, context)
    result = autoencoder.decode_pixels(changed, (height, width))
    truth = np.kron(cells, np.ones((stride, stride), np.uint8))[:height, :width] * np.uint8(255)
    return Edit(result, truth, {"region": kind, "variant": variant, **parameters})


def _change_latents(
    latents: np.ndarray, cells: np.ndarray, variant: str, rng: np.random.Generator, context: Context
) -> tuple[np.ndarray, dict[str, Any]]:
    """Latents (C, h, w) with those of `cells` (h, w) bool changed, and what was drawn."""
    rows, columns = cells.shape
    parameters: dict[str, Any] = {}
    if variant == "donor":
        assert context.donor is not None and context.autoencoder is not None
        name, donor = context.donor(rng)
        stride = context.autoencoder.stride
        donor = _cover(donor, (rows * stride, columns * stride), rng)
        new = context.autoencoder.encode_pixels(donor)
        parameters["donor"] = name
    elif variant == "shift":  # other content of the same picture
        shift = [int(rng.integers(n // 4, n - n // 4 + 1)) for n in (rows, columns)]
        new = np.roll(latents, shift, axis=(1, 2))
        parameters["shift"] = shift
    elif variant == "shuffle":  # the region's own cells in another order
        new = latents.copy()
        new[:, cells] = latents[:, cells][:, rng.permutation(int(cells.sum()))]
    elif variant == "smooth":
        sigma = float(rng.uniform(0.8, 3.0))
        new = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in latents])
        parameters["sigma"] = round(sigma, 3)
    else:
        strength = float(rng.uniform(0.3, 1.0))
        new = noisy(latents, strength, rng)
        parameters["strength"] = round(strength, 3)
    return np.where(cells, new, latents).astype(np.float32), parameters


def noisy(latents: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Latents (C, h, w) with white noise, its spread a share ``strength`` of each channel's own."""
    spread = latents.std(axis=(1, 2), keepdims=True)
    grain = rng.standard_normal(latents.shape, dtype=np.float32)
    return np.asarray(latents + np.float32(strength) * spread * grain)


def _cover(pixels: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random crop of exactly `shape` (H, W); a smaller picture is enlarged first."""
    scale = max(1.0, shape[0] / pixels.shape[0], shape[1] / pixels.shape[1])
    if scale > 1:
        size = [max(n, round(side * scale)) for n, side in zip(shape, pixels.shape, strict=False)]
        pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_CUBIC)
    top = int(rng.integers(0, pixels.shape[0] - shape[0] + 1))
    left = int(rng.integers(0, pixels.shape[1] - shape[1] + 1))
    return pixels[top : top + shape[0], left : left + shape[1]]


def _autoencoder(context: Context) -> Any:
    if context.autoencoder is None:
        raise DataError(
            "autoencoder_paste and latent_edit need an autoencoder: give one with --autoencoder "
            "(such as nearest, a folder or a hub id)."
        )
    return context.autoencoder
