"""samples.py: the pictures that an export is checked on when none are given."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import ModelError

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def sample_photos() -> list[Path]:
    """Photographs that scikit-image brings; nothing is downloaded."""
    spec = find_spec("skimage")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    found = [
        path
        for folder in folders
        for name in PHOTOS
        if (path := Path(folder, "data", name)).is_file()
    ]
    if not found:
        raise ModelError(
            "an export is checked on real pictures: name a folder of them with --calibrate, or "
            'install the samples: pip install "forgemap[synth]"'
        )
    return found
