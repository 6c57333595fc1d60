"""windows.py: a closer look for models of a fixed input size: passes over parts of a large picture.

DeCLIP reads a copy of the whole picture shrunk to 224 x 224 pixels: of an edit 300 pixels wide in
a photograph of 4,000, 17 are left. After that pass, the published one, the same network can read
square windows of the picture at its own resolution, and at coarser ones. The windows of one scale
overlap, cover the picture and are blended into one map; a named rule fuses the scales' maps with
the whole picture's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from .errors import ForgemapError, ModelError
from .tiling import Logits, Model, localize, ramps, resized, to_numpy

BATCH = 8
"""Windows in one forward pass."""
SCALES = (1, 2, 4)
"""Pixels of the picture, along a side, for one pixel that the network reads."""


class Rule(NamedTuple):
    """How the maps of several passes become one."""

    fuse: Callable[[np.ndarray, np.ndarray, int], None]
    """(fused, logits, passes): adds one pass, which it may use up, to the result of `passes`."""
    pool: Callable[[np.ndarray], float]
    """What the evidence of all windows of a scale comes to."""


def mean(fused: np.ndarray, logits: np.ndarray, passes: int) -> None:
    """The mean of the logits: the whole picture has one vote and each scale has one.

    The logarithmic opinion pool (Genest and Zidek, "Combining probability distributions: a
    critique and an annotated bibliography", Statistical Science, 1986) with equal weights. Where
    all agree their answer stays, so that thresholds keep their meaning; a false alarm of one pass
    is outvoted, and so is an edit that one pass sees dimly.
    """
    logits -= fused
    logits /= passes + 1
    fused += logits


def strongest(fused: np.ndarray, logits: np.ndarray, passes: int) -> None:
    """The highest logit of any pass: what one scale sees is seen.

    For searching: it misses least, but every further window is a further chance of a false alarm,
    and thresholds that were chosen for the whole-picture pass no longer say how many there are.
    """
    np.maximum(fused, logits, out=fused)


#: The rules by name.
RULES = {
    "mean": Rule(mean, lambda evidence: float(np.mean(evidence))),
    "max": Rule(strongest, lambda evidence: float(np.max(evidence))),
}


@dataclass(frozen=True)
class Windows:
    """Which windows are looked through, and how their maps are fused.

    Raises:
        ForgemapError: an unknown rule, or scales that are no numbers from 1 on.
    """

    #: A key of `RULES`.
    rule: str = "mean"
    #: See `SCALES`; a scale whose window would hold the whole picture is left out.
    scales: tuple[float, ...] = SCALES
    #: Share of a window's side that neighbours have in common at least.
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ForgemapError(f"windows: unknown rule {self.rule!r}; valid: {', '.join(RULES)}.")
        if not self.scales or not all(1 <= scale < 1000 for scale in self.scales):
            raise ForgemapError(
                "windows: scales are numbers from 1 on, pixels of the picture for one that the "
                f"network reads, such as mean:1,2,4; not {', '.join(map(str, self.scales))!r}."
            )
        if not 0.1 <= self.overlap <= 0.75:
            raise ForgemapError(f"windows: overlap lies in 0.1 ... 0.75, not {self.overlap}.")

    @classmethod
    def parse(cls, text: str) -> Windows:
        """ "mean", "max", or with scales: "mean:1,2.5"."""
        rule, colon, scales = text.partition(":")
        try:
            numbers = tuple(float(scale) for scale in scales.split(",")) if colon else SCALES
        except ValueError:
            raise ForgemapError(
                f"windows: {text!r} is no rule with scales, such as mean or mean:1,2,4."
            ) from None
        return cls(rule, numbers)

    def __str__(self) -> str:
        return f"{self.rule}:{','.join(f'{scale:g}' for scale in self.scales)}"

    def sides(self, input_size: int, height: int, width: int) -> list[int]:
        """Side in pixels of each scale's windows, coarse to fine."""
        sides = {round(scale * input_size) for scale in self.scales}
        return sorted((side for side in sides if side < max(height, width)), reverse=True)

    def count(self, input_size: int, height: int, width: int) -> int:
        """Windows of a picture: as many times does it cost what the whole-picture pass does."""
        return sum(
            len(self.starts(height, side)) * len(self.starts(width, side))
            for side in self.sides(input_size, height, width)
        )

    def starts(self, length: int, side: int, shift: int = 0) -> list[int]:
        """Where windows begin that cover [0, length) and lie within it; 0 if it is shorter.

        shift: pixels by which the inner windows are moved towards 0.
        """
        last = max(0, length - side)
        step = max(1, side - round(self.overlap * side))
        inner = range(step - shift % step, last, step)
        return sorted({0, *inner, last})


def check(model: Model) -> None:
    """Raise a ModelError if windows mean nothing to a model."""
    if getattr(model, "native", False):
        raise ModelError(
            "windows are for models that shrink pictures to a fixed size; this one looks at every "
            "pixel in any case, so leave them out."
        )


@torch.inference_mode()
def look_closer(
    model: Model,
    pixels: np.ndarray,
    windows: Windows,
    *,
    device: str | torch.device = "cpu",
    shift: tuple[int, int] = (0, 0),
) -> Logits:
    """Mask and evidence logits of one picture: the whole-picture pass, fused with all windows.

    Two maps of the picture's size are in memory, whatever the number of windows and scales.

    Args:
        model: a localizer of a fixed input size, in eval mode on `device`.
        pixels: (H, W, 3) uint8. A side shorter than a window is mirrored to its length.
        windows: which ones, and the rule.
        shift: pixels (down, right) by which every grid is moved.
    """
    check(model)
    size = model.preprocess.size
    assert size is not None
    height, width = pixels.shape[:2]
    mask, evidence = localize(model, pixels, device=device)
    rule = RULES[windows.rule]
    for passes, side in enumerate(windows.sides(size, height, width), start=1):
        closer = one_scale(model, pixels, windows, side, device=device, shift=shift)
        rule.fuse(mask, closer.mask, passes)
        if evidence is not None and closer.evidence is not None:
            rule.fuse(evidence, np.full_like(evidence, rule.pool(closer.evidence)), passes)
        del closer
    return Logits(mask, evidence)


@torch.inference_mode()
def one_scale(
    model: Model,
    pixels: np.ndarray,
    windows: Windows,
    side: int,
    *,
    device: str | torch.device = "cpu",
    shift: tuple[int, int] = (0, 0),
) -> Logits:
    """The windows of one scale, blended: mask logits (H, W), and the evidence of each window.

    Args:
        side: of a window, in pixels of the picture.
        model, pixels, windows, shift: as in `look_closer`.
    """
    height, width = pixels.shape[:2]
    rows, columns = (
        [(start, min(start + side, length)) for start in windows.starts(length, side, by)]
        for length, by in zip((height, width), shift, strict=True)
    )
    margin = side // 32  # next to a cut a network knows least, and nothing counts
    weights = ramps(rows, height, margin), ramps(columns, width, margin)
    blended = np.zeros((height, width), np.float32)
    said: list[np.ndarray] = []
    for (i, j), part in _passes(model, pixels, rows, columns, side, device):
        part.mask[...] *= weights[0][i][:, None]
        part.mask[...] *= weights[1][j]
        blended[slice(*rows[i]), slice(*columns[j])] += part.mask
        if part.evidence is not None:
            said.append(part.evidence)
    return Logits(blended, np.stack(said) if said else None)


def _passes(
    model: Model,
    pixels: np.ndarray,
    rows: list[tuple[int, int]],
    columns: list[tuple[int, int]],
    side: int,
    device: str | torch.device,
) -> Iterator[tuple[tuple[int, int], Logits]]:
    """(row, column) of each window and its logits, at the size of the picture's part."""
    places = list(product(range(len(rows)), range(len(columns))))
    for first in range(0, len(places), BATCH):
        some = places[first : first + BATCH]
        squares = [_square(pixels[slice(*rows[i]), slice(*columns[j])], side) for i, j in some]
        batch = torch.cat([model.preprocess(square) for square in squares])
        mask, evidence = model(batch.to(device))
        for n, (i, j) in enumerate(some):
            (top, bottom), (left, right) = rows[i], columns[j]
            part = resized(mask[n : n + 1], (side, side))[: bottom - top, : right - left]
            yield (i, j), Logits(part, None if evidence is None else to_numpy(evidence[n, 0]))


def _square(part: np.ndarray, side: int) -> np.ndarray:
    """A part of the picture (h, w, 3), mirrored at its bottom and right to (side, side, 3)."""
    below, right = side - part.shape[0], side - part.shape[1]
    if not below and not right:
        return part
    return np.pad(part, ((0, below), (0, right), (0, 0)), mode="symmetric")
