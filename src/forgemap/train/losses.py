"""losses.py: what training minimises; pure functions of logits and targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """One minus the soft Dice overlap, averaged over the pictures whose mask is not empty.

    Args:
        logits: (B, 1, H, W).
        mask: (B, 1, H, W), 0 or 1.

    Returns:
        A scalar in [0, 1]; 0 when every mask is empty (the overlap is then not defined).
    """
    probability = torch.sigmoid(logits)
    overlap = (probability * mask).sum(dim=(1, 2, 3))
    total = (probability + mask).sum(dim=(1, 2, 3))
    edited = (mask.sum(dim=(1, 2, 3)) > 0).float()
    return ((1 - (2 * overlap + 1) / (total + 1)) * edited).sum() / edited.sum().clamp(min=1)


def pool_evidence(evidence: Tensor, sharpness: float = 4.0) -> Tensor:
    """Log-mean-exp over the cells, (B, 1, h, w) -> (B,): between the mean and the maximum."""
    cells = evidence.flatten(1) * sharpness
    return (
        torch.logsumexp(cells, dim=1) - torch.log(torch.tensor(float(cells.shape[1])))
    ) / sharpness


def localization_loss(
    logits: Tensor, evidence: Tensor | None, mask: Tensor, *, dice: float = 1.0, image: float = 0.25
) -> Tensor:
    """Where and whether: pixel cross-entropy, Dice, and cross-entropy of the pooled evidence.

    Args:
        logits: (B, 1, h, w) mask logits; the target is brought to their size.
        evidence: (B, 1, h', w') coarse logits, or None where the network has no such head.
        mask: (B, 1, H, W), 0 or 1.
        dice: weight of the Dice term (0 = cross-entropy alone, as DeCLIP is trained).
        image: weight of the image-level term.
    """
    target = mask
    if mask.shape[-2:] != logits.shape[-2:]:
        target = (F.interpolate(mask, logits.shape[-2:], mode="area") >= 0.5).float()
    loss = F.binary_cross_entropy_with_logits(logits, target)
    if dice:
        loss = loss + dice * dice_loss(logits, target)
    if evidence is not None and image:
        edited = (mask.flatten(1).amax(dim=1) > 0).float()
        loss = loss + image * F.binary_cross_entropy_with_logits(pool_evidence(evidence), edited)
    return loss
