"""benchmark.py: evaluate(model, data): analyse every picture of a data set, compare with its truth.

results = evaluate("default", "edited/", out="results/", recompress=[90, 75])
for table in results.tables():
    console.print(table)
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..cores import available
from ..data.catalog import root_of
from ..errors import DataError, ForgemapError
from ..image import DEFAULT_MAX_PIXELS
from . import facts, plots, robustness_report
from .journal import Journal
from .measure import THRESHOLD, Judge, Settings, Task, measure
from .pictures import check_masks, draw, read
from .results import Results, Row
from .robustness import PARTS, variants


def evaluate(
    model: str | Path | Judge,
    data: str | Path,
    out: str | Path | None = None,
    *,
    split: str | None = None,
    limit: int | None = None,
    recompress: int | Sequence[int] | None = None,
    robustness: bool | Sequence[str] = False,
    seed: int = 0,
    progress: bool = True,
    device: str = "cpu",
    workers: int = 1,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    engine: str = "auto",
    precision: str = "auto",
) -> Results:
    """Measure a model on a data set: where, whether, and how often wrongly; see `Results`.

    Args:
        model: "default", a model folder or hub id (as for `Detector.load`), or a loaded Detector.
        data: a folder with a manifest.jsonl (or that file), a named set ("columbia:ROOT", see
            `forgemap.data.catalog`), or a plain folder of photos, all of them taken as untouched.
        out: folder for results.json, plots and rows.jsonl. A run that was cut short and is started
            again with the same model, data, seed and pixel limit goes on from rows.jsonl; variants
            and limit may change. None: nothing is written.
        split: only the records of "train", "val" or "test".
        limit: at most this many pictures, drawn by `seed` evenly over the methods and "none".
        recompress: JPEG qualities; each adds a block of rows in which every picture was saved anew.
        robustness: add some of `robustness.PARTS` (True: all of them): every level of the grids,
            fixed pipelines, every benign processing; with `out`, also robustness.md and .json.
        seed: of the draw, of added noise and of the intervals.
        progress: show a bar and the failures on stderr.
        device: of the model.
        workers: processes, each with a model of its own; more than 1 needs `model` by name.
        max_pixels: larger pictures are not decoded and count as failures.
        engine, precision: what computes a model that is given by name; see `engines.load`.

    Raises:
        DataError: nothing to evaluate, a mask that does not fit its picture, bad settings, results
            of another run in `out`, or no picture that could be evaluated.
        ModelError: no such model.
    """
    chosen = variants(recompress, PARTS if robustness is True else robustness)
    if workers < 1 or seed < 0 or (limit is not None and limit < 1):
        raise DataError("Workers and limit are at least 1, the seed at least 0.")
    _require("scipy", *(() if out is None else ("matplotlib",)))
    records, digest = read(Path(data), split)
    records = draw(records, limit, seed)
    check_masks(records)
    begin = time.monotonic()
    named = isinstance(model, (str, Path))
    how = Loading(str(model), device, engine, precision)
    judge: Judge = how.load() if isinstance(model, (str, Path)) else model
    if workers > 1 and not named:
        raise DataError("Several workers load the model themselves: give its name or folder.")
    settings = Settings(seed, max_pixels)
    header = {
        "model": judge.name,
        "decision": _decision(judge),
        "data_sha256": digest,
        "seed": seed,
        "max_pixels": max_pixels,
        **_reduced(judge),
    }
    root = root_of(data)
    names = [os.path.relpath(record.image, root) for record in records]
    with closing(Journal(None if out is None else Path(out), header)) as journal:
        tasks = []
        for record, name in zip(records, names, strict=True):
            missing = tuple(v for v in chosen if (name, v.name) not in journal.rows)
            if missing:
                tasks.append(Task(record, name, missing))
        if workers > 1:
            answers = _in_processes(how, workers, tasks, settings)
        else:
            answers = (measure(judge, task, settings) for task in tasks)
        left = sum(len(task.chosen) for task in tasks)
        _collect(answers, journal, left, len(names) * len(chosen), progress)
        rows = [journal.rows[name, variant.name] for variant in chosen for name in names]
    failed = [row for row in rows if row["error"] is not None]
    if len(failed) == len(rows):
        raise DataError(f"No picture could be evaluated. The first: {failed[0]['error']}")
    described = {
        **header,
        "data": str(data),
        "split": split,
        "limit": limit,
        "pixel_threshold": THRESHOLD,
        "failed": len(failed),
        "wall_seconds": round(time.monotonic() - begin, 1),
        "device": device,
        "computed": str(getattr(judge, "computed", "")),
        **facts.machine(),
    }
    results = Results(described, rows, seed)
    if out is not None:
        results.save(out)
        plots.save_all(results, Path(out))
        if robustness:
            robustness_report.save(results, Path(out))
    return results


def _collect(
    answers: Iterable[list[Row]], journal: Journal, left: int, total: int, progress: bool
) -> None:
    """Rows into the journal as they come, with a bar and each failure on stderr."""
    console = Console(stderr=True, quiet=not progress)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(TextColumn("Evaluating"), *columns, console=console, disable=not progress) as bar:
        job = bar.add_task("", total=total, completed=total - left)
        for rows in answers:
            for row in rows:
                journal.add(row)
                if row["error"] is not None:
                    sentence = f"Failed: {row['error']}"
                    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
            bar.advance(job, len(rows))


def _require(*packages: str) -> None:
    """What is needed at the end is looked for at the beginning."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ForgemapError(
            f"Evaluation needs {missing[0]}, which is not installed: "
            'pip install "forgemap[evaluate]"'
        )


def _decision(judge: Judge) -> dict[str, Any] | None:
    """The thresholds in use: they may change while the weights, and so the name, stay the same."""
    decision = getattr(judge, "decision", None)
    return None if decision is None else decision.to_dict()


def _reduced(judge: Judge) -> dict[str, str]:
    """The precision, where it is below float32: other rows than float32's."""
    precision = getattr(getattr(judge, "computed", None), "precision", "fp32")
    return {} if precision == "fp32" else {"precision": precision}


class Loading(NamedTuple):
    """Everything that decides which model judges, and how it is computed."""

    model: str
    device: str
    engine: str
    precision: str

    def load(self) -> Judge:
        from ..detector import Detector  # torch

        model, device, engine, precision = self
        return Detector.load(model, device, detector=None, engine=engine, precision=precision)


_judge: Judge  # of a worker process


def _set_up(how: Loading, workers: int) -> None:
    import torch

    global _judge
    torch.set_num_threads(max(1, available() // workers))
    _judge = how.load()


def _work(task: Task, settings: Settings) -> list[Row]:
    return measure(_judge, task, settings)


def _in_processes(
    how: Loading, workers: int, tasks: Sequence[Task], settings: Settings
) -> Iterator[list[Row]]:
    spawn = multiprocessing.get_context("spawn")  # a forked torch may hang
    pool = ProcessPoolExecutor(workers, spawn, _set_up, (how, workers))
    try:
        for future in as_completed([pool.submit(_work, task, settings) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise ForgemapError(
            "A worker process died, perhaps for lack of memory: run again with fewer workers; "
            "with an output folder it goes on from here."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
