"""home.py: where Forgemap keeps what it downloads, and whether it may use the network."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ModelError


def home() -> Path:
    """$FORGEMAP_HOME, else forgemap/ in $XDG_CACHE_HOME or ~/.cache. Not necessarily there yet.

    ``published/`` holds downloaded files as they were published, ``records/`` what is known of
    each, ``models/`` the model folders made of them, ``licences.json`` what was accepted.
    """
    if chosen := os.environ.get("FORGEMAP_HOME"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(cache).expanduser() / "forgemap"
    except RuntimeError as error:  # no home directory, as in some containers
        raise ModelError("There is no home directory; set FORGEMAP_HOME to a folder.") from error


def offline() -> bool:
    """Does FORGEMAP_OFFLINE forbid the network? Anything but 0, no, off, false or empty does."""
    return os.environ.get("FORGEMAP_OFFLINE", "").lower() not in ("", "0", "no", "off", "false")
