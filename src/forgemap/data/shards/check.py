"""check.py: is a folder of shards what its index says, and can every picture be used?"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from ...errors import DataError
from .layout import PROGRESS, Index, Shard, open_index
from .read import check_members, samples_of


@dataclass
class Checked:
    """What was found in the shards.

    Attributes:
        problems: a sentence each; empty = all is well.
        samples, pictures: that were read without a problem.
        keys: a 64-bit hash of each key, to find doubles in little memory.
    """

    problems: list[str] = field(default_factory=list)
    samples: int = 0
    pictures: Counter[str] = field(default_factory=Counter)
    keys: array[int] = field(default_factory=lambda: array("Q"))


def check_shards(
    path: str | Path, *, decode: bool = False, workers: int = 1, progress: bool = True
) -> Checked:
    """Read every shard: size, SHA-256, members, doubles; with `decode` every picture too.

    Raises:
        DataError: there are no shards at all.
    """
    index = open_index(path)
    console = Console(stderr=True, quiet=not progress)
    total = Checked()
    for found in track(
        _each(index, decode, workers),
        "Checking",
        total=len(index.shards),
        console=console,
        disable=not progress,
    ):
        total.problems += found.problems
        total.samples += found.samples
        total.pictures += found.pictures
        total.keys.extend(found.keys)
    if double := _first_double(total.keys):
        total.problems.append(_where_double(index, double))
    listed = {shard.file for shard in index.shards}
    whole = Path(path).is_dir()
    for file in sorted(index.folder.glob("*.tar")) if whole and index.known else ():
        if file.name not in listed:
            total.problems.append(f"{file} is not in the index: remove it, or make the index anew.")
    for file in sorted(index.folder.glob("*.part")) if whole else ():
        total.problems.append(f"{file} is left from a stopped run: remove it.")
    if whole and index.known and (index.folder / PROGRESS).exists():
        total.problems.append(f"{index.folder / PROGRESS} is left from a stopped run: remove it.")
    return total


def _each(index: Index, decode: bool, workers: int) -> Iterator[Checked]:
    if workers == 1:
        yield from (check_shard(index, shard, decode) for shard in index.shards)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(check_shard, index, shard, decode) for shard in index.shards]
        yield from (future.result() for future in futures)


def check_shard(index: Index, shard: Shard, decode: bool) -> Checked:
    """One file; the first fault of the file as a whole ends it, faults of samples do not."""
    file = index.folder / shard.file
    found = Checked()
    try:
        if shard.sha256 and (shard.bytes == file.stat().st_size):
            with file.open("rb") as stream:
                digest = _sha256(stream.read)
            if digest != shard.sha256:
                found.problems.append(
                    f"{file} is damaged: its SHA-256 is not that of the index; write it again."
                )
        last = ""
        for sample in samples_of(file, shard):
            hashed = hashlib.blake2b(sample.key.encode(), digest_size=8).digest()
            found.keys.append(int.from_bytes(hashed, "little"))
            last = sample.key
            try:
                check_members(sample, shard, index)
                for member in sample.pictures if decode else ():
                    sample.load(member)
            except DataError as error:
                found.problems.append(str(error))
                continue
            found.samples += 1
            found.pictures.update(sample.pictures.keys())
        if shard.samples not in (-1, len(found.keys)):
            found.problems.append(
                f"{file} holds {len(found.keys)} samples (the last is {last or 'none'}), its index "
                f"says {shard.samples}: write it again."
            )
    except FileNotFoundError:
        found.problems.append(f"{file} is gone, although the index lists it: write it again.")
    except (DataError, OSError) as error:
        found.problems.append(str(error))
    return found


def _sha256(read: Callable[[int], bytes]) -> str:
    hasher = hashlib.sha256()
    while piece := read(1 << 20):
        hasher.update(piece)
    return hasher.hexdigest()


def _first_double(keys: array[int]) -> int | None:
    ordered = np.sort(np.frombuffer(keys, np.uint64)) if keys else np.zeros(0, np.uint64)
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    return int(ordered[same[0]]) if same.size else None


def _where_double(index: Index, wanted: int) -> str:
    """Which key came twice: the shards are read once more, and only then."""
    places: list[str] = []
    key = ""
    for shard in index.shards:
        try:
            for sample in samples_of(index.folder / shard.file, shard):
                hashed = hashlib.blake2b(sample.key.encode(), digest_size=8).digest()
                if int.from_bytes(hashed, "little") == wanted:
                    key = sample.key
                    places.append(shard.file)
        except DataError:
            continue
    return (
        f"{index.folder}: the sample {key} is there {len(places)} times, in "
        f"{' and '.join(dict.fromkeys(places))}; write the shards again."
    )
