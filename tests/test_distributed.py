"""One run on several processes: the same steps, the same weights, under DDP and FSDP."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from forgemap.errors import ForgemapError
from forgemap.models.checkpoint import load_model
from forgemap.train.batches import share
from forgemap.train.localizer import LocalizerConfig, train
from forgemap.train.losses import dice_loss

from .edited_set import write_edited_set

# No BatchNorm: on CPUs its statistics are each process's own, so that steps would differ. And no
# bias of attention keys: its gradient is 0 but for rounding, which AdamW makes whole steps of.
SETTINGS: dict[str, Any] = {
    "architecture": "declip",
    "backbone": "transformers",
    "decoder": "linear",
    "layer": "layer1",
    "trainable": "last-1",
    "model": {
        "image_size": 64,
        "transformer": {
            "model_type": "dinov3_vit",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
    },
    "samples": "whole",
    "epochs": 0,
    "batch": 4,
    "steps": 6,
    "warmup": 2,
    "decay": 0.0,
    "average": 0.9,
    "clip": 0.5,
    "dice": 1.0,
    "lr": 0.01,
    "workers": 0,
    "validate_every": 3,
    "checkpoint_every": 3,
    "accelerator": "cpu",
}


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_edited_set(tmp_path_factory.mktemp("edited"))


@pytest.fixture(scope="module")
def alone(edited: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on one process, whole, and a copy of it as it stood after half of the steps."""
    folder = tmp_path_factory.mktemp("alone")
    train(settings(edited, folder / "run", steps=3), progress=False)
    shutil.copytree(folder / "run", folder / "half")
    train(settings(edited, folder / "run"), progress=False)
    return folder


def settings(edited: Path, out: Path, **changes: Any) -> LocalizerConfig:
    return LocalizerConfig.of(**{**SETTINGS, "data": [str(edited)], "out": str(out), **changes})


def command(edited: Path, out: Path, *launcher: str, **changes: Any) -> subprocess.Popen[str]:
    """`forgemap train localizer`, as it is or by a launcher such as torchrun."""
    file = out.with_suffix(f".{os.urandom(4).hex()}.yaml")
    file.write_text(yaml.safe_dump({**SETTINGS, "data": [str(edited)], "out": str(out), **changes}))
    program = out.with_suffix(".py")
    program.write_text("from forgemap.cli import main\nmain()\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, *launcher, str(program), "train", "localizer", "--config", str(file)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finished(*processes: subprocess.Popen[str]) -> str:
    """What they printed; they must have succeeded."""
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(said), "\n".join(said)
    return "".join(said)


def torchrun(processes: int, machines: int = 1, number: int = 0, port: int = 0) -> list[str]:
    start = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    if machines == 1:
        return [*start, "--standalone"]
    place = ["--master-addr=127.0.0.1", f"--master-port={port}"]
    return [*start, f"--nnodes={machines}", f"--node-rank={number}", *place]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_same_run(folder: Path, other: Path) -> None:
    """The same model, weights still in training, their average, moments, and curve."""
    first, second = (load_file(f / "model" / "model.safetensors") for f in (folder, other))
    compare(first, second)
    ours, theirs = (torch.load(f / "last.ckpt", weights_only=True) for f in (folder, other))
    compare(ours["network"], theirs["network"])
    compare(ours["average"], theirs["average"])
    for number, moments in ours["optimizer"]["state"].items():
        compare(moments, theirs["optimizer"]["state"][number])
    assert ours["step"] == theirs["step"] == 6 and ours["frozen"] == theirs["frozen"]
    mine, other_rows = (validation(f) for f in (folder, other))
    assert mine == [pytest.approx(row, abs=1e-3) for row in other_rows]


def compare(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=2e-4, atol=2e-6, msg=name)


def validation(folder: Path) -> list[list[float]]:
    with (folder / "validation.csv").open() as file:
        return [[float(v or "nan") for v in row.values()] for row in csv.DictReader(file)]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6])
