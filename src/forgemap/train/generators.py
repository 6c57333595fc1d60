"""generators.py: the loop that trains a generator, whichever: `fit`, and what all of them set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from ..cores import keep_to_them
from ..errors import ForgemapError
from ..models.generators import save_generator
from .config import described
from .history import History
from .photos import photo_crops
from .schedules import Trapezoid
from .state import RunFolder, WeightAverage
from .steering import interruptible, progress_bar, summary

STORED = 128  # side of the crops in memory; training sees windows of them


@dataclass(frozen=True)
class GeneratorConfig:
    """What every generator's training run is determined by."""

    data: list[str] = described([], "Photographs: files and folders. The train split is learned.")
    out: str = described("runs/generator", "Folder of the run: checkpoints, curves, model.")
    model: dict[str, Any] = described({}, "Further arguments of the network (sizes), by name.")
    crop: int = described(96, "Side of a sample in pixels; a multiple of 8, at most 128.")
    each: int = described(8, "Crops kept of a small photograph; large ones give more.")
    cache: str = described("", "Folder where the crops are kept and shared between runs.")
    batch: int = described(8, "Samples in one step.")
    steps: int = described(4000, "Steps of the whole run.")
    lr: float = described(1e-3, "Peak learning rate of AdamW.")
    warmup: int = described(100, "Steps over which the learning rate rises from 0.")
    decay: float = described(0.5, "Last share of the run, over which the rate falls to 0.")
    average: float = described(0.995, "Decay of the running average of the weights; 0 = none.")
    clip: float = described(1.0, "Largest norm of the gradient; 0 = any.")
    seed: int = described(0, "Seed of the weights and of every sample.")
    precision: str = described("32-true", "32-true, or bf16-mixed where the processor has it.")
    accelerator: str = described("auto", "cpu, cuda or auto.")
    validate_every: int = described(500, "Steps between validations.")
    validate_on: int = described(128, "Crops of the val split.")
    checkpoint_every: int = described(100, "Steps between checkpoints.")

    # What may differ between a run and its continuation.
    FREE: ClassVar[tuple[str, ...]] = (
        *("out", "cache", "steps", "decay", "accelerator"),
        *("validate_every", "validate_on", "checkpoint_every"),
    )

    def check(self) -> None:
        """Raise a ForgemapError for the first value that cannot work."""
        rules = {
            "data": (bool(self.data), "name photographs or their folders"),
            "crop": (
                self.crop % 8 == 0 and 32 <= self.crop <= STORED,
                f"a multiple of 8 from 32 to {STORED}",
            ),
            "each": (self.each >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "steps": (self.steps >= 1, "at least 1"),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "warmup": (self.warmup >= 0, "at least 0"),
            "decay": (0 <= self.decay <= 1, "from 0 to 1"),
            "average": (0 <= self.average < 1, "from 0 to below 1"),
            "clip": (self.clip >= 0, "at least 0"),
            "seed": (self.seed >= 0, "at least 0"),
            "precision": (self.precision in ("32-true", "bf16-mixed"), "32-true or bf16-mixed"),
            "accelerator": (self.accelerator in ("auto", "cpu", "cuda"), "auto, cpu or cuda"),
            "validate_every": (self.validate_every >= 1, "at least 1"),
            "validate_on": (self.validate_on >= 1, "at least 1"),
            "checkpoint_every": (self.checkpoint_every >= 1, "at least 1"),
        }
        for name, (good, wanted) in rules.items():
            if not good:
                raise ForgemapError(f"{name} = {getattr(self, name)!r} cannot work: {wanted}.")


#: (network, pictures (B, 3, H, W) in [0, 1], the only source of chance) -> scalar loss.
Loss = Callable[[nn.Module, Tensor, np.random.Generator], Tensor]
#: (network, uint8 crops (N, side, side, 3)) -> scores by name.
Scores = Callable[[nn.Module, np.ndarray], dict[str, float]]


def fit(
    config: GeneratorConfig,
    make: Callable[[np.ndarray], nn.Module],
    loss: Loss,
    scores: Scores,
    *,
    progress: bool = True,
) -> Path:
    """Train a generator, or go on where the folder's last checkpoint stands.

    A run is determined by its configuration: killed at any moment and started again it ends with
    the same weights (on CPU bit for bit). Ctrl-C ends it after the step, with a checkpoint.

    Args:
        make: the training crops (N, side, side, 3) uint8 -> the network to begin with.
        loss, scores: what is minimised on a batch, and what is measured on the val split.

    Returns:
        The folder of the model: the averaged weights of the last step, and the scores.

    Raises:
        ForgemapError: values that cannot work, no photographs, a folder of another run.
    """
    config.check()
    crops = photo_crops(config.data, "train", STORED, config.each, config.cache, config.seed)
    held_out = photo_crops(config.data, "val", STORED, 2, config.cache, config.seed)
    held_out = held_out[np.linspace(0, len(held_out) - 1, config.validate_on).round().astype(int)]
    run = RunFolder(Path(config.out))
    torch.manual_seed(config.seed)
    network = make(crops if not run.checkpoint.exists() else crops[:1]).train()
    run.check_space(network)
    run.claim(config)

    keep_to_them()
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=1,
        precision=config.precision,  # type: ignore[arg-type]
    )
    schedule = Trapezoid(config.lr, config.steps, config.warmup, config.decay)
    average = WeightAverage(network, config.average)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=0.0)
    state = run.restore(network, optimizer, average)
    history = History(run.path, state.step)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model, optimizer = fabric.setup(network, optimizer)

    console = Console(stderr=True)
    bar = progress_bar(console, enabled=progress)
    with bar, interruptible() as interrupted:
        task = bar.add_task("training", total=config.steps, completed=state.step, loss="")
        while state.step < config.steps and not interrupted.is_set():
            rng = np.random.default_rng([config.seed, state.step])
            rate = schedule.rate(state.step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            value = loss(model, fabric.to_device(batch(crops, config, rng)), rng)
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(value)
            if config.clip:
                fabric.clip_gradients(model, optimizer, max_norm=config.clip)
            optimizer.step()
            average.update(network)
            state.step += 1
            history.loss(state.step, float(value.detach()), rate)
            bar.update(task, completed=state.step, loss=f"loss {history.smooth:.4f}")

            over = state.step == config.steps
            if over or state.step % config.validate_every == 0:
                with average.applied(network), torch.inference_mode():
                    measured = scores(network, held_out)
                    history.validation(state.step, measured)
                    extra = {"training": run.settings(config) | {"step": state.step}}
                    save_generator(network, run.model, {**extra, "validation": measured})
                bar.console.print(summary(state.step, measured))
            if over or interrupted.is_set() or state.step % config.checkpoint_every == 0:
                run.store(fabric, network, optimizer, average, state)
    history.close()
    if state.step < config.steps:
        console.print(f"Stopped after step {state.step}; the same command goes on from there.")
    return run.model


def batch(crops: np.ndarray, config: GeneratorConfig, rng: np.random.Generator) -> Tensor:
    """Random windows of random crops, turned and mirrored: (B, 3, crop, crop) in [0, 1]."""
    windows = []
    for index in rng.integers(len(crops), size=config.batch):
        top, left = rng.integers(0, STORED - config.crop + 1, 2)
        window = crops[index, top : top + config.crop, left : left + config.crop]
        window = np.rot90(window, int(rng.integers(4)))
        windows.append(window[:, ::-1] if rng.integers(2) else window)
    return as_images(np.stack(windows))


def as_images(crops: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float in [0, 1], channels last in memory."""
    images = torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2)
    return images.float().div(255).contiguous(memory_format=torch.channels_last)


def gradients(images: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the pixel below and to the one on the right."""
    return images[..., 1:, :] - images[..., :-1, :], images[..., 1:] - images[..., :-1]


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, (N,)."""
    error = (images.clamp(0, 1) - others).square().flatten(1).mean(1)
    return -10 * error.clamp_min(1e-10).log10()
