"""grid.py: traces of JPEG's 8x8 grid: is there one here, and is it the surroundings' own?"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .colours import jpeg_share

BLOCK = 8
ZERO = 0.5
"""Coefficients below were zero in the file: decoding rounds to whole grey levels."""
STRIP = 2**14
"""Pixels that a CPU transforms at a time: eight maps of them stay in its cache."""
MANY = 2**22
"""Pixels that other devices transform at a time: few steps, and memory that stays bounded."""
LEVELS = (0.5, 2.5, 5.0, 10.0, 20.0)
"""Sizes below which coefficients of low frequency are counted."""
LOW, LOWS = 4, 14
"""Low frequencies: those whose two orders add up to 1 ... 4; there are fourteen."""


def dct_matrix() -> Tensor:
    """The orthonormal 8-point DCT, (8, 8): row k is the k-th cosine."""
    k = torch.arange(BLOCK).float()[:, None]
    n = torch.arange(BLOCK).float()[None]
    basis = torch.cos(math.pi * (2 * n + 1) * k / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis


class GridTraces(nn.Module):
    """What remains of earlier JPEG compression, as fourteen maps at 1/8 of the resolution.

    JPEG sets most coefficients of each 8x8 block to zero. Counted for a block at every position,
    the zeros peak where the block lies on the grid of the compression (Nikoukhah et al., "JPEG
    grid detection based on the number of DCT zeros and its application to automatic and localized
    forgery detection", CVPR workshops 2019). Pasted, moved, filled or generated pixels have no
    grid, or another one: nine maps say so. When the picture was compressed again on the same grid,
    they have one too; but what was compressed twice lacks the small coefficients that the first,
    coarser compression took (the double quantization of Popescu and Farid, "Statistical tools for
    digital forensics", 2004): five maps count those of low frequency below each of LEVELS.

    The maps do not depend on where the grid's origin lies, so that a crop is as good as the whole
    picture. With ``colours`` a fifteenth map is the share of pixels whose colour a JPEG decoder can
    give (`jpeg_colours`): it tells of pixels that were computed since, however finely the picture
    had been compressed, until it is compressed again.
    """

    basis: Tensor

    def __init__(self, colours: bool = False, surroundings: int = 12) -> None:
        """``surroundings``: cells to each side of one that settle which grid is the common one."""
        super().__init__()
        self.colours, self.surroundings = colours, surroundings
        self.channels = 9 + len(LEVELS) + colours
        self.register_buffer("basis", dct_matrix(), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H, W at least 16 -> (B, channels, ceil(H / 8), ceil(W / 8))."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            red, green, blue = images.unbind(1)
            luma = (red * 0.299).add_(green * 0.587).add_(blue * 0.114).mul_(127.5)
            zeros, small = torch.split(self.counts(luma[:, None]), [1, len(LEVELS)], dim=1)
            shares = F.pixel_unshuffle(zeros, BLOCK).to(luma.dtype) / (BLOCK**2 - 1)
            share = shares.mean(1, keepdim=True)
            # For each of the 64 places that a grid's origin may have, which from here on lie side
            # by side: a box filter is then eight times as fast.
            votes = shares.contiguous(memory_format=torch.channels_last).sub_(share)
            near, far = box(votes, 1), box(votes, self.surroundings)
            common, origin = far.max(1, keepdim=True)  # the grid of the surroundings
            own, first = near.max(1, keepdim=True)
            second = near.scatter(1, first, -math.inf).amax(1, keepdim=True)
            agreed = near.gather(1, origin)
            similarity = F.cosine_similarity(near, far, dim=1, eps=1e-3)[:, None]
            levels = at(small, origin).to(luma.dtype) / LOWS
            colours = [jpeg_share(images, BLOCK)] if self.colours else []
            return torch.cat(
                [
                    2 * share - 1,
                    8 * common,
                    8 * own,
                    8 * (own - second),
                    8 * agreed,
                    8 * votes.gather(1, origin),
                    4 * (own - agreed),
                    (agreed / (own + 0.01)).clamp(-1, 1),
                    similarity,
                    2 * box(levels, 1) - 1,
                    *colours,
                ],
                dim=1,
            )

    def counts(self, luma: Tensor) -> Tensor:
        """How large the coefficients are in the block that begins at each pixel.

        (B, 1, H, W) grey levels -> (B, 1 + len(LEVELS), H', W') uint8, H and W rounded up to whole
        cells: of all coefficients, those that are zero; of those of low frequency, those below
        each of LEVELS.
        """
        height, width = luma.shape[-2:]
        strip = STRIP if luma.device.type == "cpu" else MANY
        pictures = max(1, strip // (height * width))
        rows = max(1, strip // (pictures * width))
        tops = range(0, height - BLOCK + 1, rows)
        count = torch.cat(
            [
                torch.cat([self.count(some[..., y : y + rows + BLOCK - 1, :]) for y in tops], dim=2)
                for some in torch.split(luma, pictures)
            ]
        )
        count = extend(count, -height % BLOCK + BLOCK - 1, 2)
        return extend(count, -width % BLOCK + BLOCK - 1, 3)

    def count(self, luma: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 1 + len(LEVELS), H - 7, W - 7) uint8, for the block at each pixel."""
        basis = self.basis.to(luma.dtype)
        # Twice as large, which is exact: what they are compared with are whole numbers.
        rows = F.conv2d(luma, 2 * basis[:, None, :, None])
        zeros, low = luma.new_zeros(()), []
        for k in range(BLOCK):
            size = F.conv2d(rows[:, k : k + 1], basis[:, None, None, :]).abs_()
            if k == 0:
                size = size[:, 1:]  # the mean brightness says nothing
            if k <= LOW:
                low.append(size[:, : LOW + 1 - max(k, 1)].clamp(max=255).to(torch.uint8))
            # In place, number to number: a comparison that answers in bool takes six times as long.
            zeros = size.lt_(2 * ZERO).sum(1, keepdim=True).add_(zeros)
        size = torch.cat(low, dim=1)
        small = [
            size.clone().lt_(int(2 * level)).sum(1, keepdim=True, dtype=torch.uint8)
            for level in LEVELS
        ]
        return torch.cat([zeros.to(torch.uint8), *small], dim=1)


def at(maps: Tensor, place: Tensor) -> Tensor:
    """Of each 8x8 cell of maps (B, C, 8h, 8w) the value at its ``place`` (B, 1, h, w), 0 ... 63."""
    height, width = place.shape[-2:]
    y = torch.arange(0, BLOCK * height, BLOCK, device=place.device)[:, None] + place // BLOCK
    x = torch.arange(0, BLOCK * width, BLOCK, device=place.device) + place % BLOCK
    index = (y * maps.shape[-1] + x).flatten(2).expand(-1, maps.shape[1], -1)
    return maps.flatten(2).gather(2, index).view(len(maps), -1, height, width)


def extend(x: Tensor, more: int, dim: int) -> Tensor:
    """x, longer by ``more`` at its end: what would leave the picture repeats the last period."""
    while more > 0:
        x = torch.cat([x, x.narrow(dim, x.shape[dim] - BLOCK, min(more, BLOCK))], dim)
        more -= BLOCK
    return x


def box(x: Tensor, radius: int) -> Tensor:
    """Mean over a square of 2 radius + 1 cells, of those that exist."""
    side = 2 * radius + 1
    x = F.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=False)
