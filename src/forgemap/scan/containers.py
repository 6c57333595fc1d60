"""containers.py: the pictures in tar shards and in columns of Parquet files, one by one."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..decode import shown
from ..errors import DataError
from ..image import EXTENSIONS
from .addresses import opened, sibling
from .manifests import pick

END = bytes(1024)  # a whole tar file ends in two empty blocks
ROWS = 16  # of a Parquet file in memory: each may be a large picture


class Member(NamedTuple):
    """A picture in a container: its bytes, or where it lies, or why it cannot be read."""

    key: str | None
    data: bytes | None = None
    address: str | None = None
    error: str | None = None


def tar_members(address: str, start: int, max_bytes: int) -> Iterator[Member]:
    """The pictures of a tar shard from the `start`-th on, in their order.

    A shard that is gone, cut short or damaged ends in a member without a key that says so.
    """
    number = 0
    last = ""
    try:
        with opened(address) as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for info in tar:
                base = os.path.basename(info.name)
                if (
                    not info.isfile()
                    or base.startswith(".")
                    or os.path.splitext(base)[1].lower() not in EXTENSIONS
                ):
                    continue
                last = info.name
                number += 1
                if number <= start:
                    continue
                if info.size > max_bytes:
                    name = shown(f"{address}/{info.name}")
                    why = f"is {info.size / 2**20:.0f} MiB, more than its pixels can need"
                    yield Member(info.name, error=f"{name} {why}: raise the pixel limit")
                    continue
                stream = tar.extractfile(info)
                assert stream is not None  # it is a regular file
                data = stream.read()
                if len(data) != info.size:
                    raise tarfile.ReadError("unexpected end of data")
                yield Member(info.name, data)
        if not _ends_well(address):
            raise tarfile.ReadError("it has no end mark")
    except Exception as error:  # tarfile, zlib, lzma and every file system have their own
        if number >= start:
            place = f" after {last}" if last else ""
            yield Member(None, error=_broken(address, error, place))


def _ends_well(address: str) -> bool:
    """Whether the end is there: a file cut between two members reads without complaint."""
    if not address.lower().endswith(".tar"):
        return True  # what compresses has an end of its own
    with opened(address) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(END)))
        return bool(file.read() == END)


def parquet_facts(address: str, column: str | None) -> tuple[str, int, int]:
    """The column with the pictures, the number of rows and of bytes.

    Raises:
        DataError: not a Parquet file, or no such column.
    """
    import pyarrow.parquet as pq

    try:
        with opened(address) as file:
            schema = pq.ParquetFile(file)
            names = schema.schema_arrow.names
            rows = schema.metadata.num_rows
            size = file.seek(0, os.SEEK_END)
    except DataError:
        raise
    except Exception as error:
        raise DataError(_broken(address, error, "") + ".") from None
    return pick(names, column, shown(address)), rows, size


def parquet_members(address: str, column: str, start: int) -> Iterator[Member]:
    """The pictures of a Parquet column from row `start` on; the key is the row's number.

    The column holds bytes, paths (relative to the file) or addresses, or, as data sets of the
    Hugging Face hub do, {"bytes", "path"}.
    """
    import pyarrow.parquet as pq

    row = 0
    try:
        with opened(address) as file:
            table = pq.ParquetFile(file)
            groups: list[int] = []
            for group in range(table.num_row_groups):  # whole groups before `start` stay unread
                rows = table.metadata.row_group(group).num_rows
                if not groups and row + rows <= start:
                    row += rows
                else:
                    groups.append(group)
            for batch in table.iter_batches(ROWS, row_groups=groups, columns=[column]):
                for value in batch.column(0):
                    if row >= start:
                        yield _parquet_member(str(row), value.as_py(), address)
                    row += 1
    except Exception as error:
        yield Member(None, error=_broken(address, error, f" after row {row - 1}" if row else ""))


def _parquet_member(key: str, value: Any, table: str) -> Member:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return Member(key, value)
    if not isinstance(value, str) or not value:
        return Member(key, error=f"row {key} holds no picture: its value is empty or of no use")
    return Member(key, address=sibling(table, value))


def _broken(address: str, error: Exception, place: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{shown(address)} does not exist: check the path"
    if isinstance(error, PermissionError):
        return f"{shown(address)} may not be read: give yourself read permission"
    text = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    return f"{shown(address)} is cut short or damaged{place} ({text}): get a complete copy"
