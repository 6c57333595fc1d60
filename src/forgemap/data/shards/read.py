"""read.py: samples out of shards, one after the other, never more than one in memory.

A file that is cut short or lacks a member is one sentence with shard and key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError
from .layout import SUFFIXES, TEXTS, Index, Sample, Shard, open_index

END = bytes(1024)  # a whole tar file ends in two empty blocks


def read_shards(
    path: str | Path,
    *,
    split: str | None = None,
    exclude: frozenset[str] = frozenset(),
) -> Iterator[Sample]:
    """Every sample of a folder of shards (or of one shard) once, in order; this process reads all.

    Args:
        path: a folder with or without an index, or a .tar file.
        split: only the shards of this split.
        exclude: ids that are passed over, see `read_exclusions`.

    Raises:
        DataError: no shards; a shard that is gone, cut short or damaged; a sample without a member
            that it should have.
    """
    index = open_index(path).of_split(split)
    urls = [{"url": str(index.folder / shard.file)} for shard in index.shards]
    yield from kept(samples_in(urls, index), exclude)


def kept(samples: Iterable[Sample], exclude: frozenset[str]) -> Iterator[Sample]:
    """Without those that are on a list."""
    return iter(sample for sample in samples if sample.id not in exclude)


def samples_in(urls: Iterable[dict[str, Any]], index: Index) -> Iterator[Sample]:
    """The samples of shards one after the other, each looked at before it is passed on."""
    known = {shard.file: shard for shard in index.shards}
    for url in urls:
        file = Path(url["url"])
        shard = known[file.name]
        number = 0
        for sample in samples_of(file, shard):
            check_members(sample, shard, index)
            number += 1
            yield sample
        if shard.samples not in (-1, number):
            raise DataError(
                f"{file} holds {number} samples and its index says {shard.samples}: write it again."
            )


def samples_of(file: Path, shard: Shard) -> Iterator[Sample]:
    """The samples of one file as they are.

    Raises:
        DataError: the file is gone, cut short, or not a tar file; names the last key read.
    """
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    last = ""

    def members(stream: Any) -> Iterator[dict[str, Any]]:
        nonlocal last
        for row in tar_file_iterator(stream):
            last = row["fname"].split("/")[-1].split(".")[0]
            yield {**row, "__url__": str(file)}

    try:
        with file.open("rb") as stream:
            require_whole(stream, file, shard, lambda: _last_key(file))
            for row in group_by_keys(members(stream)):
                yield _sample(row, file)
    except FileNotFoundError:
        raise DataError(f"{file} is gone, although the index lists it: write it again.") from None
    except DataError:
        raise
    except Exception as error:  # tarfile's own, and ValueError of the library for a double member
        place = f" after the sample {last}" if last else ""
        reason = error.args[0] if error.args else type(error).__name__
        raise DataError(f"{file} is cut short or damaged{place} ({reason}): write it again.") from (
            None
        )


def require_whole(stream: Any, file: Path, shard: Shard, last: Callable[[], str]) -> None:
    """DataError if the file has not the size that it should have, or no end.

    A file cut exactly between two members reads to its end without complaint.
    """
    size = os.fstat(stream.fileno()).st_size
    if shard.bytes not in (-1, size):
        raise DataError(
            f"{file} is cut short or damaged: it has {size} bytes, its index says {shard.bytes}; "
            f"the last sample that can be read is {last() or 'none'}. Write it again."
        )
    stream.seek(max(0, size - len(END)))
    whole = stream.read(len(END)) == END
    stream.seek(0)
    if not whole:
        raise DataError(
            f"{file} is cut short, it has no end mark; the last sample that can be read is "
            f"{last() or 'none'}. Write or fetch it again."
        )


def _last_key(file: Path) -> str:
    """The key of the last member whose header can be read."""
    import tarfile

    last = ""
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                last = member.name.split("/")[-1].split(".")[0]
    except tarfile.TarError:
        pass
    return last


def _sample(row: dict[str, Any], file: Path) -> Sample:
    pictures: dict[str, bytes] = {}
    texts = dict.fromkeys(TEXTS, "")
    for name, data in row.items():
        if name in texts:
            texts[name] = data.decode("utf-8", "replace")
        stem, dot, suffix = name.rpartition(".")
        if dot and suffix in (*SUFFIXES, "jpeg"):
            pictures[stem] = data
    key = row["__key__"].split("/")[-1]
    return Sample(key, pictures, texts["caption.txt"], texts["url.txt"], file)


def check_members(sample: Sample, shard: Shard, index: Index) -> None:
    """DataError if the sample lacks a picture that is not known never to have been there."""
    allowed = shard.incomplete.get(sample.key, [])
    missing = [m for m in index.members if m not in sample.pictures and m not in allowed]
    if missing:
        raise DataError(
            f"{sample.shard}: the sample {sample.key} lacks {' and '.join(missing)}; write the "
            "shard again, or leave the sample out."
        )
    if empty := [m for m, data in sample.pictures.items() if not data]:
        raise DataError(f"{sample.shard}: {empty[0]} of the sample {sample.key} is empty.")
