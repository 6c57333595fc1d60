"""recompression.py: what a JPEG's blocks add to the network: python -m benchmarks.recompression.

    python -m benchmarks.recompression PHOTOS... --split val --first first
    forgemap synth first --untouched --methods splice,copy_move,heal --out edited
    python -m benchmarks.recompression edited            # with the blocks and without
    python -m benchmarks.recompression edited --fit      # the weights of forgemap.recompression

Pictures that were JPEGs, were edited and are JPEGs again on the same grid: parts of photographs are
saved at a quality of 60 to 96, edited by synth without a crop, which would cut the first grid off,
and saved at 70 to 98. Three in four untouched ones are processed in between, honestly. Whether the
last quality is the higher one decides what can be seen, so there are two groups.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from forgemap.data.catalog import open_data
from forgemap.data.datasets import load_labelled
from forgemap.data.records import Record
from forgemap.detector import Detector
from forgemap.encode import SUBSAMPLING, encode_jpeg
from forgemap.errors import DataError, ForgemapError
from forgemap.evaluate.bootstrap import Interval, intervals, mean_interval
from forgemap.evaluate.calibration_pictures import photos_of
from forgemap.evaluate.markdown import cell, markdown_table
from forgemap.evaluate.metrics import detection_metrics
from forgemap.image import Image, load_image
from forgemap.recompression import find_later
from forgemap.recompression.later import BLOCK, KNOWN, WEIGHTS, block_odds, box_mean
from forgemap.synth.benign import process
from forgemap.tiling import localize

from .timing import share_of_network

OVERLAYS = ("logo", "text", "watermark", "frame")
"""Honest, and added after the first compression."""
KINDS = ("", "", "", *OVERLAYS, "portrait", "dodge", "tone", "sharpen", "grain")
"""Of honest processing that is drawn; empty: none."""
HIGHER = 4
"""By which the last quality is the higher one."""
SIDES = (384, 512, 640)
"""Pixels of the squares that are taken of photographs, at most ..."""
LARGE = 700
"""... after those with a longer side are reduced, so that the first compression is the first."""


def first(photos: Sequence[str], split: str | None, out: Path, seed: int) -> int:
    """Write parts of photographs as JPEGs of any quality; how many there are."""
    out.mkdir(parents=True, exist_ok=True)
    rng, number = np.random.default_rng(seed), 0
    for path in track(photos_of(photos, split), "photos", console=Console(stderr=True)):
        whole = load_image(path).samples
        large = max(whole.shape[:2]) >= LARGE
        for _ in range(3 if large else 1):
            scale = 1 / rng.uniform(1.2, 2.5) if large else 1.0
            part = cv2.resize(whole, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            side = int(rng.choice(SIDES))
            top, left = (int(rng.integers(max(1, n - side + 1))) for n in part.shape[:2])
            part = part[top : top + side, left : left + side]
            data = encode_jpeg(part, int(rng.integers(60, 97)), str(rng.choice([*SUBSAMPLING])))
            (out / f"{number:05d}.jpg").write_bytes(data)
            number += 1
    return number


class Picture(NamedTuple):
    """One that was saved twice."""

    image: Image
    mask: np.ndarray  # (H, W), nonzero where edited
    source: str
    kind: str  # of `KINDS`
    higher: bool  # the last quality, than the first


def again(records: Sequence[Record], seed: int) -> Iterator[Picture]:
    """Every picture saved for the last time."""
    for number, record in enumerate(track(records, "pictures", console=Console(stderr=True))):
        rng = np.random.default_rng([seed, number])
        image, mask = load_labelled(record)
        pixels, kind = image.samples, ""
        if not record.manipulated:
            kind = str(rng.choice(KINDS))
            pixels = process(kind, pixels, rng).pixels if kind else pixels
        last = int(rng.integers(70, 99))
        shown = load_image(encode_jpeg(pixels, last, str(rng.choice([*SUBSAMPLING]))))
        before = load_image(record.source).jpeg_quality
        if before is None:
            raise DataError(f"{record.source} is no JPEG: make the photographs with --first.")
        yield Picture(shown, mask, record.source, kind, last >= before + HIGHER)


class Judged(NamedTuple):
    """What was said of one picture, without the blocks and with them."""

    edited: bool
    source: str
    kind: str
    higher: bool
    score: tuple[float, float]
    accused: tuple[bool, bool]
    marked: tuple[float, float]  # IoU with the edit; of untouched ones the share of the area


def judge(detectors: Sequence[Detector], picture: Picture) -> Judged:
    """Both say what they say."""
    seen = detectors[0].predict(picture.image.samples)
    reports = [d.judge(picture.image, seen) for d in detectors]
    edit, marked = picture.mask > 0, []
    for report in reports:
        assert report.heat is not None
        mask = report.heat > 0.5
        shared = (mask & edit).sum() / max(1, (mask | edit).sum())
        marked.append(float(shared if edit.any() else mask.mean()))
    return Judged(
        bool(edit.any()),
        picture.source,
        picture.kind,
        picture.higher,
        (float(reports[0].score or 0), float(reports[1].score or 0)),
        (reports[0].verdict == "manipulated", reports[1].verdict == "manipulated"),
        (marked[0], marked[1]),
    )


def table(judged: Sequence[Judged]) -> list[list[str]]:
    """Rows: a group and a figure; without the blocks and with them."""
    lines = [["last quality", "", "pictures", "network", "with blocks"]]
    for higher in (True, False):
        group = [one for one in judged if one.higher is higher]
        name = f"higher by {HIGHER} or more" if higher else "else"
        edited = [one for one in group if one.edited]
        plain = [one for one in group if not one.edited]
        overlaid = [one for one in plain if one.kind in OVERLAYS]
        if not edited or not plain:
            continue
        cells = [cell(_auc(group, way), 2) for way in (0, 1)]
        lines.append([name, "AUC of the score", str(len(group)), *cells])
        for what, some, field, digits in (
            ("edited, judged manipulated", edited, "accused", 2),
            ("edited, IoU", edited, "marked", 2),
            ("untouched, judged manipulated", plain, "accused", 3),
            ("untouched, area marked", plain, "marked", 4),
            ("overlaid, judged manipulated", overlaid, "accused", 3),
            ("overlaid, area marked", overlaid, "marked", 4),
        ):
            columns = np.array([getattr(one, field) for one in some], float).reshape(-1, 2).T
            photos = [one.source for one in some]
            cells = [cell(mean_interval(column, photos), digits) for column in columns]
            lines.append([name, what, str(len(some)), *cells])
    return lines


def _auc(group: Sequence[Judged], way: int) -> Interval:
    edited, scores = (
        np.array(v) for v in zip(*((g.edited, g.score[way]) for g in group), strict=True)
    )

    def statistics(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"auc": detection_metrics(scores, edited, weights=weights)["auc"]}

    return intervals(statistics, [one.source for one in group])["auc"]


def fit(detector: Detector, pictures: Iterator[Picture]) -> dict[int, float]:
    """Logistic regression of edited blocks against others, on the network's logits and the means
    of the blocks' odds; every picture weighs the same, whose blocks know a first compression."""
    from sklearn.linear_model import LogisticRegression

    tables, truths, weights = [], [], []
    for picture in pictures:
        odds = block_odds(picture.image)
        if odds is None or np.median(odds) >= KNOWN:
            continue
        height, width = odds.shape
        logits = localize(detector.model, picture.image.samples, device=detector.device).mask
        shares = _by_block((picture.mask > 0).astype(float), height, width)
        clear = (shares < 0.1) | (shares > 0.9)
        columns = [_by_block(logits, height, width), *(box_mean(odds, side) for side in WEIGHTS)]
        tables.append(np.column_stack([column[clear] for column in columns]))
        truths.append(shares[clear] > 0.5)
        weights.append(np.full(clear.sum(), 1 / max(1, clear.sum())))
    truth = np.concatenate(truths) if truths else np.zeros(0, bool)
    if truth.all() or not truth.any():
        raise DataError("There must be edited and untouched blocks that know a first compression.")
    weight = np.concatenate(weights)
    regression = LogisticRegression(max_iter=1000)
    regression.fit(np.concatenate(tables), truth, weight * len(weight) / weight.sum())
    of_logits, *of_means = regression.coef_[0]
    return {side: round(float(w / of_logits), 2) for side, w in zip(WEIGHTS, of_means, strict=True)}


