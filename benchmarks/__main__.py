"""python -m benchmarks [--quick] [--out FILE]: one command, one table of ratios, and its JSON.

Both sides of a ratio run in turns, on one thread, and are timed in CPU seconds. --quick runs small
cases and says which ratios have fallen by more than a third below what baseline.json holds for this
processor, after measuring those twice more; with --strict it then exits with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy and torch

import cv2
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.peak import PRODUCTS, peak
from benchmarks.timing import Case, Measured, measure
from forgemap.evaluate.facts import machine

#: Each is bench_<name>.py with `cases(quick)`.
BENCHMARKS = ("process", "metrics", "default", "embedder", "declip", "engines", "features", "scan")
HERE = Path(__file__).parent
BASELINE = HERE / "baseline.json"
KEPT_SHARE = 2 / 3  # of the baseline's ratio
ROUNDS, QUICK_ROUNDS, TRIES = 9, 7, 3
VERSIONS = ("transformers", "lightning-fabric", "onnxruntime", "openvino")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small cases, compared with the baseline"
    )
    parser.add_argument(
        "--strict", action="store_true", help="with --quick: exit with 1 if a ratio has fallen"
    )
    parser.add_argument("--only", choices=BENCHMARKS, nargs="+", help="some instead of all")
    parser.add_argument("--out", type=Path, default=HERE / "results.json", help="the JSON to write")
    parser.add_argument(
        "--record", action="store_true", help="with --quick: make this run the baseline"
    )
    arguments = parser.parse_args()
    if (arguments.record or arguments.strict) and not arguments.quick:
        parser.error("--record and --strict go with --quick: the baseline is of its small cases.")

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    facts = facts_of_this_run()
    before = {} if arguments.record else baseline(facts["processor"])
    console = Console(width=150)
    rows: list[Measured] = []
    low: dict[int, Case] = {}  # others are let go of: a case holds its networks
    for name in arguments.only or BENCHMARKS:
        for case in import_module(f"benchmarks.bench_{name}").cases(arguments.quick):
            console.print(f"[dim]{case.name} ...[/dim]", highlight=False)
            rows.append(measure(case, QUICK_ROUNDS if arguments.quick else ROUNDS, peak))
            if fallen(rows[-1], before.get(case.name)):
                low[len(rows) - 1] = case
    for place, case in low.items():  # after all others: what disturbed a line may have passed
        rows[place] = confirmed(case, rows[place], before.get(case.name))
    facts["peak"] = {dtype: peak(dtype) for dtype in PRODUCTS}
    console.print(table(rows, facts))

    write(arguments.out, {**facts, "rows": [row.to_dict() for row in rows]})
    print(f"written to {arguments.out}")
    if arguments.record:
        record(facts, rows)
    if not arguments.quick:
        return 0
    if not before and not arguments.record:
        print(f"{BASELINE.name} knows no {facts['processor']}: nothing to compare with")
    lost = [row for row in rows if fallen(row, before.get(row.name))]
    for row in lost:
        was = before[row.name]
        print(f"{row.name}: {row.ratio:.2f}x, the baseline is {was:.2f}x", file=sys.stderr)
    return int(bool(lost) and arguments.strict)


def confirmed(case: Case, best: Measured, before: float | None) -> Measured:
    """A case's row; if it has fallen, the best of a few tries, each with twice the rounds."""
    for _ in range(TRIES - 1):
        if not fallen(best, before):
            break
        again = measure(replace(case, rounds=2 * best.rounds), 0, peak)
        best = max(best, again, key=lambda row: row.ratio)
    return best


def fallen(row: Measured, before: float | None) -> bool:
    """Whether a ratio is less than two thirds of what it was."""
    return before is not None and row.ratio < KEPT_SHARE * before


def baseline(processor: str) -> dict[str, float]:
    """The ratios that were recorded on such a processor; none if it was never met."""
    return json.loads(BASELINE.read_text()).get(processor, {}).get("ratios", {})


def record(facts: dict[str, Any], rows: list[Measured]) -> None:
    """Put a run into the baseline, in the place of what was known of its rows."""
    known = json.loads(BASELINE.read_text())
    ratios = {**baseline(facts["processor"]), **{row.name: round(row.ratio, 3) for row in rows}}
    known[facts["processor"]] = {
        "date": facts["date"],
        "load": facts["load"],
        "ratios": dict(sorted(ratios.items())),
    }
    write(BASELINE, known)


def facts_of_this_run() -> dict[str, Any]:
    """When, where, with which versions, and how busy the machine was: the mean of a minute."""
    facts = machine()
    installed = {d.metadata["Name"] for d in metadata.distributions()}
    facts["versions"] |= {name: metadata.version(name) for name in VERSIONS if name in installed}
    return {**facts, "load": round(os.getloadavg()[0], 1)}


def table(rows: list[Measured], facts: dict[str, Any]) -> Table:
    """One line for each case."""
    peaks = ", ".join(f"{name} {value / 1e9:.0f}" for name, value in facts["peak"].items())
    caption = (
        f"{facts['date']}, {facts['processor']}, {facts['cores']} cores, load {facts['load']}; "
        f"CPU time on one thread; spread: quartiles; peak in GFLOP/s: {peaks}"
    )
    columns = ("ours / literal", "ours", "literal", "ratio", "spread", "of peak", "target", "")
    made = Table(*columns, caption=caption)
    for row in rows:
        met = "met" if row.target is not None and row.ratio >= row.target else "MISSED"
        made.add_row(
            row.name,
            duration(row.ours),
            duration(row.literal),
            f"{row.ratio:.2f}x",
            f"{row.ratio_low:.2f} - {row.ratio_high:.2f}",
            "" if row.share is None else f"{row.share:.0%}",
            "" if row.target is None else f"{row.target:g}x {met}",
            row.note,
        )
    return made


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.2f} ms"


def write(path: Path, content: dict[str, Any]) -> None:
    """As JSON, whole or not at all."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(beside, path)


if __name__ == "__main__":
    sys.exit(main())
