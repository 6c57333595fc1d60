"""decoders.py: backbone features -> mask logits of 256 x 256; linear, attention and convolutional.

DeCLIP (arXiv 2409.08849), section 3.2. All of them take the features of any backbone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .output import Features

#: Side of the mask in pixels, for every decoder.
MASK_SIZE = 256
#: The decoders by name, and what each does.
DECODERS = {
    "linear": "one linear map for every position",
    "attention": "two transformer blocks, then one linear map for every position",
    "conv-4": "four stages of one 5x5 convolution",
    "conv-12": "four stages of three 5x5 convolutions",
    "conv-20": "four stages of five 5x5 convolutions",
    "gradcam": "a classifier of whole pictures, and its Grad-CAM map",
}


class LinearDecoder(nn.Module):
    """One linear map for every position: grid (B, C, h, w) -> logits (B, 1, 256, 256)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 1)
        initialise(self)

    def forward(self, features: Features) -> Tensor:
        logits = self.linear(features.grid.movedim(1, -1)).movedim(-1, 1)
        return resize(logits, "bicubic")


class AttentionDecoder(nn.Module):
    """Two transformer blocks over all tokens, then one linear map for every position.

    grid (B, C, h, w), and class token (B, C) where there is one -> logits (B, 1, 256, 256).

    Args:
        inputs: channels C of the features.
        heads: attention heads; C / 64 (at least 1) if None.
        causal: let a token see only those before it, row by row. The published decoder does, by
            accident as it seems; a picture has no such order, so the default does not.
    """

    def __init__(self, inputs: int, heads: int | None = None, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                inputs,
                heads or max(1, inputs // 64),
                dim_feedforward=4 * inputs,
                dropout=0.0,
                activation=quick_gelu,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(2)
        )
        self.linear = nn.Linear(inputs, 1)
        initialise(self)

    def forward(self, features: Features) -> Tensor:
        grid, summary = features
        tokens = grid.flatten(2).transpose(1, 2)
        if summary is not None:
            tokens = torch.cat([summary.unsqueeze(1), tokens], dim=1)
        mask = None
        if self.causal:
            mask = nn.Transformer.generate_square_subsequent_mask(
                tokens.shape[1], tokens.device, tokens.dtype
            )
        for block in self.blocks:
            tokens = block(tokens, src_mask=mask, is_causal=self.causal)
        if summary is not None:
            tokens = tokens[:, 1:]
        logits = self.linear(tokens).transpose(1, 2).unflatten(2, grid.shape[-2:])
        return resize(logits, "bicubic")


class ConvDecoder(nn.Module):
    """Four stages of 5x5 convolutions, each but the first `skip` ending in a x2 upsampling.

    grid (B, C, h, w) -> logits (B, 1, 256, 256): what the upsamplings leave short of 256 (CNNs
    give 7 x 2^n), one bilinear resize makes good before the last convolution.

    Args:
        inputs: channels C of the features.
        depth: convolutions of each stage: conv-4 has 1, conv-12 has 3, conv-20 has 5.
        channels: of the four stages.
        skip: stages without upsampling, from the first on, for the large maps of early CNN layers.
    """

    def __init__(
        self, inputs: int, depth: int, channels: Sequence[int] = (512, 256, 128, 64), skip: int = 0
    ) -> None:
        super().__init__()
        self.skip = skip
        stages = []
        for number, width in enumerate(channels):
            layers: list[nn.Module] = []
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, width, 5, padding=2), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            if number >= skip:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Conv2d(inputs, 1, 5, padding=2)
        initialise(self)

    def forward(self, features: Features) -> Tensor:
        x = features.grid
        for stage in self.stages:
            x = stage(x)
        return self.head(resize(x, "bilinear"))


def upsamplings_to_skip(size: int, stages: int = 4) -> int:
    """The fewest stages without upsampling that keep a grid of `size` x `size` within the mask's.

    As published: 2 for layer1 of a ResNet (56 x 56), 1 for layer2 (28 x 28), otherwise 0.
    """
    return next((n for n in range(stages) if size * 2 ** (stages - n) <= MASK_SIZE), stages)


def resize(x: Tensor, mode: str) -> Tensor:
    """x (B, C, h, w) -> (B, C, 256, 256), untouched if it is that already."""
    if x.shape[-2:] == (MASK_SIZE, MASK_SIZE):
        return x
    return F.interpolate(x, (MASK_SIZE, MASK_SIZE), mode=mode)


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation of the GELU."""
    return x * torch.sigmoid(1.702 * x)


def initialise(decoder: nn.Module, scales: bool = False) -> None:
    """Draw every kernel and matrix from N(0, 0.02), as the paper does.

    Args:
        decoder: what to initialise.
        scales: draw the scales of the BatchNorms from it as well, as the published code does. It
            all but switches the layers off at the start; without it they start at 1.
    """
    for parameter in decoder.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    if scales:
        for module in decoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, std=0.02)
