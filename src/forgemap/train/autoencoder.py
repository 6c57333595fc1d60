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


@dataclass(frozen=True)
class AutoencoderConfig(GeneratorConfig):
    """Everything that determines the training of an autoencoder."""

    architecture: str = described("nearest", f"How it upsamples: {', '.join(UPSAMPLING)}.")
    gradient: float = described(
        1.0, "Weight of the difference between gradients, at two scales: for sharp pictures."
    )

    def check(self) -> None:
        """Raise a ForgemapError for the first value that cannot work."""
        if self.architecture not in UPSAMPLING:
            raise ForgemapError(
                f"unknown architecture {self.architecture!r}; valid: {', '.join(UPSAMPLING)}."
            )
        if self.gradient < 0:
            raise ForgemapError(f"gradient = {self.gradient!r} cannot work: at least 0.")
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
        return reconstruction_loss(network(images).float(), images, config.gradient)

    return fit(config, make, loss, scores, progress=progress)


def reconstruction_loss(images: Tensor, wanted: Tensor, gradient: float) -> Tensor:
    """Mean absolute error, and that of the gradients at full and at half the resolution."""
    total = F.l1_loss(images, wanted)
    for _ in range(2):
        pairs = zip(gradients(images), gradients(wanted), strict=True)
        total = total + gradient / 4 * torch.stack([F.l1_loss(a, b) for a, b in pairs]).sum()
        images, wanted = F.avg_pool2d(images, 2), F.avg_pool2d(wanted, 2)
    return total


def scores(network: nn.Module, crops: np.ndarray) -> dict[str, float]:
    """Mean PSNR in dB of reconstructions."""
    parts = [as_images(part) for part in np.array_split(crops, -(-len(crops) // 16))]
    return {"psnr": float(torch.cat([psnr(network(part), part) for part in parts]).mean())}