def test_every_sample_is_used_once_by_one_process(world: int) -> None:
    batch, done, steps = 12, 3, 8
    shares = [share(rank, world, batch, done, steps) for rank in range(world)]
    assert sorted(n for part in shares for n in part) == [*range(done * batch, steps * batch)]
    each = batch // world
    for step in range(steps - done):  # and in the step in which one process would use it
        together = sorted(n for part in shares for n in part[step * each : (step + 1) * each])
        assert together == [*range((done + step) * batch, (done + step + 1) * batch)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 4, "devices": 3}, "3 devices"),
        ({"batch": 4, "devices": 2, "nodes": 4}, "8 devices"),
        ({"strategy": "horovod"}, "auto, ddp, fsdp"),
        ({"strategy": "fsdp", "cache": "features", "trainable": ""}, "--strategy ddp"),
        ({"strategy": "fsdp", "precision": "bf16-mixed"}, "--precision 32-true"),
        ({"trainable": "last"}, "last-<blocks>"),
        ({"architecture": "tracenet", "samples": "crops"}, "--trainable is for"),
    ],
)
def test_what_processes_cannot_do_is_said_first(
    edited: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ForgemapError, match=said):
        train(settings(edited, tmp_path / "run", **changes), progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_sentence(edited: Path, tmp_path: Path) -> None:
    with pytest.raises(ForgemapError, match="cuda") as error:
        train(settings(edited, tmp_path / "run", accelerator="cuda"), progress=False)
    assert "\n" not in str(error.value)


def test_last_blocks_are_trained_and_lora_goes_on_from_a_model(
    edited: Path, alone: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    start = alone / "run" / "model"
    config = settings(edited, tmp_path / "run", init=str(start), trainable="lora-2", steps=2)
    trained, _ = load_model(train(config, progress=False))
    before, _ = load_model(start)
    moved = {
        n for n, t in trained.state_dict().items() if not torch.equal(t, before.state_dict()[n])
    }
    assert any("layer.0" in name for name in moved)  # LoRA reaches all blocks
    assert all("embeddings" not in name for name in moved)


@pytest.mark.distributed
@pytest.mark.parametrize("started", ["by itself", "by torchrun on two machines"])
def test_ddp_takes_the_steps_of_one_process(
    edited: Path, alone: Path, tmp_path: Path, started: str
) -> None:
    out = tmp_path / "run"
    if started == "by itself":
        said = finished(command(edited, out, devices=2))
        assert said.count(str(out / "model")) == 1  # one process speaks
    else:
        port = free_port()
        finished(*(command(edited, out, *torchrun(1, 2, n, port)) for n in range(2)))
    assert_same_run(alone / "run", out)


@pytest.mark.distributed
def test_fsdp_takes_the_steps_of_one_process_and_either_goes_on_from_the_other(
    edited: Path, alone: Path, tmp_path: Path
) -> None:
    begun, continued = tmp_path / "begun", tmp_path / "continued"
    shutil.copytree(alone / "half", continued)
    finished(command(edited, begun, *torchrun(2), strategy="fsdp", steps=3))
    finished(command(edited, continued, *torchrun(2), strategy="fsdp"))
    assert_same_run(alone / "run", continued)
    train(settings(edited, begun), progress=False)
    assert_same_run(alone / "run", begun)


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_networks_with_batchnorm_and_lora_train_under_either_strategy(
    edited: Path, tmp_path: Path, strategy: str
) -> None:
    out = tmp_path / strategy
    changes = {"decoder": "conv-4", "trainable": "lora-2", "steps": 2, "validate_every": 2}
    model = {**SETTINGS["model"], "channels": [4, 4, 4, 4]}
    finished(command(edited, out, devices=2, strategy=strategy, **changes, model=model))
    network, config = load_model(out / "model")
    assert config["model"]["trainable"] == "frozen"  # merged
    assert all(t.isfinite().all() for t in network.state_dict().values())


def dice_of_share(rank: int, port: int, queue: Any) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    logits, mask = dice_example()
    queue.put(float(dice_loss(logits[rank::2], mask[rank::2])))
    torch.distributed.destroy_process_group()


def dice_example() -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    mask = (torch.rand(6, 1, 8, 8, generator=chance) > 0.5).float()
    mask[[0, 2, 5]] = 0  # one process has one edited picture, the other has two
    return torch.randn(6, 1, 8, 8, generator=chance), mask


@pytest.mark.distributed
def test_dice_of_two_processes_is_on_average_that_of_all_pictures() -> None:
    context = torch.multiprocessing.get_context("spawn")
    queue, port = context.Queue(), free_port()
    children = [context.Process(target=dice_of_share, args=(r, port, queue)) for r in range(2)]
    for child in children:
        child.start()
    parts = [queue.get(timeout=200) for _ in children]
    for child in children:
        child.join(30)
    assert sum(parts) / 2 == pytest.approx(float(dice_loss(*dice_example())), rel=1e-6)
