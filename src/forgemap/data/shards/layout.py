"""layout.py: what is where in a folder of shards: keys, members, the index, one sample.

D3's naming (Baraldi et al., ECCV 2024): a sample's key is ``elsa_v2__<split>__<id>``, its members
are ``gen_0`` … ``gen_3`` and ``real`` (each ``.jpg`` or ``.png``), ``caption.txt`` and ``url.txt``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError, ImageError
from ...files import write_whole
from ...image import Image, load_image

NAME = "elsa_v2"
REAL = "real"
INDEX = "index.json"
DROPPED = "dropped.jsonl"
FORMAT = "forgemap shards"
VERSION = 1
D3_GENERATORS = {
    "gen_0": "DeepFloyd IF",
    "gen_1": "Stable Diffusion 1.4",
    "gen_2": "Stable Diffusion 2.1",
    "gen_3": "Stable Diffusion XL",
}
D3_MEMBERS = (*D3_GENERATORS, REAL)
TEXTS = ("caption.txt", "url.txt")
SUFFIXES = ("jpg", "png")

_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST = 60  # characters of an id: with split and member it must fit a tar header's 100


@dataclass(frozen=True)
class Sample:
    """One record: a photo and what generators made of its caption.

    Attributes:
        key: ``<name>__<split>__<id>``.
        pictures: "real" and "gen_0" … -> the encoded file; absent where the record has none.
        caption: the text that the pictures were generated from; may be empty.
        url: the photo's address; may be empty.
        shard: the file it was read from.
    """

    key: str
    pictures: Mapping[str, bytes]
    caption: str
    url: str
    shard: Path

    @property
    def id(self) -> str:
        """The record's id in its data set."""
        return self.key.split("__")[-1]

    @property
    def split(self) -> str:
        """The split that the key names, "" if it names none."""
        parts = self.key.split("__")
        return parts[-2] if len(parts) > 2 else ""

    def load(self, member: str) -> Image:
        """A picture decoded; DataError with shard and key if it is absent or damaged."""
        if member not in self.pictures:
            raise DataError(f"{self.shard}: the sample {self.key} has no {member}.")
        try:
            return load_image(self.pictures[member])
        except ImageError as error:
            raise DataError(
                f"{self.shard}: {member} of the sample {self.key} cannot be decoded "
                f"({str(error).replace('<bytes>', 'it')}); write the shard again."
            ) from None


@dataclass(frozen=True)
class Shard:
    """One line of the index.

    Attributes:
        file: the tar file's name in its folder.
        split: of all its samples.
        sha256, bytes: of the file; "" and -1 where there is no index.
        samples: how many; -1 where there is no index.
        members: picture -> how many samples have it.
        incomplete: key -> the pictures that the record never had.
        first, last: the keys it begins and ends with.
    """

    file: str
    split: str = ""
    sha256: str = ""
    bytes: int = -1
    samples: int = -1
    members: dict[str, int] = field(default_factory=dict)
    incomplete: dict[str, list[str]] = field(default_factory=dict)
    first: str = ""
    last: str = ""


@dataclass(frozen=True)
class Index:
    """What a folder of shards holds.

    Attributes:
        folder: where the shards are.
        shards: sorted by name.
        members: the pictures of a complete sample.
        generators: "gen_0" … -> what made it.
        facts: the rest of index.json (source, settings, counts); empty without one.
    """

    folder: Path
    shards: tuple[Shard, ...]
    members: tuple[str, ...]
    generators: dict[str, str]
    facts: dict[str, Any]

    @property
    def known(self) -> bool:
        """Whether there is an index.json; shards of others, as D3's own, have none."""
        return bool(self.facts)

    def of_split(self, split: str | None) -> Index:
        """Only the shards of a split; DataError if there is none. None: all."""
        if split is None:
            return self
        kept = tuple(shard for shard in self.shards if shard.split == split)
        if not kept:
            splits = ", ".join(sorted({s.split for s in self.shards if s.split})) or "no named one"
            raise DataError(f"{self.folder} has no shard of the split {split!r}; it has {splits}.")
        return Index(self.folder, kept, self.members, self.generators, self.facts)


