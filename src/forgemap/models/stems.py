"""stems.py: how an embedder's pixels become tokens: by their spectra, or by TraceNet's encoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelError
from .tracenet import TraceNet

BLOCK = 32
"""Side of a block whose spectrum is looked at, in pixels; blocks overlap by half."""


class Spectra(nn.Module):
    """Logarithms of the power spectra of blocks; fixed.

    images (B, 3, H, W) -> (B, H / 16 - 1, W / 16 - 1, 1632): of blocks of 32 x 32 pixels, half
    overlapping and under a Hann window, of luminance and two colour differences.
    """

    features = 3 * BLOCK * (BLOCK // 2 + 1)
    window: Tensor
    colours: Tensor

    def __init__(self) -> None:
        super().__init__()
        hann = torch.hann_window(BLOCK)
        self.register_buffer("window", torch.outer(hann, hann), persistent=False)
        colours = torch.tensor([[0.299, 0.587, 0.114], [-0.5, 0.0, 0.5], [-0.25, 0.5, -0.25]])
        self.register_buffer("colours", colours, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        step = BLOCK // 2
        with torch.autocast(images.device.type, enabled=False):  # powers span many magnitudes
            planes = torch.einsum("kc,bchw->bkhw", self.colours, images.float())
            blocks = planes.unfold(2, BLOCK, step).unfold(3, BLOCK, step)
            blocks = (blocks - blocks.mean(dim=(-2, -1), keepdim=True)) * self.window
            power = torch.fft.rfft2(blocks).abs().square()  # (B, 3, h, w, 32, 17)
            return (power + 1e-3).log().permute(0, 2, 3, 1, 4, 5).flatten(3)


class SpectrumStem(nn.Module):
    """Tokens for a small training set: the spectra of blocks instead of raw pixels.

    images (B, 3, H, W) -> (B, width, H / 16 - 1, W / 16 - 1): `Spectra`, standardised, and a linear
    layer. Upsampling leaves its trace in the spectrum (Frank et al., "Leveraging frequency analysis
    for deep fake image recognition", ICML 2020), where patches of raw pixels take many more
    pictures to find it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spectra = Spectra()
        self.standard = nn.BatchNorm1d(Spectra.features, affine=False)
        self.tokens = nn.Linear(Spectra.features, width)

    def forward(self, images: Tensor) -> Tensor:
        return self.learned(self.spectra(images))

    def learned(self, spectra: Tensor) -> Tensor:
        """What `Spectra` gave -> tokens (B, width, H / 16 - 1, W / 16 - 1)."""
        flat = self.standard(spectra.flatten(0, 2)).view_as(spectra)
        return self.tokens(flat).permute(0, 3, 1, 2)


class TraceStem(nn.Module):
    """Tokens that know an edit's traces: `TraceNet`'s way down, to 1/8 of the resolution.

    images (B, 3, H, W) in [-1, 1], H and W multiples of 16 -> tokens (B, width, H / 16, W / 16)
    and a summary (B, width). TraceNet learned to find regions that an autoencoder gave back, with
    pixels as they were beside them; the transformer asks of the same features whether the *whole*
    picture is such a region. A token is the mean and the spread of the features at 1/2, 1/4 and
    1/8 in a cell of 16 x 16 pixels; the summary is the same of the whole picture. Both are
    standardised and mapped linearly. The last stage, at 1/16, is left out: what it gathers tells
    regions apart, and knows less of a whole picture. `copy_encoder` brings TraceNet's weights.
    """

    #: The learned layers of `TraceNet` that lead to its features at 1/8.
    ENCODER = ("stem", "down1", "down2", "in3", "down3", "grid_in")

    def __init__(self, width: int) -> None:
        super().__init__()
        net = TraceNet(colours=True)
        features = 2 * sum(net.config["widths"][1:4])
        self.residuals, self.grid = net.residuals, net.grid
        for name in self.ENCODER:
            setattr(self, name, getattr(net, name))
        self.standard = nn.BatchNorm2d(features, affine=False)
        self.tokens = nn.Conv2d(features, width, 1)
        self.standard_whole = nn.BatchNorm1d(features, affine=False)
        self.summary = nn.Linear(features, width)
        self.frozen = False

    def freeze(self) -> None:
        """Neither weights nor statistics of the encoder change in training."""
        self.frozen = True
        for name in self.ENCODER:
            getattr(self, name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> TraceStem:
        super().train(mode)
        for name in self.ENCODER if self.frozen else ():
            getattr(self, name).eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.learned(*self.fixed(images))

    def fixed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What no training changes: (B, 3, H, W) -> (B, 12, H, W), and (B, 14, H / 8, W / 8)."""
        planes = torch.cat([images, self.residuals(images)], dim=1)
        return planes.contiguous(memory_format=torch.channels_last), self.grid(images)

    def learned(self, planes: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """What `fixed` gave -> tokens (B, width, H / 16, W / 16) and summary (B, width)."""
        layers: Any = self
        # The size of x, whose gradient in bfloat16 takes `abs` two steps.
        x1 = layers.down1(F.avg_pool2d(F.leaky_relu(layers.stem(planes), -1.0), 2))
        x2 = layers.down2(x1)
        x3 = layers.down3(layers.in3(x2) + layers.grid_in(grid))
        with torch.autocast(planes.device.type, enabled=False):  # a spread is a small difference
            pairs = [moments(x, size) for x, size in ((x1, 8), (x2, 4), (x3, 2))]
            means, squares = (torch.cat(parts, dim=1) for parts in zip(*pairs, strict=True))
            cells = torch.cat([means, spread(means, squares)], dim=1)
            means, squares = means.mean((2, 3)), squares.mean((2, 3))
            whole = torch.cat([means, spread(means, squares)], dim=1)
            cells, whole = self.standard(cells), self.standard_whole(whole)
        return self.tokens(cells), self.summary(whole)

    def copy_encoder(self, localizer: nn.Module, source: str) -> None:
        """Take over the weights and statistics of a TraceNet's encoder.

        Args:
            localizer: the TraceNet.
            source: what to call it in an error.

        Raises:
            ModelError: another kind of network, or a TraceNet of other sizes.
        """
        if not isinstance(localizer, TraceNet):
            raise ModelError(f"{source}: is no TraceNet, whose encoder a stem of traces starts as.")
        own = self.state_dict()
        theirs = localizer.state_dict()
        encoder = {n: value for n, value in theirs.items() if n.split(".")[0] in self.ENCODER}
        if any(n not in own or own[n].shape != value.shape for n, value in encoder.items()):
            raise ModelError(f"{source}: is a TraceNet of other sizes than a stem of traces has.")
        self.load_state_dict(own | encoder)


def moments(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Means of x and of its square, in float32, over squares of ``size`` positions."""
    x = x.float()
    return F.avg_pool2d(x, size), F.avg_pool2d(x.square(), size)


def spread(mean: Tensor, square: Tensor) -> Tensor:
    """Standard deviation, of the means of x and of its square."""
    return (square - mean.square()).clamp(min=1e-6).sqrt()


#: How pixels become tokens: "patches" as published, "spectra" by a `SpectrumStem`, "traces" by a
#: `TraceStem`; "both": an embedder on traces with one on spectra beside it.
STEMS = ("patches", "spectra", "traces", "both")
