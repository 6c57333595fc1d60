"""copies.py: how well regions that occur twice are found: python -m benchmarks.copies DATA...

    forgemap synth PHOTOS --crop 512 --methods copy_move,inpaint_exemplar --untouched --vary \\
        --benign 0.6 --per-photo 2 --split train --seed 313 --out copies
    python -m benchmarks.copies copies --split train --fit      # the numbers of forgemap.copies
    python -m benchmarks.copies VAL --split val                 # what they find elsewhere

A find is right where one of its ends lies in the edited region and the other does not. Finds in
untouched photographs are what real windows, tiles and zebras look like. Print and what is symmetric
count for nothing, here as in `forgemap.copies`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np

from forgemap.copies import find_copies
from forgemap.copies.finder import WEIGHTS, Found, Search, candidates, printed, surest, symmetric
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
    """What occurs twice in one picture."""

    method: str
    """Of `METHODS`; empty: untouched."""
    source: str
    pairs: list[tuple[dict[str, float], bool]]
    """Features of what might be a copy, and whether it is: what a regression learns from."""
    finds: list[tuple[float, bool]]
    """Strength of what `forgemap.copies` finds, and whether it is right."""


def look(record: Record, quality: int) -> Seen:
    """Search one picture, saved again with a JPEG quality unless it is 0."""
    image, mask = load_labelled(record)
    search = candidates(jpeg(image.samples, quality) if quality else image.samples)
    pairs = []
    for moved, like in search.pairs:
        one, features = Found(0.0, moved, like), like.features()
        if not printed(features) and not symmetric(*one.masks(search.shape)):
            pairs.append((features, _right(one, mask, search)))
    finds = [(one.strength, _right(one, mask, search)) for one in surest(search).found]
    return Seen(record.method if record.manipulated else "", record.source, pairs, finds)


def _right(found: Found, mask: np.ndarray, search: Search) -> bool:
    """Is one end in the mask (H, W) of what was edited, the other outside?"""
    ends = (found.moved.places, found.moved.likes)
    inside = [_share(mask, points / search.factor) for points in ends]
    return max(inside) > 0.7 and min(inside) < 0.3


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
        for features, right in one.pairs
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


class End(NamedTuple):
    """A right find whose one end is the copy."""

    quality: int
    source: str
    suspicion: float
    """By how much more the network suspects the second end; see `suspicion`."""
    second: bool
    """Is that the copy?"""


def ends(record: Record, model: str) -> list[End]:
    """The right finds of an edited picture, in each way of saving it."""
    image, mask = load_labelled(record)
    told = []
    for quality in QUALITIES:
        pixels = jpeg(image.samples, quality) if quality else image.samples
        copies = find_copies(pixels)
        if not copies.found:
            continue
        heat = _detector(model).predict(pixels).heat
        for found in copies.found:
            here, there = places(copies, found, mask.shape)
            inside = [bool(np.mean(mask[m > 0]) > 0.5) for m in (here, there) if m.any()]
            if set(inside) == {True, False}:
                more = suspicion(heat, here, there)
                told.append(End(quality, record.source, more, inside[1]))
    return told


@cache
def _detector(model: str) -> Detector:
    return Detector.load(model, detector=None)


def direction(told: Sequence[End]) -> tuple[float, list[str]]:
    """How much the network's log-odds say which end is the copy: a regression without a constant
    on right finds, and in words how often their sign is right."""
    from sklearn.linear_model import LogisticRegression

    second = np.array([end.second for end in told])
    if len(set(second)) < 2:
        raise DataError("There are too few right finds to tell a copy from its origin.")
    right = []
    for quality in QUALITIES:
        some = [end for end in told if end.quality == quality]
        hits = np.array([(end.suspicion > 0) == end.second for end in some], float)
        share = cell(mean_interval(hits, [end.source for end in some]), 2)
        right.append(f"{share} of {len(some)} ({f'JPEG {quality}' if quality else 'as saved'})")
    more = np.array([[end.suspicion] for end in told])
    regression = LogisticRegression(fit_intercept=False).fit(more, second)
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
                any(strength >= least and (right or not method) for strength, right in one.finds)
                for one in some
            ]
            shares = mean_interval(np.array(hits, float), [one.source for one in some])
            cells.append(cell(shares, 2))
        lines.append([f"{least:.0f}" if least else "above 0", *cells])
    return lines


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map`, in processes if there are to be several."""
    if workers == 1:
        yield map
    else:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            yield pool.map


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
        with _mapping(given.workers) as run:
            ways = [list(run(partial(look, quality=q), records)) for q in QUALITIES]
            if given.fit:
                weights, bias = fit([one for way in ways for one in way])
                print(f"BIAS = {bias}\nWEIGHTS = {weights}\n", flush=True)
                edited = [record for record in records if record.manipulated]
                told = run(partial(ends, model=given.model), edited)
                weight, right = direction([end for some in told for end in some])
                print(f"DIRECTION = {weight}; the sign is right in {', '.join(right)}\n")
                detector = Detector.load(given.model, detector=None)
                print(f"A search takes {cost(detector, records)} of the network's time.\n")
    except ForgemapError as error:
        print(f"benchmarks.copies: {error}", file=sys.stderr)
        return 2
    print(markdown_table(table(ways)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
