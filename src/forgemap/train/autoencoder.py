"""autoencoder.py: train a small autoencoder of pictures (`forgemap train autoencoder`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ForgemapError
from ..models.build import build
from ..models.generators import GENERATORS, UPSAMPLING
from .config import described
from .generators import GeneratorConfig, as_images, fit, gradients, psnr
from .solve import solve

SOLVED_ON = 64  # crops that the first weights are solved on
CELL = 8  # pixels a side of the squares whose texture is compared
FAINT = 0.002  # texture that counts as none: half a grey level


@dataclass(frozen=True)
class AutoencoderConfig(GeneratorConfig):
    """Everything that determines the training of an autoencoder."""

    architecture: str = described("nearest", f"How it upsamples: {', '.join(UPSAMPLING)}.")
    gradient: float = described(
        1.0, "Weight of the difference between gradients, at two scales: for sharp pictures."
    )
    texture: float = described(
        0.0, "Weight of the difference in strength of fine texture: for pictures with grain."
    )

    def check(self) -> None:
        """Raise a ForgemapError for the first value that cannot work."""
        if self.architecture not in UPSAMPLING:
            raise ForgemapError(
                f"unknown architecture {self.architecture!r}; valid: {', '.join(UPSAMPLING)}."
            )
        for name in ("gradient", "texture"):
            if getattr(self, name) < 0:
                raise ForgemapError(f"{name} = {getattr(self, name)!r} cannot work: at least 0.")
        super().check()


def train(config: AutoencoderConfig, *, progress: bool = True) -> Path:
    """Train, or go on training; returns the folder that `forgemap synth --autoencoder` takes."""

    def make(crops: np.ndarray) -> nn.Module:
        network = build({"architecture": config.architecture, **config.model}, GENERATORS)
        chosen = np.linspace(0, len(crops) - 1, min(SOLVED_ON, len(crops))).round().astype(int)
        side = config.crop
        solve(network, as_images(crops[chosen, :side, :side]))  # type: ignore[arg-type]
        return network

    def loss(network: nn.Module, images: Tensor, rng: np.random.Generator) -> Tensor:
        given = network(images).float()
        texture = config.texture * texture_loss(given, images)
        return reconstruction_loss(given, images, config.gradient) + texture

    return fit(config, make, loss, scores, progress=progress)


def reconstruction_loss(images: Tensor, wanted: Tensor, gradient: float) -> Tensor:
    """Mean absolute error, and that of the gradients at full and at half the resolution."""
    total = F.l1_loss(images, wanted)
    for _ in range(2):
        pairs = zip(gradients(images), gradients(wanted), strict=True)
        total = total + gradient / 4 * torch.stack([F.l1_loss(a, b) for a, b in pairs]).sum()
        images, wanted = F.avg_pool2d(images, 2), F.avg_pool2d(wanted, 2)
    return total


def texture_loss(images: Tensor, wanted: Tensor) -> Tensor:
    """How much the strength of fine texture differs, as the mean factor's logarithm.

    The pixels of grain, hair or grass cannot be kept in few latents, and what minimises their error
    is a blur. Their strength can be kept: that of what a mean over 3x3 pixels takes away, in cells
    of 8x8. (B, 3, H, W) both; sides multiples of 8.
    """
    return F.l1_loss(_texture(images), _texture(wanted))


def _texture(images: Tensor) -> Tensor:
    """Logarithm of the strength of fine texture, (B, 3, H / CELL, W / CELL)."""
    fine = images - F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    return (F.avg_pool2d(fine.abs(), CELL) + FAINT).log()


def scores(network: nn.Module, crops: np.ndarray) -> dict[str, float]:
    """Mean PSNR in dB of reconstructions."""
    parts = [as_images(part) for part in np.array_split(crops, -(-len(crops) // 16))]
    return {"psnr": float(torch.cat([psnr(network(part), part) for part in parts]).mean())}
