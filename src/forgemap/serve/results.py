"""results.py: outputs and report rows, kept in memory for a while; and uploads, if asked to."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ..errors import ForgemapError
from ..files import write_whole
from .metrics import Metrics
from .problems import ProblemError


@dataclass(frozen=True)
class Kept:
    """What is remembered of one picture."""

    files: Mapping[str, bytes]
    """PNGs by the names of the outputs."""
    row: bytes
    """JSON for `ReportWriter.add_row`."""
    until: float
    """In `time.monotonic()`."""

    @property
    def size(self) -> int:
        return len(self.row) + sum(map(len, self.files.values()))


class Results:
    """Results by id, bounded in bytes and time; the oldest go first.

    Args:
        memory: bytes.
        seconds: how long each is kept.
    """

    def __init__(self, memory: int, seconds: float, metrics: Metrics) -> None:
        self.memory, self.seconds, self.bytes = memory, seconds, 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        metrics.watch("result_bytes", lambda: self.bytes)
        metrics.watch("results", lambda: len(self._kept))

    def put(self, files: Mapping[str, bytes], row: Mapping[str, Any]) -> tuple[str, str] | None:
        """Keep a result. Returns its id and when it expires; None if it can never fit."""
        self.tidy()
        kept = Kept(dict(files), json.dumps(row).encode("ascii"), time.monotonic() + self.seconds)
        if kept.size > self.memory:
            return None
        while self.bytes + kept.size > self.memory:
            self._forget(next(iter(self._kept)))
        name = uuid.uuid4().hex
        self._kept[name] = kept
        self.bytes += kept.size
        return name, in_time(self.seconds)

    def get(self, name: str) -> Kept:
        """Raises ProblemError: there is none, or no more."""
        self.tidy()
        if name not in self._kept:
            raise ProblemError(
                "not-found",
                f"No such result; they are kept for {self.seconds:g} seconds while there is room: "
                "analyse the picture again.",
            )
        return self._kept[name]

    def forget(self, name: str) -> None:
        """Raises ProblemError: there is none, or no more."""
        self.get(name)
        self._forget(name)

    def tidy(self) -> None:
        """Forget what has expired; also called by the clock."""
        now = time.monotonic()
        while self._kept and (oldest := next(iter(self._kept.items())))[1].until <= now:
            self._forget(oldest[0])

    def _forget(self, name: str) -> None:
        self.bytes -= self._kept.pop(name).size


def in_time(seconds: float = 0) -> str:
    """Now, or `seconds` later, by RFC 3339."""
    then = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return then.isoformat(timespec="seconds")


_EXTENSIONS = {"JPEG": "jpg", "WebP": "webp", "TIFF": "tif"}


class Keeper:
    """Writes uploads into the folder of `--keep`, under their hash: nothing that a caller says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ForgemapError(
                f"{folder} cannot be used to keep uploads ({error.strerror}): name another."
            ) from error

    def keep(self, data: bytes, result: Mapping[str, Any]) -> None:
        """The picture as SHA-256.extension and what was said of it as SHA-256.json.

        Raises ProblemError: the disk is full or the folder is gone.
        """
        name = hashlib.sha256(data).hexdigest()
        kind = str(result.get("format") or "bin")
        said = {k: v for k, v in result.items() if k not in ("result", "expires", *_LINKS)}
        try:
            write_whole(self.folder / f"{name}.{_EXTENSIONS.get(kind, kind.lower())}", data)
            write_whole(self.folder / f"{name}.json", json.dumps(said, indent=1))
        except OSError as error:
            raise ProblemError(
                "no-space",
                f"The server is to keep every upload and cannot ({error.strerror}): "
                "tell who runs it.",
            ) from error


_LINKS = ("heatmap", "mask", "overlay", "confidence_map", "picture")
