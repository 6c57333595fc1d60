"""Training a localizer: reproducible, resumable after a kill, honest about bad settings."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from forgemap.data.augment import augment
from forgemap.data.datasets import CropDataset, load_pair, spread
from forgemap.data.records import read_manifest
from forgemap.errors import DataError, ForgemapError
from forgemap.models.build import build
from forgemap.models.checkpoint import load_model
from forgemap.preprocess import NATIVE
from forgemap.train.batches import dataset
from forgemap.train.localizer import LocalizerConfig, train
from forgemap.train.schedules import Trapezoid

from .edited_set import write_edited_set

SMALL = {"widths": [4, 4, 4, 6, 8], "blocks": [1, 1, 1, 1]}


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve noisy pictures in two splits, half with a smooth square in them, as a manifest."""
    return write_edited_set(tmp_path_factory.mktemp("edited"))


def small(edited: Path, out: Path, **changes: object) -> LocalizerConfig:
    values: dict[str, object] = {
        "data": [str(edited)],
        "out": str(out),
        "model": SMALL,
        "crop": 48,
        "batch": 4,
        "steps": 12,
        "warmup": 2,
        "workers": 0,
        "validate_every": 6,
        "checkpoint_every": 3,
        "accelerator": "cpu",
    }
    return LocalizerConfig(**{**values, **changes})  # type: ignore[arg-type]


def test_training_lowers_the_loss_and_writes_model_and_curves(edited: Path, tmp_path: Path) -> None:
    config = small(edited, tmp_path / "run", steps=80, lr=0.01, validate_every=40, augment=0.0)
    model = train(config, progress=False)
    assert (model / "model.safetensors").exists()
    losses = [float(r["loss"]) for r in csv.DictReader((tmp_path / "run/loss.csv").open())]
    assert losses[-1] < 0.8 * losses[0]
    validation = list(csv.DictReader((tmp_path / "run/validation.csv").open()))
    assert [row["step"] for row in validation] == ["40", "80"] and "iou/blur" in validation[0]
    assert any((tmp_path / "run/tensorboard").iterdir())


