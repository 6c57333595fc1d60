"""Shared fixtures: small pictures, and a small random model saved as a folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Small networks gain nothing from threads, and test workers would fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Started in the background, tests inherit that Ctrl-C is ignored; what they start must not.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
from PIL import Image as PILImage


def picture(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: smooth colours with some noise, like a photograph more than like noise."""
    random = np.random.default_rng(seed)
    small = random.integers(30, 225, (4, 4, 3), dtype=np.uint8)
    smooth = PILImage.fromarray(small).resize((width, height), PILImage.Resampling.BICUBIC)
    noisy = np.asarray(smooth, np.int16) + random.integers(-8, 9, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TraceNet of a few thousand random weights in a folder, thresholds as published."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", colours=True)


def tiny_model(folder: Path, *, colours: bool) -> Path:
    """The same, with JPEG's colours among what it sees, or without."""
    import torch

    from forgemap.models.build import build
    from forgemap.models.checkpoint import save_model

    torch.manual_seed(0)
    sizes = {"widths": [4, 4, 8, 8, 8], "blocks": [1, 1, 1, 1], "colours": colours}
    return save_model(build({"architecture": "tracenet", **sizes}), folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three readable pictures, one of them deeper down."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    PILImage.fromarray(picture(seed=1)).save(folder / "a.png")
    PILImage.fromarray(picture(120, 80, seed=2)).save(folder / "b.jpg", quality=90)
    PILImage.fromarray(picture(64, 64, seed=3)).save(folder / "more" / "c.png")
    return folder
