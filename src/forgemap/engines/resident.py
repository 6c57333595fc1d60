"""resident.py: a weights file mapped into memory, whose pages do not pile up while they are packed.

An engine that packs mapped weights into a layout of its own reads every page of the file once, and
would leave all of them in memory beside the packed copy: twice the weights at the peak. The pages
are in the system's cache as well; they can go as soon as they are read, and come back by themselves
if they are needed again.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np

PERIOD = 0.01
"""Seconds between two looks: at 3 GB/s no more than 30 MB are read meanwhile."""


class MappedFile:
    """A file that is mapped for as long as this object lives, to be read and never written to.

    The mapping is this object's own, so that giving back its pages can never meet memory that is
    something else's by now. It is a private one, since OpenVINO takes no array that is read-only:
    what were written would not reach the file, and be lost with the next `release`.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError, or ValueError for an empty file."""
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.bytes = np.frombuffer(self._map, np.uint8)
        """(size,) uint8."""

    def release(self) -> None:
        """Give back what is resident; nothing where the system knows no such advice (Windows)."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    @contextmanager
    def released(self) -> Iterator[None]:
        """`release` again and again while the block runs, and once at its end."""
        done = Event()

        def watch() -> None:
            while not done.wait(PERIOD):
                self.release()

        thread = Thread(target=watch, name="released", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.release()
