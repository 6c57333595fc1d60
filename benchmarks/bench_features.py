"""bench_features.py: training steps on cached features (ours) against the literal step.

DeCLIP with a convolutional decoder of depth 20 and random weights, on a few pictures. The literal
side is `literal_declip`'s step: the whole tower for every picture, float32, metrics in the step.
Ours is a step of `train localizer --recipe declip --cache`, which reads the tower's features, and
leaves metrics to validation. Both read files, go backward and let AdamW move the same weights.
What remains, the decoder's own training, is the limit of what a cache can give; beyond it goes
`--precision bf16-mixed`.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from rich.progress import Progress

from benchmarks.bench_declip import LARGE, SMALL, Size
from benchmarks.literal_declip import LiteralTraining
from benchmarks.peak import operations
from benchmarks.timing import Case, clock
from forgemap.data.records import Record
from forgemap.models.published import read_published
from forgemap.train import batches
from forgemap.train.config import LocalizerConfig
from forgemap.train.features import FeatureCache, FeatureDataset
from forgemap.train.localizer import new_optimizer, step

PICTURES = 4
FULL, MIXED = "32-true", "bf16-mixed"
TARGETS: dict[str, float | None] = {FULL: None, MIXED: 5.0}
TOLERANCES = {FULL: 1e-4, MIXED: 2e-2}
DTYPES = {FULL: "float32", MIXED: "bfloat16"}


def cases(quick: bool) -> list[Case]:
    """The published size in both precisions; quick: a small one, in float32."""
    return [Training(SMALL, FULL).case()] if quick else [Training(LARGE, p).case() for p in TARGETS]


class Training:
    """One step of each side, on the same pictures and from the same weights."""

    def __init__(self, size: Size, precision: str) -> None:
        self.size, self.precision = size, precision
        self.waited = self.took = 0.0

    @cached_property
    def sides(self) -> dict[str, Callable[[], float]]:
        size, folder = self.size, Path(tempfile.mkdtemp(prefix="forgemap-bench-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        records = [_picture(folder, number) for number in range(PICTURES)]
        literal = LiteralTraining(size.literal())
        network = read_published(literal.network.checkpoint(), heads=size.heads).train()
        config = LocalizerConfig.of(
            recipe="declip",
            data=["x"],
            batch=PICTURES,
            workers=0,
            cache=str(folder / "cache"),
            accelerator="cpu",
            precision=self.precision,
        )
        fabric = Fabric(accelerator="cpu", devices=1, precision=self.precision)  # type: ignore[arg-type]
        full = Fabric(accelerator="cpu", devices=1)
        cache = FeatureCache(config, network, records, [])
        cache.fill(full, PICTURES, Progress(disable=True), threading.Event())
        whole: Any = batches.dataset(records, config, network)
        features: Any = FeatureDataset(whole, cache.shelf)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = new_optimizer(network.decoder.parameters(), config, fabric)
        kept: list[Any] = list(batches.loader(features, config, full, 0, 1))

        def cached() -> float:
            begin = clock()
            (batch,) = batches.loader(features, config, fabric, 0, 1)
            self.waited += clock() - begin
            loss = step(fabric, model, optimizer, batch, config, 0, config.lr)
            self.took += clock() - begin
            return loss

        def plain() -> float:
            (batch,) = batches.loader(whole, config, full, 0, 1)
            return literal.step(batch.image, batch.mask.flatten(1))[0]

        def decoder() -> None:
            network(kept[0].image).mask.sum().backward()

        self.operations = operations(decoder)
        network.zero_grad()
        model, optimizer = fabric.setup(network, optimizer)
        return {"ours": cached, "literal": plain}

    def check(self) -> None:
        """One step on each side: the same loss."""
        ours, literal = (self.sides[name]() for name in ("ours", "literal"))
        if abs(ours - literal) > TOLERANCES[self.precision]:
            raise AssertionError(f"the losses differ: {ours} and {literal}")
        self.waited = self.took = 0.0

    def work(self) -> tuple[float, str]:
        return self.operations, DTYPES[self.precision]

    def case(self) -> Case:
        return Case(
            f"training step on {PICTURES} pictures, {self.size.name} conv-20, cached features, "
            + {FULL: "float32", MIXED: "bf16"}[self.precision],
            lambda: self.sides["ours"](),
            lambda: self.sides["literal"](),
            self.check,
            TARGETS[self.precision] if self.size is LARGE else None,
            self.size.rounds,
            self.work,
            lambda: f"{self.waited / self.took:.1%} of it reading",
        )


def _picture(folder: Path, number: int) -> Record:
    """A picture of 512 x 512 with a square mask, as files."""
    rng = np.random.default_rng(number)
    image, mask = folder / f"{number}.png", folder / f"{number}_mask.png"
    cv2.imwrite(str(image), rng.integers(0, 255, (512, 512, 3), dtype=np.uint8))
    marked = np.zeros((512, 512), np.uint8)
    marked[100:300, 150:350] = 255
    cv2.imwrite(str(mask), marked)
    return Record(image, mask, image.name, "inpainting", "train", {}, 0)
