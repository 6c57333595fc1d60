"""output.py: what travels between the parts of a network, and what a localizer returns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class LocalizerOutput(NamedTuple):
    """Logits, not probabilities: the sigmoid is applied once, where a report is made."""

    #: (B, 1, H, W) logits, above 0 = manipulated; DeCLIP's are 256 x 256, a native model's as its
    #: input.
    mask: Tensor
    #: (B, 1, h, w) coarse logits of an image-level head; None where the network has none.
    evidence: Tensor | None


class Features(NamedTuple):
    """What a backbone hands to a decoder."""

    #: (B, C, h, w), one vector for each patch (ViT) or spatial position (CNN).
    grid: Tensor
    #: (B, C), the class token; None where the backbone has none.
    summary: Tensor | None = None


def combine(layers: Iterable[Features]) -> Features:
    """The features of several layers as one: channels concatenated, on the grid of the first.

    Other grids are resized to it bilinearly. There is a class token (B, C of all) if all have one.
    """
    first, *others = layers
    if not others:
        return first
    size = first.grid.shape[-2:]
    grids = [first.grid]
    for grid, _ in others:
        same = grid.shape[-2:] == size
        grids.append(grid if same else F.interpolate(grid, size, mode="bilinear"))
    summaries = [layer.summary for layer in (first, *others) if layer.summary is not None]
    summary = torch.cat(summaries, dim=1) if len(summaries) == len(grids) else None
    return Features(torch.cat(grids, dim=1), summary)
