"""photographs.py: synthetic photographs with a camera's grain, for tests that need many of them."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageCms


def photograph(seed: int, height: int = 256, width: int = 320) -> np.ndarray:
    """(H, W, 3) uint8: structure at all scales (amplitude 1 / frequency, as in nature), grain, and
    half of the time a JPEG's traces; what varies between cameras varies with the seed."""
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    size = np.hypot(fy, fx)
    size[0, 0] = 1
    slope, planes = random.uniform(1.1, 1.5), []
    base = random.standard_normal((height, width))
    for _ in range(3):
        noise = base + 0.4 * random.standard_normal((height, width))
        plane = np.fft.ifft2(np.fft.fft2(noise) / size**slope).real
        planes.append((plane - plane.mean()) / plane.std())
    picture = random.uniform(90, 150) + random.uniform(25, 45) * np.dstack(planes)
    picture += random.uniform(1, 6) * random.standard_normal(picture.shape)
    pixels = picture.clip(0, 255).astype(np.uint8)
    return jpeg(pixels, int(random.integers(80, 98))) if random.random() < 0.5 else pixels


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """The pixels after JPEG compression."""
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


@cache  # it holds the time when it was made
def colour_profile(name: str) -> bytes:
    """One of littlecms's own, as in a file."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()


def wide_gamut() -> bytes:
    """The sRGB profile with red and blue exchanged: a valid one that is not sRGB."""
    data = bytearray(colour_profile("sRGB"))
    red, blue = data.index(b"rXYZ", 128), data.index(b"bXYZ", 128)
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def honest_model(model: Path, folder: Path, *, verdict: str | None = None) -> Path:
    """A copy of a model folder that tells familiar pictures and how sure it is; with a verdict,
    "clear" or "manipulated", every score leads to that one."""
    from forgemap.confidence import LOGITS, SHAPE
    from forgemap.evaluate.calibration_familiarity import fit_familiarity
    from forgemap.familiarity import statistics

    shutil.copytree(model, folder)
    values = [statistics(photograph(seed, 128, 160)) for seed in range(60)]
    usual = fit_familiarity([v for v in values if v], [str(i) for i in range(60)])
    table = np.full(SHAPE, 0.5)
    table[0] = 1 / (1 + np.exp(-LOGITS))  # nothing can be known where pixels are clipped
    config = json.loads((folder / "config.json").read_text())
    config["familiarity"] = usual.to_dict()
    config["confidence"] = {"table": table.ravel().round(4).tolist(), "fitted_on": "a formula"}
    if verdict is not None:
        at = {"clear": 1.0, "manipulated": 0.0}[verdict]
        config["decision"] = {"manipulated_at": at, "clear_below": at, "min_jpeg_quality": 50}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
