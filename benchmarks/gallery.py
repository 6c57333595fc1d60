"""gallery.py: where a model fails, to look at: python -m benchmarks.gallery DATA --out worst.png.

The worst pictures of a manifest in three groups: edits that it misses (lowest IoU), untouched
pictures that it suspects most, and edits that it calls but marks in the wrong place. Each is a row
of picture, truth and heat map. Without --out the list is printed alone.

What is published must be free: `python -m benchmarks.foreign --out foreign` without PHOTOS makes
edits of photographs that come with libraries.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from forgemap.data.catalog import open_data
from forgemap.data.datasets import load_pair
from forgemap.data.records import Record
from forgemap.detector import Detector
from forgemap.drawing import overlay, shrink, to_levels
from forgemap.errors import ForgemapError
from forgemap.evaluate.metrics import iou

SIDE, GAP, LINE = 300, 8, 22
"""In pixels: longest side of a picture, space between, height of a caption."""


class Case(NamedTuple):
    """One picture and what the model says of it."""

    record: Record
    verdict: str
    score: float
    overlap: float
    marked: float

    @property
    def caption(self) -> str:
        what = (
            f"{self.record.method}, IoU {self.overlap:.2f}"
            if self.record.manipulated
            else "untouched"
        )
        name = Path(self.record.source).stem
        if self.record.benign:
            name += f", {self.record.benign}"
        said = f"{self.verdict}, score {self.score:.2f}, {self.marked:.1%} marked"
        return f"{name}: {what}; {said}"


def judge(detector: Detector, record: Record) -> tuple[Case, list[np.ndarray]]:
    """The case, and its picture, truth and heat map, (H, W, 3) uint8 each."""
    pixels, mask = load_pair(record)
    report = detector.analyze(record.image)
    assert report.heat is not None and report.verdict is not None and report.score is not None
    marked = report.heat >= detector.decision.mask_threshold
    overlap = float(iou(report.heat, mask > 0)) if record.manipulated else float("nan")
    case = Case(record, report.verdict, report.score, overlap, float(marked.mean()))
    truth = np.repeat(mask[..., None], 3, axis=2)
    return case, [shrink(p, SIDE) for p in (pixels, truth, overlay(pixels, to_levels(report.heat)))]


def groups(cases: Sequence[Case], count: int) -> dict[str, list[Case]]:
    """The worst of each kind, at most one of each photograph."""
    edited = [c for c in cases if c.record.manipulated]
    missed = sorted(edited, key=lambda c: (c.overlap, c.score))
    alarms = sorted(
        (c for c in cases if not c.record.manipulated), key=lambda c: (-c.score, -c.marked)
    )
    beside = sorted(
        (c for c in edited if c.verdict == "manipulated"), key=lambda c: (c.overlap, -c.marked)
    )
    found = {
        "Missed": missed,
        "Untouched, most suspected": alarms,
        "Called, but marked in the wrong place": beside,
    }
    return {title: different(some, count) for title, some in found.items()}


def different(cases: Sequence[Case], count: int) -> list[Case]:
    """The first `count` of different photographs."""
    chosen: dict[str, Case] = {}
    for case in cases:
        chosen.setdefault(case.record.source, case)
    return list(chosen.values())[:count]


def sheet(found: dict[str, list[Case]], views: dict[Path, list[np.ndarray]]) -> Pillow.Image:
    """All groups on one page: a caption over three pictures for each case."""
    rows: list[tuple[str, list[np.ndarray]]] = []
    for title, cases in found.items():
        rows.append((title, []))
        rows += [(case.caption, views[case.record.image]) for case in cases]
    heights = [LINE + max([p.shape[0] for p in pictures], default=0) + GAP for _, pictures in rows]
    page = Pillow.new("RGB", (3 * (SIDE + GAP) + GAP, sum(heights) + GAP), "white")
    draw, top = ImageDraw.Draw(page), GAP
    for (text, pictures), height in zip(rows, heights, strict=True):
        draw.text((GAP, top), text, "black", ImageFont.load_default(13 if pictures else 18))
        for i, picture in enumerate(pictures):
            page.paste(Pillow.fromarray(picture), (GAP + i * (SIDE + GAP), top + LINE))
        top += height
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    parser.add_argument("data", help="manifest or folder with the pictures")
    parser.add_argument("--model", default="default")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--count", type=int, default=3, help="pictures of each group [3]")
    parser.add_argument("--out", type=Path, help="picture to write, .png or .jpg")
    given = parser.parse_args(arguments)
    try:
        detector = Detector.load(given.model, detector=None)
        cases, views = [], {}
        for record in open_data(given.data, given.split):
            case, pictures = judge(detector, record)
            cases.append(case)
            views[record.image] = pictures
    except ForgemapError as error:
        print(f"benchmarks.gallery: {error}", file=sys.stderr)
        return 2
    found = groups(cases, given.count)
    for title, some in found.items():
        print(title, *(f"  {case.caption}" for case in some), sep="\n")
    if given.out:
        sheet(found, views).save(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
