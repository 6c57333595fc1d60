"""bench_metrics.py: pixel metrics of four pictures, ours (one sort) against literal (one each).

The maps are hard: noise of two scales, so that edited and untouched pixels overlap at every
threshold and no shortcut helps. The edits cover 1, 5, 15 and 40 % of the area.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.literal_metrics import with_sklearn, with_torch
from benchmarks.timing import Case
from forgemap.evaluate.metrics import localization_metrics

TARGETS = {256: 20.0, 1024: 25.0}  # against the published form; the other one is for comparison
LITERAL = {"torch, as published": with_torch, "scikit-learn": with_sklearn}


def cases(quick: bool) -> list[Case]:
    """One case per size and literal form; quick: only 256 x 256 against the published one."""
    if quick:
        return [_case(256, "torch, as published", with_torch)]
    return [_case(size, name, literal) for size in TARGETS for name, literal in LITERAL.items()]


def _case(
    size: int, name: str, literal: Callable[[np.ndarray, np.ndarray], dict[str, float]]
) -> Case:
    pictures = [_picture(size, share, seed) for seed, share in enumerate((0.01, 0.05, 0.15, 0.4))]

    def check() -> None:
        for picture in pictures:
            ours = localization_metrics(*picture)
            for key, value in literal(*picture).items():
                if abs(ours[key] - value) > 1e-5:
                    raise AssertionError(f"{key}: {ours[key]} here, {value} in the literal form")

    return Case(
        f"metrics {size}x{size} / {name}",
        lambda: [localization_metrics(*picture) for picture in pictures],
        lambda: [literal(*picture) for picture in pictures],
        check,
        TARGETS[size] if literal is with_torch else None,
        rounds=None if size < 1024 else 3,
    )


def _picture(size: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A probability map (size, size) float32 and a mask: an ellipse of that share of the area."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), np.uint8)
    axis = size * (share / np.pi) ** 0.5
    cv2.ellipse(
        mask, (size // 2, size // 2), (round(axis * 1.25), round(axis / 1.25)), 20, 0, 360, 1, -1
    )
    coarse = cv2.GaussianBlur(rng.normal(size=mask.shape), (0, 0), size / 32)
    logits = 2 * mask - 1.5 + coarse / coarse.std() + rng.normal(size=mask.shape)
    return (1 / (1 + np.exp(-logits))).astype(np.float32), mask
