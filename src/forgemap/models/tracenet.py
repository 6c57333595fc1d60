"""tracenet.py: TraceNet, the small native-resolution network behind the bundled default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..preprocess import NATIVE
from .grid import GridTraces
from .output import LocalizerOutput


def high_pass_kernels() -> Tensor:
    """Three fixed 5x5 high-pass filters, (3, 1, 5, 5), each with a zero sum and unit absolute sum.

    First- and second-order residuals and the "KV" square filter of the spatial rich model
    (Fridrich and Kodovsky, "Rich models for steganalysis of digital images", 2012, section II).
    """
    laplace = torch.zeros(5, 5)
    laplace[1:4, 1:4] = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]])
    kv = torch.tensor(
        [
            [-1.0, 2, -2, 2, -1],
            [2, -6, 8, -6, 2],
            [-2, 8, -12, 8, -2],
            [2, -6, 8, -6, 2],
            [-1, 2, -2, 2, -1],
        ]
    )
    second = torch.zeros(5, 5)
    second[2, 1:4] = torch.tensor([1.0, -2, 1])
    second[1:4, 2] += torch.tensor([1.0, -2, 1])
    kernels = torch.stack([laplace, kv, second])
    return (kernels / kernels.abs().sum(dim=(1, 2), keepdim=True)).unsqueeze(1)


STRIP = 64
"""Units of height that a CPU takes at a time through the layers of full and half resolution."""


class Residuals(nn.Module):
    """Noise residuals of a picture: fixed high-pass filters on each colour, clipped.

    (B, 3, H, W) in [-1, 1] -> (B, 9, H, W) in [-1, 1]. The clip keeps strong edges from drowning
    the weak traces that an edit leaves: values saturate at ``clip`` grey levels.
    """

    kernels: Tensor

    def __init__(self, clip: float = 2.0) -> None:
        super().__init__()
        self.gain = 127.5 / clip
        self.register_buffer("kernels", high_pass_kernels().repeat(3, 1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        # Never in half precision: a residual is a small difference of large numbers.
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
            kernels = self.gain * self.kernels.to(images.dtype)
            return F.conv2d(padded, kernels, groups=3).clamp_(-1, 1)


def conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """3x3 convolution, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    """Residual block: two 3x3 convolutions around a shortcut."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, dilation=dilation)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(self.conv1(x))).add_(x), inplace=True)


class TraceNet(nn.Module):
    """Where was a picture edited? Looks at every pixel at native resolution.

    A picture is never shrunk before it is looked at: resampling wipes out the noise, JPEG and
    interpolation traces by which an edit betrays itself. Noise residuals and colour enter at full
    resolution; the first layer's responses are rectified by their magnitude and averaged, so that
    what goes on is the local strength of each trace and not its sign (the absolute-value layer of
    Xu, Wu and Shi, "Structural design of convolutional neural networks for steganalysis", 2016).
    The traces of JPEG's grid, which hardly form by themselves, are measured and enter at 1/8.
    A U-shaped network then gathers context down to 1/16 and returns to 1/2, from where the mask
    logits are interpolated. A second head reads the deepest features: one "evidence"
    logit for each 16x16 cell, pooled over the picture into the image-level score.

    Every layer is convolutional, so that large pictures can be cut into tiles (``reach`` pixels
    of margin make a tile's centre equal to the whole picture's).

    Args:
        widths: channels at 1/1, 1/2, 1/4, 1/8 and 1/16 of the resolution.
        blocks: residual blocks at 1/2, 1/4, 1/8 and 1/16.
        colours: JPEG's colours are measured beside its grid; see `GridTraces`.
    """

    native = True
    stride = 16
    reach = 352

    def __init__(
        self,
        widths: tuple[int, int, int, int, int] = (24, 32, 64, 112, 160),
        blocks: tuple[int, int, int, int] = (1, 2, 2, 3),
        colours: bool = False,
    ) -> None:
        super().__init__()
        w0, w1, w2, w3, w4 = widths
        self.preprocess = NATIVE
        self.config: dict[str, Any] = {
            "architecture": "tracenet",
            "widths": list(widths),
            "blocks": list(blocks),
            "colours": colours,
        }
        self.residuals = Residuals()
        self.stem = nn.Sequential(nn.Conv2d(3 + 9, w0, 3, 1, 1, bias=False), nn.BatchNorm2d(w0))
        self.down1 = nn.Sequential(conv(w0, w1), *(Block(w1) for _ in range(blocks[0])))
        self.down2 = nn.Sequential(conv(w1, w2, 2), *(Block(w2) for _ in range(blocks[1])))
        self.in3 = conv(w2, w3, 2)
        self.down3 = nn.Sequential(*(Block(w3) for _ in range(blocks[2])))
        self.grid = GridTraces(colours)
        self.grid_in = nn.Sequential(conv(self.grid.channels, w2), nn.Conv2d(w2, w3, 1))
        self.down4 = nn.Sequential(conv(w3, w4, 2), *(Block(w4, 1 + i) for i in range(blocks[3])))
        self.lateral4, self.lateral3 = nn.Conv2d(w4, w2, 1), nn.Conv2d(w3, w2, 1)
        self.lateral2, self.lateral1 = nn.Conv2d(w2, w2, 1), nn.Conv2d(w1, w1, 1)
        self.up3, self.up2 = conv(w2, w2), conv(w2, w1)
        self.up1 = conv(w1, w1)
        self.mask_head = nn.Conv2d(w1, 1, 3, padding=1)
        self.evidence_head = nn.Sequential(nn.Conv2d(w4, w2, 1), nn.ReLU(), nn.Conv2d(w2, 1, 1))

    def forward(self, images: Tensor) -> LocalizerOutput:
        """Mask and evidence logits of a batch.

        Args:
            images: (B, 3, H, W) in [-1, 1], H and W at least 16.

        Returns:
            ``mask`` (B, 1, H, W) and ``evidence`` (B, 1, ceil(H / 16), ceil(W / 16)), logits.
        """
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % 2, 0, -height % 2), mode="replicate")
        # In training BatchNorm has to see all rows at once; other devices gain nothing.
        strips = not self.training and images.device.type == "cpu"
        look = 1 + 2 * len(self.down1)
        x1 = by_strips(self.shallow, [(images, 2)], 1, look) if strips else self.shallow(images)
        x2 = self.down2(x1)
        x3 = self.down3(self.in3(x2) + self.grid_in(self.grid(images)))
        x4 = self.down4(x3)

        y = self.up3(upsample(self.lateral4(x4), x3).add_(self.lateral3(x3)))
        y = self.up2(upsample(y, x2).add_(self.lateral2(x2)))
        y = by_strips(self.last, [(y, 1), (x1, 2)], 2, 2) if strips else self.last(y, x1)
        mask = upsample(y, images)[..., :height, :width]
        return LocalizerOutput(mask.float(), self.evidence_head(x4).float())

    def shallow(self, images: Tensor) -> Tensor:
        """The layers at 1/1 and 1/2 on the way down: (B, 3, H, W) -> (B, C, H / 2, W / 2)."""
        x0 = self.stem(torch.cat([images, self.residuals(images)], dim=1))
        # |x|; the gradient of `abs` takes two steps, of which one is slow in bfloat16.
        size = F.leaky_relu(x0, -1.0) if x0.requires_grad else x0.abs_()
        return self.down1(F.avg_pool2d(size, 2))

    def last(self, y: Tensor, x1: Tensor) -> Tensor:
        """The layers at 1/2 on the way up, with the mask's logits at their end."""
        return self.mask_head(self.up1(upsample(y, x1).add_(self.lateral1(x1))))


def by_strips(
    layers: Callable[..., Tensor], inputs: Sequence[tuple[Tensor, int]], rows: int, look: int
) -> Tensor:
    """The same as ``layers(*inputs)``, one strip of rows after the other.

    At full and half resolution the maps between the layers are most of the memory, and fetching it
    takes a CPU longer than many a layer. Those of a strip are small and lie where the last's did.

    Args:
        layers: tensors (B, C, H, W) to one.
        inputs: the tensors, each with its number of rows in a unit of height.
        rows: that of the result.
        look: units above and below a row that act on it.
    """
    first, each = inputs[0]
    strips = []
    for top in range(0, -(-first.shape[2] // each), STRIP):
        start, stop = max(0, top - look), top + STRIP
        strip = layers(*(x[:, :, start * n : (stop + look) * n] for x, n in inputs))
        strips.append(strip[:, :, (top - start) * rows : (stop - start) * rows])
    return torch.cat(strips, dim=2)


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear interpolation of x (B, C, h, w) to the height and width of ``like``.

    One factor of two for both axes, cropped: a size that is not a multiple of 16 must not change
    the scale, or a tile and the whole picture would disagree.
    """
    x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    return x[..., : like.shape[-2], : like.shape[-1]]
