"""planes.py: what TraceNet's first learned layer sees: colour, noise residuals, JPEG's colours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


HALF = 0.501
"""Rounds to the nearest whole number. A tie, which the true origin of a colour never is, goes up on
every machine."""


@torch.no_grad()
def jpeg_colours(images: Tensor) -> Tensor:
    """Which pixels have a colour that a JPEG decoder can give: 1 if so, else -1.

    A JPEG file holds whole numbers of luma and chroma, and its decoder rounds what it makes of them
    to red, green and blue: of all 2^24 colours only a quarter ever comes out (JFIF 1.02,
    "Conversion to and from RGB"; for the lattices of colours that compressions leave see Neelamani
    et al., "JPEG compression history estimation for color images", IEEE Transactions on Image
    Processing 15, 2006). All pixels of a decoded photograph have one of them, but for some
    saturated ones, and so has all that was compressed again. Of pixels that were computed since,
    three of four have not: those of a filled, blended, retouched, recoloured or generated region,
    as long as the picture is not compressed once more.

    (B, 3, H, W) in [-1, 1] -> (B, 1, H, W).
    """
    with torch.autocast(images.device.type, enabled=False):
        levels = images.to(torch.promote_types(images.dtype, torch.float32))
        red, green, blue = levels.add(1).mul_(127.5).round_().unbind(1)
        luma = (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114).add_(HALF).floor_()
        cb = (0.5 * blue).sub_(red, alpha=0.168736).sub_(green, alpha=0.331264).add_(HALF).floor_()
        cr = (0.5 * red).sub_(green, alpha=0.418688).sub_(blue, alpha=0.081312).add_(HALF).floor_()
        off = (1.402 * cr).add_(0.5).floor_().add_(luma).clamp_(0, 255).sub_(red).abs_()
        more = (-0.344136 * cb).sub_(cr, alpha=0.714136).add_(0.5).floor_()
        off += more.add_(luma).clamp_(0, 255).sub_(green).abs_()
        off += (1.772 * cb).add_(0.5).floor_().add_(luma).clamp_(0, 255).sub_(blue).abs_()
        # 1 where all three are met, in place: numbers are much faster here than truth values.
        return off.clamp_(max=1).mul_(-2).add_(1)[:, None]


class Planes(nn.Module):
    """The picture and what is computed from each pixel's surroundings, nothing of it learned.

    (B, 3, H, W) in [-1, 1] -> (B, channels, H, W) in [-1, 1]: colour, nine noise residuals and,
    with ``colours``, whether a JPEG decoder can give a pixel's colour.
    """

    def __init__(self, colours: bool) -> None:
        super().__init__()
        self.colours = colours
        self.residuals = Residuals()
        self.channels = 3 + 9 + colours

    def forward(self, images: Tensor) -> Tensor:
        planes = [images, self.residuals(images)]
        if self.colours:
            planes.append(jpeg_colours(images).to(planes[1].dtype))
        return torch.cat(planes, dim=1)
