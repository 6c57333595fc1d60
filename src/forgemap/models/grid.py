"""grid.py: traces of JPEG's 8x8 grid: is there one here, and is it the surroundings' own?"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 8
ZERO = 0.5
"""Coefficients below were zero in the file: decoding rounds to whole grey levels."""
STRIP = 64
"""Rows that are transformed at a time."""
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
    picture.
    """

    channels = 9 + len(LEVELS)
    basis: Tensor

    def __init__(self, surroundings: int = 12) -> None:
        """``surroundings``: cells to each side of one that settle which grid is the common one."""
        super().__init__()
        self.surroundings = surroundings
        self.register_buffer("basis", dct_matrix(), persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], H and W at least 16 -> (B, 14, ceil(H / 8), ceil(W / 8))."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
            luma = (images * weights).sum(1, keepdim=True) * 127.5
            zeros, small = self.counts(luma)
            share = zeros.mean(1, keepdim=True)
            votes = zeros - share  # for each of the 64 places that a grid's origin may have
            near, far = box(votes, 1), box(votes, self.surroundings)
            common, origin = far.max(1, keepdim=True)  # the grid of the surroundings
            strongest = near.topk(2, dim=1).values
            own, second = strongest[:, :1], strongest[:, 1:]
            agreed = near.gather(1, origin)
            similarity = F.cosine_similarity(near, far, dim=1, eps=1e-3)[:, None]
            levels = torch.cat([part.gather(1, origin) for part in small], dim=1)
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
                ],
                dim=1,
            )

    def counts(self, luma: Tensor) -> tuple[Tensor, list[Tensor]]:
        """How large the coefficients are in the block at each of 64 places of each 8x8 cell.

        (B, 1, H, W) grey levels -> shares, each (B, 64, ceil(H / 8), ceil(W / 8)): of all
        coefficients, those that are zero; of those of low frequency, those below each of LEVELS.
        """
        height = luma.shape[-2]
        # By strips, whose 64 maps stay in the processor's cache: four times as fast.
        tops = range(0, height - BLOCK + 1, STRIP)
        strips = [self.count(luma[..., top : top + STRIP + BLOCK - 1, :]) for top in tops]
        zeros, *small = torch.split(torch.cat(strips, dim=2), 1, dim=1)
        return cells(zeros) / (BLOCK**2 - 1), [cells(count) / LOWS for count in small]

    def count(self, luma: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 1 + len(LEVELS), H - 7, W - 7), for the block at each pixel."""
        basis = self.basis.to(luma.dtype)
        rows = F.conv2d(luma, basis[:, None, :, None])
        height, width = (n - BLOCK + 1 for n in luma.shape[-2:])
        # In bytes, which hold 63 and are added three times as fast.
        shape = (luma.shape[0], 1 + len(LEVELS), height, width)
        count = torch.zeros(shape, dtype=torch.uint8, device=luma.device)
        for k in range(BLOCK):
            size = F.conv2d(rows[:, k : k + 1], basis[:, None, None, :]).abs_()
            if k == 0:
                size = size[:, 1:]  # the mean brightness says nothing
            count[:, 0] += number(size < ZERO)
            low = size[:, : max(0, LOW + 1 - max(k, 1))]
            for i, level in enumerate(LEVELS, 1):
                count[:, i] += number(low < level)
        return count.to(luma.dtype)


def number(true: Tensor) -> Tensor:
    """(B, C, H, W) bool, C at most 255 -> how many are true, (B, H, W) uint8."""
    return true.view(torch.uint8).sum(1, dtype=torch.uint8)


def cells(count: Tensor) -> Tensor:
    """(B, 1, H - 7, W - 7), one value for each block -> (B, 64, ceil(H / 8), ceil(W / 8))."""
    height, width = (n + BLOCK - 1 for n in count.shape[-2:])
    count = extend(count, -height % BLOCK + BLOCK - 1, 2)
    count = extend(count, -width % BLOCK + BLOCK - 1, 3)
    return F.pixel_unshuffle(count, BLOCK)


def extend(x: Tensor, more: int, dim: int) -> Tensor:
    """x, longer by ``more`` at its end: what would leave the picture repeats the last period."""
    for _ in range(-(-more // BLOCK)):
        x = torch.cat([x, x.narrow(dim, x.shape[dim] - BLOCK, BLOCK)], dim)
    return x.narrow(dim, 0, x.shape[dim] - (-more % BLOCK))


def box(x: Tensor, radius: int) -> Tensor:
    """Mean over a square of 2 radius + 1 cells, of those that exist."""
    side = 2 * radius + 1
    x = F.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=False)
