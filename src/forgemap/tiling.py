"""tiling.py: runs a localizer over a picture of any size, with memory that stays bounded.

Models with a fixed input size see the whole picture in one pass; on request they look closer, see
`windows.py`. Models that look at native resolution see overlapping tiles: pixels close to a cut are
thrown away, because padding has reached them, and what is left is blended with a linear ramp.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .preprocess import Preprocess

TILE = 2048
"""Largest side in pixels of what a native-resolution model sees at once."""

_SMALLEST = 32
"""Pictures with a shorter side are padded by repeating their border, then cut back."""


class Logits(NamedTuple):
    """What a localizer says about one picture, before the sigmoid."""

    mask: np.ndarray
    """(H, W) float32 logits, one for each pixel of the picture."""
    evidence: np.ndarray | None
    """(h, w) float32 logits of coarse cells; None where the network has none."""


class Model(Protocol):
    """What `localize` needs to know of a model; see `forgemap.models`."""

    preprocess: Preprocess
    native: bool

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]: ...


@torch.inference_mode()
def localize(
    model: Model,
    pixels: np.ndarray,
    *,
    device: str | torch.device = "cpu",
    tile: int = TILE,
    margin: int | None = None,
    ramp: int = 64,
) -> Logits:
    """Mask and evidence logits of one picture.

    Args:
        model: a localizer in eval mode on `device`.
        pixels: (H, W, 3) uint8, any size from 1x1.
        tile: largest side of one pass of a native-resolution model; a multiple of its stride.
        margin: pixels next to a cut that are thrown away; default: the model's `reach`, what its
            receptive field extends to each side, so that tiles agree with the whole picture.
        ramp: pixels over which two tiles are blended.
    """
    if not model.native:
        return _in_one_pass(model, pixels, device)
    stride = getattr(model, "stride", 16)
    margin = _round_up(getattr(model, "reach", 128) if margin is None else margin, stride)
    ramp = _round_up(max(ramp, stride), stride)
    tile = max(tile // stride * stride, 2 * margin + ramp + stride)

    height, width = pixels.shape[:2]
    rows = split(height, tile, 2 * margin + ramp, stride)
    columns = split(width, tile, 2 * margin + ramp, stride)
    if len(rows) == len(columns) == 1:
        return _tile(model, pixels, device, stride)

    row_weights = ramps(rows, height, margin)
    column_weights = ramps(columns, width, margin)
    # The same windows in cells of the evidence map.
    cells = [[(a // stride, -(-b // stride)) for a, b in spans] for spans in (rows, columns)]
    h, w = -(-height // stride), -(-width // stride)
    cell_row_weights = ramps(cells[0], h, margin // stride)
    cell_column_weights = ramps(cells[1], w, margin // stride)

    mask = np.zeros((height, width), np.float32)
    evidence: np.ndarray | None = None
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            part = _tile(model, pixels[top:bottom, left:right], device, stride)
            part.mask[...] *= row_weights[i][:, None]
            part.mask[...] *= column_weights[j]
            mask[top:bottom, left:right] += part.mask
            if part.evidence is not None:
                if evidence is None:
                    evidence = np.zeros((h, w), np.float32)
                (y0, y1), (x0, x1) = cells[0][i], cells[1][j]
                weights = cell_row_weights[i][:, None] * cell_column_weights[j]
                evidence[y0:y1, x0:x1] += part.evidence * weights
    return Logits(mask, evidence)


@torch.inference_mode()
def localize_many(
    model: Model, pictures: Sequence[np.ndarray], *, device: str | torch.device = "cpu"
) -> Iterator[Logits]:
    """The logits of several pictures of any sizes, in their order.

    A model of a fixed input size sees them all in one pass; its maps are brought to the pictures'
    sizes one at a time, as they are asked for. A native-resolution model, which a large picture
    alone keeps busy, sees one after the other.
    """
    if model.native or len(pictures) < 2:
        for pixels in pictures:
            yield localize(model, pixels, device=device)
        return
    batch = torch.cat([model.preprocess(pixels) for pixels in pictures])
    mask, evidence = model(batch.to(device))
    for i, pixels in enumerate(pictures):
        yield Logits(
            resized(mask[i : i + 1], pixels.shape[:2]),
            None if evidence is None else to_numpy(evidence[i, 0]),
        )


def split(length: int, tile: int, overlap: int, stride: int) -> list[tuple[int, int]]:
    """Covers [0, length) with the fewest spans of at most `tile`, all of about the same size.

    Starts are multiples of `stride`, so that every tile meets the network's pooling grid at the
    same phase as the whole picture; neighbours share at least `overlap`, a multiple of `stride`.
    """
    if length <= tile:
        return [(0, length)]
    count = math.ceil((length - overlap) / (tile - overlap))
    size = _round_up(math.ceil((length + (count - 1) * overlap) / count), stride)
    starts = range(0, length - overlap, size - overlap)
    return [(start, min(start + size, length)) for start in starts]


def ramps(spans: list[tuple[int, int]], length: int, margin: int) -> list[np.ndarray]:
    """One weight vector for each span; at every position of [0, length) the weights add up to 1.

    0 within `margin` of a cut, rising linearly to the span's inside; the ends of the picture are
    no cuts.
    """
    weights = []
    for start, stop in spans:
        position = np.arange(start, stop) + 0.5
        left = position - start - margin if start > 0 else np.inf
        right = stop - position - margin if stop < length else np.inf
        weights.append(np.clip(np.minimum(left, right), 0, length) * np.ones(stop - start))
    total = np.zeros(length)
    for (start, stop), weight in zip(spans, weights, strict=True):
        total[start:stop] += weight
    return [
        (weight / total[start:stop]).astype(np.float32)
        for (start, stop), weight in zip(spans, weights, strict=True)
    ]


def _tile(model: Model, pixels: np.ndarray, device: str | torch.device, stride: int) -> Logits:
    """One pass at native resolution over a picture or a tile of it."""
    height, width = pixels.shape[:2]
    below, right = max(0, _SMALLEST - height), max(0, _SMALLEST - width)
    if below or right:
        pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge")
    mask, evidence = model(model.preprocess(pixels).to(device, memory_format=torch.channels_last))
    cells = -(-height // stride), -(-width // stride)
    return Logits(
        to_numpy(mask[0, 0, :height, :width]),
        None if evidence is None else to_numpy(evidence[0, 0, : cells[0], : cells[1]]),
    )


def _in_one_pass(model: Model, pixels: np.ndarray, device: str | torch.device) -> Logits:
    """Fixed input size: the mask's logits are interpolated bilinearly to the picture's size."""
    mask, evidence = model(model.preprocess(pixels).to(device))
    return Logits(
        resized(mask, pixels.shape[:2]), None if evidence is None else to_numpy(evidence[0, 0])
    )


def resized(mask: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """(1, 1, h, w) logits -> `size`, (H, W) in pixels, bilinearly; on the CPU."""
    # On the CPU, where a 100 MP map always fits.
    full = F.interpolate(mask.float().cpu(), size=size, mode="bilinear")
    return full[0, 0].numpy()


def to_numpy(tensor: Tensor) -> np.ndarray:
    return np.array(tensor.float().cpu().numpy())


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
