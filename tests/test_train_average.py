"""Averaged weights, and BatchNorm statistics that belong to them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.data.datasets import Balance, CropDataset
from forgemap.errors import ForgemapError
from forgemap.model_folder import WEIGHTS
from forgemap.models.build import build
from forgemap.models.checkpoint import load_model, save_model, weights_sha256
from forgemap.train.average import AverageConfig, averaged, train
from forgemap.train.setup import read_split

from .edited_set import write_edited_set

TRACENET = {"architecture": "tracenet", "widths": [4, 4, 4, 4, 4], "blocks": [0, 0, 0, 0]}


@pytest.fixture
def config(tmp_path: Path) -> AverageConfig:
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_model(build(TRACENET), tmp_path / f"model{seed}")
    return AverageConfig(
        models=[str(tmp_path / "model0"), str(tmp_path / "model1")],
        shares=[0.25, 0.75],
        data=[str(write_edited_set(tmp_path / "edited"))],
        out=str(tmp_path / "average"),
        batches=3,
        batch=4,
        crop=64,
    )


def test_weights_are_averaged_and_statistics_are_those_of_the_average(config: AverageConfig):
    network, entries = load_model(train(config))
    parts = [load_model(folder)[0].state_dict() for folder in config.models]
    found = network.state_dict()
    learnt = [name for name, _ in network.named_parameters()]
    for name in learnt:
        expected = 0.25 * parts[0][name] + 0.75 * parts[1][name]
        torch.testing.assert_close(found[name], expected, atol=1e-6, rtol=1e-6)
    # The first BatchNorm's mean, by hand: over the very samples, of equally large batches.
    samples = CropDataset(
        read_split(config.data, "train"),
        network.preprocess,
        size=64,
        seed=0,
        strength=config.augment,
        balance=Balance(config.untouched),
    )
    images = torch.stack([samples[i].image for i in range(12)])
    with torch.inference_mode():
        maps = network.stem[0](torch.cat([images, network.residuals(images)], dim=1))
    mean = network.stem[1].running_mean
    torch.testing.assert_close(mean, maps.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    # Neither model's own, nor their mean.
    assert (mean - averaged(parts, [0.25, 0.75])["stem.1.running_mean"]).abs().max() > 1e-3
    said = entries["training"]["averaged"]
    assert [part["share"] for part in said] == [0.25, 0.75]
    assert said[1]["weights_sha256"] == weights_sha256(config.models[1])


def test_the_same_command_gives_the_same_weights(config: AverageConfig, tmp_path: Path):
    first, again = train(config), train(replace(config, out=str(tmp_path / "again")))
    assert weights_sha256(first) == weights_sha256(again)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"models": ["one"]}, "two at least"),
        ({"shares": [0.5, 0.6]}, "adding up to 1"),
        ({"shares": [1.0]}, "one of 0 or more for each of the 2"),
        ({"batches": 0}, "at least 1"),
        ({"out": ""}, "name the folder"),
    ],
)
def test_what_cannot_be_averaged_is_one_sentence(config: AverageConfig, changes: dict, said: str):
    with pytest.raises(ForgemapError, match=said) as caught:
        train(replace(config, **changes))
    assert "\n" not in str(caught.value)
    assert not config.out or not Path(config.out).exists()


def test_models_of_different_networks_have_no_average(config: AverageConfig, tmp_path: Path):
    save_model(build(TRACENET | {"widths": [4, 4, 4, 4, 6]}), tmp_path / "wider")
    with pytest.raises(ForgemapError, match="wider: another network than"):
        train(replace(config, models=[config.models[0], str(tmp_path / "wider")]))


def test_embedders_are_not_averaged(config: AverageConfig) -> None:
    folder = str(WEIGHTS / "embedder")
    with pytest.raises(ForgemapError, match="only localizers are averaged"):
        train(replace(config, models=[folder, folder]))


def test_the_command_writes_a_model_that_can_be_used(config: AverageConfig, tmp_path: Path):
    arguments = ["train", "average", "--out", str(tmp_path / "made"), "--batches", "1"]
    arguments += ["--batch", "2", "--crop", "64", "--data", *config.data]
    for folder in config.models:
        arguments += ["--models", folder]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    made = json.loads((tmp_path / "made" / "config.json").read_text())
    assert [part["share"] for part in made["training"]["averaged"]] == [0.5, 0.5]
