"""hub.py: records of a data set with D3's columns: the hub's stream, Parquet or Arrow files.

D3 (elsaEU/ELSA_D3) has, for each of four generators, ``image_gen0`` … ``image_gen3``, and ``id``,
``url`` (of the real photo, which is not in the set) and ``original_prompt``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import DataError
from .layout import D3_GENERATORS, member_order
from .sources import Item, Part, Source

HUB = "hf:"
_GENERATED = re.compile(r"image_(gen)_?(\d+)")
_NEEDED = ("id", "url", "original_prompt")


def is_dataset(text: str) -> bool:
    """Whether this is a data set with columns rather than a folder of pictures."""
    path = Path(text)
    return text.startswith(HUB) or _saved(path) or any(_parquet(path))


def open_dataset(text: str, split: str) -> Source:
    """The stream of such a data set; nothing but its description is read yet.

    Raises:
        DataError: no such data set or split, or its columns are not D3's.
    """
    stream = _stream(text, split)
    columns = dict(stream.features or {})
    gens = {f"gen_{m[2]}": name for name in columns if (m := _GENERATED.fullmatch(name))}
    missing = [name for name in _NEEDED if name not in columns]
    if missing or not gens:
        lacking = ", ".join([*missing, *([] if gens else ["image_gen0 …"])])
        raise DataError(
            f"{text} does not have D3's columns: {lacking} missing; it has "
            f"{', '.join(columns) or 'none that it says'}."
        )
    members = member_order(gens)
    described = [text, split, stream.num_shards, sorted(columns)]
    parts: list[Part] = [
        Streamed(text, split, number, stream.num_shards, tuple((m, gens[m]) for m in members))
        for number in range(stream.num_shards)
    ]
    return Source(
        text,
        {member: D3_GENERATORS.get(member, member) for member in members},
        tuple(members),
        hashlib.sha256(json.dumps(described).encode()).hexdigest(),
        {"kind": "dataset", "split": split, "files": stream.num_shards},
        streams=tuple(parts),
    )


@dataclass(frozen=True)
class Streamed:
    """One file of the data set, in the worker that reads it."""

    text: str
    split: str
    number: int
    of: int
    columns: tuple[tuple[str, str], ...]
    streamed: bool = True

    def read(self, skip: int) -> Iterator[Item]:
        from datasets import Image

        stream = _stream(self.text, self.split)
        for _, column in self.columns:
            # The files' own bytes: decoding and encoding again would wipe traces out.
            stream = stream.cast_column(column, Image(decode=False))
        part = stream.shard(num_shards=self.of, index=self.number)
        number = skip
        try:
            for row in part.skip(skip) if skip else part:
                yield self._item(row)
                number += 1
        except Exception as error:  # a lost connection has many names
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{self.text}: reading part {self.number} stopped after {number} records "
                f"({reason[:200]}): run the same command again, it goes on from there."
            ) from None

    def _item(self, row: dict[str, Any]) -> Item:
        pictures: dict[str, Path | bytes] = {}
        for member, column in self.columns:
            value = row[column] or {}
            if value.get("bytes"):
                pictures[member] = value["bytes"]
            elif value.get("path"):
                pictures[member] = Path(value["path"])
        text = row["original_prompt"] or ""
        return Item(str(row["id"]), self.split, pictures, text, row["url"] or "")


@lru_cache(maxsize=2)  # a worker reads many parts, and the hub need not be asked for each
def _stream(text: str, split: str) -> Any:
    """A `datasets.IterableDataset` of one split."""
    import datasets

    path = Path(text)
    try:
        if text.startswith(HUB):
            stream = datasets.load_dataset(text[len(HUB) :], split=split, streaming=True)
        elif _saved(path):
            stored = datasets.load_from_disk(str(path))
            if isinstance(stored, datasets.DatasetDict):
                stored = stored[split]
            stream = stored.to_iterable_dataset(num_shards=max(1, len(stored.cache_files)))
        else:
            files = [str(file) for file in _parquet(path, split)]
            if not files:
                raise DataError(f"{path} holds no Parquet file of the split {split!r}.")
            stream = datasets.load_dataset(
                "parquet", data_files={split: files}, split=split, streaming=True
            )
        return stream if stream.features else stream._resolve_features()
    except DataError:
        raise
    except Exception as error:  # the library raises its own, the hub's and fsspec's
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{text} cannot be opened as a data set: {reason[:300]}") from None


def _saved(path: Path) -> bool:
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _parquet(path: Path, split: str | None = None) -> list[Path]:
    """Parquet files in a folder (or its data/), of a split if their names say splits."""
    if not path.is_dir():
        return []
    files = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    if split is None:
        return files
    named = [file for file in files if file.name.startswith(f"{split}-")]
    says = any(re.match(r"(train|validation|test)-\d", file.name) for file in files)
    return named if says else files
