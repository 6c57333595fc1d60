"""A small set of edited and untouched pictures, as files with a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np


def write_edited_set(folder: Path, pictures: int = 12, held_out: int = 4) -> Path:
    """Noisy pictures, every second one with a smooth square in it; the last ones are for val."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(pictures):
        pixels = rng.integers(0, 255, (96, 112, 3), dtype=np.uint8)
        mask = np.zeros((96, 112), np.uint8)
        if i % 2:
            mask[20:60, 30:80] = 255
            pixels[mask > 0] = cv2.GaussianBlur(pixels, (0, 0), 3)[mask > 0]
            cv2.imwrite(str(folder / f"{i}_mask.png"), mask)
        cv2.imwrite(str(folder / f"{i}.png"), pixels)
        rows.append(
            {
                "image": f"{i}.png",
                "mask": f"{i}_mask.png" if i % 2 else None,
                "source": f"{i}.jpg",
                "split": "val" if i >= pictures - held_out else "train",
                "method": "blur" if i % 2 else "none",
                "parameters": {},
                "seed": i,
            }
        )
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


# A DeCLIP network of a few thousand weights.
TINY = {
    "backbone": "rn50",
    "layer": "layer2",
    "decoder": "conv-4",
    "model": {"rn50_width": 4, "rn50_layers": [1, 1, 1, 1], "channels": [6, 6, 6, 6]},
}
