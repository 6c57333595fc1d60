"""blocks.py: which 8x8 blocks of a JPEG do not know an earlier compression that the others know.

A picture that was a JPEG, was edited and is a JPEG again on the same grid has coefficients that
were rounded twice: to the steps of a first table, then to those of the last. Values that hardly
occur, or twice as often as their neighbours, tell the first step. Blocks that were pasted, filled,
drawn or retouched in between were rounded once. How likely each block is one of those follows from
two histograms (Bianchi and Piva, "Image forgery localization via block-grained analysis of JPEG
artifacts", IEEE Transactions on Information Forensics and Security 7(3), 2012, section III): that
of coefficients that were rounded once is taken from the same picture four pixels off its grid,
where no compression shows; the other is what a first step makes of it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..models.grid import dct_matrix

BLOCK = 8
ORDER = 4
FREQUENCIES = [(v, u) for v in range(ORDER + 1) for u in range(ORDER + 1) if 1 <= v + u <= ORDER]
"""(vertical, horizontal) of the coefficients that are looked at; higher ones are mostly zero."""
LARGEST = 40
"""Multiples of the last step up to which coefficients are counted."""
COARSEST = 48
"""First step that is tried, at most; a coarser last one hides any."""
SHARES = np.array([0.99, 0.95, 0.85, 0.7, 0.5])
"""Shares of blocks with the first step that are tried."""
NOISE = 0.45
"""Standard deviation of a decoded coefficient: its pixels are rounded, and so are their colours."""
FINE = 4
"""Bins of a grey level in the histogram of what was not rounded."""
CLEAR = 8.0
"""Nats by which a first step must explain a histogram better than none; some 200 are tried."""
LEAST, MOST = -3.0, 4.0
"""Nats that one coefficient may say ..."""
BOUND = 12.0
"""... and all of a block."""
FEWEST, ENOUGH = 256, 2**14
"""Blocks that histograms are made of, at least, and about at most."""

_LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)


class Blocks(NamedTuple):
    """What the blocks (h, w) of a picture say."""

    odds: NDArray[np.float32]
    """(h, w) nats in [-BOUND, BOUND] for "was not compressed before, as most others were"; 0 where
    nothing is known."""
    steps: dict[tuple[int, int], int]
    """The first step of each of `FREQUENCIES` that shows one; empty: compressed once."""


def compare_blocks(pixels: np.ndarray, table: np.ndarray) -> Blocks:
    """Look for an earlier compression on the same grid.

    Args:
        pixels: (H, W, 3) uint8, as the file stores them: blocks begin in the upper left corner.
        table: (8, 8) luminance steps of the file.
    """
    height, width = (n // BLOCK for n in pixels.shape[:2])
    odds: NDArray[np.float32] = np.zeros((height, width), np.float32)
    if height * width < FEWEST:
        return Blocks(odds, {})
    every = max(1, height * width // ENOUGH)
    steps = first_steps(some_rows(pixels, every, 0), some_rows(pixels, every, BLOCK // 2), table)
    if steps:
        here = coefficients(luma(pixels))
        for (v, u), first in steps.items():
            odds += np.append(first.odds, 0).astype(np.float32)[_levels(here[v, u], table[v, u])]
        odds[_cut_off(pixels)] = 0
    found = {frequency: first.step for frequency, first in steps.items()}
    return Blocks(np.clip(odds, -BOUND, BOUND), found)


def some_rows(pixels: np.ndarray, every: int, start: int) -> np.ndarray:
    """Each so many-th row of blocks of a picture (H, W, 3), as a picture of its own; its blocks
    begin ``start`` pixels to the right of the picture's, and below."""
    rest = pixels[start:, start:]
    rows = rest[: len(rest) // BLOCK * BLOCK].reshape(-1, BLOCK, *rest.shape[1:])[::every]
    return rows.reshape(-1, *rest.shape[1:])


def first_steps(
    pixels: np.ndarray, off: np.ndarray, table: np.ndarray
) -> dict[tuple[int, int], FirstStep]:
    """`first_step` of each of `FREQUENCIES` that shows one.

    Args:
        pixels: (H, W, 3) whose blocks begin in the upper left corner.
        off: the like from off the grid.
        table: (8, 8) luminance steps of the file.
    """
    here, there, known = coefficients(luma(pixels)), coefficients(luma(off)), ~_cut_off(pixels)
    steps = {}
    for v, u in FREQUENCIES:
        last = int(table[v, u])
        if last > COARSEST:
            continue
        levels = _levels(here[v, u][known], last)
        counts = np.bincount(levels, minlength=LARGEST + 2)[: LARGEST + 1]
        found = first_step(counts, fine_histogram(there[v, u], last), last)
        if found is not None:
            steps[v, u] = found
    return steps


class FirstStep(NamedTuple):
    """What one frequency says."""

    step: int
    odds: NDArray[np.float64]
    """(LARGEST + 1,) nats for "rounded once" that each multiple of the last step is worth."""


def first_step(counts: np.ndarray, fine: np.ndarray, last: int) -> FirstStep | None:
    """The first step that a frequency shows; None where none is clear.

    Args:
        counts: how often 0, 1 ... LARGEST times the last step occurs, of either sign.
        fine: the histogram of what was not rounded; see `fine_histogram`.
        last: the last step.
    """
    total = int(counts.sum())
    once = _likelihoods(fine @ _chances_of_sizes(last), total)
    # Of a step beyond what is counted only zeros are seen, as in any flat picture.
    steps = np.arange(2, min(COARSEST, LARGEST * last // 2) + 1)
    twice = np.stack([_likelihoods(_again(fine, int(step), last), total) for step in steps])
    mixed = SHARES[:, None, None] * twice + (1 - SHARES)[:, None, None] * once
    gains = (np.log(mixed) @ counts).max(0) - np.log(once) @ counts
    best = int(gains.argmax())
    if gains[best] < CLEAR or steps[best] == last:
        return None
    odds = np.clip(np.log(once / twice[best]), LEAST, MOST)
    return FirstStep(int(steps[best]), odds)


def coefficients(grey: np.ndarray) -> np.ndarray:
    """(H, W) -> (ORDER + 1, ORDER + 1, h, w): the low frequencies of each whole block."""
    basis = dct_matrix()[: ORDER + 1].numpy()
    height, width = (n // BLOCK for n in grey.shape)
    rows = grey[: height * BLOCK, : width * BLOCK].reshape(height, BLOCK, width * BLOCK)
    columns = np.matmul(basis, rows).reshape(height, ORDER + 1, width, BLOCK)
    return np.matmul(columns, basis.T).transpose(1, 3, 0, 2)


def fine_histogram(values: np.ndarray, last: int) -> NDArray[np.float64]:
    """How often sizes of 0, 1 / FINE ... grey levels occur, up to what LARGEST steps need."""
    bins = _bins(last)
    sizes = np.rint(FINE * np.abs(values)).astype(np.intp).ravel()
    return np.bincount(np.minimum(sizes, bins), minlength=bins + 1)[:bins].astype(np.float64)


def _likelihoods(shares: np.ndarray, total: int) -> np.ndarray:
    """A histogram as probabilities, none of them zero: in so many blocks some come by chance."""
    shares = shares + max(float(shares.max()), 1e-9) / max(total, 1)
    return shares / shares.sum()


def _again(fine: np.ndarray, step: int, last: int) -> NDArray[np.float64]:
    """The histogram in last steps of what was rounded to a first step before."""
    chances = _chances_of_multiples(step, last)
    nearest = np.rint(np.arange(len(fine)) / (FINE * step)).astype(np.intp)
    return np.bincount(nearest, weights=fine, minlength=len(chances)) @ chances


def _bins(last: int) -> int:
    return FINE * (LARGEST + 2) * last


@lru_cache(maxsize=64)
def _chances_of_sizes(last: int) -> NDArray[np.float64]:
    """(bins, LARGEST + 1): that a size of `fine_histogram`, being noisy, becomes each multiple."""
    return _chances(np.arange(_bins(last)) / FINE, last)


@lru_cache(maxsize=1024)
def _chances_of_multiples(step: int, last: int) -> NDArray[np.float64]:
    """The same of 0, 1, 2 ... times a first step."""
    return _chances(step * np.arange(_bins(last) // (FINE * step) + 2), last)


def _chances(sizes: np.ndarray, last: int) -> NDArray[np.float64]:
    edges = (np.arange(LARGEST + 2) - 0.5) * last
    # What noise carries across zero counts by its size.
    sides = [_normal((edges - side * sizes[:, None]) / NOISE) for side in (1, -1)]
    chances = np.diff(sides[0]) + np.diff(sides[1])
    chances[:, 0] /= 2
    return np.asarray(chances, np.float64)


def _normal(values: np.ndarray) -> np.ndarray:
    """The normal distribution's share below each value."""
    return np.asarray(torch.special.ndtr(torch.from_numpy(values)).numpy())


def _levels(values: np.ndarray, last: int) -> NDArray[np.intp]:
    """Which multiple of the last step each coefficient is, LARGEST + 1 for those beyond."""
    return np.minimum(np.rint(np.abs(values) / last), LARGEST + 1).astype(np.intp)


def luma(pixels: np.ndarray) -> NDArray[np.float32]:
    """(H, W, 3) uint8 -> (H, W): as `compression.luma`, in a third of the time."""
    grey = cv2.transform(pixels.astype(np.float32), _LUMA)
    return np.asarray(grey.reshape(pixels.shape[:2]), np.float32)


def _cut_off(pixels: np.ndarray) -> NDArray[np.bool_]:
    """(H, W, 3) -> (h, w): blocks of which something is black or white in any colour; such a block
    says nothing, since its colours were cut off."""
    height, width = (n // BLOCK for n in pixels.shape[:2])
    rows = pixels[: height * BLOCK, : width * BLOCK].reshape(height, BLOCK, -1)
    # By rows first, which lie as processors like them.
    ends = rows.min(1) == 0, rows.max(1) == 255
    return np.asarray((ends[0] | ends[1]).reshape(height, width, -1).any(-1))
