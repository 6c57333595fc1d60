"""taef2.py: TAEF2, the tiny autoencoder distilled from FLUX.2's (MIT licence, Ollin Boer Bohan)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Block(nn.Module):
    """Three convolutions and a skip; a global block first adds what it saw of the whole picture."""

    def __init__(self, width: int, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )
        self.pool = (
            nn.Sequential(
                nn.Conv2d(width, 4 * width, 1, bias=False),
                nn.GroupNorm(4, 4 * width),
                nn.ReLU(),
                nn.Conv2d(4 * width, width, 1, bias=False),
            )
            if pooled
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


class _Squash(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


def _conv(inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def taef2_encoder(width: int = 64, latents: int = 32) -> nn.Sequential:
    """The TAEF2 encoder with random weights; its indices are the published keys."""
    layers: list[nn.Module] = [_conv(3, width), _Block(width)]
    for stage in range(3):
        layers += [_conv(width, width, stride=2, bias=False)]
        layers += [_Block(width, pooled=stage == 2) for _ in range(3)]
    return nn.Sequential(*layers, _conv(width, latents))


def taef2_decoder(width: int = 64, latents: int = 32) -> nn.Sequential:
    """The TAEF2 decoder with random weights; its indices are the published keys."""
    layers: list[nn.Module] = [_Squash(), _conv(latents, width), nn.ReLU()]
    for stage in range(3):
        layers += [_Block(width, pooled=stage == 0) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), _conv(width, width, bias=False)]
    return nn.Sequential(*layers, _Block(width), _conv(width, 3))