def test_a_declip_network_trains_its_decoder_and_not_its_backbone(
    edited: Path, tmp_path: Path
) -> None:
    sizes = {"rn50_width": 4, "rn50_layers": [1, 1, 1, 1], "channels": [6, 6, 6, 6]}
    changes: dict[str, object] = {"architecture": "declip", "backbone": "rn50", "decoder": "conv-4"}
    changes |= {"layer": "layer2", "model": sizes, "steps": 2, "validate_every": 2, "batch": 2}
    torch.manual_seed(0)
    start = build(small(edited, tmp_path / "run", **changes).model_config()).state_dict()
    trained, _ = load_model(train(small(edited, tmp_path / "run", **changes), progress=False))
    changed = {k for k, v in trained.state_dict().items() if not torch.equal(v, start[k])}
    assert changed and all(name.startswith("decoder.") for name in changed)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    edited: Path, tmp_path: Path
) -> None:
    whole = load_file(train(small(edited, tmp_path / "whole", steps=40)) / "model.safetensors")
    program = (
        "from forgemap.train.localizer import LocalizerConfig, train\n"
        "import sys, json; train(LocalizerConfig(**json.loads(sys.argv[1])), progress=False)"
    )
    config = small(edited, tmp_path / "killed", steps=40)
    arguments = [sys.executable, "-c", program, json.dumps(vars(config))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed/last.ckpt"
    deadline = time.monotonic() + 240  # on a busy machine the start alone takes a minute
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < step < 40, "the kill must fall inside the run"
    resumed = load_file(train(config, progress=False) / "model.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    steps = [int(r["step"]) for r in csv.DictReader((tmp_path / "killed/validation.csv").open())]
    assert steps == sorted(set(steps)), "no validation is written twice"


def test_an_interrupt_leaves_a_usable_checkpoint(edited: Path, tmp_path: Path) -> None:
    config = small(edited, tmp_path / "run", steps=5000, validate_every=5000, checkpoint_every=5000)
    program = (
        "from forgemap.train.localizer import LocalizerConfig, train\n"
        "import sys, json; train(LocalizerConfig(**json.loads(sys.argv[1])), progress=False)"
    )
    arguments = [sys.executable, "-c", program, json.dumps(vars(config))]
    child = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    losses = tmp_path / "run/loss.csv"
    deadline = time.monotonic() + 240  # on a busy machine the start alone takes a minute
    while not losses.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, messages = child.communicate(timeout=120)
    assert child.returncode == 0 and "goes on from there" in messages
    assert torch.load(tmp_path / "run/last.ckpt", weights_only=True)["step"] >= 20


def test_any_number_of_workers_sees_the_same_samples(edited: Path) -> None:
    records = [r for r in read_manifest(edited) if r.split == "train"]
    stream = CropDataset(records, NATIVE, size=48, seed=3)
    again = CropDataset(records, NATIVE, size=48, seed=3)
    assert all(torch.equal(stream[n].image, again[n].image) for n in (0, 5, 1000))
    assert not torch.equal(stream[0].image, stream[1].image)


def test_crops_are_compressed_as_the_configuration_asks(edited: Path, tmp_path: Path) -> None:
    records = [r for r in read_manifest(edited) if r.split == "train"]
    network = build({"architecture": "tracenet", **SMALL})
    config = small(edited, tmp_path, augment=0.0, compressed=1.0)
    asked = dataset(records, config, network)
    plain, lossy = (
        CropDataset(records, NATIVE, size=48, seed=0, strength=0.0, compressed=share)
        for share in (0.0, 1.0)
    )
    for number in range(4):
        assert torch.equal(asked[number].image, lossy[number].image)
        assert not torch.equal(asked[number].image, plain[number].image)


def test_augmentation_does_not_depend_on_whether_the_picture_is_edited() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    plain = np.zeros((80, 80), np.uint8)
    whole = np.full((80, 80), 255, np.uint8)  # the window is free in both: its place is chance
    for seed in range(12):
        a, mask_a = augment(pixels, plain, np.random.default_rng(seed), 64, strength=0.0)
        b, mask_b = augment(pixels, whole, np.random.default_rng(seed), 64, strength=0.0)
        assert a.shape == b.shape == (64, 64, 3) and not mask_a.any() and mask_b.all()


def test_a_picture_smaller_than_the_crop_is_enlarged() -> None:
    pixels, mask = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8)
    crop, marked = augment(pixels, mask, np.random.default_rng(0), 64)
    assert crop.shape == (64, 64, 3) and marked.shape == (64, 64)


def test_validation_pictures_are_shared_evenly_by_the_methods(edited: Path) -> None:
    methods = [r.method for r in spread(read_manifest(edited), 4)]
    assert sorted(methods) == ["blur", "blur", "none", "none"]


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    schedule = Trapezoid(lr=1.0, steps=100, warmup=10, decay=0.5)
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[30] == 1.0
    assert rates[75] == pytest.approx(0.5) and rates[100] == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": 50}, "crop is 50"),
        ({"precision": "16"}, "valid: 32-true, bf16-mixed"),
        ({"data": []}, "at least one manifest"),
        ({"steps": 0}, "at least 1"),
    ],
)
def test_an_impossible_setting_is_one_sentence(
    edited: Path, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ForgemapError, match=sentence):
        train(small(edited, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_refused(edited: Path, tmp_path: Path) -> None:
    train(small(edited, tmp_path / "run", steps=3), progress=False)
    with pytest.raises(ForgemapError, match="holds a run with lr"):
        train(small(edited, tmp_path / "run", steps=6, lr=0.5), progress=False)


def test_a_mask_of_another_size_is_named(edited: Path, tmp_path: Path) -> None:
    record = next(r for r in read_manifest(edited) if r.mask)
    wrong = tmp_path / "mask.png"
    cv2.imwrite(str(wrong), np.zeros((5, 5), np.uint8))
    with pytest.raises(DataError, match=r"mask\.png: the mask is 5x5"):
        load_pair(type(record)(**{**vars(record), "mask": wrong}))


@pytest.mark.distributed
def test_two_processes_train_one_model(edited: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "forgemap", "train", "localizer", "--data", str(edited)]
    command += ["--out", str(out), "--model", json.dumps(SMALL), "--crop", "48", "--batch", "4"]
    command += ["--steps", "4", "--workers", "0", "--validate-every", "2", "--devices", "2"]
    done = subprocess.run([*command, "--accelerator", "cpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "model/model.safetensors").exists()
    rows = list(csv.DictReader((out / "validation.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4"], "one process of the two writes the curves"
