"""batches.py: the samples of a run, batch after batch, from any step on and on any process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import cv2
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..data.datasets import Balance, CropDataset
from ..data.records import Record
from ..data.views import WholeDataset
from ..errors import ForgemapError
from ..models.decoders import MASK_SIZE
from .config import LocalizerConfig


def dataset(records: list[Record], config: LocalizerConfig, network: nn.Module) -> Dataset[Any]:
    """The stream of samples that a configuration asks for."""
    preprocess: Any = network.preprocess
    if config.samples == "whole":
        return WholeDataset(
            records,
            preprocess,
            target=None if config.supervision == "image" else MASK_SIZE,
            seed=config.seed,
            perturb=config.perturb,
            views=config.views,
        )
    return CropDataset(
        records,
        preprocess,
        size=config.crop,
        seed=config.seed,
        strength=config.augment,
        graphics=config.graphics,
        textures=config.textures,
        compressed=config.compressed,
        balance=Balance(config.untouched, config.weights),
    )


def loader(
    samples: Dataset[Any], config: LocalizerConfig, fabric: Fabric, done: int, steps: int
) -> Iterator[Any]:
    """The batches of this process from step ``done`` to ``steps``."""
    rank, world = fabric.global_rank, fabric.world_size
    order = share(rank, world, config.batch, done, steps)
    batches: Any = DataLoader(
        samples,
        batch_size=config.batch // world,
        sampler=order,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=one_thread,
        collate_fn=getattr(samples, "collate", None),
    )
    # A forked process cannot stop OpenCV threads that it has not got: stop them first.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    stream = iter(fabric.setup_dataloaders(batches, use_distributed_sampler=False))
    cv2.setNumThreads(threads)
    try:
        yield from stream
    except ForgemapError as error:
        # A reading process's error comes as a traceback; its last line is the sentence.
        raise type(error)(str(error).strip().splitlines()[-1].split("Error: ")[-1]) from error


def share(rank: int, world: int, batch: int, done: int, steps: int) -> range:
    """The numbers of the samples of process `rank` of `world`: every world-th one.

    Step s is samples s * batch to (s + 1) * batch - 1, whatever the number of processes, which
    divides the batch: none is left out, none comes twice.
    """
    return range(done * batch + rank, steps * batch, world)


def one_thread(worker: int) -> None:
    """Readers must not compete with the network for the cores."""
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process to handle
