"""generated_baselines.py: what an embedder has to beat: a linear probe on the spectrum, and the
default localizer's score of the picture.

python -m benchmarks.generated_baselines TRAIN... --test TEST... [--leave-out GENERATOR]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from forgemap.data.generated import REAL, Labelled, read_generated
from forgemap.image import load_image

BLOCK = 32


def spectrum(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 -> the mean log power spectrum of its blocks (544,).

    Half-overlapping blocks of 32 x 32 of the luminance, each under a Hann window; after Durall et
    al., "Watch your up-convolution" (CVPR 2020), with both axes kept instead of rings.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    down, right = (max(0, BLOCK - side) for side in grey.shape)
    grey = np.pad(
        grey, ((0, down), (0, right)), mode="reflect" if min(grey.shape) > BLOCK else "edge"
    )
    blocks = np.lib.stride_tricks.sliding_window_view(grey, (BLOCK, BLOCK))[
        :: BLOCK // 2, :: BLOCK // 2
    ]
    blocks = blocks.reshape(-1, BLOCK, BLOCK)
    window = np.outer(np.hanning(BLOCK), np.hanning(BLOCK)).astype(np.float32)
    power = np.abs(np.fft.rfft2((blocks - blocks.mean((1, 2), keepdims=True)) * window)) ** 2
    return np.log(power + 1).mean(axis=0).ravel().astype(np.float32)


def features(pictures: Sequence[Labelled]) -> np.ndarray:
    cv2.setNumThreads(1)
    return np.stack([spectrum(load_image(p.image).pixels) for p in pictures])


def thinned(pictures: list[Labelled], most: int, seed: int) -> list[Labelled]:
    """Equal shares of real and generated ones, and of each generator."""
    rng, chosen = np.random.default_rng(seed), []
    names = sorted({p.generator for p in pictures})
    for name in names:
        own = [p for p in pictures if p.generator == name]
        share = most // 2 if name == REAL else most // 2 // (len(names) - 1)
        chosen += [own[i] for i in rng.permutation(len(own))[:share]]
    return chosen


def probe(pictures: Sequence[Labelled]) -> Any:
    """Logistic regression on the standardised spectra of these pictures."""
    fitted = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
    )
    return fitted.fit(features(pictures), [p.generator != REAL for p in pictures])


def aucs(scores: np.ndarray, pictures: Sequence[Labelled]) -> dict[str, float]:
    """AUC of each generator against all real pictures, and of all of them."""
    generators = np.array([p.generator for p in pictures])
    found = {}
    for name in sorted(set(generators) - {REAL}):
        chosen = (generators == name) | (generators == REAL)
        found[name] = float(roc_auc_score(generators[chosen] == name, scores[chosen]))
    return {**found, "mean": float(np.mean(list(found.values())))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", nargs="+", help="folders of real/ and generators")
    parser.add_argument("--test", nargs="+", required=True)
    parser.add_argument("--leave-out", action="append", default=[])
    parser.add_argument("--most", type=int, default=3000, help="pictures that are learned from")
    parser.add_argument("--default", action="store_true", help="also the default localizer's score")
    parser.add_argument("--test-most", type=int, default=0, help="pictures tested; 0: all")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    train = [p for folder in given.train for p in read_generated(folder)]
    train = thinned([p for p in train if p.generator not in given.leave_out], given.most, 0)
    test = [p for folder in given.test for p in read_generated(folder)]
    if given.test_most:
        test = thinned(test, given.test_most, 0)
    table = {"spectrum": aucs(probe(train).decision_function(features(test)), test)}
    if given.default:
        from forgemap.detector import Detector

        detector = Detector.load(detector=None)
        reports = (detector.analyze(p.image) for p in test)
        table["default's score"] = aucs(np.array([r.score for r in reports]), test)
    print(json.dumps(table, indent=2))
    if given.out:
        given.out.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
