"""solve.py: an autoencoder's first weights, solved by linear regression instead of drawn."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.generators import STRIDE, Double, PictureAutoencoder

RIDGE = 1e-5  # share of the mean eigenvalue that is added to all


@torch.no_grad()
def solve(network: PictureAutoencoder, images: Tensor) -> None:
    """Let the network begin as the best linear one, stage by stage.

    The encoder becomes the principal components of 8x8 patches. Each stage of the decoder then
    predicts, by ridge regression, the principal components of the patches (4x4, 2x2, 1x1) that one
    of its pixels stands for, as far as its upsampling can; its other channels stay random, and so
    do the residual blocks, which add nothing yet. Training goes on from there: some minutes
    instead of hours on a processor.

    Args:
        network: freshly built.
        images: (N, 3, H, W) in [0, 1], sides multiples of 8, that stand for all.
    """
    images = images - 0.5
    components, spread = principal(images, STRIDE)
    first, last = network.encoder[1], network.encoder[-1]
    assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
    width, latents = first.out_channels, last.out_channels
    first.weight.copy_((components[:width] / spread[:width, None])[..., None, None])
    last.weight.copy_(torch.eye(latents, width)[..., None, None])
    for conv in (first, last):
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    x = network.encoder(images)
    side = STRIDE  # pixels that one of x stands for
    final = len(network.decoder) - 1
    for place, layer in enumerate(network.decoder):
        if isinstance(layer, Double):
            side //= 2
            wanted = principal(images, side)[0][: layer.outputs]
            target = F.conv2d(F.pixel_unshuffle(images, side), wanted[..., None, None])
            _regress(layer, x, target)
        elif place == 0:  # keeps the latents, adds mixtures of them
            assert isinstance(layer, nn.Conv2d)
            nn.init.dirac_(layer.weight[:latents])
        elif place == final:
            _regress(layer, x, images)
        x = layer(x)


def principal(images: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Principal components of a picture's patches.

    Returns:
        (K, K), one component a row, K = 3 side^2 as `pixel_unshuffle` orders them, the strongest
        first; and the root mean square of each, (K,).
    """
    patches = F.pixel_unshuffle(images, side).transpose(0, 1).flatten(1).double()
    values, vectors = torch.linalg.eigh(patches @ patches.T / patches.shape[1])
    spread = values.clamp_min(1e-8).sqrt()
    return vectors.T.flip(0).float(), spread.flip(0).float()


def _regress(layer: nn.Module, x: Tensor, target: Tensor) -> None:
    """Set a layer's convolution so that its first outputs are nearest to `target`."""
    kind = layer.kind if isinstance(layer, Double) else "plain"
    conv = layer.conv if isinstance(layer, Double) else layer
    if isinstance(conv, nn.ConvTranspose2d):
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        # Each of the 2x2 pixels made of one sees its own four taps of the 4x4 kernel: the pixel
        # before and this one through taps 3 and 1, or this one and the next through 2 and 0.
        for row, column in product((0, 1), repeat=2):
            taps = [(3, 1), (2, 0)]
            seen = F.pad(x, (1 - column, column, 1 - row, row))
            kernels = _solution(seen, target[..., row::2, column::2], 2)
            for (i, y), (j, z) in product(enumerate(taps[row]), enumerate(taps[column])):
                conv.weight[:, : len(kernels), y, z] = kernels[:, 2 * i + j : -1 : 4].T
        return
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    if kind in ("nearest", "bilinear"):
        x = F.interpolate(x, scale_factor=2, mode=kind)
    if kind == "shuffle":
        target = F.pixel_unshuffle(target, 2)
    kernels = _solution(F.pad(x, (1, 1, 1, 1)), target, 3)
    conv.bias[: len(kernels)] = kernels[:, -1]
    conv.weight[: len(kernels)] = kernels[:, :-1].view(len(kernels), -1, 3, 3)


def _solution(x: Tensor, target: Tensor, side: int) -> Tensor:
    """Ridge regression of (N, K, h, w) on the windows of `x`, `side` a side.

    Returns:
        (K, channels of x * side^2 + 1): kernels, and the constant last.
    """
    normal = moment = torch.zeros(())
    for inputs, wanted in zip(torch.split(x, 4), torch.split(target, 4), strict=True):
        rows = F.unfold(inputs, side).transpose(0, 1).flatten(1)
        rows = torch.cat([rows, torch.ones(1, rows.shape[1])])
        normal = normal + rows @ rows.T
        moment = moment + rows @ wanted.transpose(0, 1).flatten(1).T
    normal, moment = normal.double(), moment.double()
    ridge = RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=torch.float64)
    return torch.linalg.solve(normal + ridge, moment).T.float()
