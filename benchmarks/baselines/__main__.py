"""python -m benchmarks.baselines DATA --model default: a model beside the classics, in one table.

DATA is a manifest (or its folder), as `forgemap synth` makes them. The baselines' thresholds come
from its val split, or from --val; the figures of all are on the split of --split. The model keeps
the thresholds that it ships with. With --out a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch

from benchmarks.baselines import BASELINES
from benchmarks.baselines.judge import BaselineJudge, Map, fit
from benchmarks.baselines.trained import TrainedMap
from forgemap.data.catalog import open_data
from forgemap.errors import DataError, ForgemapError
from forgemap.evaluate.benchmark import evaluate
from forgemap.evaluate.markdown import cell, markdown_table
from forgemap.evaluate.measure import Judge
from forgemap.evaluate.pictures import draw
from forgemap.evaluate.results import NONE, UNTOUCHED, Results, write

TABLES = {
    "auc": "Pixel AUC, mean per picture",
    "iou": "Mean IoU (baselines: at their best threshold on val; the model: at 0.5)",
    "image_auc": "Image AUC, edited against untouched",
    "judged_manipulated": "Judged manipulated",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__)
    parser.add_argument("data", help="manifest or folder with the pictures to measure on")
    parser.add_argument("--model", action="append", help="model to compare; repeatable [default]")
    parser.add_argument(
        "--trained",
        action="append",
        help="model folder of a fixed input size, such as DeCLIP's, judged as the baselines are: "
        "in windows, with thresholds of the val split; repeatable",
    )
    parser.add_argument("--val", help="manifest for the baselines' thresholds [DATA]")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, help="at most so many pictures, evenly over methods")
    parser.add_argument("--only", help="comma-separated baselines: " + ", ".join(BASELINES))
    parser.add_argument(
        "--out", type=Path, help="folder for baselines.md, .json and each one's results"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        run(
            given.data,
            models=given.model or ["default"],
            trained=given.trained or [],
            val=given.val or given.data,
            split=given.split,
            limit=given.limit,
            names=[n.strip() for n in given.only.split(",")] if given.only else list(BASELINES),
            out=given.out,
            seed=given.seed,
        )
    except ForgemapError as error:
        print(f"benchmarks.baselines: {error}", file=sys.stderr)
        return 2
    return 0


def run(
    data: str,
    *,
    models: Sequence[str],
    val: str,
    trained: Sequence[str] = (),
    split: str = "test",
    limit: int | None = None,
    names: Sequence[str] = tuple(BASELINES),
    out: Path | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Results]:
    """Fit each baseline, measure all on the same pictures, print and write the tables.

    Raises:
        ForgemapError: an unknown baseline, data without what is needed, no such model.
    """
    for name in names:
        if name not in BASELINES:
            raise DataError(f"Unknown baseline {name!r}: use some of {', '.join(BASELINES)}.")
    maps: dict[str, Map] = {name: BASELINES[name] for name in names}
    maps |= {called(folder): TrainedMap(folder) for folder in trained}
    known = draw(open_data(val, "val"), limit, seed)
    judges: dict[str, Judge] = {name: fit(name, map, known) for name, map in maps.items()}
    if models:
        from forgemap.detector import Detector  # torch

        judges |= {name: Detector.load(name, detector=None) for name in models}
    found = {
        name: evaluate(
            judge,
            data,
            None if out is None else out / Path(name).name,
            split=split,
            limit=limit,
            seed=seed,
            progress=progress,
        )
        for name, judge in judges.items()
    }
    text = tables(found)
    print(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write(out / "baselines.md", text)
        fitted = {
            name: {"pixel": judge.pixel, "statistic": judge.statistic, "score": judge.score}
            for name, judge in judges.items()
            if isinstance(judge, BaselineJudge)
        }
        groups = {
            name: [group.to_dict() for group in results.groups] for name, results in found.items()
        }
        facts = next(iter(found.values())).facts
        content = {"facts": facts, "thresholds": fitted, "groups": groups}
        write(out / "baselines.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    return found


def called(folder: str) -> str:
    """A model folder's name in the tables; that of its run for what a training wrote."""
    path = Path(folder).resolve()
    return path.parent.name if path.name == "model" else path.name


def tables(found: dict[str, Results]) -> str:
    """Markdown: for each figure one line per method of editing, one column per judge."""
    first = next(iter(found.values()))
    facts = first.facts
    kinds = [(g.kind, g.name) for g in first.of("as is", "method", "overall", "untouched")]
    pictures = {g.name: g.pictures for g in first.of("as is", "method", "overall", "untouched")}
    parts = [
        f"{', '.join(r.facts['model'] for r in found.values())}; {facts['date']}, "
        f"{facts['processor']}; 95 % intervals over source photos in brackets.\n"
    ]
    for metric, title in TABLES.items():
        lines = [["", "pictures", *found]]
        for kind, name in kinds:
            if (name == UNTOUCHED) != (kind == "untouched"):
                continue
            if kind == "untouched" and metric != "judged_manipulated":
                continue
            cells = [_cell(results, kind, name, metric) for results in found.values()]
            lines.append([name, str(pictures[name]), *cells])
        parts += [f"{title}:\n", markdown_table(lines)]
    return "\n".join(parts)


def _cell(results: Results, kind: str, name: str, metric: str) -> str:
    try:
        return cell(results.group(name, kind=kind)[metric], 2)
    except KeyError:
        return cell(NONE, 2)


if __name__ == "__main__":
    sys.exit(main())
