"""calibration_check.py: do probabilities and bounds hold on photos that they were not made from?

    python -m benchmarks.calibration_check RESULTS

RESULTS: the rows.jsonl of a `forgemap evaluate --out`, with edited and untouched pictures of many
photos. The photos are divided anew hundreds of times: thresholds are taken from three quarters of
them, false alarms counted on the rest. Scores are the model's own, fitted on yet other photos.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from forgemap.evaluate.conformal import attainable, empirical, highest
from forgemap.evaluate.markdown import markdown_table
from forgemap.evaluate.probability import CURVES, fit_curve, sigmoid
from forgemap.evaluate.reliability import reliability

DIVISIONS = 500


def main(file: Path) -> None:
    """Print two tables: calibration errors by curve, and false alarms by level."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [r for r in lines[1:] if r["variant"] == "as is" and r["error"] is None]
    score = np.clip([r["score"] for r in rows], 1e-9, 1 - 1e-9)
    edited = np.array([r["manipulated"] for r in rows])
    photo = np.array([r["source"] for r in rows])
    odds = np.log(score / (1 - score))
    print(curves(odds, edited, photo))
    print(alarms(odds, edited, photo))


def curves(odds: np.ndarray, edited: np.ndarray, photo: np.ndarray) -> str:
    """Calibration error of the scores after each curve, fitted on other photos (five folds)."""
    from sklearn.model_selection import GroupKFold

    fitted = fit_curve(odds, edited, photo.tolist())
    table = [["curve", "log-loss", "calibration error", "by chance"]]
    for name, fit in CURVES.items():
        held_out = np.empty(odds.size)
        for seen, unseen in GroupKFold(5).split(odds, groups=photo):
            held_out[unseen] = fit(odds[seen], edited[seen])(odds[unseen])
        found = reliability(sigmoid(held_out), edited, photo)
        error = f"{found.error.value:.3f} ({found.error.low:.3f}-{found.error.high:.3f})"
        chosen = f"{name} (chosen)" if fitted.curve.name == name else name
        table.append([chosen, f"{fitted.losses[name]:.3f}", error, f"{found.chance:.3f}"])
    return markdown_table(table)


def alarms(odds: np.ndarray, edited: np.ndarray, photo: np.ndarray) -> str:
    """False alarms on new photos, with the bound and with the plain quantile of the same scores."""
    rng = np.random.default_rng(0)
    names = np.unique(photo)
    kept = 3 * names.size // 4
    heads = ["stated", "conformal", "quantile", "edited called (conformal)"]
    table = [[f"{kept} of {names.size} photos", *heads]]
    for level in (0.02, 0.03, 0.05, 0.1):
        if attainable(kept) > level:
            continue
        found = []
        for _ in range(DIVISIONS):
            known = np.isin(photo, rng.permutation(names)[:kept])
            old, new = known & ~edited, ~known & ~edited
            cut, quantile = highest(odds[old], photo[old], level), empirical(odds[old], level)
            called = (odds[~known & edited] > cut).mean()
            found.append([(odds[new] > cut).mean(), (odds[new] > quantile).mean(), called])
        shares = np.mean(found, axis=0)
        table.append(["", f"{level:.0%}", *(f"{share:.1%}" for share in shares)])
    return markdown_table(table)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.calibration_check ROWS.JSONL")
    main(Path(sys.argv[1]))
