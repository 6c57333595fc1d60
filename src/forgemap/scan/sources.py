"""sources.py: what was named on the command line -> entries: pictures, tar shards, Parquet files.

Nothing is decoded here, and of tar shards nothing is read. The order is always the same: sources as
they were given, folders and globs sorted, manifests as they are written.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..decode import shown
from ..errors import DataError
from ..image import EXTENSIONS
from .addresses import filesystem, is_remote, size_of
from .containers import parquet_facts
from .manifests import places

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MANIFESTS = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".lst")


@dataclass(frozen=True)
class Entry:
    """Something to scan.

    Attributes:
        kind: "file", "tar", "parquet", or "problem" (then `error` says which).
        source: as it was given on the command line.
        address: a local path, or an address that fsspec knows.
        size: bytes, where listing has told; of tar and Parquet files always.
        column: of a Parquet file, the one with the pictures.
        count: pictures in it, where that is known without reading it; of a file 1.
        error: of a problem.
    """

    kind: str
    source: str
    address: str
    size: int | None = None
    column: str | None = None
    count: int | None = 1
    error: str | None = None


def find(sources: Sequence[str], column: str | None = None) -> Iterator[Entry]:
    """The entries of all sources; none twice.

    Args:
        sources: folders, pictures, globs, manifests, tar shards (also as `a-{00..09}.tar`), Parquet
            files, and addresses of all these.
        column: of manifests and Parquet files, the one with the pictures (bytes) or their paths;
            default: the first of `manifests.COLUMNS` that is there.

    Raises:
        DataError: a manifest or Parquet file that cannot be used; a remote source without access.
    """
    seen: set[bytes] = set()
    # Only lists and several sources can name something twice; a folder alone needs no memory.
    alone = len(sources) == 1 and not sources[0].lower().endswith(MANIFESTS)
    for source in sources:
        for entry in _entries(source, column):
            if not alone:
                place = (
                    entry.address if is_remote(entry.address) else os.path.abspath(entry.address)
                )
                key = hashlib.blake2b(os.fsencode(place), digest_size=16).digest()
                if key in seen:
                    continue
                seen.add(key)
            yield entry


def _entries(source: str, column: str | None) -> Iterator[Entry]:
    if source.startswith("file://"):
        source = filesystem(source)[1]
    for address in _braces(source):
        if is_remote(address):
            yield from _remote(source, address, column)
        else:
            yield from _local(source, address, column)


def _braces(source: str) -> Iterable[str]:
    """WebDataset's spelling of many shards, `a-{000..009}.tar`."""
    if "{" not in source or os.path.lexists(source):
        return [source]
    from braceexpand import braceexpand

    try:
        return list(braceexpand(source))
    except ValueError:  # braces that do not close are part of the name
        return [source]


def _local(source: str, address: str, column: str | None) -> Iterator[Entry]:
    matches = [address]
    if not os.path.lexists(address) and glob.has_magic(address):
        matches = sorted(glob.glob(address, recursive=True))
        if not matches:
            yield _problem(source, address, "matches no file: check the pattern")
    for match in matches:
        if not os.path.isdir(match):
            yield from _named(source, match, column)
            continue
        number = 0
        for entry in _walk(source, match):
            number += 1
            yield entry
        if not number:
            yield _problem(source, match, "is a folder without pictures: name another")


def _walk(source: str, folder: str) -> Iterator[Entry]:
    """Pictures and tar shards under a folder, folder by folder, without hidden ones."""
    try:
        with os.scandir(folder) as inside:
            found = sorted((e for e in inside if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        yield _problem(
            source, folder, f"cannot be opened ({error.strerror}): check the permissions"
        )
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(source, entry.path)
        elif entry.name.lower().endswith(TARS):
            yield _tar(source, entry.path)
        elif _is_picture(entry.name):
            yield Entry("file", source, entry.path)


def _remote(source: str, address: str, column: str | None) -> Iterator[Entry]:
    fs, path = filesystem(address)
    try:
        if glob.has_magic(path):
            matches = sorted(fs.glob(path))
            if not matches:
                yield _problem(source, address, "matches no file: check the pattern")
            for match in matches:
                yield from _named(source, fs.unstrip_protocol(match), column)
        elif _is_remote_folder(fs, path):
            number = 0
            for entry in _remote_walk(source, fs, path):
                number += 1
                yield entry
            if not number:
                yield _problem(source, address, "holds no pictures: name another folder")
        else:
            yield from _named(source, address, column)
    except DataError:
        raise
    except Exception as error:  # every file system has errors of its own
        raise _unreadable(address, error) from None


def _is_remote_folder(fs: Any, path: str) -> bool:
    """Asked of the server only where the name leaves it open; raises what it raises."""
    if path.lower().endswith((*EXTENSIONS, *TARS, *MANIFESTS, ".parquet")):
        return False
    return bool(fs.info(path)["type"] == "directory")


def _remote_walk(source: str, fs: Any, path: str) -> Iterator[Entry]:
    for _, _, files in fs.walk(path, detail=True, on_error="raise"):
        for name in sorted(files):
            info = files[name]
            address = fs.unstrip_protocol(info["name"])
            if name.lower().endswith(TARS):
                yield Entry("tar", source, address, info.get("size"), count=None)
            elif _is_picture(name) and not name.startswith("."):
                yield Entry("file", source, address, info.get("size"))


def _named(source: str, address: str, column: str | None) -> Iterator[Entry]:
    """What was named outright, or by a glob or manifest."""
    lower = address.lower()
    if lower.endswith(TARS):
        yield _tar(source, address)
    elif lower.endswith(".parquet"):
        name, rows, size = parquet_facts(address, column)
        yield Entry("parquet", source, address, size, name, rows)
    elif lower.endswith(MANIFESTS):
        yield from _manifest(source, address, column)
    else:
        yield Entry("file", source, address)


def _tar(source: str, address: str) -> Entry:
    try:
        size = size_of(address)
    except Exception as error:
        return _problem(source, address, f"cannot be read ({_why(error)}): check the address")
    return Entry("tar", source, address, size, count=None)


def _manifest(source: str, address: str, column: str | None) -> Iterator[Entry]:
    """One entry for each picture of a manifest."""
    number = 0
    try:
        for place in places(address, column):
            number += 1
            # A list within a list is a picture that cannot be read: its row will say so.
            shard = place.lower().endswith(TARS)
            yield _tar(source, place) if shard else Entry("file", source, place)
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(address, error) from None
    if not number:
        yield _problem(source, address, "lists no pictures: add lines to it")


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _problem(source: str, address: str, what: str) -> Entry:
    return Entry("problem", source, address, error=f"{shown(address)} {what}")


def _unreadable(address: str, error: Exception) -> DataError:
    return DataError(
        f"{shown(address)} cannot be read ({_why(error)}): check the address and your access to it."
    )


def _why(error: Exception) -> str:
    """The reason in a few words, whatever library it comes from."""
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    text = (getattr(error, "strerror", None) or str(error)).strip().split("\n")[0].rstrip(".")
    return text or type(error).__name__
