"""folded.py: BatchNorm folded into the convolution before it, for inference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..models.tracenet import Block


def pairs(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """A parent, and the names of its convolution and of the BatchNorm that follows it at once.

    Only where the order is certain: in a `Sequential`, and in TraceNet's blocks.
    """
    for module in model.modules():
        if isinstance(module, Block) and isinstance(module.norm2, nn.BatchNorm2d):
            yield module, "conv2", "norm2"
        elif isinstance(module, nn.Sequential):
            for (name, child), (after, norm) in itertools.pairwise(module.named_children()):
                if isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    yield module, name, after


def fold(model: nn.Module) -> int:
    """Fold every pair of a model in eval mode, in place; how many there were.

    On a CPU each BatchNorm is a pass of its own over the maps: a tenth of TraceNet's time.
    """
    found = list(pairs(model))
    for parent, name, after in found:
        fused = fuse_conv_bn_eval(getattr(parent, name), getattr(parent, after))
        setattr(parent, name, fused.requires_grad_(False))
        setattr(parent, after, nn.Identity())
    return len(found)
