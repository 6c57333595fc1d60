"""copies.py: how well regions that occur twice are found: python -m benchmarks.copies DATA...

    forgemap synth PHOTOS --crop 512 --methods copy_move,inpaint_exemplar --untouched --vary \\
        --benign 0.6 --per-photo 2 --split train --seed 313 --out copies
    python -m benchmarks.copies copies --split train --fit      # the numbers of forgemap.copies
    python -m benchmarks.copies VAL --split val                 # what they find elsewhere

A find is right where one of its ends lies in the edited region and the other does not. Finds in
untouched photographs are what real windows, tiles and zebras look like.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from forgemap.copies import find_copies
from forgemap.copies.finder import WEIGHTS, candidates
from forgemap.copies.finder import strength as strength_of
from forgemap.copies.telling import places, suspicion
from forgemap.data.catalog import open_data
from forgemap.data.datasets import load_labelled
from forgemap.data.records import Record
from forgemap.detector import Detector
from forgemap.encode import jpeg
from forgemap.errors import DataError, ForgemapError
from forgemap.evaluate.bootstrap import mean_interval
from forgemap.evaluate.image_level import halves
from forgemap.evaluate.markdown import cell, markdown_table

from .timing import share_of_network

METHODS = ("copy_move", "inpaint_exemplar")
"""Edits that put a part of the picture elsewhere in it."""
QUALITIES = (0, 90, 75)
"""JPEG; 0: as saved."""
STRENGTHS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)


class Seen(NamedTuple):
    """The finds of one picture."""

    method: str
    """Of `METHODS`; empty: untouched."""
    source: str
    features: list[dict[str, float]]
    right: list[bool]


def look(record: Record, quality: int) -> Seen:
    """Search one picture, saved again with a JPEG quality unless it is 0."""
    image, mask = load_labelled(record)
    pixels = jpeg(image.samples, quality) if quality else image.samples
    search = candidates(pixels)
    right = []
    for moved, _ in search.pairs:
        inside = [_share(mask, points / search.factor) for points in (moved.places, moved.likes)]
        right.append(max(inside) > 0.7 and min(inside) < 0.3)
    method = record.method if record.manipulated else ""
    return Seen(method, record.source, [like.features() for _, like in search.pairs], right)


def _share(mask: np.ndarray, points: np.ndarray) -> float:
    """Of points (n, 2) that lie in the mask."""
    columns, rows = np.clip(np.rint(points).astype(int), 0, np.array(mask.shape[::-1]) - 1).T
    return float(np.mean(mask[rows, columns] > 0))


def fit(seen: Sequence[Seen]) -> tuple[dict[str, float], float]:
    """Logistic regression of right finds against those of untouched pictures, as one to one."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    kept = [
        (features, right)
        for one in seen
        for features, right in zip(one.features, one.right, strict=True)
        if right or not one.method
    ]
    table = np.array([[features[name] for name in WEIGHTS] for features, _ in kept])
    labels = np.array([right for _, right in kept])
    if labels.all() or not labels.any():
        raise DataError("There must be finds in edited and in untouched pictures.")
    scaler = StandardScaler().fit(table)
    regression = LogisticRegression(class_weight="balanced", max_iter=3000)
    regression.fit(scaler.transform(table), labels)
    weights = regression.coef_[0] / scaler.scale_
    bias = regression.intercept_[0] - weights @ scaler.mean_
    return dict(zip(WEIGHTS, np.round(weights, 3).tolist(), strict=True)), round(float(bias), 3)


