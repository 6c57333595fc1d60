"""colours.py: which pixels have a colour that a JPEG decoder can give."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STRIP = 64
"""Rows that are computed at a time, a multiple of the cells: what lies between stays in a cache."""
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
    Processing 15, 2006). All pixels of a decoded photograph have one of them, and so has all that
    was compressed again. Of pixels that were computed since, three of four have not: those of a
    filled, blended, retouched, recoloured or generated region, as long as the picture is not
    compressed once more. A saturated pixel, whose true colour is lost, counts as one of them.

    (B, 3, H, W) in [-1, 1] -> (B, 1, H, W).
    """
    with torch.autocast(images.device.type, enabled=False):
        levels = images.to(torch.promote_types(images.dtype, torch.float32))
        levels = levels.add(1).mul_(127.5).round_()
        red, green, blue = levels.unbind(1)
        luma = (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114).add_(HALF).floor_()
        cb = (0.5 * blue).sub_(red, alpha=0.168736).sub_(green, alpha=0.331264).add_(HALF).floor_()
        cr = (0.5 * red).sub_(green, alpha=0.418688).sub_(blue, alpha=0.081312).add_(HALF).floor_()
        off = (1.402 * cr).add_(0.5).floor_().add_(luma).clamp_(0, 255).sub_(red).abs_()
        more = (-0.344136 * cb).sub_(cr, alpha=0.714136).add_(0.5).floor_()
        off += more.add_(luma).clamp_(0, 255).sub_(green).abs_()
        off += (1.772 * cb).add_(0.5).floor_().add_(luma).clamp_(0, 255).sub_(blue).abs_()
        # In place, and with numbers, which are much faster here than truth values.
        unsaturated = levels.sub_(127.5).abs_().amax(1).sub_(127.5).neg_().clamp_(max=1)
        return off.clamp_(max=1).mul_(unsaturated).mul_(-2).add_(1)[:, None]


def jpeg_share(images: Tensor, cell: int) -> Tensor:
    """The mean of `jpeg_colours` over cells of ``cell`` x ``cell`` pixels, from -1 to 1.

    (B, 3, H, W) in [-1, 1] -> (B, 1, ceil(H / cell), ceil(W / cell)).
    """
    strips = torch.split(images, STRIP, dim=2)
    return torch.cat(
        [F.avg_pool2d(jpeg_colours(strip), cell, ceil_mode=True) for strip in strips], dim=2
    )
