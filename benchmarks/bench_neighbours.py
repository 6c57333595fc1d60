"""bench_neighbours.py: the nearest of a million embeddings: recall and CPU time of each index.

python -m benchmarks.bench_neighbours [--vectors 1000000] [--queries 200] [--out FILE]

The vectors stand for embeddings: 192 numbers that follow from 16 hidden ones and some noise, of
length 1. Times are this process's CPU time on one thread, so that a busy machine does not matter.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy

import numpy as np

from forgemap.evaluate.facts import machine
from forgemap.neighbours import SEARCHES, search

WIDTH, HIDDEN = 192, 16


def embeddings(count: int, rng: np.random.Generator, spread: np.ndarray) -> np.ndarray:
    """(count, 192) float32 of length 1."""
    vectors = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, 100_000):
        size = min(100_000, count - start)
        hidden = rng.standard_normal((size, HIDDEN), np.float32)
        noise = rng.standard_normal((size, WIDTH), np.float32)
        part = hidden @ spread + 0.5 * noise
        vectors[start : start + size] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def timed(work: Callable[[], object]) -> tuple[object, float]:
    """What it returns, and the CPU seconds that it took."""
    begin = time.process_time()
    result = work()
    return result, time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--out", type=Path, default=None, help="JSON to write as well")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((HIDDEN, WIDTH), np.float32)
    vectors = embeddings(arguments.vectors, rng, spread)
    queries = embeddings(arguments.queries, rng, spread)

    truth = None
    rows = []
    for name in SEARCHES:
        index, built = timed(lambda name=name: search(vectors, name))  # type: ignore[misc]
        found, seconds = timed(lambda index=index: index.nearest(queries))  # type: ignore[misc]
        truth = found if truth is None else truth
        lost = np.asarray(truth) - np.asarray(found)
        rows.append(
            {
                "index": name,
                "build_s": round(built, 2),
                "query_ms": round(1e3 * seconds / arguments.queries, 3),
                "recall": float((lost < 1e-6).mean()),
                "largest_lost_cosine": float(lost.max()),
            }
        )
        print(rows[-1], flush=True)
    facts = {**machine(), "vectors": arguments.vectors, "queries": arguments.queries, "rows": rows}
    print(json.dumps(facts, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
