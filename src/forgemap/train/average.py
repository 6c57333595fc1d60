"""average.py: the weights of several models of one network averaged (`forgemap train average`).

Models that began from the same weights can be averaged, and the average often does better than each
on pictures that neither was trained on (Wortsman et al., "Model soups", ICML 2022; "Robust
fine-tuning of zero-shot models", CVPR 2022, of one model before and after further training).
BatchNorm statistics cannot be averaged, since they belong to the activations of other weights: they
are measured anew on training pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.datasets import Balance, CropDataset
from ..data.records import Record
from ..data.views import WholeDataset
from ..errors import ForgemapError
from ..models.checkpoint import find_folder, load_model, save_model, weights_sha256
from ..models.embedder import Embedder
from .config import described
from .setup import read_split


@dataclass(frozen=True)
class AverageConfig:
    """Everything that determines an average."""

    models: list[str] = described([], "Model folders of one network, two at least.")
    shares: list[float] = described([], "Weight of each, adding up to 1; equal if none is given.")
    data: list[str] = described(
        [], "As for training, for BatchNorm statistics: manifests, folders, or NAME:ROOT."
    )
    out: str = described("", "Model folder to write.")
    batches: int = described(64, "Batches that the BatchNorm statistics are measured on.")
    batch: int = described(16, "Samples in one batch.")
    crop: int = described(256, "Native-resolution networks: side of the samples in pixels.")
    augment: float = described(0.3, "Native-resolution networks: strength of the augmentation.")
    untouched: float = described(0.4, "Native-resolution networks: share of untouched pictures.")
    seed: int = described(0, "Of the samples.")

    @property
    def weighting(self) -> list[float]:
        """`shares`, or equal ones."""
        return self.shares or [1 / len(self.models)] * len(self.models)

    def check(self) -> None:
        """Raise a ForgemapError for the first value that cannot work."""
        if len(self.models) < 2:
            raise ForgemapError("models: two at least are needed for an average.")
        if not self.out:
            raise ForgemapError("out: name the folder that the average is written to.")
        shares = self.weighting
        if len(shares) != len(self.models) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ForgemapError(
                f"shares = {self.shares!r} cannot work: one of 0 or more for each of the "
                f"{len(self.models)} models, adding up to 1."
            )
        for name in ("batches", "batch", "crop"):
            if getattr(self, name) < 1:
                raise ForgemapError(f"{name} = {getattr(self, name)!r} cannot work: at least 1.")


def train(config: AverageConfig) -> Path:
    """Write the average; returns its folder. A matter of a minute, not resumed.

    Raises:
        ForgemapError: a configuration or manifest that cannot be used; models of different
            networks.
    """
    config.check()
    folders = [find_folder(name) for name in config.models]
    loaded = [load_model(folder) for folder in folders]
    network, first = loaded[0]
    for folder, (_, other) in zip(folders, loaded, strict=True):
        if other["model"] != first["model"]:
            raise ForgemapError(f"{folder}: another network than {folders[0]}: no average of both.")
    if isinstance(network, Embedder):
        raise ForgemapError(f"{folders[0]}: an embedder; only localizers are averaged.")
    states = [model.state_dict() for model, _ in loaded]
    network.load_state_dict(averaged(states, config.weighting))
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        measure_statistics(network, read_split(config.data, "train"), config)
    parts = [
        {"name": Path(name).name, "weights_sha256": weights_sha256(folder), "share": share}
        for name, folder, share in zip(config.models, folders, config.weighting, strict=True)
    ]
    data = [Path(name).name for name in config.data]
    extra = {"training": {"averaged": parts, "data": data, "seed": config.seed}}
    return save_model(network, config.out, extra=extra)


def averaged(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of tensors of the same names; counters are the first one's."""
    return {
        name: sum(
            (share * state[name] for share, state in zip(shares, states, strict=True)),
            start=torch.zeros_like(tensor),
        )
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }


def measure_statistics(network: nn.Module, records: list[Record], config: AverageConfig) -> None:
    """Replace the running statistics of BatchNorms by the mean over batches of training samples."""
    preprocess: Any = network.preprocess
    samples: CropDataset | WholeDataset
    if getattr(network, "native", False):
        samples = CropDataset(
            records,
            preprocess,
            size=config.crop,
            seed=config.seed,
            strength=config.augment,
            balance=Balance(config.untouched),
        )
    else:
        samples = WholeDataset(records, preprocess, target=None, seed=config.seed)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.train()
    # What a network keeps frozen stays in eval mode, and keeps its statistics.
    for norm in norms:
        if norm.training:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
    with torch.inference_mode():
        for number in range(config.batches):
            first = number * config.batch
            images = [samples[first + i].image for i in range(config.batch)]
            network(torch.stack(images))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
