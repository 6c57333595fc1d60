"""localizer.py: train a network that marks the edited pixels (`forgemap train localizer`)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data.datasets import Balance, CropDataset, Sample, spread
from ..data.records import Record, read_manifest
from ..errors import DataError, ForgemapError
from ..models.build import build
from ..models.checkpoint import load_model, save_model
from .history import History
from .losses import localization_loss
from .state import RunFolder, WeightAverage
from .validation import validate


def described(default: Any, help: str) -> Any:
    """A dataclass field with the sentence that the command line shows for it."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class LocalizerConfig:
    """Everything that determines a training run; written to the run's folder as YAML."""

    data: list[str] = described([], "Manifests, or folders that hold a manifest.jsonl.")
    out: str = described("runs/localizer", "Folder of the run: checkpoints, curves, model.")
    architecture: str = described("tracenet", "tracenet or declip.")
    backbone: str = described("vit", "DeCLIP: vit, rn50, vit+rn50 or xception.")
    layer: str = described("", "DeCLIP: the layer that is decoded, as layer20 for the vit.")
    decoder: str = described("conv-20", "DeCLIP: linear, attention, conv-4, conv-12 or conv-20.")
    model: dict[str, Any] = described({}, "Further arguments of the network (sizes), by name.")
    init: str = described("", "Model folder whose weights to start from.")
    crop: int = described(256, "Side of the training crops, in pixels at native resolution.")
    augment: float = described(1.0, "Strength of the augmentation, 0 (crops and flips) to 1.")
    untouched: float = described(0.4, "Share of the samples that come from untouched pictures.")
    weights: dict[str, float] = described(
        {}, "Shares of the methods among the edited samples, where not 1: {method: weight}."
    )
    batch: int = described(16, "Crops in one step, over all devices.")
    steps: int = described(20_000, "Steps of the whole run.")
    lr: float = described(1e-3, "Peak learning rate of AdamW.")
    weight_decay: float = described(1e-4, "Weight decay of AdamW.")
    warmup: int = described(300, "Steps over which the learning rate rises from 0.")
    decay: float = described(0.3, "Last share of the run over which the rate falls to 0.")
    average: float = described(0.998, "Decay of the running average of the weights; 0 = none.")
    dice: float = described(1.0, "Weight of the Dice term beside the cross-entropy.")
    image: float = described(0.25, "Weight of the image-level term.")
    clip: float = described(1.0, "Largest norm of the gradient.")
    seed: int = described(0, "Seed of the weights and of every sample.")
    precision: str = described("32-true", "32-true, or bf16-mixed where the processor has it.")
    accelerator: str = described("auto", "cpu, cuda or auto.")
    devices: int = described(1, "Devices on this machine.")
    workers: int = described(1, "Processes that read and augment pictures; 0 = none.")
    validate_every: int = described(1000, "Steps between validations.")
    validate_on: int = described(240, "Pictures of the val split, spread over the methods.")
    checkpoint_every: int = described(200, "Steps between checkpoints.")

    def check(self) -> None:
        """Raise a ForgemapError for the first value that cannot work, before any long work."""
        rules = {
            "data": (bool(self.data), "name at least one manifest"),
            "crop": (self.crop >= 32 and self.crop % 16 == 0, "a multiple of 16, at least 32"),
            "augment": (0 <= self.augment <= 1, "between 0 and 1"),
            "untouched": (0 <= self.untouched <= 1, "between 0 and 1"),
            "batch": (self.batch >= max(1, self.devices), "at least one crop for each device"),
            "steps": (self.steps >= 1, "at least 1"),
            "lr": (self.lr > 0, "above 0"),
            "decay": (0 <= self.decay <= 1, "between 0 and 1"),
            "average": (0 <= self.average < 1, "at least 0 and below 1"),
            "precision": (self.precision in ("32-true", "bf16-mixed"), "32-true or bf16-mixed"),
            "accelerator": (self.accelerator in ("auto", "cpu", "cuda"), "auto, cpu or cuda"),
            "validate_every": (self.validate_every >= 1, "at least 1"),
            "checkpoint_every": (self.checkpoint_every >= 1, "at least 1"),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ForgemapError(f"{name} is {getattr(self, name)!r}; it must be {wanted}.")
        if self.batch % self.devices:
            raise ForgemapError(f"batch {self.batch} cannot be shared by {self.devices} devices.")

    def model_config(self) -> dict[str, Any]:
        """What `models.build.build` is given."""
        config: dict[str, Any] = {"architecture": self.architecture, **self.model}
        if self.architecture == "declip":
            config |= {"backbone": self.backbone, "decoder": self.decoder}
            config |= {"layer": self.layer} if self.layer else {}
        return config

    # What may differ between a run and its continuation.
    FREE = ("out", "steps", "decay", "workers", "validate_every", "validate_on", "checkpoint_every")


def learning_rate(step: int, config: LocalizerConfig) -> float:
    """Warm-up, a constant stretch, then a straight line down to 0 at the last step."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    start = config.steps * (1 - config.decay)
    fall = 1.0 if step < start else (config.steps - step) / max(1.0, config.steps - start)
    return config.lr * rise * fall


def read_split(data: Sequence[str], split: str) -> list[Record]:
    """The records of one split, over all manifests."""
    return [r for path in data for r in read_manifest(path) if r.split == split]


def train(config: LocalizerConfig, *, progress: bool = True) -> Path:
    """Train, or go on training where the folder's last checkpoint stands; returns the model folder.

    A run is determined by its configuration: killed at any moment and started again it ends with
    the same weights as an uninterrupted one (on CPU bit for bit). An interrupt (Ctrl-C) ends it
    after the current step with a checkpoint.

    Raises:
        ForgemapError: a configuration, manifest or checkpoint that cannot be used, before any
            work starts.
    """
    config.check()
    records = read_split(config.data, "train")
    held_out = spread(read_split(config.data, "val"), config.validate_on)
    if not any(record.manipulated for record in records):
        raise DataError(f"{', '.join(config.data)}: the train split holds no edited picture.")
    run = RunFolder(Path(config.out))
    run.claim({f.name: getattr(config, f.name) for f in fields(config)}, free=config.FREE)

    console = Console(stderr=True)
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy="ddp" if config.devices > 1 else "auto",
        precision=config.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)
    network = load_model(config.init)[0] if config.init else build(config.model_config())
    network.train()
    average = WeightAverage(network, config.average)
    optimizer = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad],
        lr=config.lr,
        weight_decay=config.weight_decay,
    )
    state = run.restore(network, optimizer, average)
    history = History(run.path, state.step, enabled=fabric.is_global_zero)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model, optimizer = fabric.setup(network, optimizer)

    dataset = CropDataset(
        records,
        network.preprocess,  # type: ignore[arg-type]
        size=config.crop,
        seed=config.seed,
        strength=config.augment,
        balance=Balance(config.untouched, config.weights),
    )
    batches = iter(loader(dataset, config, fabric, state.step))
    bar = progress_bar(console, enabled=progress and fabric.is_global_zero)
    with bar, interruptible() as interrupted:
        task = bar.add_task("training", total=config.steps, completed=state.step, loss="")
        stopping = False
        while state.step < config.steps and not stopping:
            loss = step(fabric, model, optimizer, next(batches), config, state.step)
            average.update(network)
            state.step += 1
            history.loss(state.step, loss, learning_rate(state.step - 1, config))
            bar.update(task, completed=state.step, loss=f"loss {history.smooth:.4f}")

            last = state.step == config.steps
            stopping = anywhere(fabric, interrupted.is_set())
            if held_out and (last or state.step % config.validate_every == 0):
                with average.applied(network):
                    scores = validate(network, held_out)
                    if scores["choice"] >= state.best:
                        state.best = scores["choice"]
                        save(fabric, network, run, config)
                network.train()
                history.validation(state.step, scores)
                if fabric.is_global_zero:
                    bar.console.print(summary(state.step, scores))
            if last or stopping or state.step % config.checkpoint_every == 0:
                run.store(fabric, network, optimizer, average, state)
    history.close()
    if not held_out:
        with average.applied(network):
            save(fabric, network, run, config)
    if state.step < config.steps:
        console.print(f"Stopped after step {state.step}; the same command goes on from there.")
    return run.model


def save(fabric: Fabric, network: nn.Module, run: RunFolder, config: LocalizerConfig) -> None:
    """Write the model folder, from one process."""
    if fabric.is_global_zero:
        save_model(network, run.model, extra={"training": run.settings(config)})


def anywhere(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set in any process: all of them must stop after the same step."""
    if fabric.world_size == 1:
        return flag
    return bool(fabric.all_reduce(torch.tensor(float(flag)), reduce_op="sum"))


def step(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Sample,
    config: LocalizerConfig,
    number: int,
) -> float:
    """One optimiser step; returns the loss."""
    torch.manual_seed(config.seed * 1_000_003 + number)  # dropout must not depend on a restart
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(number, config)
    images = batch.image.contiguous(memory_format=torch.channels_last)
    output = model(images)
    loss: Tensor = localization_loss(
        output.mask, output.evidence, batch.mask, dice=config.dice, image=config.image
    )
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    fabric.clip_gradients(model, optimizer, max_norm=config.clip)
    optimizer.step()
    return float(loss.detach())


def loader(
    dataset: CropDataset, config: LocalizerConfig, fabric: Fabric, done: int
) -> DataLoader[Sample]:
    """The batches from step ``done`` on: process r of R takes every R-th sample of each batch."""
    rank, world = fabric.global_rank, fabric.world_size
    order = range(done * config.batch + rank, config.steps * config.batch, world)
    batches = DataLoader(
        dataset,
        batch_size=config.batch // world,
        sampler=order,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=one_thread,
    )
    return fabric.setup_dataloaders(batches, use_distributed_sampler=False)  # type: ignore[return-value]


def one_thread(worker: int) -> None:
    """Readers must not compete with the network for the cores."""
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process to handle


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Turns the first SIGINT or SIGTERM into an event; a second one acts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, before[number])  # type: ignore[index]

    for number in before:
        signal.signal(number, note)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def progress_bar(console: Console, enabled: bool) -> Progress:
    """Steps done, loss, time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns,
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not enabled,
    )


def summary(step: int, scores: dict[str, float]) -> str:
    """One line of a validation."""
    shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
    return f"step {step}: {shown}"
