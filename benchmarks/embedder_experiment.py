"""embedder_experiment.py: the tables of docs/experiments/embedder.md from the runs of
recipes/embedder.sh: every family, seen and unseen, by three classifiers and two baselines.

python -m benchmarks.embedder_experiment OUT [--test plain-test] [--default]
python -m benchmarks.embedder_experiment OUT --model MODEL --results RESULTS...   # verdicts
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from forgemap import classifiers
from forgemap.data.generated import REAL, Labelled, read_generated
from forgemap.evaluate.embed import Model
from forgemap.evaluate.markdown import markdown_table
from forgemap.generated import Rule
from forgemap.image import load_image

from .generated_baselines import features, probe, thinned

KINDS = ("linear", "nearest", "one-class")
CROPS = "centre"
LOCALIZER = "default's score"


def embedded(model: Model, pictures: list[Labelled]) -> np.ndarray:
    """(pictures, crops, D)."""
    pixels = (load_image(p.image).pixels for p in pictures)
    return np.stack([model.network.embed(each, CROPS).numpy() for each in pixels])


def scores_of(run: Path, test: list[Labelled]) -> dict[str, np.ndarray]:
    """Mean score over the crops by each classifier that a run left."""
    model = Model.load(run / "model")
    vectors = embedded(model, test)
    found = {}
    for kind in KINDS:
        fitted = classifiers.load(run / "model" / f"{kind}.safetensors", model.source)
        flat = fitted.scores(vectors.reshape(-1, vectors.shape[-1]))
        found[kind] = flat.reshape(vectors.shape[:2]).mean(axis=1)
    return found


def auc(scores: np.ndarray, test: list[Labelled], family: str) -> float:
    """Of one family against all real pictures."""
    names = np.array([p.generator for p in test])
    chosen = (names == family) | (names == REAL)
    return float(roc_auc_score(names[chosen] == family, scores[chosen]))


def accuracy(scores: np.ndarray, test: list[Labelled], family: str) -> float:
    """Balanced accuracy at one half."""
    names = np.array([p.generator for p in test])
    chosen = (names == family) | (names == REAL)
    return float(balanced_accuracy_score(names[chosen] == family, scores[chosen] > 0.5))


def verdicts(folder: Path, results: Sequence[Path]) -> str:
    """What an embedder's rule says of the pictures that `forgemap evaluate` scored: the share of
    each family judged generated, in brackets not cleared, and the AUC, as saved and after JPEG."""
    rule = Rule.from_dict(json.loads((folder / "config.json").read_text())["generated"])
    column = f"score_{rule.classifier}"
    tables = [pq.read_table(r / "scores.parquet") for r in results]
    table = [row for each in tables for row in each.to_pylist()]
    scores = np.array([rule.score(row[column]) for row in table])
    which = np.array([f"{row['generator']}\0{row['variant']}" for row in table])
    variants = list(dict.fromkeys(row["variant"] for row in table))
    families = sorted({row["generator"] for row in table}, key=lambda name: (name != REAL, name))
    lines = [["pictures", *variants]]
    for family in families:
        cells = []
        for variant in variants:
            own = scores[which == f"{family}\0{variant}"]
            called, doubted = (own >= rule.generated_at).mean(), (own >= rule.clear_below).mean()
            cells.append(f"{called:.1%} ({doubted:.0%} of {len(own)})")
            if family != REAL:
                real = scores[which == f"{REAL}\0{variant}"]
                labels = np.repeat([0, 1], [len(real), len(own)])
                cells[-1] += f", {roc_auc_score(labels, np.r_[real, own]):.2f}"
        lines.append([family, *cells])
    return markdown_table(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--test", default="test", help="which pictures: test or plain-test")
    parser.add_argument("--default", action="store_true", help="also the default localizer's score")
    parser.add_argument("--results", type=Path, action="append", help="of forgemap evaluate")
    parser.add_argument("--model", type=Path, help="whose verdicts; default: OUT/run/model")
    given = parser.parse_args()
    out: Path = given.out
    if given.results:
        print(verdicts(given.model or out / "run" / "model", given.results))
        return

    train = [p for kind in ("camera", "small") for p in read_generated(out / f"{kind}-train")]
    test = [p for kind in ("camera", "small") for p in read_generated(out / f"{kind}-{given.test}")]
    families = sorted({p.generator for p in test} - {REAL})
    spectra = features(test)
    longest, short = scores_of(out / "run-all", test), scores_of(out / "run-short", test)
    localizer = None
    if given.default:
        from forgemap.detector import Detector

        detector = Detector.load(detector=None)
        localizer = np.array([detector.analyze(p.image).score or 0.0 for p in test])
    rows: list[list[str]] = []
    record: dict[str, dict[str, Any]] = {}
    seen_probe = probe(thinned(train, 3000, 0)).decision_function(spectra)
    for family in families:
        unseen = scores_of(out / f"run-without-{family}", test)
        others = [p for p in train if p.generator != family]
        unseen_probe = probe(thinned(others, 3000, 0)).decision_function(spectra)
        record[family] = {
            "long": {k: auc(longest[k], test, family) for k in KINDS},
            "long, balanced accuracy": {k: accuracy(longest[k], test, family) for k in KINDS},
            "seen": {k: auc(short[k], test, family) for k in KINDS},
            "unseen": {k: auc(unseen[k], test, family) for k in KINDS},
            "spectrum, seen": auc(seen_probe, test, family),
            "spectrum, unseen": auc(unseen_probe, test, family),
        }
        if localizer is not None:
            record[family][LOCALIZER] = auc(localizer, test, family)
        found = record[family]
        rows.append(
            [family]
            + [f"{found[which][k]:.2f}" for which in ("long", "seen", "unseen") for k in KINDS]
            + [f"{found['spectrum, seen']:.2f}", f"{found['spectrum, unseen']:.2f}"]
            + ([f"{found[LOCALIZER]:.2f}"] if localizer is not None else [])
        )
    header = ["family"]
    header += [f"{which}, {k}" for which in ("long", "seen", "unseen") for k in KINDS]
    header += ["spectrum, seen", "spectrum, unseen"]
    header += [LOCALIZER] if localizer is not None else []
    print(markdown_table([header, *rows]))
    (out / f"experiment-{given.test}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
