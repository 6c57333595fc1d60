"""journal.py: the rows of a running evaluation, kept on disk as they come, so that it can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from ..errors import DataError
from ..files import write_whole
from .results import Row

ROWS = "rows.jsonl"


class Journal:
    """The rows found so far, by (image, variant); kept in out/rows.jsonl as they come.

    A failed row is not taken over from an earlier run: it is tried again.
    """

    def __init__(self, out: Path | None, header: dict[str, Any]) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self._file: IO[str] | None = None
        if out is None:
            return
        path = out / ROWS
        try:
            if path.exists():
                self._resume(path, header)
            elif out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise DataError(f"{out} already holds something else: give a new or empty folder.")
            else:
                out.mkdir(parents=True, exist_ok=True)
                write_whole(path, json.dumps(header) + "\n")
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error

    def _resume(self, path: Path, header: dict[str, Any]) -> None:
        *lines, rest = path.read_bytes().split(b"\n")
        try:
            earlier, *rows = (json.loads(line) for line in lines)
            found = {(row["image"], row["variant"]): row for row in rows if row["error"] is None}
            changed = [name for name in header if earlier[name] != header[name]]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path} is not what was written here: give another folder.") from None
        if changed:
            raise DataError(
                f"{path.parent} holds the results of a different run "
                f"(another {' and '.join(changed)}): give another folder."
            )
        if rest:  # cut off by an interruption
            os.truncate(path, path.stat().st_size - len(rest))
        self.rows = found

    def add(self, row: Row) -> None:
        self.rows[row["image"], row["variant"]] = row
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
