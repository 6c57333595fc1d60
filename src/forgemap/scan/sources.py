"""sources.py: what was named on the command line -> entries: pictures, tar shards, Parquet files.

Nothing is decoded here, and of tar shards nothing is read. The order is always the same: sources as
they were given, folders and globs sorted, manifests as they are written.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..decode import shown
from ..errors import DataError
from ..image import EXTENSIONS

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MANIFESTS = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".lst")
COLUMNS = ("image", "path", "url", "file", "file_name", "filename", "picture", "bytes")
COLUMNS_HELP = ", ".join(COLUMNS)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")


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


def is_remote(address: str) -> bool:
    """Whether fsspec has to read it; file:// is local."""
    return _URL.match(address) is not None


def filesystem(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it.

    Raises:
        DataError: an unknown protocol, or one whose library is not installed.
    """
    import fsspec

    try:
        if address.startswith("s3://"):
            return _s3(address)
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise DataError(f"{address} needs a library that is not installed ({error}).") from None
    except ValueError as error:
        raise DataError(f"{address} cannot be understood ({error}): check the address.") from None


def _s3(address: str) -> tuple[Any, str]:
    """s3:// by s3fs where somebody has installed it, otherwise by what pyarrow brings.

    Both read the AWS variables and files; pyarrow's also AWS_ENDPOINT_URL for other servers.
    """
    if importlib.util.find_spec("s3fs") is not None:
        import fsspec

        found: tuple[Any, str] = fsspec.core.url_to_fs(address)
        return found
    path = address.removeprefix("s3://").rstrip("/")
    return _arrow_s3(path.split("/")[0]), path


@lru_cache(maxsize=8)
def _arrow_s3(bucket: str) -> Any:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem, resolve_s3_region

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and "AWS_ENDPOINT_URL" not in os.environ:
        region = resolve_s3_region(bucket)
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    scheme, _, host = endpoint.rpartition("://")
    anonymous = os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "yes", "true")
    options = {"endpoint_override": host, "scheme": scheme or "https"} if host else {}
    return ArrowFSWrapper(S3FileSystem(region=region, anonymous=anonymous, **options))


def find(sources: Sequence[str], column: str | None = None) -> Iterator[Entry]:
    """The entries of all sources; none twice.

    Args:
        sources: folders, pictures, globs, manifests, tar shards (also as `a-{00..09}.tar`), Parquet
            files, and addresses of all these.
        column: of manifests and Parquet files, the one with the pictures (bytes) or their paths;
            default: the first of COLUMNS that is there.

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
        from .containers import parquet_facts

        name, rows, size = parquet_facts(address, column)
        yield Entry("parquet", source, address, size, name, rows)
    elif lower.endswith(MANIFESTS):
        yield from _manifest(source, address, column)
    else:
        yield Entry("file", source, address)


def _tar(source: str, address: str) -> Entry:
    try:
        if is_remote(address):
            fs, path = filesystem(address)
            size = fs.info(path).get("size")
        else:
            size = os.stat(address).st_size
    except Exception as error:
        return _problem(source, address, f"cannot be read ({_why(error)}): check the address")
    return Entry("tar", source, address, size, count=None)


def _manifest(source: str, address: str, column: str | None) -> Iterator[Entry]:
    """One entry for each line: JSON objects, rows of a table, or plain paths."""
    import fsspec

    base = address.rpartition("/")[0] if is_remote(address) else os.path.dirname(address)
    number = 0
    try:
        filesystem(address)
        with fsspec.open(address, "rt", encoding="utf-8", newline="").open() as lines:
            for place in _places(lines, address, column):
                number += 1
                if not is_remote(place):
                    place = f"{base}/{place}" if is_remote(address) else os.path.join(base, place)
                # A list within a list is a picture that cannot be read: its row will say so.
                yield (
                    _tar(source, place)
                    if place.lower().endswith(TARS)
                    else Entry("file", source, place)
                )
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(address, error) from None
    if not number:
        yield _problem(source, address, "lists no pictures: add lines to it")


def _places(lines: Any, address: str, column: str | None) -> Iterator[str]:
    suffix = os.path.splitext(address)[1].lower()
    if suffix in (".csv", ".tsv"):
        table = csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ",")
        name = pick(table.fieldnames or [], column, address)
        for row in table:
            if row[name]:
                yield row[name]
        return
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line:
            continue
        if suffix not in (".jsonl", ".ndjson"):
            yield line
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise DataError(f"Line {number} of {shown(address)} is not JSON: mend it.") from None
        if isinstance(row, dict):
            row = row[pick(list(row), column, f"Line {number} of {address}")]
        if not isinstance(row, str):
            raise DataError(f"Line {number} of {shown(address)} names no picture: give its path.")
        yield row


def pick(names: Sequence[str], column: str | None, where: str) -> str:
    """The column with the pictures; DataError if there is none."""
    if column is not None:
        if column in names:
            return column
        raise DataError(f"{where} has no column {column!r}, only {', '.join(names)}.")
    for name in COLUMNS:
        if name in names:
            return name
    raise DataError(
        f"{where} has no column called {', '.join(COLUMNS)}: name one with --column "
        f"({', '.join(names) or 'there are none'})."
    )


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
