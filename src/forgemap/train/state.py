"""state.py: a run's folder, its checkpoints, and the running average of the weights."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from torch import Tensor, nn

from ..errors import ForgemapError, ModelError
from ..files import write_whole
from ..models.checkpoint import in_half
from .processes import like, load_optimizer, whole


@dataclass
class Progress:
    """Where a run stands: steps done, and the best validation score so far."""

    step: int = 0
    best: float = float("-inf")
    schedule: dict[str, Any] = field(default_factory=dict)


def moving(network: nn.Module) -> list[str]:
    """The tensors that training changes: parameters with gradients, buffers in training mode.

    The rest, a frozen backbone, is neither averaged nor written to checkpoints. Call it after
    ``network.train()``.
    """
    names = {name for name, p in network.named_parameters() if p.requires_grad}
    for prefix, module in network.named_modules():
        if module.training:
            buffers = (name for name, _ in module.named_buffers(recurse=False))
            names |= {f"{prefix}.{name}" if prefix else name for name in buffers}
    return [name for name in network.state_dict() if name in names]


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of tensors: their names, kinds, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = whole(tensors[name]).detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around writes below ``path``: a full or broken disk becomes one sentence."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # PyTorch's writer raises the latter
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ForgemapError(
            f"{path}: cannot be written ({reason}); free some space, then the same command goes on."
        ) from error


class WeightAverage:
    """Exponential running average of a network's parameters and buffers.

    The averaged network is what is validated and saved: it gets most of what a slow decay of the
    learning rate would give, at every moment of the run. With a decay of 0 it is the network.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        tensors = network.state_dict()
        self.tensors = {n: tensors[n].detach().clone() for n in moving(network)} if decay else {}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network's present weights; quickly at first."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        now = network.state_dict()
        for name, mine in self.tensors.items():
            if mine.dtype.is_floating_point:
                mine.lerp_(like(now[name], mine), 1 - decay)
            else:
                mine.copy_(now[name])

    @contextmanager
    def applied(self, network: nn.Module, half: bool = False) -> Iterator[None]:
        """The network with the averaged weights, in eval mode; its own come back afterwards.

        With ``half`` all weights are as `save_model` keeps them in 16 bits, those too that are not
        averaged.
        """
        now = network.state_dict()
        shown = in_half({**now, **self.tensors}) if half else self.tensors
        own = {name: now[name].clone() for name in shown}
        training = network.training
        put(shown, network)
        network.eval()
        try:
            yield
        finally:
            put(own, network)
            network.train(training)


@torch.no_grad()
def put(tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """Copy some of a network's tensors into it."""
    now = network.state_dict()
    for name, value in tensors.items():
        now[name].copy_(like(value, now[name]))


class RunFolder:
    """``config.yaml``, ``last.ckpt``, ``model/`` and the curves of one run."""

    def __init__(self, path: Path) -> None:
        self.path, self.model = path, path / "model"
        self.checkpoint, self.config = path / "last.ckpt", path / "config.yaml"
        self.frozen = ""  # fingerprint of what training does not change

    def settings(self, config: Any) -> dict[str, Any]:
        """The configuration as the model folder records it (without this machine's folders)."""
        values = {f.name: getattr(config, f.name) for f in fields(config)}
        values["data"] = [Path(d).name for d in values["data"]]
        for name in ("init", "stem_weights", "spectra_weights"):
            if values.get(name):
                values[name] = Path(values[name]).name
        own = ("out", "cache", "cache_limit")
        return {name: value for name, value in values.items() if name not in own}

    def claim(self, config: Any) -> None:
        """Write the configuration, or check that it is the one that the folder was started with.

        Args:
            config: a dataclass of which every field has a default; those that its FREE names may
                change. A field that there was not yet when the run began had its default then.

        Raises:
            ForgemapError: the folder holds a run with other settings, or cannot be written.
        """
        values = {f.name: getattr(config, f.name) for f in fields(config)}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.checkpoint.exists() and self.config.exists():
                stored = yaml.safe_load(self.config.read_text()) or {}
                defaults = type(config)()
                for name, value in values.items():
                    before = stored.get(name, getattr(defaults, name))
                    if name not in config.FREE and before != value:
                        raise ForgemapError(
                            f"{self.path} holds a run with {name} = {before!r}, not "
                            f"{value!r}; give another --out, or the same settings to go on."
                        )
            write_whole(self.config, yaml.safe_dump(values, sort_keys=False))
        except OSError as error:
            raise ForgemapError(f"{self.path}: cannot be written ({error.strerror}).") from error

    def check_space(self, network: nn.Module) -> None:
        """Raise a ForgemapError if checkpoints and models of this network would fill the disk."""
        tensors = network.state_dict()
        sizes = {name: t.numel() * t.element_size() for name, t in tensors.items()}
        # A checkpoint holds what moves, its average and AdamW's two moments. Whatever is replaced
        # lies beside its successor for a moment.
        needed = 2 * (4 * sum(sizes[name] for name in moving(network)) + sum(sizes.values()))
        folder = self.path.absolute()
        if folder.is_dir():
            needed -= sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        while not folder.exists():
            folder = folder.parent
        if (free := shutil.disk_usage(folder).free) < needed:
            raise ForgemapError(
                f"{self.path}: the run needs {needed / 1e9:.2f} GB, but its disk has "
                f"{free / 1e9:.2f} GB left; free some, or give another --out."
            )

    def store(
        self,
        fabric: Fabric,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage,
        progress: Progress,
    ) -> None:
        """Write the checkpoint beside, then rename: there is always one whole checkpoint."""
        now = network.state_dict()
        state = {
            "network": whole({name: now[name] for name in moving(network)}),
            "frozen": self.frozen,
            "optimizer": whole(optimizer.state_dict()),
            "average": whole(average.tensors),
            "updates": average.updates,
            "step": progress.step,
            "best": progress.best,
            "schedule": progress.schedule,
        }
        if fabric.is_global_zero:
            beside = self.checkpoint.with_suffix(".partial")
            try:
                with writing(self.path):
                    torch.save(state, beside)
                    os.replace(beside, self.checkpoint)
            finally:
                beside.unlink(missing_ok=True)
        fabric.barrier()

    def restore(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage
    ) -> Progress:
        """Load the last checkpoint into the three, if there is one.

        Raises:
            ModelError: the checkpoint is of another network or cannot be read.
        """
        names = moving(network)
        now = network.state_dict()
        self.frozen = fingerprint({name: t for name, t in now.items() if name not in names})
        if not self.checkpoint.exists():
            return Progress()
        try:
            state: dict[str, Any] = torch.load(
                self.checkpoint, map_location="cpu", weights_only=True
            )
            if sorted(state["network"]) != sorted(names):
                raise ValueError("it holds other tensors than this network trains")
            if state["frozen"] != self.frozen:
                raise ValueError("the frozen weights are not those that the run began with")
            put(state["network"], network)
            load_optimizer(optimizer, state["optimizer"])
            held = {name: like(t, now[name]) for name, t in state["average"].items()}
            average.tensors, average.updates = held, state["updates"]
            return Progress(state["step"], state["best"], state["schedule"])
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"{self.checkpoint}: cannot be continued from ({reason}).") from error
