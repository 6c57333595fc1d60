"""setup.py: the data and the network of a run, checked before any long work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..data.catalog import open_data
from ..data.datasets import spread
from ..data.masks import check_masks
from ..data.records import Record
from ..errors import DataError, ModelError
from ..models import zoo
from ..models.build import build
from ..models.checkpoint import load_model
from ..models.decoders import initialise
from ..models.localizer import Localizer
from ..models.published import fill_backbone
from .config import LocalizerConfig
from .validation import CHOICES


def read_split(data: Sequence[str], split: str) -> list[Record]:
    """The records of one split, over all manifests and named sets (see `open_data`)."""
    return [r for path in data for r in open_data(path, split)]


def read_data(config: LocalizerConfig) -> tuple[list[Record], list[Record]]:
    """The pictures to train and to validate on.

    Raises:
        DataError: a manifest that cannot be read, a mask of another size than its picture, or
            splits that hold too little for what the configuration wants to do with them.
    """
    records, held_out = read_split(config.data, "train"), read_split(config.data, "val")
    if config.validate_on:
        held_out = spread(held_out, config.validate_on)
    names = ", ".join(config.data)

    weak, plateau = config.supervision == "image", config.schedule == "plateau"
    image_level = not CHOICES[config.choice].needs_masks
    require(records, f"{names}: the train split", both=weak)
    if plateau or (held_out and image_level):
        where = f"{names}: the val split, which decides by {config.choice},"
        require(held_out, where, both=image_level)
    if not weak:
        check_masks(records)
    check_masks(held_out)
    return records, held_out


def require(records: Sequence[Record], where: str, *, both: bool) -> None:
    """Raise a DataError if there is no edited picture, or not ``both`` kinds."""
    kinds = {record.manipulated for record in records}
    if True not in kinds:
        raise DataError(f"{where} holds {'no edited' if kinds else 'no'} picture.")
    if both and False not in kinds:
        raise DataError(f"{where} holds no untouched picture, but image labels need both kinds.")


def new_network(config: LocalizerConfig) -> nn.Module:
    """The network as the run starts with it, in train mode; the seed determines it."""
    torch.manual_seed(config.seed)
    network = load_model(config.init)[0] if config.init else build(config.model_config())
    if config.backbone_weights:
        assert isinstance(network, Localizer)
        fill_backbone(network, [weights_file(name) for name in config.backbone_weights])
    if config.decoder_init == "published":
        initialise(network.decoder, scales=True)  # type: ignore[arg-type]
    if config.init and config.trainable:
        if not isinstance(network, Localizer):
            raise ModelError(f"{config.init}: --trainable is for --architecture declip.")
        network.set_trainable(config.trainable)
    return network.train()


def weights_file(name: str) -> Path:
    """A file as it is named, or the downloaded one of `models.zoo` that has the name.

    Raises:
        ModelError: neither there; says how to download it.
    """
    if Path(name).is_file() or Path(name).suffix:
        return Path(name)
    file = zoo.file_of(zoo.find(name))
    if not file.is_file():
        raise ModelError(f"{name} is not here yet: forgemap models download {name}")
    return file
