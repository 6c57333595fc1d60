"""DeCLIP's published networks, small and with random weights: the same answers to the last digits.

FORGEMAP_GOLDEN names a folder of reference files (it, or its `declip/`, holds *.safetensors); by
default the small copies beside this test, else ../shared/golden.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from forgemap.models.output import Features
from forgemap.models.published import read_published


def golden_files() -> list[Path]:
    here = Path(__file__).parent
    named = os.environ.get("FORGEMAP_GOLDEN")
    folders = [Path(named)] if named else [here / "golden", here.parents[1] / "shared" / "golden"]
    for folder in folders:
        for place in (folder / "declip", folder):
            if files := sorted(place.glob("*.safetensors")):
                return files
    if named and not Path(named).is_dir():
        raise FileNotFoundError(f"FORGEMAP_GOLDEN={named}: no such folder")
    return []


def golden_images(batch: int = 2, size: int = 224) -> Tensor:
    """The input of the reference files: (2, 3, 224, 224), made of waves."""
    b = torch.arange(batch, dtype=torch.float64).view(-1, 1, 1, 1)
    i = torch.arange(3, dtype=torch.float64).view(1, -1, 1, 1)
    y = torch.arange(size, dtype=torch.float64).view(1, 1, -1, 1)
    x = torch.arange(size, dtype=torch.float64).view(1, 1, 1, -1)
    waves = torch.sin(0.013 * (i + 1) * x + 0.7 * b) + torch.cos(0.021 * (i + 2) * y - 0.3 * b)
    return (waves + 0.5 * torch.sin(0.0007 * x * y + i)).float()


def as_published(features: Features, shape: list[int]) -> Tensor:
    """(B, C, h, w), or tokens first, the class token before them: (1 + h w, B, C)."""
    if len(shape) == 4:
        return features.grid
    assert features.summary is not None
    return torch.cat([features.summary[None], features.grid.flatten(2).permute(2, 0, 1)])


@pytest.mark.skipif(not golden_files(), reason="no reference files")
@pytest.mark.parametrize("path", golden_files(), ids=lambda path: path.stem)
def test_network_answers_as_the_published_one(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
        expected = file.get_tensor("output_logits")
        expected_features = file.get_tensor("features")
    model = read_published(path)

    with torch.no_grad():
        features = model.backbone(golden_images())
        logits = model(golden_images()).mask

    shape = json.loads(facts["features_shape"])
    found = as_published(features, shape)
    assert list(found.shape) == shape
    torch.testing.assert_close(
        found.flatten()[::7], expected_features, rtol=0, atol=1e-4 * expected_features.std().item()
    )
    assert logits.shape == (2, 1, 256, 256)
    difference = (logits[:, 0, ::4, ::4] - expected).abs().max()
    assert difference <= 1e-4 * expected.std()
