"""The cache of frozen features: the same training, computed once, never stale, bounded."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import nn

from forgemap.data.records import read_manifest
from forgemap.errors import ForgemapError
from forgemap.models.checkpoint import save_model
from forgemap.train.config import LocalizerConfig
from forgemap.train.features import FeatureCache, frozen
from forgemap.train.history import History
from forgemap.train.localizer import train
from forgemap.train.setup import new_network, read_data

from .edited_set import TINY, write_edited_set


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_edited_set(tmp_path_factory.mktemp("edited"), pictures=6, held_out=2)


def tiny(edited: Path, out: Path, **changes: Any) -> LocalizerConfig:
    values = {**TINY, "recipe": "declip", "data": [str(edited)], "out": str(out), "batch": 2}
    values |= {"epochs": 2, "workers": 0, "accelerator": "cpu", "checkpoint_every": 1}
    return LocalizerConfig.of(**{**values, **changes})


def cache_of(config: LocalizerConfig) -> FeatureCache:
    return FeatureCache(config, new_network(config), *read_data(config))


def files(folder: Path) -> dict[str, int]:
    """Name and time of writing of all features in a cache."""
    return {p.name: p.stat().st_ino for p in folder.rglob("*.safetensors")}


@pytest.mark.parametrize(
    "changes",
    [
        {"perturb": "all", "views": 2},
        {"supervision": "image"},
        {"backbone": "vit", "layer": "layer1", "decoder": "attention"},
    ],
)
def test_the_loss_curve_is_the_one_without_the_cache(
    edited: Path, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(History.__init__.__kwdefaults__, "every", 1)  # a row for every step
    if changes.get("backbone") == "vit":
        changes = {**changes, "model": {"width": 16, "heads": 2, "layers": 3, "patch": 32}}
    plain = train(tiny(edited, tmp_path / "plain", **changes), progress=False)
    cache = {"cache": str(tmp_path / "cache"), **changes}
    cached = train(tiny(edited, tmp_path / "cached", **cache), progress=False)
    states = [torch.load(m.parent / "last.ckpt", weights_only=True) for m in (plain, cached)]
    for name, value in states[0]["network"].items():
        torch.testing.assert_close(value, states[1]["network"][name], rtol=1e-3, atol=1e-5)
    for name, rows in (("loss.csv", 4), ("validation.csv", 2)):
        one, other = (np.genfromtxt(m.parent / name, delimiter=",")[1:] for m in (plain, cached))
        assert len(one) == rows
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_backbone_runs_once_per_picture_and_view_and_runs_share(
    edited: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    seen: list[int] = []

    def count(config: LocalizerConfig) -> int:
        import forgemap.models.clip as clip

        before = clip.ClipResNet.forward
        seen.clear()

        def forward(self: Any, images: torch.Tensor) -> Any:
            seen.append(len(images))
            return before(self, images)

        clip.ClipResNet.forward = forward  # type: ignore[method-assign]
        try:
            train(config, progress=False)
        finally:
            clip.ClipResNet.forward = before  # type: ignore[method-assign]
        return sum(seen) - 1  # one more tells the features' size

    changes = {"perturb": "blur", "views": 3, "epochs": 4, "cache": str(cache)}
    assert count(tiny(edited, tmp_path / "a", **changes)) == 4 * 3 + 2, "views, and val as it is"
    first = files(cache)
    # Another decoder, other settings of training: nothing of it concerns the features.
    changes |= {
        "decoder": "linear",
        "model": {k: v for k, v in TINY["model"].items() if k != "channels"},
    }  # type: ignore[attr-defined]
    assert count(tiny(edited, tmp_path / "b", lr=0.1, **changes)) == 0
    assert files(cache) == first
    assert count(tiny(edited, tmp_path / "c", **{**changes, "views": 4})) == 4, "one more view"


def test_whatever_features_depend_on_changes_their_place(edited: Path, tmp_path: Path) -> None:
    values = {"cache": str(tmp_path / "cache"), "perturb": "blur", "views": 1}
    start = cache_of(tiny(edited, tmp_path, **values)).wanted.keys()
    for changes in (
        {"seed": 1},  # of the weights and of chance
        {"perturb": "jpeg"},
        {"layer": "layer3"},
        {"precision": "bf16-mixed"},
    ):
        other = cache_of(tiny(edited, tmp_path, **{**values, **changes})).wanted.keys()
        held_out = {p for p in start & other if p.name.endswith("-none.safetensors")}
        assert start & other == held_out, changes
        assert not held_out or "perturb" in changes, "only pictures as they are can be shared"

    copy = write_edited_set(tmp_path / "copy", pictures=6, held_out=2)
    assert cache_of(tiny(copy, tmp_path, **values)).wanted.keys() == start, "bytes, not names"
    pixels = cv2.imread(str(copy / "1.png"))
    pixels[0, 0] ^= 1
    cv2.imwrite(str(copy / "1.png"), pixels)
    assert len(start - cache_of(tiny(copy, tmp_path, **values)).wanted.keys()) == 1

    # The same sizes, one weight moved by a hair; preprocessing of another kind.
    network: Any = new_network(tiny(edited, tmp_path, **values))
    folders = set()
    for change in ("", "weight", "preprocess"):
        if change == "weight":
            network.backbone.bn1.running_mean[0] += 1e-6
        if change == "preprocess":
            network.preprocess = type(network.preprocess)(
                **{**network.preprocess.to_dict(), "interpolation": "bicubic"}
            )
        save_model(network, tmp_path / f"model{change}")
        init = {"init": str(tmp_path / f"model{change}"), "decoder_init": "kernels"}
        folders.add(cache_of(tiny(edited, tmp_path, **values, **init)).folder)
    assert len(folders) == 3


def test_a_broken_file_is_computed_again(edited: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    train(tiny(edited, tmp_path / "a", cache=str(cache)), progress=False)
    broken = next(cache.rglob("*.safetensors"))
    whole = {name: t.clone() for name, t in load_file(broken).items()}  # the file is mapped
    broken.write_bytes(broken.read_bytes()[:-10])
    (broken.parent / ".left.tmp").write_bytes(b"of a killed run")
    train(tiny(edited, tmp_path / "b", cache=str(cache)), progress=False)
    again = load_file(broken)
    assert again.keys() == whole.keys()
    torch.testing.assert_close(again["grid"], whole["grid"])
    assert not list(cache.rglob("*.tmp"))


def test_the_cache_stays_within_its_limit_and_the_oldest_give_way(
    edited: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    run = {"cache": str(cache), "epochs": 1}
    train(tiny(edited, tmp_path / "a", **run), progress=False)
    one = sum(p.stat().st_size for p in cache.rglob("*.safetensors"))
    limit = 2.5 * one / 1e9
    train(tiny(edited, tmp_path / "b", **run, seed=1, cache_limit=limit), progress=False)
    train(tiny(edited, tmp_path / "a2", **run), progress=False)  # the first is used again
    old = {p for p in cache.glob("*/*/*.safetensors") if p.stat().st_mtime < time.time() - 3600}
    assert not old
    free_readers(cache)
    train(tiny(edited, tmp_path / "c", **run, seed=2, cache_limit=limit), progress=False)
    assert sum(p.stat().st_size for p in cache.rglob("*.safetensors")) <= limit * 1e9
    kept = {seed: cache_of(tiny(edited, tmp_path, **run, seed=seed)).wanted for seed in (0, 1, 2)}
    there = {seed: sum(path.exists() for path in wanted) for seed, wanted in kept.items()}
    assert there[2] == 6 and there[0] > there[1], "the one used longest ago went first"


def free_readers(cache: Path) -> None:
    """As if the runs of this process had ended: their marks are let go."""
    import gc

    gc.collect()
    for mark in (cache / "readers").glob("*.lock"):
        mark.unlink()


def test_what_another_run_reads_is_not_evicted(edited: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run = {"cache": str(cache), "epochs": 1}
    train(tiny(edited, tmp_path / "a", **run), progress=False)
    free_readers(cache)
    one = sum(p.stat().st_size for p in cache.rglob("*.safetensors"))
    folder = cache_of(tiny(edited, tmp_path, **run)).folder
    before = files(cache)
    with FileLock(cache / "readers" / f"{folder.name}-other.lock"):
        config = tiny(edited, tmp_path / "b", **run, seed=1, cache_limit=1.5 * one / 1e9)
        with pytest.raises(ForgemapError, match=r"leave no room .* raise --cache-limit"):
            train(config, progress=False)
        assert files(cache) == before
    train(tiny(edited, tmp_path / "b2", **run, seed=1, cache_limit=1.5 * one / 1e9), progress=False)
    assert files(cache) != before


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cache_limit": 1e-6}, "raise it, lower --views or train without --cache"),
        ({"backbone": "xception", "layer": "layer1"}, "this one learns; train without --cache"),
    ],
)
def test_what_cannot_be_cached_is_one_sentence_and_writes_nothing(
    edited: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    config = tiny(edited, tmp_path / "run", cache=str(tmp_path / "cache"), **changes)
    with pytest.raises(ForgemapError, match=sentence) as raised:
        train(config, progress=False)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


def test_a_full_disk_is_one_sentence_and_leaves_no_part_of_a_file(
    edited: Path, tmp_path: Path
) -> None:
    config = tiny(edited, tmp_path / "run", cache=str(tmp_path / "cache"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # features have 100 kB
    try:
        with pytest.raises(ForgemapError, match=r"cannot be written .* free some space"):
            train(config, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not files(tmp_path / "cache") and not list((tmp_path / "cache").rglob("*.tmp"))


def test_frozen_means_that_neither_weights_nor_statistics_nor_chance_move(edited: Path) -> None:
    network: Any = new_network(tiny(edited, edited))
    assert frozen(network.backbone)
    network.backbone.bn1.train()
    assert not frozen(network.backbone), "BatchNorm would take notes"
    network.train()
    network.backbone.add_module("dropout", nn.Dropout(0.5))
    network.train()
    assert frozen(network.backbone) and not network.backbone.dropout.training
    network.backbone.conv1.weight.requires_grad_(True)
    assert not frozen(network.backbone)


def test_dropout_and_statistics_stand_still_while_training(edited: Path, tmp_path: Path) -> None:
    config = tiny(edited, tmp_path / "run")
    before = {n: t.clone() for n, t in new_network(config).state_dict().items()}
    after = load_file(train(config, progress=False) / "model.safetensors")
    backbone = [name for name in after if name.startswith("backbone.")]
    assert any("running_mean" in name for name in backbone)
    assert all(torch.equal(after[name], before[name]) for name in backbone)


@pytest.mark.slow
def test_a_killed_run_with_a_cache_ends_with_the_weights_of_an_uninterrupted_one(
    edited: Path, tmp_path: Path
) -> None:
    changes = {"perturb": "all", "views": 2, "epochs": 12, "cache": str(tmp_path / "cache")}
    whole = train(tiny(edited, tmp_path / "whole", **changes), progress=False)
    config = tiny(edited, tmp_path / "killed", **{**changes, "cache": str(tmp_path / "other")})
    program = (
        "from forgemap.train.localizer import LocalizerConfig, train\n"
        "import sys, json; train(LocalizerConfig(**json.loads(sys.argv[1])), progress=False)"
    )
    arguments = [sys.executable, "-c", program, json.dumps(vars(config))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed/last.ckpt"
    deadline = time.monotonic() + 240
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert 0 < torch.load(checkpoint, weights_only=True)["step"] < 24
    resumed = train(config, progress=False)
    weights = [load_file(model / "model.safetensors") for model in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.distributed
def test_two_processes_fill_one_cache(edited: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "run", tmp_path / "cache"
    command = [sys.executable, "-m", "forgemap", "train", "localizer", "--data", str(edited)]
    command += ["--recipe", "declip", "--out", str(out), "--cache", str(cache), "--batch", "2"]
    command += ["--model", json.dumps(TINY["model"]), "--backbone", "rn50", "--layer", "layer2"]
    command += ["--decoder", "conv-4", "--epochs", "2", "--workers", "0", "--devices", "2"]
    done = subprocess.run([*command, "--accelerator", "cpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(files(cache)) == len(read_manifest(edited)) == 6
    assert (out / "model/model.safetensors").exists()
