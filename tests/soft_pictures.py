"""Pictures that a generator enlarged, and a small embedder that knows them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image as PILImage

from forgemap import classifiers
from forgemap.evaluate.embed import Model, embed
from forgemap.models.checkpoint import save_model
from forgemap.models.embedder import Embedder


def pictures(root: Path, count: int) -> Path:
    """Noisy photographs, and the same enlarged from half their size as a generator would."""
    rng = np.random.default_rng(0)
    for name in ("real", "soft"):
        (root / name).mkdir(parents=True)
    for i in range(count):
        noise = rng.normal(128, 30, (72, 80, 3))
        soft = cv2.resize(cv2.resize(noise, (40, 36)), (80, 72), interpolation=cv2.INTER_CUBIC)
        for name, pixels in (("real", noise), ("soft", soft)):
            pixels = pixels.clip(0, 255).astype(np.uint8)
            PILImage.fromarray(pixels).save(root / name / f"{i:03d}.png")
    return root


def small_embedder(folder: Path) -> Path:
    """An embedder of random weights and its linear classifier, in a folder of that one."""
    torch.manual_seed(0)
    network = Embedder(width=24, layers=1, heads=3, mlp=48, image_size=64, stem="spectra").eval()
    saved = save_model(network, folder / "emb")
    data = pictures(folder / "train", 20)
    model = Model.load(saved)
    found = embed(model, data, folder / "train.parquet", progress=False)
    fitted = classifiers.fit("linear", found.vectors, found["label"], model.source)
    classifiers.save(fitted, saved / "linear.safetensors")
    return saved
