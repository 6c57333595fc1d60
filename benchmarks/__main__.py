"""python -m benchmarks [--quick] [--out FILE]: one command, one table of ratios, and its JSON.

Both sides of a ratio run in turns, on one thread. --quick runs the small cases and exits with 1 if
a ratio has fallen by more than a third below benchmarks/baseline.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy and torch

import cv2
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import bench_embedder, bench_features, bench_metrics
from benchmarks.timing import Measured, measure
from forgemap.evaluate.facts import machine

BENCHMARKS = {
    "embedder": bench_embedder.cases,
    "features": bench_features.cases,
    "metrics": bench_metrics.cases,
}
HERE = Path(__file__).parent
KEPT_SHARE = 2 / 3  # of the baseline's ratio


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small cases, compared with the baseline"
    )
    parser.add_argument("--only", choices=sorted(BENCHMARKS), help="one benchmark instead of all")
    parser.add_argument("--out", type=Path, default=HERE / "results.json", help="the JSON to write")
    arguments = parser.parse_args()

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    chosen = [arguments.only] if arguments.only else list(BENCHMARKS)
    rounds = 7 if arguments.quick else 9
    rows = [measure(case, rounds) for name in chosen for case in BENCHMARKS[name](arguments.quick)]
    facts = {**machine(), "load": os.getloadavg()[0]}
    Console(width=120).print(_table(rows, facts))

    text = json.dumps({**facts, "rows": [row.to_dict() for row in rows]}, indent=1)
    beside = arguments.out.with_name(arguments.out.name + ".part")
    beside.write_text(text + "\n")
    os.replace(beside, arguments.out)
    print(f"written to {arguments.out}")
    return _fallen(rows) if arguments.quick else 0


def _table(rows: list[Measured], facts: dict[str, object]) -> Table:
    caption = f"{facts['date']}, {facts['processor']}; CPU time on one thread; spread: quartiles"
    table = Table("case", "ours", "literal", "ratio", "spread", "target", caption=caption)
    for row in rows:
        met = (
            ""
            if row.target is None
            else f"{row.target:g}x {'met' if row.ratio >= row.target else 'MISSED'}"
        )
        table.add_row(
            row.name,
            f"{1e3 * row.ours:.2f} ms",
            f"{1e3 * row.literal:.1f} ms",
            f"{row.ratio:.1f}x",
            f"{row.ratio_low:.1f} - {row.ratio_high:.1f}",
            met,
        )
    return table


def _fallen(rows: list[Measured]) -> int:
    """1 and a line on stderr for each ratio that is less than two thirds of the baseline's."""
    baseline = json.loads((HERE / "baseline.json").read_text())["ratios"]
    code = 0
    for row in rows:
        before = baseline.get(row.name)
        if before is not None and row.ratio < KEPT_SHARE * before:
            print(f"{row.name}: {row.ratio:.1f}x, the baseline is {before:.1f}x", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
