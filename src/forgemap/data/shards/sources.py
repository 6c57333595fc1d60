"""sources.py: where records come from: folders and manifests here, the hub's stream in hub.py."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...errors import DataError
from ..generated import REAL, Labelled, generators, read_generated
from ..records import split_of
from .layout import member_order


@dataclass(frozen=True)
class Item:
    """One record before it is written.

    Attributes:
        id: its name in the source.
        split: as its key will say.
        pictures: "real", "gen_0" … -> a file or its bytes.
        caption, url: texts, may be empty. A photo that is missing may be fetched from the url.
    """

    id: str
    split: str
    pictures: dict[str, Path | bytes]
    caption: str = ""
    url: str = ""


class Part(Protocol):
    """A piece of a source that one worker reads in order; the order never changes."""

    @property
    def split(self) -> str:
        """Of all its records."""

    @property
    def streamed(self) -> bool:
        """Whether only reading tells how many records there are (then it may fill many shards)."""

    def read(self, skip: int) -> Iterator[Item]:
        """The records from number `skip` on."""


@dataclass(frozen=True)
class Source:
    """Records to write.

    Attributes:
        name: what the user called it.
        generators: "gen_0" … -> what made it.
        members: the pictures of a complete record.
        fingerprint: changes with the records; a resumed run must have the same.
        facts: JSON-able, goes into the index.
        parts: given the records per shard, what the workers read.
    """

    name: str
    generators: dict[str, str]
    members: tuple[str, ...]
    fingerprint: str
    facts: dict[str, Any]
    items: tuple[Item, ...] = ()
    streams: tuple[Part, ...] = ()

    def parts(self, per_shard: int) -> list[Part]:
        """Streams as they are; a list cut into pieces of at most `per_shard` records."""
        if self.streams:
            return list(self.streams)
        made: list[Part] = []
        for split in sorted({item.split for item in self.items}):
            mine = [item for item in self.items if item.split == split]
            for begin in range(0, len(mine), per_shard):
                made.append(Listed(tuple(mine[begin : begin + per_shard])))
        return made


@dataclass(frozen=True)
class Listed:
    """A part that is a list."""

    items: tuple[Item, ...]
    streamed: bool = False

    @property
    def split(self) -> str:
        return self.items[0].split

    def read(self, skip: int) -> Iterator[Item]:
        return iter(self.items[skip:])


def open_source(text: str | Path, split: str | None = None) -> Source:
    """The records of a folder, a manifest, a Parquet or Arrow data set, or of the hub.

    Args:
        text: a folder of real and generated pictures (any layout of `read_generated`); a manifest;
            ``hf:OWNER/NAME``, a data set of the Hugging Face hub with D3's columns (it is
            streamed); or a folder with such a data set as Parquet files or as `datasets` saved it.
        split: only this split. Folders that name none are divided by a hash of the names, as
            everywhere; of a hub's set "train" is the default.

    Raises:
        DataError: no such data, or nothing of that split in it.
    """
    from . import hub

    if hub.is_dataset(str(text)):
        return hub.open_dataset(str(text), split or "train")
    pictures = read_generated(text)
    fakes = generators(pictures)
    named = all(name.startswith("gen_") and name[4:].isdigit() for name in fakes)
    gens = {name: name for name in fakes} if named else {f"gen_{i}": g for i, g in enumerate(fakes)}
    member = {name: gen for gen, name in gens.items()} | {REAL: REAL}
    items, paired = _records(pictures, member)
    items = [item for item in items if split in (None, item.split)]
    if not items:
        raise DataError(f"{text} holds no picture of the split {split!r}.")
    return Source(
        str(text),
        {name: gens[name] for name in member_order(gens)},
        tuple(member_order([*gens, REAL])),
        _fingerprint(pictures, Path(text)),
        {"kind": "folder", "pictures": sum(len(i.pictures) for i in items), "paired": paired},
        tuple(items),
    )


def _records(pictures: list[Labelled], member: dict[str, str]) -> tuple[list[Item], bool]:
    """Pictures of one name made into one record each; whether any names agreed.

    Where no generated picture has the name of a photo, there are no pairs: then the n-th photo and
    the n-th picture of each generator, in the order of a hash, make a record, so that every record
    has both classes as long as they last.
    """
    # UnivFD and GenImage: every generator has its own photos, of names that mean nothing.
    grouped = any(picture.group for picture in pictures)
    groups: dict[tuple[str, ...], dict[str, list[Labelled]]] = {}
    for picture in pictures:
        own = (picture.generator if picture.fake else picture.group) if grouped else ""
        place = (_split(picture), picture.variant, own, picture.key)
        groups.setdefault(place, {}).setdefault(picture.generator, []).append(picture)
    paired = any(REAL in found and len(found) > 1 for found in groups.values())
    if not paired:
        groups = _dealt(groups)
    items: list[Item] = []
    taken: set[tuple[str, str]] = set()
    for (split, variant, own, key), found in groups.items():
        for turn in range(max(map(len, found.values()))):
            chosen = {member[g]: p[turn].image for g, p in found.items() if turn < len(p)}
            id = "-".join(filter(None, (variant, own, key, str(turn + 1) if turn else "")))
            while (split, id) in taken:
                id += "-"  # hashed apart by key_of
            taken.add((split, id))
            items.append(Item(id, split, {m: chosen[m] for m in member_order(chosen)}))
    return sorted(items, key=lambda item: _order(item.id)), paired


def _dealt(
    groups: dict[tuple[str, ...], dict[str, list[Labelled]]],
) -> dict[tuple[str, ...], dict[str, list[Labelled]]]:
    hands: dict[tuple[str, ...], dict[str, list[Labelled]]] = {}
    for place, found in sorted(groups.items(), key=lambda pair: _order(pair[0][-1])):
        for generator, some in found.items():
            hands.setdefault(place[:-1], {}).setdefault(generator, []).extend(some)
    dealt: dict[tuple[str, ...], dict[str, list[Labelled]]] = {}
    for place, hand in hands.items():
        for turn in range(max(map(len, hand.values()))):
            chosen = {g: [some[turn]] for g, some in hand.items() if turn < len(some)}
            first = chosen.get(REAL) or next(iter(chosen.values()))
            # With the generator where there is no photo: "001" may be anyone's.
            owner = () if REAL in chosen else (first[0].generator,)
            dealt[(*place, "-".join((*owner, first[0].key, str(turn))))] = chosen
    return dealt


def _split(picture: Labelled) -> str:
    if picture.split:
        return picture.split
    return split_of(hashlib.sha256(os.fsencode(picture.key)).hexdigest())


def _order(id: str) -> str:
    """Sorts records as if shuffled, always alike: a shard should not hold one kind alone."""
    return hashlib.sha256(os.fsencode(id)).hexdigest()


def _fingerprint(pictures: Iterable[Labelled], root: Path) -> str:
    hasher = hashlib.sha256()
    for picture in pictures:
        assert isinstance(picture.image, Path)
        name, size = os.path.relpath(picture.image, root), picture.image.stat().st_size
        line = f"{name}\0{size}\0{picture.generator}\0{picture.key}\0{picture.split}\n"
        hasher.update(os.fsencode(line))
    return hasher.hexdigest()
