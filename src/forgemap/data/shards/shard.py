"""shard.py: what one worker does: a part of a source into shards, each whole or not there."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from ...errors import DataError
from .encode import CHOICES, Undecodable, encoded
from .layout import (
    NAME,
    PROGRESS,
    REAL,
    Shard,
    key_of,
    member_order,
    read_json,
    shard_file,
    write_json,
)
from .photos import Photos, Unavailable
from .sources import Item, Part


@dataclass(frozen=True)
class Settings:
    """What decides the bytes of the shards.

    Attributes:
        name: first part of every key and file name.
        per_shard: records of one shard; fewer in the last of a part.
        encode: "keep" = JPEG and PNG files stay as they are, others become PNG; "published" = every
            picture is encoded anew as D3's authors did (see `encode.CHOICES`).
        incomplete: "keep" or "drop" records that lack a picture.
    """

    name: str = NAME
    per_shard: int = 1000
    encode: str = "keep"
    incomplete: str = "keep"

    def __post_init__(self) -> None:
        if self.encode not in CHOICES:
            raise DataError(f"Unknown encoding {self.encode!r}: use one of {', '.join(CHOICES)}.")
        if self.incomplete not in ("keep", "drop"):
            raise DataError(f"incomplete is {self.incomplete!r}: use keep or drop.")
        if self.per_shard < 1:
            raise DataError(f"{self.per_shard} records per shard: it must be 1 or more.")
        if not self.name or key_of(self.name, "train", "1") != f"{self.name}__train__1":
            raise DataError(f"The name {self.name!r} cannot begin a key.")
        if set(self.name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"):
            raise DataError(f"The name {self.name!r} must be letters, digits, - and _.")


@dataclass(frozen=True)
class Job:
    """What every worker knows."""

    out: Path
    settings: Settings
    members: tuple[str, ...]
    exclude: frozenset[str]
    photos: Photos | None


def write_part(job: Job, number: int, piece: Part) -> None:
    """All shards of a part that are not there yet."""
    done = notes_of(job.out, job.settings, number, piece)
    if done and done[-1]["end"]:
        return
    turn = len(done)
    records = piece.read(turn * job.settings.per_shard)
    item = next(records, None)
    while item is not None or turn == 0:
        first: list[Item] = [] if item is None else [item]
        chunk = chain(first, islice(records, job.settings.per_shard - len(first)))
        file = shard_file(job.settings.name, piece.split, _place(piece, number, turn))
        shard, dropped = _write(job, chunk, job.out / file, piece.split)
        item = next(records, None)
        note = {
            "shard": asdict(shard) if shard.samples else None,
            "dropped": dropped,
            "end": item is None,
        }
        write_json(job.out / PROGRESS / f"{file}.json", note)
        turn += 1


def _write(
    job: Job, items: Iterator[Item], file: Path, split: str
) -> tuple[Shard, list[tuple[str, str]]]:
    """One shard from all of `items`; what was left out, and why."""
    import webdataset

    dropped: list[tuple[str, str]] = []
    have: Counter[str] = Counter()
    incomplete: dict[str, list[str]] = {}
    keys: list[str] = []
    with _part_file(file, job.out / PROGRESS) as (stream, beside):
        hashing = _Hashing(stream)
        # A fixed time and owner: the same records give the same bytes.
        with webdataset.TarWriter(hashing, encoder=False, mtime=0, user="forgemap") as tar:
            for item, why in _with_photos(items, job):
                if item.id in job.exclude:
                    dropped.append((item.id, "excluded"))
                    continue
                sample, faults = _sample(job, item, why)
                missing = [m for m in job.members if m not in sample]
                if not sample or (missing and job.settings.incomplete == "drop"):
                    reasons = [*faults, *(f"no {m}" for m in missing)]
                    dropped.append((item.id, reasons[0] if reasons else "no picture"))
                    continue
                dropped += [(item.id, f"only in part: {fault}") for fault in faults]
                key = key_of(job.settings.name, item.split, item.id)
                tar.write(
                    {
                        "__key__": key,
                        **{f"{m}.{suffix}": data for m, (suffix, data) in sample.items()},
                        "caption.txt": item.caption.encode(),
                        "url.txt": item.url.encode(),
                    }
                )
                keys.append(key)
                have.update(sample.keys())
                if missing:
                    incomplete[key] = missing
        stream.flush()
        os.fsync(stream.fileno())
        if keys:
            os.replace(beside, file)
        else:
            beside.unlink()
            return Shard(file.name, split, samples=0), dropped
    members = {m: have[m] for m in member_order(have)}
    shard = Shard(
        file.name,
        split,
        hashing.sha256.hexdigest(),
        hashing.bytes,
        len(keys),
        members,
        incomplete,
        keys[0],
        keys[-1],
    )
    return shard, dropped


def _sample(job: Job, item: Item, why: str) -> tuple[dict[str, tuple[str, bytes]], list[str]]:
    """The record's pictures as (suffix, bytes), and a sentence on each that cannot be had."""
    faults = [f"{REAL} cannot be fetched: {why}"] if why else []
    loaded = {}
    for member, picture in item.pictures.items():
        if isinstance(picture, bytes):
            loaded[member] = picture
            continue
        try:
            loaded[member] = picture.read_bytes()
        except OSError as error:
            faults.append(f"{member} ({picture}): {error.strerror or error}")
    sample, bad = encoded(loaded, job.settings.encode)
    faults += [_fault(item, member, error) for member, error in bad.items()]
    return sample, faults