def direction(detector: Detector, records: Sequence[Record]) -> tuple[float, list[str]]:
    """How much the network's log-odds say which end is the copy: a regression without a constant
    on right finds, and in words how often their sign is right."""
    from sklearn.linear_model import LogisticRegression

    ends: list[tuple[int, str, float, bool]] = []
    for record in (r for r in records if r.manipulated):
        image, mask = load_labelled(record)
        for quality in QUALITIES:
            pixels = jpeg(image.samples, quality) if quality else image.samples
            copies = find_copies(pixels)
            if not copies.found:
                continue
            heat = detector.predict(pixels).heat
            for found in copies.found:
                here, there = places(copies, found, mask.shape)
                inside = [bool(np.mean(mask[m > 0]) > 0.5) for m in (here, there) if m.any()]
                if set(inside) == {True, False}:
                    ends.append((quality, record.source, suspicion(heat, here, there), inside[1]))
    later = np.array([is_copy for *_, is_copy in ends])
    if len(set(later)) < 2:
        raise DataError("There are too few right finds to tell a copy from its origin.")
    more = np.array([suspected for _, _, suspected, _ in ends])
    right = []
    for quality in QUALITIES:
        some = np.array([q == quality for q, *_ in ends])
        hits = np.equal(more > 0, later)[some].astype(float)
        share = cell(mean_interval(hits, np.array([source for _, source, *_ in ends])[some]), 2)
        right.append(f"{share} of {some.sum()} ({f'JPEG {quality}' if quality else 'as saved'})")
    regression = LogisticRegression(fit_intercept=False).fit(more[:, None], later)
    return round(float(regression.coef_[0, 0]), 2), right


def cost(detector: Detector, records: Sequence[Record], number: int = 10) -> str:
    """CPU time of a search, of the network's for the same picture, on one thread."""
    pictures = [load_labelled(record)[0] for record in records[:number]]
    return share_of_network(detector, pictures, lambda image: find_copies(image.samples))


def table(ways: Sequence[Sequence[Seen]]) -> list[list[str]]:
    """Rows: a strength, and the share of pictures with a find as strong: of each method a right
    one, of the untouched any; for each way of saving."""
    heads = [f"{m or 'untouched'}, {f'JPEG {q}' if q else 'as saved'}" for m, q in _columns()]
    lines = [["strength", *heads]]
    for least in STRENGTHS:
        cells = []
        for method, quality in _columns():
            some = [one for one in ways[QUALITIES.index(quality)] if one.method == method]
            hits = [
                any(
                    strength_of(features) >= max(least, 1e-9) and (right or not method)
                    for features, right in zip(one.features, one.right, strict=True)
                )
                for one in some
            ]
            shares = mean_interval(np.array(hits, float), [one.source for one in some])
            cells.append(cell(shares, 2))
        lines.append([f"{least:.0f}" if least else "above 0", *cells])
    return lines


def _columns() -> list[tuple[str, int]]:
    return [(method, quality) for method in (*METHODS, "") for quality in QUALITIES]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copies", description=__doc__)
    parser.add_argument("data", nargs="+", help="manifests of edited and untouched pictures")
    parser.add_argument("--split", default=None, choices=("train", "val", "test"))
    parser.add_argument("--fit", action="store_true", help="print the regression's numbers too")
    parser.add_argument("--model", default="default", help="whose maps tell a copy from its origin")
    parser.add_argument("--limit", type=int, help="pictures at most, half of them untouched")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args(arguments)
    try:
        records = [r for data in given.data for r in open_data(data, given.split)]
        records = [r for r in records if not r.manipulated or r.method in METHODS]
        records = halves(records, given.limit, 0)
        if {r.method for r in records if r.manipulated} != set(METHODS):
            raise DataError(f"{given.data[0]} must hold edits by {' and by '.join(METHODS)}.")
        if all(r.manipulated for r in records):
            raise DataError(f"{given.data[0]} must hold untouched pictures too: --untouched.")
        with ProcessPoolExecutor(given.workers) as pool:
            ways = [list(pool.map(partial(look, quality=q), records)) for q in QUALITIES]
        if given.fit:
            weights, bias = fit([one for way in ways for one in way])
            print(f"BIAS = {bias}\nWEIGHTS = {weights}\n", flush=True)
            detector = Detector.load(given.model, detector=None)
            print(f"A search takes {cost(detector, records)} of the network's time.", flush=True)
            weight, right = direction(detector, records)
            print(f"DIRECTION = {weight}; the sign is right in {', '.join(right)}\n")
    except ForgemapError as error:
        print(f"benchmarks.copies: {error}", file=sys.stderr)
        return 2
    print(markdown_table(table(ways)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
