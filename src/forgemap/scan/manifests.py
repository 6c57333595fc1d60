"""manifests.py: lists of pictures: JSON objects or paths line by line, and tables with a header."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ..decode import shown
from ..errors import DataError
from .addresses import opened, sibling

COLUMNS = ("image", "path", "url", "file", "file_name", "filename", "picture", "bytes")
"""What the column with the pictures may be called, where it is not named."""


def places(address: str, column: str | None) -> Iterator[str]:
    """The paths and addresses that a manifest lists; relative ones are taken from where it lies.

    Raises:
        DataError: a line or a header that names no picture; an address that cannot be understood.
        Exception: what the file system raises, where the manifest cannot be read.
    """
    with opened(address) as file, io.TextIOWrapper(file, "utf-8", newline="") as lines:
        for place in _written(lines, address, column):
            yield sibling(address, place)


def _written(lines: Any, address: str, column: str | None) -> Iterator[str]:
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