def _fault(item: Item, member: str, error: Undecodable) -> str:
    picture = item.pictures[member]
    where = member if isinstance(picture, bytes) else f"{member} ({picture})"
    return f"{where}: {error}"


def _with_photos(items: Iterator[Item], job: Job) -> Iterator[tuple[Item, str]]:
    """The items in order with their photos, several fetched at once; or why a photo is missing."""
    photos = job.photos
    if photos is None:
        yield from ((item, "") for item in items)
        return
    at_once = int(getattr(photos, "at_once", 1))
    waiting: deque[tuple[Item, Future[bytes] | None]] = deque()

    def finished() -> tuple[Item, str]:
        item, future = waiting.popleft()
        if future is None:
            return item, ""
        try:
            return replace(item, pictures={**item.pictures, REAL: future.result()}), ""
        except Unavailable as error:
            return item, str(error)

    with ThreadPoolExecutor(at_once) as pool:
        for item in items:
            wanted = REAL not in item.pictures and item.id not in job.exclude
            if wanted and not item.url:
                wanted = False
            waiting.append((item, pool.submit(photos.get, item.url) if wanted else None))
            if len(waiting) > 2 * at_once:
                yield finished()
        while waiting:
            yield finished()


class _Hashing:
    """A file that is only written to, and hashed on the way."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.sha256, self.bytes = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self._stream.write(data)


@contextmanager
def _part_file(file: Path, notes: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """``FILE.part`` to write into, locked: of two runs by mistake, the second says so."""
    beside = file.with_name(f"{file.name}.part")
    lock = FileLock(notes / f"{file.name}.lock", timeout=10)  # a killed run's workers end sooner
    try:
        with lock, beside.open("wb") as stream:
            yield stream, beside
    except Timeout:
        raise DataError(
            f"{file} is being written by another process: wait for it, or end it."
        ) from None


def _place(piece: Part, number: int, turn: int) -> str:
    return f"{number:05d}-{turn:05d}" if piece.streamed else f"{number:05d}"


def notes_of(out: Path, settings: Settings, number: int, piece: Part) -> list[dict[str, Any]]:
    """The notes of a part's shards, in order, as far as they are done and the files are there."""
    found: list[dict[str, Any]] = []
    while not found or not found[-1]["end"]:
        name = shard_file(settings.name, piece.split, _place(piece, number, len(found)))
        note = out / PROGRESS / f"{name}.json"
        if not note.is_file():
            break
        row = read_json(note)
        tar = out / name
        if row["shard"] and not (tar.is_file() and tar.stat().st_size == row["shard"]["bytes"]):
            break
        found.append(row)
    return found
