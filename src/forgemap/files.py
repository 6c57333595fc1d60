"""files.py: a file appears whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import ForgemapError


@contextmanager
def whole(path: str | Path, *, sync: bool = False) -> Iterator[Path]:
    """A name in the same folder to write to, which becomes `path` when the block ends well.

    After an error (or Ctrl-C) what was written is gone and an earlier file at `path` is untouched.
    Only a kill leaves something: a hidden file that ends in ".tmp".

    Args:
        path: its folder exists.
        sync: wait until the bytes are on the disk, so that a power cut cannot leave a file that is
            there but empty.

    Raises:
        OSError: as writing and renaming do.
    """
    path = Path(path)
    # A name of its own: threads and processes that write the same file do not meet (the last one
    # wins), and a file whose name is as long as may be can be written too.
    beside = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield beside
        if sync:
            with beside.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_whole(path: str | Path, content: str | bytes | memoryview, *, sync: bool = False) -> None:
    """Text (UTF-8, line ends as they are) or bytes at `path`; see `whole`."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with whole(path, sync=sync) as beside:
        beside.write_bytes(data)


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """`whole`, opened for bytes, in a folder that is made where there is none.

    Raises:
        ForgemapError: the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as beside, beside.open("wb") as file:
            yield file
    except OSError as error:
        raise ForgemapError(
            f"{path} cannot be written ({error.strerror or error}): free some space or name "
            "another folder"
        ) from error
