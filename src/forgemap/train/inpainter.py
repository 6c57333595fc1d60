"""inpainter.py: train a small network that fills regions (`forgemap train inpainter`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ForgemapError
from ..models.build import build
from ..models.generators import GENERATORS, INPAINTER, smooth_fill
from ..synth.masks import random_mask
from .config import described
from .generators import GeneratorConfig, as_images, fit, gradients, psnr

AREA = (0.02, 0.5)  # share of the sample that is to be filled
GRAIN = 8  # pixels a side of the windows, half overlapping, over which grain is compared


@dataclass(frozen=True)
class InpainterConfig(GeneratorConfig):
    """Everything that determines the training of an inpainting network."""

    gradient: float = described(0.5, "Weight of the difference between gradients.")
    grain: float = described(
        1.0, "Weight of the difference between local strengths of gradients: grain, not blur."
    )

    def check(self) -> None:
        """Raise a ForgemapError for the first value that cannot work."""
        for name in ("gradient", "grain"):
            if getattr(self, name) < 0:
                raise ForgemapError(f"{name} = {getattr(self, name)!r} cannot work: at least 0.")
        super().check()


def train(config: InpainterConfig, *, progress: bool = True) -> Path:
    """Train, or go on training; returns the model folder."""

    def make(crops: np.ndarray) -> nn.Module:
        return build({"architecture": INPAINTER, **config.model}, GENERATORS)

    def loss(network: nn.Module, images: Tensor, rng: np.random.Generator) -> Tensor:
        masks, noise = (part.to(images.device) for part in regions(images, rng))
        filled = network(smooth_fill(images, masks), masks, noise).float()
        return filling_loss(filled, images, masks, config.gradient, config.grain)

    return fit(config, make, loss, scores, progress=progress)


def regions(images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random region of each picture, and noise: both (B, 1, H, W)."""
    pixels = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).cpu().numpy()
    masks = np.stack([random_mask(np.ascontiguousarray(p), rng, AREA)[0] for p in pixels])
    noise = rng.standard_normal(masks.shape, dtype=np.float32)
    return torch.from_numpy(masks[:, None].astype(np.float32)), torch.from_numpy(noise[:, None])


def filling_loss(
    filled: Tensor, wanted: Tensor, masks: Tensor, gradient: float, grain: float
) -> Tensor:
    """Per masked pixel: the absolute error, that of the gradients, and that of their strength.

    What is behind a region cannot be known, and the nearest guess is a blur. The third term asks
    only for as much contrast as there was, not for it to be in the same places.
    """
    share = masks.mean()
    total = ((filled - wanted).abs() * masks).mean() / share
    for one, other in zip(gradients(filled), gradients(wanted), strict=True):
        inside = masks[..., : one.shape[-2], : one.shape[-1]]
        total = total + gradient * ((one - other).abs() * inside).mean() / share / 2
        ours, theirs, weight = (
            F.avg_pool2d(part, GRAIN, GRAIN // 2) for part in (one.abs(), other.abs(), inside)
        )
        total = total + grain * ((ours - theirs).abs() * weight).mean() / share / 2
    return total


def scores(network: nn.Module, crops: np.ndarray) -> dict[str, float]:
    """PSNR in dB inside the regions, for the network and for the smooth filling that it gets;
    and the strength of the gradients inside, as a share of what it was."""
    rng, rows = np.random.default_rng(0), []
    for part in np.array_split(crops, -(-len(crops) // 16)):
        images = as_images(part)
        masks, noise = regions(images, rng)
        smooth = smooth_fill(images, masks)
        filled = network(smooth, masks, noise).clamp(0, 1)
        correction = 10 * masks.mean((1, 2, 3)).log10()  # errors outside the region are zero
        strength = [
            sum((g.abs() * masks[..., : g.shape[-2], : g.shape[-1]]).sum() for g in gradients(i))
            for i in (filled, images)
        ]
        ratio = float(strength[0] / strength[1])
        for ours, base in zip(psnr(filled, images), psnr(smooth, images), strict=True):
            rows.append((float(ours), float(base), ratio))
        rows[-len(part) :] = [
            (a + float(c), b + float(c), r)
            for (a, b, r), c in zip(rows[-len(part) :], correction, strict=True)
        ]
    names = ("psnr", "psnr_smooth", "contrast")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))
