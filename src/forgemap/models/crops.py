"""crops.py: which crops of a picture an embedder sees, and how their scores become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..errors import ModelError


class Cut(NamedTuple):
    """The crops of one picture."""

    views: list[np.ndarray]
    """Each (side, side, 3) uint8."""
    notes: tuple[str, ...]
    """What had to be done for it: whether the picture was padded."""


def cut(pixels: np.ndarray, side: int, crops: str = "centre") -> Cut:
    """Cut squares of ``side`` pixels out of a picture (H, W, 3), never resizing it.

    A picture that is smaller in a dimension is padded with black to the side, evenly (the odd pixel
    right and below), as the published code does it; a note says so.
    """
    if crops not in CROPS:
        raise ModelError(f"unknown crops {crops!r}; valid: {', '.join(CROPS)}.")
    height, width = pixels.shape[:2]
    notes: tuple[str, ...] = ()
    if height < side or width < side:
        notes = (f"smaller than {side} x {side}: padded with black",)
        down, right = max(0, side - height), max(0, side - width)
        borders = ((down // 2, down - down // 2), (right // 2, right - right // 2), (0, 0))
        pixels = np.pad(pixels, borders)
        height, width = pixels.shape[:2]
    corners = CROPS[crops](height - side, width - side, side)
    views = [np.ascontiguousarray(pixels[y : y + side, x : x + side]) for y, x in corners]
    return Cut(views, notes)


Corners = list[tuple[int, int]]


def centre(down: int, right: int, side: int) -> Corners:
    """The middle."""
    return [(round(down / 2), round(right / 2))]  # half a pixel to the even side, as published


def five(down: int, right: int, side: int) -> Corners:
    """The middle and the four corners."""
    return [*centre(down, right, side), (0, 0), (0, right), (down, 0), (down, right)]


def grid(down: int, right: int, side: int) -> Corners:
    """As few as cover the picture, evenly spread, at most 5 x 5."""

    def places(room: int) -> list[int]:
        number = min(5, -(-room // side) + 1)
        return [round(place) for place in np.linspace(room / 2 if number == 1 else 0, room, number)]

    return [(y, x) for y in places(down) for x in places(right)]


#: Where crops lie: the top left corners (y, x), given the room below and to the right.
CROPS: dict[str, Callable[[int, int, int], Corners]] = {
    "centre": centre,
    "five": five,
    "grid": grid,
}

Scorer = Callable[[np.ndarray], np.ndarray]

#: How the crops of a picture give one score: (embeddings (V, D), scorer of embeddings) -> score.
AGGREGATIONS: dict[str, Callable[[np.ndarray, Scorer], float]] = {
    "mean-embedding": lambda embeddings, score: float(score(embeddings.mean(axis=0)[None])[0]),
    "mean-score": lambda embeddings, score: float(np.mean(score(embeddings))),
    "median-score": lambda embeddings, score: float(np.median(score(embeddings))),
    "max-score": lambda embeddings, score: float(np.max(score(embeddings))),
}


def aggregate(embeddings: np.ndarray, score: Scorer, how: str = "mean-score") -> float:
    """One score in [0, 1] of a picture's crops.

    Args:
        embeddings: (V, D), see `Embedder.embed`.
        score: embeddings (N, D) -> scores (N,), such as a classifier's ``scores``.
        how: a key of `AGGREGATIONS`. With one crop all of them are the same.
    """
    if how not in AGGREGATIONS:
        raise ModelError(f"unknown aggregation {how!r}; valid: {', '.join(AGGREGATIONS)}.")
    return AGGREGATIONS[how](np.asarray(embeddings, np.float32), score)
