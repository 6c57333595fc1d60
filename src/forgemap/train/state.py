"""state.py: a run's folder, its checkpoints, and the running average of the weights."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..errors import ForgemapError, ModelError


@dataclass
class Progress:
    """Where a run stands: steps done, and the best validation score so far."""

    step: int = 0
    best: float = float("-inf")


class WeightAverage:
    """Exponential running average of a network's parameters and buffers.

    The averaged network is what is validated and saved: it gets most of what a slow decay of the
    learning rate would give, at every moment of the run.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.tensors = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network's present weights; quickly at first."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10)) if self.decay else 0.0
        for name, value in network.state_dict().items():
            mine = self.tensors[name]
            if mine.dtype.is_floating_point:
                mine.lerp_(value.to(mine.device), 1 - decay)
            else:
                mine.copy_(value)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """The network with the averaged weights, in eval mode; its own come back afterwards."""
        own = copy.deepcopy(network.state_dict())
        training = network.training
        network.load_state_dict(self.tensors)
        network.eval()
        try:
            yield
        finally:
            network.load_state_dict(own)
            network.train(training)


class RunFolder:
    """``config.yaml``, ``last.ckpt``, ``model/`` and the curves of one run."""

    def __init__(self, path: Path) -> None:
        self.path, self.model = path, path / "model"
        self.checkpoint, self.config = path / "last.ckpt", path / "config.yaml"

    def settings(self, config: Any) -> dict[str, Any]:
        """The configuration as the model folder records it (without this machine's folders)."""
        values = {f.name: getattr(config, f.name) for f in fields(config)}
        values["data"] = [Path(d).name for d in values["data"]]
        return {name: value for name, value in values.items() if name != "out"}

    def claim(self, config: dict[str, Any], free: tuple[str, ...]) -> None:
        """Write the configuration, or check that it is the one that the folder was started with.

        Raises:
            ForgemapError: the folder holds a run with other settings, or cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.checkpoint.exists() and self.config.exists():
                before = yaml.safe_load(self.config.read_text()) or {}
                for name, value in config.items():
                    if name not in free and before.get(name) != value:
                        raise ForgemapError(
                            f"{self.path} holds a run with {name} = {before.get(name)!r}, not "
                            f"{value!r}; give another --out, or the same settings to go on."
                        )
            beside = self.config.with_suffix(".partial")
            beside.write_text(yaml.safe_dump(config, sort_keys=False))
            os.replace(beside, self.config)
        except OSError as error:
            raise ForgemapError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def store(
        self,
        fabric: Fabric,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage,
        progress: Progress,
    ) -> None:
        """Write the checkpoint beside, then rename: there is always one whole checkpoint."""
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average.tensors,
            "updates": average.updates,
            "step": progress.step,
            "best": progress.best,
        }
        if fabric.is_global_zero:
            beside = self.checkpoint.with_suffix(".partial")
            torch.save(state, beside)
            os.replace(beside, self.checkpoint)
        fabric.barrier()

    def restore(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage
    ) -> Progress:
        """Load the last checkpoint into the three, if there is one.

        Raises:
            ModelError: the checkpoint is of another network or cannot be read.
        """
        if not self.checkpoint.exists():
            return Progress()
        try:
            state: dict[str, Any] = torch.load(
                self.checkpoint, map_location="cpu", weights_only=True
            )
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            tensors: dict[str, Tensor] = state["average"]
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"{self.checkpoint}: cannot be continued from ({reason}).") from error
        average.tensors, average.updates = tensors, state["updates"]
        return Progress(state["step"], state["best"])
