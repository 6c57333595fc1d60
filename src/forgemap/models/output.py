"""output.py: what travels between the parts of a network, and what a localizer returns."""

from __future__ import annotations

from typing import NamedTuple

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
