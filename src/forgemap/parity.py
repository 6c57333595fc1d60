"""parity.py: an export on real pictures: what int8 is calibrated on, its answers and its speed.

parity = compare(network, stand_in, config, real_pictures(None, 64), "scikit-image: 20 pictures")
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .detector import Detector
from .engines.fronts import Arrays, Front
from .engines.packed import accelerate
from .engines.record import Parity
from .engines.samples import sample_photos
from .errors import ImageError, ModelError
from .image import Image, find_images, load_image
from .models.crops import cut as crop
from .models.embedder import Embedder
from .scoring import Decision

CALIBRATION = 32
"""Pictures, at most, whose activations set the ranges of int8."""
TIMED = 3
"""Runs that are timed on each side, in turns."""


def real_pictures(folder: str | Path | None, limit: int) -> list[Image]:
    """At most `limit` pictures, spread evenly over a folder; unreadable ones are left out.

    Without a folder: scikit-image's photographs, which are few, and the quarters of each.

    Raises:
        ModelError: none can be read, or scikit-image is not there.
    """
    if folder is None:
        images = [load_image(path) for path in sample_photos()]
        return [part for image in images for part in (image, *_quarters(image))][:limit]
    files = find_images([Path(folder)]).files
    wanted = np.unique(np.linspace(0, len(files) - 1, min(limit, len(files))).astype(int))
    images = []
    for number in wanted if files else ():
        try:
            images.append(load_image(files[number]))
        except ImageError:
            continue
    if not images:
        raise ModelError(f"{folder}: holds no picture that can be read.")
    return images


def _quarters(image: Image) -> Iterator[Image]:
    height, width = (side // 2 for side in image.samples.shape[:2])
    for top in (0, height):
        for left in (0, width):
            part = np.ascontiguousarray(image.samples[top : top + height, left : left + width])
            yield replace(image, pixels=part, unmanaged=None)


def _images_of(network: Any, picture: Image) -> Tensor:
    if isinstance(network, Embedder):
        return network.preprocess(crop(picture.samples, network.image_size).views[0])
    pixels = picture.samples[:1024, :1024] if network.native else picture.samples
    images: Tensor = network.preprocess(np.ascontiguousarray(pixels))
    return images


def calibration_inputs(front: Front, network: Any, pictures: list[Image]) -> Iterator[Arrays]:
    """The arrays that the exported part is fed for every second picture."""
    for picture in pictures[::2][:CALIBRATION]:
        with torch.inference_mode():
            inputs = front.before(_images_of(network, picture))
        yield [np.ascontiguousarray(tensor.numpy()) for tensor in inputs]


def compare(
    network: Any, stand_in: Any, config: dict[str, Any], pictures: list[Image], source: str
) -> Parity:
    """The export's answers beside torch's in float32, picture by picture.

    Args:
        network: the model in torch.
        stand_in: what answers in its place.
        config: the model's config.json, whose decision both use.
        pictures: at least one.
        source: where they are from, for the record.
    """
    if isinstance(network, Embedder):
        pairs = [(network.embed(p.samples)[0], stand_in.embed(p.samples)[0]) for p in pictures]
        share = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
        cosine = min(float(torch.cosine_similarity(a, b, dim=0)) for a, b in pairs)
        return Parity(len(pairs), source, share, cosine=cosine)
    decision = Decision.from_dict(config.get("decision", {}))
    ours, theirs = Detector(stand_in, decision), Detector(network, decision)
    difference, overlaps, flips = 0.0, [], 0
    for picture in pictures:
        got, expected = ours.predict(picture.samples), theirs.predict(picture.samples)
        apart = float(np.abs(got.heat - expected.heat).max())
        difference = max(difference, apart if apart == apart else float("inf"))
        at = decision.mask_threshold
        both, either = _overlap(got.heat >= at, expected.heat >= at)
        overlaps.append(both / either if either else 1.0)
        verdicts = {ours.judge(picture, got).verdict, theirs.judge(picture, expected).verdict}
        flips += len(verdicts) > 1
    return Parity(len(pictures), source, difference, float(np.mean(overlaps)), flips)


def _overlap(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
    return int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b))


@torch.inference_mode()
def measure_speed(network: Any, stand_in: Any, pictures: list[Image]) -> float:
    """CPU time of the torch engine in float32, divided by the export's: medians, in turns."""
    images = _images_of(network, pictures[0])
    network = accelerate(network, "fp32", torch.device("cpu"))
    times: dict[Any, list[float]] = {network: [], stand_in: []}
    for turn in range(TIMED + 1):
        for model in times:
            begin = time.process_time()
            model(images)
            if turn:  # the first is for warming up
                times[model].append(time.process_time() - begin)
    return float(np.median(times[network]) / max(np.median(times[stand_in]), 1e-9))
