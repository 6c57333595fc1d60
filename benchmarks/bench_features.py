"""bench_features.py: training steps on cached features (ours) against the plain loop (literal).

The published network, CLIP ViT-L/14 cut after layer20 and a convolutional decoder, with random
weights, on a few pictures; both sides are whole steps of `train localizer --recipe declip`, with
reading, backward pass and optimiser. The plain loop is in float32, as published. The backbone is
most of its step, but not all of it: what remains, the decoder's own training, is the limit of what
a cache alone can give; beyond it goes the cache with `--precision bf16-mixed`.
"""

from __future__ import annotations

import copy
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from rich.progress import Progress

from benchmarks.timing import Case
from forgemap.data.records import Record
from forgemap.train import batches
from forgemap.train.config import LocalizerConfig
from forgemap.train.features import FeatureCache, FeatureDataset
from forgemap.train.localizer import step
from forgemap.train.setup import new_network

PICTURES = 2
FULL, MIXED = "32-true", "bf16-mixed"
# (decoder, precision of the cached side) -> the ratio to reach
TARGETS: dict[tuple[str, str], float | None] = {
    ("conv-20", FULL): None,
    ("conv-20", MIXED): 3.0,
    ("conv-4", FULL): None,
}
TOLERANCES = {FULL: 1e-4, MIXED: 2e-2}


def cases(quick: bool) -> list[Case]:
    """The paper's decoder and the small one; quick: none, as the backbone alone has 1 GB."""
    return [] if quick else [_case(*kind) for kind in TARGETS]


def _case(decoder: str, precision: str) -> Case:
    sides: dict[str, Callable[[], float]] = {}

    def side(name: str) -> Callable[[], float]:
        def run() -> float:
            if not sides:
                sides.update(_sides(decoder, precision))
            return sides[name]()

        return run

    def check() -> None:
        """Fresh copies of the network, one step on each side: the same loss."""
        losses = [side(name)() for name in ("cached", "plain")]
        if abs(losses[0] - losses[1]) > TOLERANCES[precision]:
            raise AssertionError(f"the losses differ: {losses[0]} and {losses[1]}")

    return Case(
        f"features ViT-L/14 {decoder}" + (", bf16" if precision == MIXED else ""),
        side("cached"),
        side("plain"),
        check,
        TARGETS[decoder, precision],
        rounds=3,  # a round takes seconds
    )


def _sides(decoder: str, precision: str) -> dict[str, Callable[[], float]]:
    """One epoch of steps, with and without the cache, each on its own copy of the network."""
    folder = Path(tempfile.mkdtemp(prefix="forgemap-bench-"))
    records = [_picture(folder, number) for number in range(PICTURES)]
    config = LocalizerConfig.of(
        recipe="declip",
        data=["x"],
        decoder=decoder,
        batch=PICTURES,
        workers=0,
        cache=str(folder / "cache"),
        accelerator="cpu",
        precision=precision,
    )
    config.check()
    fabrics = {
        "plain": Fabric(accelerator="cpu", devices=1),
        "cached": Fabric(accelerator="cpu", devices=1, precision=precision),  # type: ignore[arg-type]
    }
    network: Any = new_network(config)
    cache = FeatureCache(config, network, records, [])
    cache.fill(fabrics["cached"], PICTURES, Progress(disable=True), threading.Event())
    samples = batches.dataset(records, config, network)
    streams = {"plain": samples, "cached": FeatureDataset(samples, cache.shelf)}  # type: ignore[arg-type]

    def epoch(name: str) -> Callable[[], float]:
        own, fabric = copy.copy(network), fabrics[name]
        own._modules = {**network._modules, "decoder": copy.deepcopy(network.decoder)}
        own.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(own.decoder.parameters(), lr=config.lr, weight_decay=0)
        model, optimizer = fabric.setup(own, optimizer)

        def run() -> float:
            (batch,) = batches.loader(streams[name], config, fabric, 0, 1)
            return step(fabric, model, optimizer, batch, config, 0, config.lr)

        return run

    return {name: epoch(name) for name in streams}


def _picture(folder: Path, number: int) -> Record:
    """A picture of 512 x 512 with a square mask, as files."""
    rng = np.random.default_rng(number)
    image, mask = folder / f"{number}.png", folder / f"{number}_mask.png"
    cv2.imwrite(str(image), rng.integers(0, 255, (512, 512, 3), dtype=np.uint8))
    marked = np.zeros((512, 512), np.uint8)
    marked[100:300, 150:350] = 255
    cv2.imwrite(str(mask), marked)
    return Record(image, mask, image.name, "inpainting", "train", {}, 0)