def _by_block(values: np.ndarray, height: int, width: int) -> np.ndarray:
    whole = values[: height * BLOCK, : width * BLOCK]
    return np.asarray(whole.reshape(height, BLOCK, width, BLOCK).mean((1, 3)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recompression", description=__doc__)
    parser.add_argument("data", nargs="+", help="photographs, with --first; else a manifest")
    parser.add_argument("--first", type=Path, help="write parts of photographs here, as JPEGs")
    parser.add_argument("--split", default=None, choices=("train", "val", "test"))
    parser.add_argument("--fit", action="store_true", help="print the weights")
    parser.add_argument("--model", default="default")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        if given.first is not None:
            number = first(given.data, given.split, given.first, given.seed)
            print(f"Wrote {number} JPEGs to {given.first}.")
            return 0
        records = [r for data in given.data for r in open_data(data, given.split)]
        detector = Detector.load(given.model, detector=None)
        if given.fit:
            print(f"WEIGHTS = {fit(detector, again(records, given.seed))}")
            return 0
        both = [Detector.load(given.model, detector=None) for _ in range(2)]
        for one, asked in zip(both, (False, True), strict=True):
            one.decision = replace(one.decision, recompression=asked)
        judged = [judge(both, picture) for picture in again(records, given.seed)]
        shown = [load_image(r.image).samples for r in records[:8]]
        saved = [load_image(encode_jpeg(pixels, 90)) for pixels in shown]
        took = share_of_network(detector, saved, find_later)
    except ForgemapError as error:
        print(f"benchmarks.recompression: {error}", file=sys.stderr)
        return 2
    print(markdown_table(table(judged)))
    print(f"\nThe blocks take {took} of the network's time.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
