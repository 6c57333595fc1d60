"""Folding BatchNorms changes no answer and leaves none behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forgemap.engines.folded import fold, pairs
from forgemap.models.build import build

TRACENET = {"architecture": "tracenet", "widths": [4, 6, 8, 8, 8], "blocks": [1, 1, 1, 1]}
DECLIP = {"architecture": "declip", "backbone": "vit", "width": 32, "layers": 2, "heads": 2}
DECLIP |= {"layer": "layer1", "decoder": "conv-4", "channels": [4, 4, 4, 4], "image_size": 28}


def lived_in(config: dict) -> nn.Module:
    """A network whose BatchNorms are not the identity."""
    torch.manual_seed(0)
    model = build(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.mark.parametrize(
    ("config", "shape"), [(TRACENET, (2, 3, 48, 41)), (DECLIP, (2, 3, 28, 28))]
)
def test_a_folded_network_answers_the_same_without_batchnorms(
    config: dict, shape: tuple[int, ...]
) -> None:
    model = lived_in(config)
    images: Tensor = torch.rand(shape) * 2 - 1
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    with torch.inference_mode():
        before = model(images)
        assert fold(model) == norms > 0
        after = model(images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    scale = float(before.mask.std())
    torch.testing.assert_close(after.mask, before.mask, atol=1e-4 * scale, rtol=1e-4)
    assert list(pairs(model)) == [] and fold(model) == 0  # once is enough


def test_a_batchnorm_that_follows_something_else_stays() -> None:
    norm = nn.BatchNorm2d(3)
    model = nn.Sequential(nn.ReLU(), norm, nn.Conv2d(3, 4, 1)).eval()
    assert fold(model) == 0 and model[1] is norm
