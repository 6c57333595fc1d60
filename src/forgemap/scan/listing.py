"""listing.py: the entries of a run, frozen on disk when it begins and divided into units.

A unit is up to `UNIT` files, or one tar shard, or one Parquet file: what one worker goes through in
order. Each is one row group, so that any of a million is read alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import DataError
from .sources import Entry

UNIT = 1000
GROUPS = 1000  # units in one file of the listing
_FIELDS = ("kind", "source", "address", "size", "column", "count", "error")


@dataclass(frozen=True)
class Unit:
    """A numbered run of entries."""

    number: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Facts:
    """What a listing holds: units, pictures, tar shards (their pictures are not counted) and their
    bytes, problems, and a hash of it all."""

    units: int
    pictures: int
    tars: int
    tar_bytes: int
    problems: int
    fingerprint: str


def write_listing(folder: Path, entries: Iterable[Entry]) -> Facts:
    """Write the entries to a new folder, one unit at a time in memory."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    hasher = hashlib.sha256()
    pictures = tars = tar_bytes = problems = units = 0
    writer: Any = None
    try:
        for unit in _units(entries):
            for entry in unit.entries:
                line = f"{entry.kind}\0{entry.address}\0{entry.size}\0{entry.column}\n"
                hasher.update(line.encode("utf-8", "surrogateescape"))
                pictures += entry.count or 0 if entry.kind != "problem" else 0
                problems += entry.kind == "problem"
                tars += entry.kind == "tar"
                tar_bytes += (entry.size or 0) if entry.kind == "tar" else 0
            if unit.number % GROUPS == 0:
                if writer is not None:
                    writer.close()
                writer = pq.ParquetWriter(_file(folder, unit.number), _schema())
            writer.write_table(_table(unit), row_group_size=UNIT)
            units += 1
    finally:
        if writer is not None:
            writer.close()
    return Facts(units, pictures, tars, tar_bytes, problems, hasher.hexdigest())


def read_unit(folder: Path, number: int) -> Unit:
    """One unit; DataError if the listing is damaged."""
    try:
        rows = _open(_file(folder, number)).read_row_group(number % GROUPS).to_pylist()
        for row in rows:
            row["address"] = os.fsdecode(row["address"])
        return Unit(number, tuple(Entry(**row) for row in rows))
    except Exception as error:
        text = str(error).split("\n")[0]
        raise DataError(f"{folder} is damaged ({text}): give a new folder with --out.") from None


def _open(path: Path) -> Any:
    return _reader(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _reader(path: Path, _: int) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


def _units(entries: Iterable[Entry]) -> Iterator[Unit]:
    number = 0
    waiting: list[Entry] = []
    for entry in entries:
        alone = entry.kind in ("tar", "parquet")
        if waiting and (alone or len(waiting) == UNIT):
            yield Unit(number, tuple(waiting))
            number, waiting = number + 1, []
        if alone:
            yield Unit(number, (entry,))
            number += 1
        else:
            waiting.append(entry)
    if waiting:
        yield Unit(number, tuple(waiting))


def _file(folder: Path, unit: int) -> Path:
    return folder / f"listing-{unit // GROUPS:05d}.parquet"


def _table(unit: Unit) -> Any:
    import pyarrow as pa

    rows = [vars(entry) | {"address": os.fsencode(entry.address)} for entry in unit.entries]
    return pa.Table.from_pylist(rows, schema=_schema())


def _schema() -> Any:
    import pyarrow as pa

    kinds = {"address": pa.binary(), "size": pa.int64(), "count": pa.int64()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in _FIELDS])
