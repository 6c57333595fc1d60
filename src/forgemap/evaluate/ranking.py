"""ranking.py: the pixels of one picture sorted once, and what every pixel metric needs of it.

The definitions are in `metrics.py`; here is how they are computed fast and exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.intp]

ERODE, DILATE = 15, 11  # sides in pixels of the squares of TruFor's rule
TWO_PASSES = 512 * 512  # up to as many keys fit the cache together with the buckets of two passes

# A sorted pixel is one 32-bit key: 30 bits of its probability (the bits of a float32 in [0, 1] are
# ordered as the numbers are, and the highest two are 0), then 2 bits that say in which of these
# regions it lies. Of equal probabilities those inside the mask come first: `_Ranking` counts on it.
INSIDE_SCORED, INSIDE_IGNORED, OUTSIDE_IGNORED, OUTSIDE_SCORED = range(4)


def eroded_dilated(inside: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The mask (H, W) of 0 and 1 made smaller and larger: see `metrics.scored_regions`."""
    # cv2's default border value leaves the outside of the picture out of both operations.
    eroded = cv2.erode(inside, np.ones((ERODE, ERODE), np.uint8))
    dilated = cv2.dilate(inside, np.ones((DILATE, DILATE), np.uint8))
    if not eroded.any():
        eroded = inside
    return eroded.astype(np.uint8, copy=False), dilated.astype(np.uint8, copy=False)


class Ranking(NamedTuple):
    """The pixels of one picture, lowest probability first, and the counts that all metrics need.

    Only pixels that are not OUTSIDE_SCORED ("kept": the mask and the band around it, usually a
    small share) are looked at one by one: the number of OUTSIDE_SCORED pixels below one is its
    position minus the number of kept pixels below. A "cut" is a threshold just below a value that
    occurs inside the mask: no other threshold can be the best one, or change the recall.
    """

    keys: NDArray[np.uint32]  # (n,) sorted; see the constants at the top
    kept: Counts  # (k,) positions in keys, ascending
    inside_below: Counts  # (k + 1,) pixels inside the mask among the first 0 … k kept ones
    scored_below: Counts  # (k + 1,) INSIDE_SCORED pixels among them
    cut: Counts  # (t,) the first pixel above each cut, as an index into kept
    below: Counts  # (t,) pixels below each cut
    number: Counts  # (t,) pixels inside the mask of exactly the value above each cut

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], inside: NDArray[np.bool_]) -> Ranking:
        mask = inside.view(np.uint8)
        eroded, dilated = eroded_dilated(mask)
        # The shift makes room for the region, and drops the sign of a -0.0.
        keys = probabilities.view(np.uint32) << np.uint32(2)
        keys |= OUTSIDE_SCORED - (eroded + mask + dilated)
        keys = _sort(keys.ravel())
        kept = np.flatnonzero((keys & 3) != OUTSIDE_SCORED)
        values = keys[kept]
        region = (values & 3).astype(np.uint8)
        values >>= 2
        within = region <= INSIDE_IGNORED
        starts = within.copy()
        starts[1:] &= values[1:] != values[:-1]
        cut = np.flatnonzero(starts)
        inside_below = _counts(within)
        number = np.empty_like(cut)
        if cut.size:
            found_below = inside_below[cut]
            np.subtract(found_below[1:], found_below[:-1], out=number[:-1])
            number[-1] = inside_below[-1] - found_below[-1]
        scored_below = _counts(region == INSIDE_SCORED)
        return cls(keys, kept, inside_below, scored_below, cut, kept[cut], number)

    @property
    def inside(self) -> int:
        return int(self.inside_below[-1])

    @property
    def positives(self) -> int:
        return int(self.scored_below[-1])

    @property
    def negatives(self) -> int:
        return self.keys.size - self.kept.size

    def _split(self, threshold: float) -> tuple[int, int]:
        """How many pixels, and how many kept ones, are not above the threshold."""
        if threshold < 0:
            return 0, 0
        bits = int(np.float32(min(threshold, 1.0)).view(np.uint32))
        below = int(np.searchsorted(self.keys, np.uint32(bits << 2 | 3), side="right"))
        return below, int(np.searchsorted(self.kept, below))

    def overlap(self, threshold: float) -> tuple[int, int]:
        below, kept_below = self._split(threshold)
        intersection = self.inside - int(self.inside_below[kept_below])
        predicted = self.keys.size - below
        return intersection, predicted + self.inside - intersection

    def f1_at(self, threshold: float) -> float:
        below, kept_below = self._split(threshold)
        found = self.positives - int(self.scored_below[kept_below])
        return f1(found, self.negatives - (below - kept_below), self.positives)

    def f1_best(self) -> float:
        if not self.positives:
            return 1.0
        found = self.positives - self.scored_below[self.cut]
        total = self.cut - self.below  # in the end: positives + found + false alarms
        total += self.positives + self.negatives
        total += found
        return 2 * float(np.max(found / total))

    def average_precision(self) -> float:
        if not self.inside:
            return float("nan")
        found = self.inside - self.inside_below[self.cut]
        precision = found / (self.keys.size - self.below)
        return float((precision * self.number).sum() / self.inside)

    def auc(self) -> float:
        outside = self.keys.size - self.inside
        if not self.inside or not outside:
            return float("nan")
        won = int(np.dot(self.below - self.inside_below[self.cut], self.number))
        # A tie with the outside: the key after the inside pixels of that value has the same value.
        after = self.below + self.number
        next_keys = self.keys.take(after, mode="clip")
        same = np.flatnonzero((next_keys ^ self.keys[self.below]) <= OUTSIDE_SCORED)
        end = np.searchsorted(self.keys, next_keys[same] | OUTSIDE_SCORED, side="right")
        tied = int(np.dot(end - after[same], self.number[same]))
        return (won + tied / 2) / (self.inside * outside)


def _sort(keys: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The keys sorted (the argument is used up): a radix sort of two or three counting passes.

    Transposing a sparse row with one column per bucket *is* a counting pass, and it is compiled.
    np.sort takes 2-4 times as long where AVX-512's compressed stores are slow (AMD's Zen 4).
    """
    from scipy import sparse  # here, for those who need only the IoU

    lowest = keys.min()
    keys -= lowest
    passes = 2 if keys.size <= TWO_PASSES else 3
    bits = -(-int(keys.max()).bit_length() // passes)
    row = np.array([0, keys.size], np.int32)
    for number in range(passes):
        bucket = keys >> np.uint32(number * bits)
        bucket &= np.uint32((1 << bits) - 1)
        column = bucket.view(np.int32)
        keys = sparse.csr_array((keys, column, row), shape=(1, 1 << bits)).tocsc().data
    keys += lowest
    return keys


def _counts(flags: NDArray[np.bool_]) -> Counts:
    """How many flags are set among the first 0 … k."""
    counts = np.zeros(flags.size + 1, np.intp)
    np.cumsum(flags, out=counts[1:])
    return counts


def f1(found: int, false_alarms: int, positives: int) -> float:
    """F1 from counts of pixels, in [0, 1]; 1 where nothing was to be found and nothing was."""
    wanted = positives + found + false_alarms
    return 2 * found / wanted if wanted else 1.0
