"""datasets.py: manifests of edited and untouched pictures -> training crops, whole pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from ..image import Image, load_image
from ..preprocess import Preprocess
from .augment import augment
from .masks import load_mask
from .records import Record


class Sample(NamedTuple):
    """One crop: ``image`` (3, H, W) as the network wants it, ``mask`` (1, size, size) 0 or 1."""

    image: Tensor
    mask: Tensor


def load_pair(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """The picture (H, W, 3) uint8 and its mask (H, W) uint8, 0 or 255, of one record.

    Raises:
        DataError: the mask is unreadable or of another size than the picture.
    """
    image, mask = load_labelled(record)
    return image.samples, mask


def load_labelled(record: Record) -> tuple[Image, np.ndarray]:
    """`load_pair` with all that was read of the picture."""
    image = load_image(record.image)
    height, width = image.samples.shape[:2]
    return image, load_mask(record, (height, width))


@dataclass(frozen=True)
class Balance:
    """How often a sample is drawn from what."""

    untouched: float = 0.4
    """Share of samples from untouched pictures; the methods of editing share the rest."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Weight of a method among the edited samples, where it is not 1."""


class CropDataset(Dataset[Sample]):
    """An endless, reproducible stream: sample n is a function of ``seed`` and n alone.

    There is no sampler state to save: a run that is stopped after n samples goes on with sample n,
    and any number of workers or processes sees the same stream.
    """

    def __init__(
        self,
        records: Sequence[Record],
        preprocess: Preprocess,
        *,
        size: int,
        seed: int,
        strength: float = 1.0,
        graphics: float = 0.0,
        textures: float = 0.0,
        compressed: float = 0.0,
        balance: Balance | None = None,
    ) -> None:
        if not records:
            raise DataError("There is no picture to train on: the train split is empty.")
        self.preprocess, self.size, self.seed = preprocess, size, seed
        self.augmentation = (strength, graphics, textures, compressed)
        self.balance = balance or Balance()
        self.groups: dict[str, list[Record]] = {}
        for record in records:
            self.groups.setdefault(record.method, []).append(record)
        self.untouched = self.groups.pop("none", [])
        self.methods = sorted(self.groups)
        if unknown := sorted(set(self.balance.weights) - set(self.methods)):
            raise DataError(
                f"weights: no picture was edited by {', '.join(unknown)}; "
                f"the data has {', '.join(self.methods)}."
            )
        share = np.array([self.balance.weights.get(m, 1.0) for m in self.methods])
        self.shares = share / share.sum() if share.size else share

    def draw(self, rng: np.random.Generator) -> Record:
        """Untouched or edited, then a method, then one of its pictures."""
        plain = rng.random() < self.balance.untouched
        if self.untouched and (plain or not self.methods):
            return self.untouched[int(rng.integers(len(self.untouched)))]
        group = self.groups[str(rng.choice(self.methods, p=self.shares))]
        return group[int(rng.integers(len(group)))]

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        pixels, mask = load_pair(self.draw(rng))
        pixels, mask = augment(pixels, mask, rng, self.size, *self.augmentation)
        return Sample(self.preprocess(pixels)[0], torch.from_numpy(mask)[None].float())


def spread(records: Sequence[Record], limit: int) -> list[Record]:
    """At most ``limit`` records, every method in equal share, evenly over the manifest's order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.method, []).append(record)
    share = max(1, limit // max(1, len(groups)))
    chosen = []
    for method in sorted(groups):
        group = groups[method]
        picks = np.linspace(0, len(group) - 1, min(share, len(group))).round().astype(int)
        chosen += [group[i] for i in sorted(set(picks.tolist()))]
    return chosen
