"""resident.py: keep the pages of a mapped weights file from piling up while they are packed.

An engine that maps its weights and packs them into a layout of its own reads every page of the file
once, and would leave all of them in memory beside the packed copy: twice the weights at the peak.
The pages are the system's, which has them in its cache as well; they can go as soon as they are
read, and come back by themselves if they are needed again.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

PERIOD = 0.01
"""Seconds between two looks: at 3 GB/s no more than 30 MB are read meanwhile."""
MADV_DONTNEED = 4


@contextmanager
def released(path: Path) -> Iterator[None]:
    """While the block runs, and once at its end, give back what is resident of a mapped file.

    Only mappings that cannot be written to are touched, so that nothing can be lost. Where there is
    no ``/proc`` (macOS, Windows) the block just runs.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    done = Event()

    def watch() -> None:
        while not done.wait(PERIOD):
            release(path)

    thread = Thread(target=watch, name="released", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        release(path)


def release(path: Path) -> int:
    """Give back the resident pages of a file's read-only mappings; returns how many bytes are
    mapped. Pages that are read again come from the system's cache."""
    total = 0
    for start, end in mappings(path):
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED
        )
        total += end - start
    return total


def mappings(path: Path) -> list[tuple[int, int]]:
    """Where this process maps a file read-only: first address, and the one after the last."""
    name = str(path.resolve())
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        # address range, rights, offset, device, inode, path
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == name and "w" not in fields[1]:
            start, end = (int(address, 16) for address in fields[0].split("-"))
            found.append((start, end))
    return found
