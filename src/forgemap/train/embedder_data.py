"""embedder_data.py: what an embedder is trained, fitted and validated on, checked beforehand."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.contrast import jpeg_qualities
from ..data.generated import (
    FolderPairs,
    Labelled,
    Pairs,
    generators,
    imbalance,
    of_split,
    read_generated,
)
from ..errors import DataError
from .embedder_config import EmbedderConfig


@dataclass(frozen=True)
class Material:
    """The pictures of a run."""

    pairs: Pairs
    """What is trained on."""
    fit: Sequence[Labelled]
    """Training pictures that the classifiers are fitted on."""
    held: Sequence[Labelled]
    """What they are validated on; empty: there is no validation."""
    qualities: tuple[int, ...]
    """JPEG qualities of the training pictures."""


class OfPairs(Sequence[Labelled]):
    """The pictures of the first pairs, one after the other, read only when they are asked for."""

    def __init__(self, pairs: Pairs, pictures: int) -> None:
        self.pairs, self.size = pairs, min(pictures, 2 * len(pairs))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> Labelled:  # type: ignore[override]
        if not 0 <= i < self.size:
            raise IndexError(i)
        return self.pairs[i // 2][i % 2]


def read_material(config: EmbedderConfig) -> Material:
    """Everything that a configuration names.

    Raises:
        DataError: folders that cannot be read, a class or generator that is missing or has too
            few pictures.
    """
    if any(is_shards(path) for path in config.data):
        return _of_shards(config)
    if config.exclude:
        raise DataError("exclude lists ids of records in shards; folders have none.")
    pictures = [p for path in config.data for p in read_generated(path)]
    known = generators(pictures)
    if unknown := sorted(set(config.leave_out) - set(known)):
        raise DataError(
            f"leave_out: there is no generator {', '.join(unknown)}; there are {', '.join(known)}."
        )
    if unknown := sorted(set(config.often) - set(known)):
        raise DataError(
            f"often: there is no generator {', '.join(unknown)}; there are {', '.join(known)}."
        )
    train = of_split(pictures, "train")
    held = _held_out(config) if config.held_out else of_split(pictures, "val")
    train = [p for p in train if p.generator not in config.leave_out]
    names = ", ".join(config.data)
    _need_both(train, f"{names}: the train split")
    if sentence := imbalance(train):
        print(f"forgemap: {names}: {sentence}", file=sys.stderr)
    if held:
        _need_both(held, f"{', '.join(config.held_out or config.data)}: the held-out part")
    return Material(
        pairs=FolderPairs(train, config.seed, config.often, config.twins),
        fit=spread(train, config.fit_on, config.often),
        held=spread(held, config.validate_on) if config.validate_on else held,
        qualities=jpeg_qualities(train),
    )


def is_shards(path: str) -> bool:
    """Whether it is a folder of WebDataset shards, or one shard."""
    return path.endswith(".tar") or any(Path(path).glob("*.tar"))


def spread(
    pictures: Sequence[Labelled], limit: int, often: Mapping[str, int] | None = None
) -> list[Labelled]:
    """At most ``limit``: half real, the rest in equal shares of each generator, evenly spread.

    Generators named in ``often`` get so many shares, as in training.
    """
    real = [p for p in pictures if not p.fake]
    fakes = generators(pictures)
    shares = {name: (often or {}).get(name, 1) for name in fakes}
    each = limit // 2 / max(1, sum(shares.values()))
    parts = [(group, max(1, int(each * shares[name]))) for name, group in fakes.items()]
    chosen = []
    for group, most in ((real, limit - limit // 2), *parts):
        picks = np.linspace(0, len(group) - 1, min(most, len(group))).round().astype(int)
        chosen += [group[i] for i in picks]
    return chosen


def _of_shards(config: EmbedderConfig) -> Material:
    from ..data.shards import ShardPairs, open_index, read_exclusions

    if len(config.data) > 1:
        raise DataError("Shards are trained on from one folder: name it alone in data.")
    if config.leave_out:
        raise DataError(
            f"{config.data[0]}: leave_out works on folders; write shards without those generators."
        )
    if config.twins:
        raise DataError(f"{config.data[0]}: twins are found by the names of files; give folders.")
    if config.often:
        raise DataError(f"{config.data[0]}: often works on folders; shards hold every generator.")
    index = open_index(config.data[0])
    splits = {shard.split for shard in index.shards}
    split = "train" if "train" in splits else None
    passed = read_exclusions(config.exclude) if config.exclude else frozenset()
    pairs = ShardPairs(config.data[0], config.seed, split=split, exclude=passed)
    held: Sequence[Labelled] = []
    if config.held_out:
        held = _held_out(config)
    elif held_split := next((name for name in ("val", "validation") if name in splits), None):
        other = ShardPairs(config.data[0], config.seed, split=held_split, exclude=passed)
        held = OfPairs(other, config.validate_on or 2 * len(other))
    fit = OfPairs(pairs, config.fit_on)
    return Material(pairs, fit, held, jpeg_qualities(OfPairs(pairs, 200)))


def _held_out(config: EmbedderConfig) -> Sequence[Labelled]:
    if any(is_shards(path) for path in config.held_out):
        from ..data.shards import ShardPairs

        if len(config.held_out) > 1:
            raise DataError("Shards are validated on from one folder: name it alone in held_out.")
        pairs = ShardPairs(config.held_out[0], config.seed)
        return OfPairs(pairs, config.validate_on or 2 * len(pairs))
    return [p for path in config.held_out for p in read_generated(path)]


def _need_both(pictures: Sequence[Labelled], where: str) -> None:
    """Two of each class: with fewer there is nothing to compare with."""
    fakes = sum(p.fake for p in pictures)
    for name, count in (("real", len(pictures) - fakes), ("generated", fakes)):
        if count < 2:
            raise DataError(
                f"{where} holds {'one' if count else 'no'} {name} picture and needs at least 2; "
                "folders named train, val and test say what belongs where."
            )
