"""pairs.py: shards as `Pairs` to learn from: pair n is a function of n, so a stopped run goes on.

Shards are gone through in an order of their own in each epoch, a few of them mixed at a time: what
is read lies close together, and nothing but where those few shards' members lie is kept in memory.
"""

from __future__ import annotations

import os
import tarfile
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ...errors import DataError
from ..generated import REAL, Labelled, Pair
from .layout import SUFFIXES, Index, Shard, open_index

MIXED = 8  # shards whose records are mixed; so many are open at once


class Place(NamedTuple):
    """Where a member's bytes lie."""

    offset: int
    size: int


class Record(NamedTuple):
    """A record that has a photo and a generated picture: key, and member -> place."""

    key: str
    members: dict[str, Place]


class ShardPairs:
    """Each record's photo with one of its generated pictures: `forgemap.data.generated.Pairs`.

    An epoch is one time through the records; in it a record shows one generator, in the next the
    following one, so that after as many epochs as there are generators it has shown each. Records
    without a photo, or without a generated picture, are passed over.

    Args:
        path: a folder of shards; without an index its files are looked through once, which takes
            a while.
        seed: of the order.
        split: only the shards of this split.
        exclude: ids that are passed over.

    Raises:
        DataError: no shards, or none of their records makes a pair; while reading, a shard that is
            gone, cut short or damaged.
    """

    def __init__(
        self,
        path: str | Path,
        seed: int,
        *,
        split: str | None = None,
        exclude: frozenset[str] = frozenset(),
    ) -> None:
        self.index, self.seed, self.exclude = open_index(path).of_split(split), seed, exclude
        self._records: OrderedDict[str, list[Record]] = OrderedDict()
        self._files: dict[str, tuple[int, BinaryIO]] = {}
        self._sizes = [self._size(shard) for shard in self.index.shards]
        self._turn: tuple[int, int, list[Shard], np.ndarray] | None = None
        if not sum(self._sizes):
            raise DataError(
                f"{self.index.folder}: no record has both a real photo and a generated picture; "
                "photos are fetched with `forgemap shards write --fetch-photos`."
            )

    def __len__(self) -> int:
        return sum(self._sizes)

    def __getitem__(self, n: int) -> Pair:
        epoch, place = divmod(n, len(self))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self._sizes))
        begin = 0
        for number in range(0, len(order), MIXED):
            group = order[number : number + MIXED]
            size = sum(self._sizes[g] for g in group)
            if place < begin + size:
                return self._pair(epoch, number, group, place - begin)
            begin += size
        raise AssertionError("the sizes do not add up")

    def _pair(self, epoch: int, number: int, group: np.ndarray, place: int) -> Pair:
        if self._turn is None or self._turn[:2] != (epoch, number):
            shards = [self.index.shards[g] for g in group]
            size = sum(self._sizes[g] for g in group)
            mixed = np.random.default_rng([self.seed, epoch, number]).permutation(size)
            self._turn = (epoch, number, shards, mixed)
        _, _, shards, mixed = self._turn
        place = int(mixed[place])
        for shard in shards:
            records = self._of(shard)
            if place < len(records):
                return self._read(shard, records[place], epoch)
            place -= len(records)
        raise DataError(
            f"{self.index.folder}: its shards hold fewer records than the index says: "
            "run `forgemap shards check`."
        )

    def _read(self, shard: Shard, record: Record, epoch: int) -> Pair:
        fakes = [name for name in record.members if name != REAL]
        # Begins with another generator in each record, so that every batch has all of them.
        start = np.random.default_rng([self.seed, *record.key.encode()]).integers(len(fakes))
        member = fakes[(int(start) + epoch) % len(fakes)]
        real, fake = (self._bytes(shard, record, name) for name in (REAL, member))
        generator = self.index.generators.get(member, member)
        return Pair(
            Labelled(real, REAL, record.key, shard.split),
            Labelled(fake, generator, record.key, shard.split),
        )

    def _bytes(self, shard: Shard, record: Record, member: str) -> bytes:
        stream = self._open(shard)
        place = record.members[member]
        stream.seek(place.offset)
        data = stream.read(place.size)
        if len(data) != place.size:
            raise DataError(
                f"{self.index.folder / shard.file} is cut short: {member} of the sample "
                f"{record.key} cannot be read; write it again."
            )
        return data

    def _open(self, shard: Shard) -> BinaryIO:
        # A file opened before a fork would share its position with the parent.
        known = self._files.get(shard.file)
        if known is not None and known[0] == os.getpid():
            return known[1]
        if len(self._files) > MIXED:
            self._files.clear()
        try:
            stream = (self.index.folder / shard.file).open("rb")
        except OSError as error:
            raise DataError(
                f"{self.index.folder / shard.file} cannot be opened: {error.strerror or error}."
            ) from None
        self._files[shard.file] = (os.getpid(), stream)
        return stream

    def _of(self, shard: Shard) -> list[Record]:
        if shard.file not in self._records:
            self._records[shard.file] = records_of(self.index, shard, self.exclude)
            if len(self._records) > 2 * MIXED:
                self._records.popitem(last=False)
        return self._records[shard.file]

    def _size(self, shard: Shard) -> int:
        if shard.samples < 0 or self.exclude:
            return len(self._of(shard))  # only a look at the file tells
        lacking = [m for m in shard.incomplete.values() if REAL in m or self._no_fake(m)]
        return (shard.samples - len(lacking)) if REAL in self.index.members else 0

    def _no_fake(self, missing: list[str]) -> bool:
        return all(m in missing for m in self.index.members if m != REAL)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}, "_records": OrderedDict(), "_turn": None}


def records_of(index: Index, shard: Shard, exclude: frozenset[str]) -> list[Record]:
    """The records of a shard that make pairs; see `members_of`."""
    return [
        Record(key, places)
        for key, places in members_of(index, shard).items()
        if REAL in places and len(places) > 1 and key.split("__")[-1] not in exclude
    ]


def members_of(index: Index, shard: Shard) -> dict[str, dict[str, Place]]:
    """Key -> picture -> where its bytes lie: only the headers are read.

    Raises:
        DataError: the shard is gone, cut short or damaged, or a sample lacks a member.
    """
    file = index.folder / shard.file
    found: dict[str, dict[str, Place]] = {}
    last = "none"
    try:
        if shard.bytes not in (-1, file.stat().st_size):
            raise DataError(
                f"{file} is cut short or damaged: it has {file.stat().st_size} bytes, its index "
                f"says {shard.bytes}: write it again."
            )
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                last, _, name = member.name.split("/")[-1].partition(".")
                stem, dot, suffix = name.rpartition(".")
                places = found.setdefault(last, {})
                if dot and suffix in (*SUFFIXES, "jpeg"):
                    places[stem] = Place(member.offset_data, member.size)
                tar.members = []  # type: ignore[attr-defined]  # the library keeps all of them
    except FileNotFoundError:
        raise DataError(f"{file} is gone, although the index lists it: write it again.") from None
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{file} is cut short or damaged after the sample {last} ({error}): write it again."
        ) from None
    for key, places in found.items():
        allowed = shard.incomplete.get(key, [])
        if missing := [m for m in index.members if m not in places and m not in allowed]:
            raise DataError(
                f"{file}: the sample {key} lacks {' and '.join(missing)}; write the shard again, "
                "or leave the sample out."
            )
    return found
