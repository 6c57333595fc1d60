"""localizer.py: train a network that marks the edited pixels (`forgemap train localizer`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from ..models.checkpoint import save_model
from . import batches
from .config import LocalizerConfig
from .features import FeatureCache, FeatureDataset
from .history import History
from .losses import image_loss, localization_loss
from .processes import distributed, gathered, mean, sharded, start
from .schedules import SCHEDULES, Timetable
from .setup import new_network, read_data
from .state import RunFolder, WeightAverage
from .steering import anywhere, interruptible, progress_bar, summary
from .validation import pictures, validate

__all__ = ["LocalizerConfig", "train"]


def train(config: LocalizerConfig, *, progress: bool = True) -> Path:
    """Train, or go on training where the folder's last checkpoint stands; returns the model folder.

    A run is determined by its configuration: killed at any moment and started again it ends with
    the same weights as an uninterrupted one (on CPU bit for bit). An interrupt (Ctrl-C) ends it
    after the current step with a checkpoint.

    Raises:
        ForgemapError: a configuration, manifest or checkpoint that cannot be used, or a disk too
            full, before any work starts; a disk that fills up while it runs.
    """
    config.check()
    records, held_out = read_data(config)
    network = new_network(config)
    cache = FeatureCache(config, network, records, held_out) if config.cache else None
    run = RunFolder(Path(config.out))
    run.check_space(network)
    run.claim(config)

    console = Console(stderr=True)
    fabric = start(config)
    timetable = Timetable.of(config, len(records))
    schedule = SCHEDULES[config.schedule](config, timetable.steps)
    adamw = partial(new_optimizer, config=config, fabric=fabric)
    model, optimizer = distributed(fabric, network, adamw, config.sync_batchnorm)
    average = WeightAverage(network, config.average)
    state = run.restore(network, optimizer, average)
    schedule.restore(state.schedule)
    history = History(run.path, state.step, enabled=fabric.is_global_zero)

    def look() -> None:
        """Validate the averaged network; keep it if it is the best; let the schedule know."""
        with average.applied(network):
            seen = cache.held(held_out) if cache else pictures(held_out, network)
            scores = fabric.broadcast(validate(network, seen, config.choice))
            if scores["choice"] >= state.best:
                state.best = scores["choice"]
                save(fabric, network, run, config)
        network.train()
        schedule.observe(scores["choice"])
        state.schedule = schedule.state()
        history.validation(state.step, scores)
        if fabric.is_global_zero:
            bar.console.print(summary(state.step, scores))

    samples: Any = batches.dataset(records, config, network)
    bar = progress_bar(console, enabled=progress and fabric.is_global_zero)
    with bar, interruptible() as interrupted:
        if cache:
            cache.fill(fabric, config.batch, bar, interrupted)
            samples = FeatureDataset(samples, cache.shelf)
        stream = batches.loader(samples, config, fabric, state.step, timetable.steps)
        task = bar.add_task("training", total=timetable.steps, completed=state.step, loss="")
        stopping = anywhere(fabric, interrupted.is_set())
        while state.step < timetable.steps and not schedule.finished and not stopping:
            rate = schedule.rate(state.step)
            loss = step(fabric, model, optimizer, next(stream), config, state.step, rate)
            average.update(network)
            state.step += 1
            history.loss(state.step, loss, rate)
            bar.update(task, completed=state.step, loss=f"loss {history.smooth:.4f}")

            stopping = anywhere(fabric, interrupted.is_set())
            if held_out and timetable.validates(state.step):
                look()
            last = state.step == timetable.steps or schedule.finished
            if last or stopping or state.step % config.checkpoint_every == 0:
                run.store(fabric, network, optimizer, average, state)
    history.close()
    if not held_out:
        with average.applied(network):
            save(fabric, network, run, config)
    if state.step < timetable.steps and not schedule.finished and fabric.is_global_zero:
        console.print(f"Stopped after step {state.step}; the same command goes on from there.")
    return run.model


def step(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    config: LocalizerConfig,
    number: int,
    rate: float,
) -> float:
    """One optimiser step; returns the loss."""
    torch.manual_seed(config.seed * 1_000_003 + number)  # dropout must not depend on a restart
    for group in optimizer.param_groups:
        group["lr"] = rate
    inputs = batch.image
    if isinstance(inputs, Tensor):
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    output = model(inputs)
    if config.supervision == "image":
        loss = image_loss(output.mask, output.evidence, batch.edited)
    else:
        loss = localization_loss(
            output.mask, output.evidence, batch.mask, dice=config.dice, image=config.image
        )
    if output.evidence is not None and not config.image:
        loss = loss + 0 * output.evidence.sum()  # several processes wait for every gradient
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    if config.clip:
        fabric.clip_gradients(model, optimizer, max_norm=config.clip)
    optimizer.step()
    return mean(fabric, loss)


def new_optimizer(
    parameters: Iterable[nn.Parameter], config: LocalizerConfig, fabric: Fabric
) -> torch.optim.AdamW:
    """AdamW as configured; on a CPU in one pass over each tensor, which is memory's pace."""
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        weight_decay=config.weight_decay,
        fused=fabric.device.type == "cpu" and not sharded(fabric),
    )


def save(fabric: Fabric, network: nn.Module, run: RunFolder, config: LocalizerConfig) -> None:
    """Write the model folder, from one process; all must call it."""
    network = gathered(fabric, network)
    if fabric.is_global_zero:
        save_model(network, run.model, extra={"training": run.settings(config)})
