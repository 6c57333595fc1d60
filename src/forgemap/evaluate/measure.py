"""measure.py: one picture in its variants, judged and compared with its truth: a table's rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import numpy as np

from ..data.records import Record
from ..errors import DataError, ForgemapError
from ..image import load_image
from ..report import Report
from .metrics import localization_metrics
from .pictures import misfit, read_mask
from .results import PIXEL, Row
from .robustness import AS_IS, Variant, follow

THRESHOLD = 0.5  # of a pixel's probability, in every table


class Judge(Protocol):
    """What is evaluated: `forgemap.detector.Detector`, or anything that answers like it."""

    @property
    def name(self) -> str:
        """Identifies the model in the results."""

    def analyze(self, source: Any, *, max_pixels: int) -> Report:
        """Judge a loaded Image, an array or the bytes of a file; `heat` must be filled."""


@dataclass(frozen=True)
class Settings:
    """What is the same for every picture of a run."""

    seed: int
    max_pixels: int


class Task(NamedTuple):
    """One picture and the variants of it that are still to be measured."""

    record: Record
    name: str
    """Of the picture in the results: its path relative to the data set."""
    chosen: tuple[Variant, ...]


def measure(judge: Judge, task: Task, settings: Settings) -> list[Row]:
    """One row per variant of one picture. Whatever goes wrong is a row with its `error`.

    A row: image (relative to the data set), variant, method, manipulated, source, folder (of the
    source), benign (see `Record`), split; then, None where they do not apply or are undefined:
    error, width, height, score, verdict, flagged (share of the area above 0.5), seconds, and for a
    manipulated picture the values of `localization_metrics`.
    """
    record = task.record
    fixed: Row = {
        "image": task.name,
        "method": record.method,
        "manipulated": record.manipulated,
        "source": record.source,
        "folder": Path(record.source).parent.name or ".",
        "benign": record.benign,
        "split": record.split,
        **EMPTY,
    }
    try:
        image = load_image(record.image, max_pixels=settings.max_pixels)
        mask = read_mask(record)
        if mask is not None and mask.shape != image.pixels.shape[:2]:
            raise DataError(misfit(record, mask.shape[::-1], image.pixels.shape[1::-1]))
    except Exception as error:  # one broken file must not end the run: it is counted and shown
        trouble = _sentence(record, error)
        return [{**fixed, "variant": v.name, "error": trouble} for v in task.chosen]
    rows = []
    for variant in task.chosen:
        begin = time.monotonic()
        row = {**fixed, "variant": variant.name}
        try:
            seed = [settings.seed, crc32(f"{task.name} {variant.name}".encode())]
            rng = np.random.default_rng(seed)
            changed, moved = variant.apply_to(image.samples, mask, rng)
            source = image if variant == AS_IS else changed
            row |= _values(judge.analyze(source, max_pixels=4 * settings.max_pixels), moved)
        except Exception as error:
            row["error"] = _sentence(record, error)
        rows.append({**row, "seconds": round(time.monotonic() - begin, 4)})
    return rows


EMPTY: Row = dict.fromkeys(
    ("error", "width", "height", "score", "verdict", "flagged", "seconds", *PIXEL)
)


def _values(report: Report, mask: np.ndarray | None) -> Row:
    """The part of a row that comes from the report."""
    if report.error is not None or report.heat is None or report.score is None:
        raise DataError(report.error or "the detector gave no score or no probability map")
    height, width = report.heat.shape
    metrics: dict[str, float] = {}
    if mask is not None:
        metrics = localization_metrics(report.heat, follow(mask, (height, width)), THRESHOLD)
    return {
        "width": width,
        "height": height,
        "score": float(report.score),
        "verdict": report.verdict,
        "flagged": float(np.mean(report.heat > THRESHOLD)),
        **{name: None if np.isnan(value) else value for name, value in metrics.items()},
    }


def _sentence(record: Record, error: Exception) -> str:
    text = str(error) if isinstance(error, ForgemapError) else f"{type(error).__name__}: {error}"
    return text if record.image.name in text else f"{record.image}: {text}"
