"""stems.py: how an embedder's pixels become tokens: by their spectra, or by TraceNet's encoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelError
from .tracenet import TraceNet


class SpectrumStem(nn.Module):
    """Tokens for a small training set: the spectra of blocks instead of raw pixels.

    images (B, 3, H, W) -> (B, width, H / 16 - 1, W / 16 - 1). Blocks of 32 x 32 pixels, half
    overlapping and under a Hann window, of luminance and two colour differences -> the logarithm
    of their power spectra, standardised, and a linear layer. Upsampling leaves its trace in the
    spectrum (Frank et al., "Leveraging frequency analysis for deep fake image recognition", ICML
    2020), where patches of raw pixels take many more pictures to find it.
    """

    BLOCK = 32
    window: Tensor
    colours: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        side = self.BLOCK
        hann = torch.hann_window(side)
        self.register_buffer("window", torch.outer(hann, hann), persistent=False)
        colours = torch.tensor([[0.299, 0.587, 0.114], [-0.5, 0.0, 0.5], [-0.25, 0.5, -0.25]])
        self.register_buffer("colours", colours, persistent=False)
        self.standard = nn.BatchNorm1d(3 * side * (side // 2 + 1), affine=False)
        self.tokens = nn.Linear(self.standard.num_features, width)

    def forward(self, images: Tensor) -> Tensor:
        side = self.BLOCK
        with torch.autocast(images.device.type, enabled=False):  # powers span many magnitudes
            planes = torch.einsum("kc,bchw->bkhw", self.colours, images.float())
            blocks = planes.unfold(2, side, side // 2).unfold(3, side, side // 2)
            blocks = (blocks - blocks.mean(dim=(-2, -1), keepdim=True)) * self.window
            power = torch.fft.rfft2(blocks).abs().square()  # (B, 3, h, w, 32, 17)
            spectra = (power + 1e-3).log().permute(0, 2, 3, 1, 4, 5).flatten(3)
        flat = self.standard(spectra.flatten(0, 2)).view_as(spectra)
        return self.tokens(flat).permute(0, 3, 1, 2)


class TraceStem(nn.Module):
    """Tokens that know an edit's traces: `TraceNet`'s way down, to 1/8 of the resolution.

    images (B, 3, H, W) in [-1, 1], H and W multiples of 16 -> (B, width, H / 16, W / 16).
    TraceNet learned to find regions that an autoencoder gave back, with pixels as they were beside
    them; the transformer asks of the same features whether the *whole* picture is such a region.
    They are standardised, and patches of 2 x 2 of them mapped linearly. TraceNet's last stage, at
    1/16, is left out: what it gathers tells regions apart, and knows less of a whole picture.
    `copy_encoder` brings TraceNet's weights, which are then trained along.
    """

    #: The learned layers of `TraceNet` that lead to its features at 1/8.
    ENCODER = ("stem", "down1", "down2", "in3", "down3", "grid_in")

    def __init__(self, width: int) -> None:
        super().__init__()
        net = TraceNet()
        channels = net.config["widths"][3]
        self.residuals, self.grid = net.residuals, net.grid
        for name in self.ENCODER:
            setattr(self, name, getattr(net, name))
        self.standard = nn.BatchNorm2d(channels, affine=False)
        self.tokens = nn.Conv2d(channels, width, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.learned(*self.fixed(images))

    def fixed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What no training changes: (B, 3, H, W) -> (B, 12, H, W), and (B, 14, H / 8, W / 8)."""
        planes = torch.cat([images, self.residuals(images)], dim=1)
        return planes.contiguous(memory_format=torch.channels_last), self.grid(images)

    def learned(self, planes: Tensor, grid: Tensor) -> Tensor:
        """What `fixed` gave -> tokens (B, width, H / 16, W / 16)."""
        layers: Any = self
        # The size of x, whose gradient in bfloat16 takes `abs` two steps.
        x1 = layers.down1(F.avg_pool2d(F.leaky_relu(layers.stem(planes), -1.0), 2))
        x3 = layers.down3(layers.in3(layers.down2(x1)) + layers.grid_in(grid))
        tokens: Tensor = self.tokens(self.standard(x3))
        return tokens

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


#: How pixels become tokens: "patches" as published, "spectra" by a `SpectrumStem`, "traces" by a
#: `TraceStem`.
STEMS = ("patches", "spectra", "traces")
