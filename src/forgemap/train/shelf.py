"""shelf.py: the files of the feature cache: names, reading, writing, and which ones have to go.

DIR/
  <settings>/               SHA-256 of all that features depend on, save the picture and its view
    settings.json           the same in words
    3f/3fa4…-none.safetensors        grid and summary; SHA-256 of the picture's file, and the view
  cache.lock                held by the run that makes room or adds features
  readers/<settings>-….lock          held by a run while it reads: these stay
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from ..data.records import Record
from ..errors import DataError, ForgemapError
from ..files import write_whole
from ..models.output import Features


class Wanted(NamedTuple):
    """One view of one picture."""

    record: Record
    perturb: str
    number: int
    """Of the view, where it is perturbed."""


class Shelf(NamedTuple):
    """Where features lie; small, so that reading processes can be given it."""

    folder: Path
    digests: dict[Path, str]
    """SHA-256 of every picture's file."""
    seed: int

    def path(self, wanted: Wanted) -> Path:
        """The file of a view's features."""
        digest = self.digests[wanted.record.image]
        chance = f"-{self.seed}-{wanted.number}" if wanted.perturb != "none" else ""
        return self.folder / digest[:2] / f"{digest}-{wanted.perturb}{chance}.safetensors"

    def read(self, wanted: Wanted) -> tuple[Features, tuple[int, int]]:
        """grid (C, h, w) and summary (C,) of a view, mapped from disk; its picture's (H, W).

        Raises:
            ForgemapError: somebody has deleted the file since the run began.
        """
        path = self.path(wanted)
        try:
            with safe_open(path, framework="pt") as file:
                summary = file.get_tensor("summary") if "summary" in set(file.keys()) else None
                features = Features(file.get_tensor("grid"), summary)
                size = file.metadata()
                return features, (int(size["height"]), int(size["width"]))
        except (OSError, SafetensorError) as error:
            raise ForgemapError(
                f"{path}: the cached features are gone or broken; the same command computes them "
                "again and goes on."
            ) from error


def digests(files: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of the bytes of files."""

    def one(path: Path) -> tuple[Path, str]:
        try:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            return path, digest.hexdigest()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from error

    with ThreadPoolExecutor(4) as pool:
        return dict(pool.map(one, sorted(files)))


def entries(root: Path) -> list[Path]:
    """All files of features below a cache's folder."""
    return list(root.glob("*/*/*.safetensors"))


def readable(path: Path) -> bool:
    """Whether a file of features is there and whole."""
    try:
        with safe_open(path, framework="pt") as file:
            return "grid" in set(file.keys())
    except (OSError, SafetensorError):
        return False


def in_use(readers: Path) -> set[str]:
    """The settings that some running process reads; marks of dead ones are removed."""
    busy = set()
    for mark in readers.glob("*.lock"):
        try:
            with FileLock(mark, blocking=False):
                mark.unlink(missing_ok=True)
        except Timeout:
            busy.add(mark.name.partition("-")[0])
    return busy


def make_room(
    root: Path, needed: int, limit: int, keep: Collection[Path], busy: Collection[str]
) -> None:
    """Delete what was used longest ago, until ``needed`` more bytes stay within the limit.

    Args:
        keep: files that the present run wants.
        busy: settings that other runs read.

    Raises:
        ForgemapError: what may be deleted does not suffice.
    """
    found = [(file.stat().st_mtime, file.stat().st_size, file) for file in entries(root)]
    total = sum(size for _, size, _ in found) + needed
    for _, size, file in sorted(found):
        if total <= limit:
            return
        if file not in keep and file.parent.parent.name not in busy:
            file.unlink()
            total -= size
    if total > limit:
        raise ForgemapError(
            f"{root}: runs that are reading from it leave no room for {needed / 1e9:.3g} GB; "
            "raise --cache-limit or wait for them."
        )


def write(path: Path, content: bytes) -> None:
    """A whole file or none, with its folder."""
    path.parent.mkdir(exist_ok=True)
    write_whole(path, content, sync=True)


@contextmanager
def on_disk(root: Path) -> Iterator[None]:
    """Around writes to the cache: a full or read-only disk becomes one sentence."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free some space or lower --cache-limit" if full else "name another --cache"
        raise ForgemapError(
            f"{root}: features cannot be written ({error.strerror}); {remedy}."
        ) from error
