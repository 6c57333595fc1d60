"""start.py: a quick start: libraries are imported without the collector looking for cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quickly() -> Iterator[None]:
    """For imports: what they make stays, so that looking through it again and again is for nothing.

    Importing torch makes half a million objects; a fifth of its CPU time was the collector's. What
    is there at the end is set aside for good; from then on all is as ever.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
