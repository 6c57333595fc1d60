"""The training losses against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from forgemap.train.losses import dice_loss, localization_loss, pool_evidence


def test_dice_is_zero_for_a_perfect_mask_and_near_one_for_its_opposite() -> None:
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, 4:12] = 1
    assert dice_loss(40 * (mask - 0.5), mask) == pytest.approx(0, abs=1e-4)
    assert dice_loss(-40 * (mask - 0.5), mask) > 0.98


def test_dice_ignores_pictures_without_an_edit() -> None:
    assert dice_loss(torch.randn(3, 1, 8, 8), torch.zeros(3, 1, 8, 8)) == 0


def test_pooled_evidence_lies_between_mean_and_maximum() -> None:
    evidence = torch.randn(5, 1, 4, 6)
    pooled = pool_evidence(evidence)
    assert (pooled >= evidence.flatten(1).mean(1)).all()
    assert (pooled <= evidence.flatten(1).amax(1)).all()
    assert pool_evidence(torch.full((1, 1, 3, 3), 2.0)).item() == pytest.approx(2.0)
    naive = math.log(sum(math.exp(4 * v) for v in evidence[0].flatten().tolist()) / 24) / 4
    assert pooled[0].item() == pytest.approx(naive, abs=1e-5)


def test_without_dice_and_evidence_the_loss_is_plain_cross_entropy() -> None:
    logits, mask = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    expected = F.binary_cross_entropy_with_logits(logits, mask)
    assert torch.allclose(localization_loss(logits, None, mask, dice=0), expected)


def test_the_target_follows_the_size_of_the_logits() -> None:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1
    logits = 40 * (F.interpolate(mask, (8, 8)) - 0.5)
    assert localization_loss(logits, None, mask) == pytest.approx(0, abs=1e-3)
