"""gradcam.py: a classifier of whole pictures, and its Grad-CAM map as the mask.

Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization"
(ICCV 2017). The weak baseline of localisation: it learns from image labels alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoders import initialise, resize
from .output import Features, LocalizerOutput

_SMALLEST = 1e-4
"""Mask probabilities stay this far from 0 and 1, so that their logits are finite."""


class GradCamDecoder(nn.Module):
    """grid (B, C, h, w) -> mask logits (B, 1, 256, 256) and the picture's logit (B, 1, 1, 1).

    The classifier: the mean over the grid, then one linear map, or two with a ReLU between them.
    Grad-CAM: the channels of the grid, weighted by the gradient of the picture's logit, added up,
    what is negative cut off. This head is so simple that the gradient is written out: the map can
    be computed where there are no gradients (inference, ONNX). The map is divided by its maximum,
    as usual; where the classifier sees no edit, its logit is added, so that the map's quiet
    maximum does not count as an edit.

    Args:
        inputs: channels C of the features.
        hidden: units between the two maps; 0: one map alone (the map is then the one of CAM).
    """

    def __init__(self, inputs: int, hidden: int = 0) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden) if hidden else None
        self.linear = nn.Linear(hidden or inputs, 1)
        initialise(self)

    def classify(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """The logit of every picture (B,), and its gradient by the channels' means (B, C)."""
        pooled = grid.mean(dim=(2, 3))
        if self.hidden is None:
            return self.linear(pooled)[:, 0], self.linear.weight.expand(pooled.shape[0], -1)
        units = self.hidden(pooled)
        gradient = (self.linear.weight * (units > 0)) @ self.hidden.weight
        return self.linear(F.relu(units))[:, 0], gradient

    def forward(self, features: Features) -> LocalizerOutput:
        grid = features.grid.float()
        logit, gradient = self.classify(grid)
        heat = F.relu(torch.einsum("bchw,bc->bhw", grid, gradient))[:, None]
        heat = resize(heat, "bilinear")
        heat = heat / heat.amax(dim=(2, 3), keepdim=True).clamp(min=1e-12)
        mask = torch.logit(heat.clamp(_SMALLEST, 1 - _SMALLEST))
        logit = logit[:, None, None, None]
        return LocalizerOutput(mask + logit.clamp(max=0), evidence=logit)
