"""mask_levels.py: what the mask's one threshold costs: overlap and false marks at other thresholds.

    python -m benchmarks.mask_levels DATA

A pixel is marked where its probability exceeds one half, and `forgemap calibrate` shifts the
probabilities until untouched pictures are hardly marked. Here the same heat maps are cut at other
levels: the mean overlap with the edits against the share of untouched area that is marked there, as
saved and after JPEG. The last line, each picture's own best level, nobody can choose without the
truth: it says what the map knows, and how much of that one threshold for all pictures leaves. With
`--model` the folder of another model, its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from forgemap.data.catalog import open_data
from forgemap.data.datasets import load_pair
from forgemap.data.records import Record
from forgemap.detector import Detector
from forgemap.encode import jpeg
from forgemap.errors import DataError, ForgemapError
from forgemap.evaluate.bootstrap import mean_interval
from forgemap.evaluate.image_level import halves
from forgemap.evaluate.markdown import cell, markdown_table
from forgemap.evaluate.metrics import cuts

QUALITIES = (0, 90, 75)
"""As saved, and after JPEG of these qualities."""
SHOWN = (-3.0, -2.0, -1.0, 0.0, 1.0)
"""Levels of the table, in log-odds: 0 is the threshold that ships, -1 marks more."""
LEVELS = np.arange(-7, 7.01, 0.25)
"""Candidates for a picture's own best; what lies lower counts as not found."""


class Cut(NamedTuple):
    """One picture, cut at each of the levels."""

    method: str
    source: str
    marked: np.ndarray  # (levels,) share of its area
    overlap: np.ndarray  # (levels,) IoU with the edit; nan where there is none


def look(detector: Detector, records: Sequence[Record], quality: int) -> list[Cut]:
    """Every picture, saved as JPEG of that quality first; 0: as it is."""
    found = []
    levels = 1 / (1 + np.exp(-LEVELS))
    console = Console(stderr=True)
    for record in track(records, f"JPEG {quality}" if quality else "as saved", console=console):
        pixels, mask = load_pair(record)
        shown = jpeg(pixels, quality) if quality else pixels
        heat = detector.predict(shown).heat
        method = record.method if record.manipulated else ""
        found.append(Cut(method, record.source, *cuts(heat, mask > 127, levels)))
    return found


def table(ways: Sequence[Sequence[Cut]]) -> list[list[str]]:
    """Rows: a level, the mean IoU of edits and the marked area of untouched ones for each way."""
    heads = ["as saved", *(f"JPEG {q}" for q in QUALITIES[1:])]
    lines = [["level (log-odds)", *(f"IoU, {h}" for h in heads), *(f"area, {h}" for h in heads)]]
    for level in SHOWN:
        place = int(np.argmin(np.abs(LEVELS - level)))
        values = [mean([c for c in way if c.method], "overlap", place) for way in ways]
        values += [mean([c for c in way if not c.method], "marked", place) for way in ways]
        lines.append([f"{level:+.0f}" if level else "0 (ships)", *values])
    own = [mean([c for c in way if c.method], "overlap", None) for way in ways]
    lines.append(["each picture's own best", *own, *("" for _ in ways)])
    return lines


def by_method(way: Sequence[Cut]) -> list[list[str]]:
    """Rows: a method, its pictures, the mean IoU at the level that ships and at the own best."""
    place = int(np.argmin(np.abs(LEVELS)))
    lines = [["edit", "pictures", "at the level that ships", "at each picture's own best"]]
    for method in sorted({c.method for c in way if c.method}):
        some = [c for c in way if c.method == method]
        cells = [mean(some, "overlap", place), mean(some, "overlap", None)]
        lines.append([method, str(len(some)), *cells])
    return lines


def mean(some: Sequence[Cut], what: str, place: int | None) -> str:
    """A cell: the mean with its interval by photo, at one level, or (None) at the best of each."""
    rows = np.array([getattr(c, what) for c in some])
    values = rows.max(axis=1) if place is None else rows[:, place]
    return cell(mean_interval(values, [c.source for c in some]), 2 if what == "overlap" else 4)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mask_levels", description=__doc__)
    parser.add_argument("data", help="a manifest of edited and untouched pictures")
    parser.add_argument("--model", default="default")
    parser.add_argument("--split", default=None, choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, help="pictures at most, half of them untouched")
    given = parser.parse_args(arguments)
    try:
        records = halves(open_data(given.data, given.split), given.limit, 0)
        if len({record.manipulated for record in records}) < 2:
            raise DataError(f"{given.data} must hold edited and untouched pictures.")
        detector = Detector.load(given.model, detector=None)
        ways = [look(detector, records, quality) for quality in QUALITIES]
    except ForgemapError as error:
        print(f"benchmarks.mask_levels: {error}", file=sys.stderr)
        return 2
    print(markdown_table(table(ways)), markdown_table(by_method(ways[0])), sep="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
