"""judge.py: a map of suspicion as something that `forgemap evaluate` can run like a model.

A map has no natural threshold, so all is chosen on pictures of the val split: the pixel threshold
of the best mean IoU, and how a map becomes a score (of three statistics, that of the best AUC). A
picture is judged manipulated from the score that 2 % of those untouched pictures reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from forgemap.data.records import Record
from forgemap.errors import DataError
from forgemap.evaluate.metrics import detection_metrics
from forgemap.evaluate.pictures import read_mask
from forgemap.image import Image, load_image
from forgemap.report import VERDICTS, Report

FALSE_ALARMS = 0.02
THRESHOLDS = np.linspace(0.02, 0.98, 49)

Map = Callable[[np.ndarray], np.ndarray]

# Ways from a map (H, W) to a score in [0, 1].
STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda heat: float(heat.mean()),
    "top": lambda heat: float(np.quantile(heat, 0.99)),
    "spread": lambda heat: float(np.quantile(heat, 0.99) - np.median(heat)),
}


@dataclass(frozen=True)
class BaselineJudge:
    """A baseline with its thresholds; see `forgemap.evaluate.measure.Judge`."""

    name: str
    map: Map
    pixel: float
    """Threshold of the map; probabilities are stretched so that it falls on one half."""
    statistic: str
    score: float
    """Threshold of the statistic, likewise."""

    def analyze(self, source: Any, *, max_pixels: int) -> Report:
        """The picture's map and verdict."""
        image = source if isinstance(source, Image) else load_image(source, max_pixels=max_pixels)
        raw = self.map(image.pixels)
        value = STATISTICS[self.statistic](raw)
        heat = stretch(raw, self.pixel)
        height, width = heat.shape
        return Report(
            path=image.name,
            sha256=image.sha256,
            width=width,
            height=height,
            orientation=image.orientation,
            verdict=VERDICTS[2] if value >= self.score else VERDICTS[0],
            score=float(stretch(np.float32(value), self.score)),
            area=float((heat > 0.5).mean()),
            model=self.name,
            heat=heat,
        )


def stretch(values: np.ndarray, threshold: float) -> np.ndarray:
    """Values in [0, 1] -> [0, 1], rising, with the threshold at one half."""
    low = 0.5 * values / max(threshold, 1e-6)
    high = 0.5 + 0.5 * (values - threshold) / max(1 - threshold, 1e-6)
    return np.clip(np.where(values <= threshold, low, high), 0, 1).astype(np.float32)


def fit(name: str, map: Map, records: Sequence[Record]) -> BaselineJudge:
    """Both thresholds from pictures whose truth is known.

    Raises:
        DataError: no edited or no untouched picture among them.
    """
    ious: list[np.ndarray] = []
    statistics: list[list[float]] = []
    labels: list[bool] = []
    for record in records:
        heat = map(load_image(record.image).pixels)
        mask = read_mask(record)
        statistics.append([statistic(heat) for statistic in STATISTICS.values()])
        labels.append(record.manipulated)
        if mask is not None:
            ious.append(iou_at(heat, mask, THRESHOLDS))
    if not ious or all(labels):
        raise DataError("Thresholds need edited and untouched pictures of the val split.")
    pixel = float(THRESHOLDS[int(np.mean(ious, axis=0).argmax())])
    values = np.clip(np.array(statistics), 0, 1)
    aucs = [detection_metrics(column, labels)["auc"] for column in values.T]
    best = int(np.argmax(aucs))
    plain = values[~np.array(labels), best]
    score = float(np.nextafter(np.quantile(plain, 1 - FALSE_ALARMS, method="higher"), 2))
    return BaselineJudge(name, map, pixel, list(STATISTICS)[best], min(score, 1.0))


def iou_at(heat: np.ndarray, mask: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """IoU of {heat > t} with the mask (H, W) of 0 and 1, for each t."""
    if heat.size > 300_000:  # a quarter of a megapixel is enough to choose a threshold
        factor = (250_000 / heat.size) ** 0.5
        size = (round(heat.shape[1] * factor), round(heat.shape[0] * factor))
        heat = cv2.resize(heat, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    inside = np.sort(heat[mask > 0])
    outside = np.sort(heat[mask == 0])
    hits = inside.size - np.searchsorted(inside, thresholds, side="right")
    false = outside.size - np.searchsorted(outside, thresholds, side="right")
    return hits / np.maximum(inside.size + false, 1)
