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
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..data.catalog import root_of
from ..data.records import Record
from ..errors import DataError, ForgemapError
from ..image import DEFAULT_MAX_PIXELS, load_image
from ..report import Report
from . import facts, plots, robustness_report
from .journal import Journal
from .metrics import localization_metrics
from .pictures import check_masks, draw, misfit, read, read_mask
from .results import PIXEL, Results, Row
from .robustness import AS_IS, PARTS, Variant, follow, variants

THRESHOLD = 0.5  # of a pixel's probability, in every table


class Judge(Protocol):
    """What is evaluated: `forgemap.detector.Detector`, or anything that answers like it."""

    @property
    def name(self) -> str:
        """Identifies the model in the results."""

    def analyze(self, source: Any, *, max_pixels: int) -> Report:
        """Judge a loaded Image, an array or the bytes of a file; `heat` must be filled."""


@dataclass(frozen=True)
class Settings:
    """What is the same for every picture of a run."""

    seed: int
    max_pixels: int


class Task(NamedTuple):
    """One picture and the variants of it that are still to be measured."""

    record: Record
    name: str
    """Of the picture in the results: its path relative to the data set."""
    chosen: tuple[Variant, ...]


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


def measure(judge: Judge, task: Task, settings: Settings) -> list[Row]:
    """One row per variant of one picture. Whatever goes wrong is a row with its `error`.

    A row: image (relative to the data set), variant, method, manipulated, source, folder (of the
    source), benign (see `Record`), split; then, None where they do not apply or are undefined:
    error, width, height, score, verdict, flagged (share of the area above 0.5), seconds, and for a
    manipulated picture the values of `localization_metrics`.
    """
    record = task.record
    fixed: Row = {
        "image": task.name,
        "method": record.method,
        "manipulated": record.manipulated,
        "source": record.source,
        "folder": Path(record.source).parent.name or ".",
        "benign": record.benign,
        "split": record.split,
        **EMPTY,
    }
    try:
        image = load_image(record.image, max_pixels=settings.max_pixels)
        mask = read_mask(record)
        if mask is not None and mask.shape != image.pixels.shape[:2]:
            raise DataError(misfit(record, mask.shape[::-1], image.pixels.shape[1::-1]))
    except Exception as error:  # one broken file must not end the run: it is counted and shown
        trouble = _sentence(record, error)
        return [{**fixed, "variant": v.name, "error": trouble} for v in task.chosen]
    rows = []
    for variant in task.chosen:
        begin = time.monotonic()
        row = {**fixed, "variant": variant.name}
        try:
            seed = [settings.seed, crc32(f"{task.name} {variant.name}".encode())]
            rng = np.random.default_rng(seed)
            changed, moved = variant.apply_to(image.pixels, mask, rng)
            source = image if variant == AS_IS else changed
            row |= _values(judge.analyze(source, max_pixels=4 * settings.max_pixels), moved)
        except Exception as error:
            row["error"] = _sentence(record, error)
        rows.append({**row, "seconds": round(time.monotonic() - begin, 4)})
    return rows


EMPTY: Row = dict.fromkeys(
    ("error", "width", "height", "score", "verdict", "flagged", "seconds", *PIXEL)
)


def _values(report: Report, mask: np.ndarray | None) -> Row:
    """The part of a row that comes from the report."""
    if report.error is not None or report.heat is None or report.score is None:
        raise DataError(report.error or "the detector gave no score or no probability map")
    height, width = report.heat.shape
    metrics: dict[str, float] = {}
    if mask is not None:
        metrics = localization_metrics(report.heat, follow(mask, (height, width)), THRESHOLD)
    return {
        "width": width,
        "height": height,
        "score": float(report.score),
        "verdict": report.verdict,
        "flagged": float(np.mean(report.heat > THRESHOLD)),
        **{name: None if np.isnan(value) else value for name, value in metrics.items()},
    }


def _sentence(record: Record, error: Exception) -> str:
    text = str(error) if isinstance(error, ForgemapError) else f"{type(error).__name__}: {error}"
    return text if record.image.name in text else f"{record.image}: {text}"


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
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
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
