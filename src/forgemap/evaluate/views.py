"""views.py: the pictures of a data set, real and generated, in each variant: crops for an embedder.

pictures = open_pictures("d3-test", None, limit=None, seed=0)
views = Views(pictures, variants(None, False), network, "centre", seed=0, max_pixels=10**8)
views[0].crops   # (V, 3, side, side), of the first picture as it is
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..data.generated import Labelled, read_generated
from ..data.transforms import some
from ..errors import DataError, ForgemapError
from ..image import load_image
from ..models.crops import cut
from ..models.embedder import Embedder
from ..preprocess import Preprocess
from .robustness import AS_IS, Variant

TRANSFORMED = Variant("transforms")
"""0 to 2 of CoDE's transforms, drawn for each picture."""


def name_of(variant: Variant) -> str:
    """As tables and files say it."""
    return "transforms" if variant == TRANSFORMED else variant.name


class Pictures(NamedTuple):
    """What is embedded."""

    pictures: Sequence[Labelled]
    names: list[str]
    """Path relative to the data set."""
    generators: list[str]
    digest: str
    """Changes with the names and sizes of the files."""


def open_pictures(data: str | Path, split: str | None, limit: int | None, seed: int) -> Pictures:
    """The pictures of any layout of `read_generated`, or of shards.

    Args:
        split: only pictures of this split, where the data says splits; None: all.
        limit: at most so many, in equal shares of real pictures and of each generator.

    Raises:
        DataError: no such data, or nothing of that split.
    """
    from ..data.shards import ShardPictures

    path = Path(data)
    found: Sequence[Labelled]
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        shards = ShardPictures(path, split=split)
        chosen = _even([shards.generator(i) for i in range(len(shards))], limit, seed)
        lines = [shards.name(i) for i in range(len(shards))]
        digest = [f"{shard.file}\0{shard.sha256}\0{shard.bytes}" for shard in shards.shards.shards]
        names = [lines[i] for i in chosen]
        return Pictures(
            _Chosen(shards, chosen),
            names,
            [shards.generator(i) for i in chosen],
            _sha256([*digest, *names]),
        )
    found = [p for p in read_generated(path) if split in (None, p.split)]
    if not found:
        raise DataError(f"{path} has no folder of the split {split!r}: leave it out.")
    found = [found[i] for i in _even([p.generator for p in found], limit, seed)]
    root = path if path.is_dir() else path.parent
    files = [p.image for p in found if isinstance(p.image, Path)]
    names = [os.path.relpath(file, root) for file in files]
    sizes = [f"{name}\0{file.stat().st_size}" for name, file in zip(names, files, strict=True)]
    return Pictures(found, names, [p.generator for p in found], _sha256(sizes))


class _Chosen(Sequence[Labelled]):
    def __init__(self, whole: Sequence[Labelled], chosen: list[int]) -> None:
        self.whole, self.chosen = whole, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> Labelled:  # type: ignore[override]  # no slices
        return self.whole[self.chosen[i]]


def _even(generators: list[str], limit: int | None, seed: int) -> list[int]:
    """At most `limit` indices in order: one of each generator in turn, drawn at random."""
    if limit is None or limit >= len(generators):
        return list(range(len(generators)))
    turns: dict[str, int] = {}
    order = []
    for i in np.random.default_rng(seed).permutation(len(generators)):
        name = generators[i]
        turns[name] = turns.get(name, 0) + 1
        order.append((turns[name], name, int(i)))
    return sorted(i for _, _, i in sorted(order)[:limit])


def _sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


class View(NamedTuple):
    """One picture in one variant, ready for the network, or why it is not."""

    place: int
    crops: Tensor | None
    """(V, 3, side, side) float32."""
    error: str
    key: str
    group: str
    split: str
    variant: str


class Views(Dataset[View]):
    """Every picture in every variant; the order is all variants of a picture, then the next."""

    def __init__(
        self,
        pictures: Pictures,
        chosen: Sequence[Variant],
        network: Embedder,
        crops: str,
        seed: int,
        max_pixels: int,
    ) -> None:
        self.pictures, self.chosen = pictures, list(chosen)
        self.side, self.preprocess, self.crops = network.image_size, network.preprocess, crops
        self.seed, self.max_pixels = seed, max_pixels

    def __len__(self) -> int:
        return len(self.pictures.names) * len(self.chosen)

    def __getitem__(self, n: int) -> View:
        place, turn = divmod(n, len(self.chosen))
        variant, name = self.chosen[turn], self.pictures.names[place]
        picture = self.pictures.pictures[place]
        fixed = (picture.key, picture.group, picture.split, _variant(picture, variant))
        try:
            rng = np.random.default_rng([self.seed, crc32(f"{name} {name_of(variant)}".encode())])
            pixels = load_image(picture.image, max_pixels=self.max_pixels).samples
            crops = _crops(_changed(pixels, variant, rng), self.side, self.crops, self.preprocess)
        except Exception as error:  # one broken picture must not end the run
            text = str(error).replace("<bytes>", name).split("\n")[0]
            sentence = (
                text if isinstance(error, ForgemapError) else f"{type(error).__name__}: {text}"
            )
            return View(place, None, sentence, *fixed)
        return View(place, crops, "", *fixed)


def _variant(picture: Labelled, variant: Variant) -> str:
    """D3's own "augm" and "no_augm" are variants, too."""
    own = [picture.variant] if picture.variant else []
    return ", ".join([*own, *([name_of(variant)] if variant != AS_IS or not own else [])])


def _changed(pixels: np.ndarray, variant: Variant, rng: np.random.Generator) -> np.ndarray:
    if variant == TRANSFORMED:
        return some(pixels, rng)
    changed = variant.apply(pixels, rng)
    return changed if isinstance(changed, np.ndarray) else load_image(changed).samples


def _crops(pixels: np.ndarray, side: int, crops: str, preprocess: Preprocess) -> Tensor:
    return torch.cat([preprocess(view) for view in cut(pixels, side, crops).views])