def open_index(path: str | Path) -> Index:
    """The index of a folder of shards, or of one shard; made from the names where there is none.

    Raises:
        DataError: nothing there, an unfinished or foreign index.
    """
    path = Path(path)
    if path.is_file() and path.suffix == ".tar":
        index = open_index(path.parent)
        kept = tuple(shard for shard in index.shards if shard.file == path.name)
        return Index(path.parent, kept, index.members, index.generators, index.facts)
    if not path.is_dir():
        raise DataError(f"{path} is neither a folder of shards nor a .tar file: name one.")
    file = path / INDEX
    if not file.is_file():
        tars = sorted(p.name for p in path.glob("*.tar"))
        if (path / PROGRESS).is_dir():
            raise DataError(
                f"{path} is not finished: run the same `forgemap shards write` again, it goes on "
                "where it stopped."
            )
        if not tars:
            raise DataError(f"{path} holds no shards (*.tar): make some with `forgemap shards`.")
        shards = tuple(Shard(name, split_in(name)) for name in tars)
        return Index(path, shards, D3_MEMBERS, dict(D3_GENERATORS), {})
    facts = read_json(file)
    try:
        if (facts["format"], facts["version"]) != (FORMAT, VERSION):
            raise ValueError
        shards = tuple(Shard(**row) for row in facts.pop("shards"))
        return Index(path, shards, tuple(facts["members"]), dict(facts["generators"]), facts)
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{file} is not an index of shards of version {VERSION}.") from None


PROGRESS = ".progress"  # a folder of what is done so far; gone when all is done


def shard_file(name: str, split: str, place: str) -> str:
    """``<name>-<split>-<place>.tar``."""
    return f"{name}-{split}-{place}.tar"


def split_in(file: str) -> str:
    """The split that the name of a shard of ours says, else ""."""
    found = re.fullmatch(r".*?-([A-Za-z_]+)-\d{5}(-\d{5})?\.tar", file)
    return found[1] if found else ""


def key_of(name: str, split: str, id: str) -> str:
    """A sample's key. What a key must not hold is replaced, and a hash tells such ids apart."""
    plain = _PLAIN.sub("-", id.replace("__", "_")).strip("-_")
    if plain != id or len(plain) > _LONGEST:
        mark = hashlib.sha256(os.fsencode(id)).hexdigest()[:10]
        plain = f"{plain[: _LONGEST - 11]}-{mark}" if plain else mark
    return f"{name}__{split}__{plain}"


def member_order(names: Iterable[str]) -> list[str]:
    """gen_0, gen_1, …, gen_10, real."""
    return sorted(names, key=lambda name: (name == REAL, len(name), name))


def read_exclusions(file: str | Path) -> frozenset[str]:
    """Ids of samples that are to be left out, from a list in a file.

    The authors of D3 publish such a list of real photos that turned out bad, as
    ``src/dataset/filter_real_images.json`` of github.com/aimagelab/CoDE: a JSON list of ids. One id
    per line is read too; ``#`` begins a comment. An id may be a whole key.

    Raises:
        DataError: not such a file, or an empty one.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: the list of samples to leave out cannot be read: {error}.") from (
            None
        )
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{file} is not valid JSON: {error.msg}.") from None
        if not all(isinstance(row, (str, int)) for row in rows):
            raise DataError(f"{file} must be a list of ids.")
    else:
        rows = [line.split("#")[0].strip() for line in text.splitlines()]
    ids = frozenset(str(row).split("__")[-1] for row in rows if row != "")
    if not ids:
        raise DataError(f"{file} lists no sample.")
    return ids


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file; DataError if it is none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}.") from None
    if not isinstance(value, dict):
        raise DataError(f"{file} must hold a JSON object.")
    return value


def write_json(file: Path, value: object) -> None:
    """A JSON file that appears whole or not at all."""
    write_whole(file, json.dumps(value, indent=1) + "\n")
