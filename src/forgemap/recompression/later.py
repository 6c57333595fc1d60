"""later.py: what came after a JPEG's first compression, and what that says beside a network.

    later = find_later(image)                          # an `Image`; None: nothing stands out
    heat, evidence = later.join(heat, evidence)        # a network's maps with it

A network that looks for traces sees little in a JPEG that was saved again. Where the last quality
is the higher one, its coefficients still tell which blocks were compressed before.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..image import Image, to_stored
from ..outlines import Box
from ..pixels import displayed_view
from .blocks import BLOCK, compare_blocks

KNOWN = -1.0
"""Nats of the median block, at most: most of a picture must clearly know the first compression.
Processing of all of it (sharpening, tone curves, grain) makes histograms that only resemble such,
and where the last quality was the lower one they tell nothing: all of these stay above."""
NEAR, WIDE = 3, 7
"""Sides in blocks of the squares whose mean is looked at."""
SUSPECT = 0.5
"""Nats, mean over `NEAR`, from which a block may belong to a region ..."""
FEWEST = 4
"""... and blocks that a region has at least."""
WEIGHTS = {NEAR: 0.18, WIDE: 0.48}
"""Log-odds of an edit that a nat of each mean is worth, beside those of the network, of which one
is worth one. Fitted by ``python -m benchmarks.recompression``."""
SHARE = 0.5
"""Of these, what the evidence gets: captions, logos and watermarks came later too, and a picture is
not to be accused because of them alone."""


class Later(NamedTuple):
    """Blocks that came later, of one picture."""

    nats: NDArray[np.float32]
    """(h, w) log-odds of an edit, to be added to the network's; blocks as the file stores them."""
    largest: NDArray[np.bool_]
    """(h, w): the largest region."""
    shape: tuple[int, int]
    """Height and width of the picture as it is displayed."""
    orientation: int
    """See `Image.orientation`."""

    def of_pixels(self) -> NDArray[np.float32]:
        """(H, W): `nats`, as the picture is displayed."""
        return self._displayed(self.nats)

    def of_cells(self, cells: tuple[int, int]) -> NDArray[np.float32]:
        """(h, w): what that many cells of evidence get."""
        means = cv2.resize(self.of_pixels(), cells[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(SHARE * means, np.float32)

    def join(
        self, heat: np.ndarray, evidence: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities (H, W) and evidence logits (h, w) of a network, with what this says; the
        given ones stay as they are."""
        odds = self.of_pixels()
        np.exp(odds, out=odds)
        joined = heat * odds
        joined /= 1 - heat + joined
        if evidence is not None:
            evidence = evidence + self.of_cells((evidence.shape[0], evidence.shape[1]))
        return joined, evidence

    def box(self) -> Box:
        """Around the largest region, in pixels of the picture as it is displayed."""
        rows, columns = (np.flatnonzero(self._displayed(self.largest).any(a)) for a in (1, 0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def words(self) -> str:
        """For the reason of a verdict."""
        x0, y0, x1, y1 = self.box()
        return (
            "Most of the picture was saved as a JPEG twice, but what lies in "
            f"({x0}, {y0} – {x1}, {y1}) only once: it was drawn, pasted or retouched in between."
        )

    def _displayed(self, blocks: np.ndarray) -> np.ndarray:
        """Of pixels. Those that fill no block, at the right and bottom, are as their neighbours."""
        sides = self.shape if self.orientation < 5 else self.shape[::-1]
        rest = [(0, side - BLOCK * n) for side, n in zip(sides, blocks.shape, strict=True)]
        pixels = np.pad(blocks.repeat(BLOCK, 0).repeat(BLOCK, 1), rest, mode="edge")
        return np.ascontiguousarray(displayed_view(pixels, self.orientation))


def find_later(image: Image) -> Later | None:
    """Look for parts of a JPEG that were compressed once, where the others were twice and on the
    same grid. None where no such part stands out, and of other files."""
    odds = block_odds(image)
    if odds is None or np.median(odds) >= KNOWN:
        return None
    means = {side: box_mean(odds, side) for side in WEIGHTS}
    # An opening by 2x2 blocks; OpenCV's own would move it by one.
    square = np.ones((2, 2), np.uint8)
    suspect = cv2.erode((means[NEAR] > SUSPECT).astype(np.uint8), square)
    suspect = cv2.dilate(suspect, square, anchor=(0, 0))
    _, labels, regions, _ = cv2.connectedComponentsWithStats(suspect, connectivity=4)
    areas = regions[1:, cv2.CC_STAT_AREA]  # the first one is the rest
    if not areas.size or areas.max() < FEWEST:
        return None
    nats = sum(weight * means[side] for side, weight in WEIGHTS.items())
    height, width = image.samples.shape[:2]
    largest = labels == 1 + areas.argmax()
    return Later(np.asarray(nats, np.float32), largest, (height, width), image.orientation)


def block_odds(image: Image) -> NDArray[np.float32] | None:
    """(h, w) `Blocks.odds`, laid out as the file stores them; None where nothing is known."""
    if image.table is None:
        return None
    stored = to_stored(image.samples, image.orientation)
    blocks = compare_blocks(stored, np.reshape(image.table, (BLOCK, BLOCK)))
    return blocks.odds if blocks.steps else None


def box_mean(odds: np.ndarray, side: int) -> NDArray[np.float32]:
    """Of each block, the mean over the square around it."""
    return np.asarray(cv2.blur(odds, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)
