"""benchmark.py: evaluate(model, data): analyse every picture of a data set and compare with its truth.

results = evaluate("default", "edited/", out="results/", recompress=[90, 75])
for table in results.tables(): console.print(table)
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Protocol
from zlib import crc32

import numpy as np
from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as PILImage
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..data.records import MANIFEST, SPLITS, Record, read_manifest
from ..errors import DataError, ForgemapError
from ..image import DEFAULT_MAX_PIXELS, find_images, load_image
from ..report import Report
from . import facts, plots
from .metrics import localization_metrics
from .results import Results, Row
from .robustness import AS_IS, Variant, follow, variants

ROWS = "rows.jsonl"
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
    """What one evaluation does to each picture, sent whole to the worker processes."""

    chosen: tuple[Variant, ...]
    seed: int
    max_pixels: int


def evaluate(
    model: str | Path | Judge,
    data: str | Path,
    out: str | Path | None = None,
    *,
    split: str | None = None,
    limit: int | None = None,
    recompress: int | Sequence[int] | None = None,
    robustness: bool = False,
    seed: int = 0,
    progress: bool = True,
    device: str = "cpu",
    workers: int = 1,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Results:
    """Measure a model on a data set: where, whether, and how often wrongly; see `Results`.

    Args:
        model: "default", a model folder or hub id (as for `Detector.load`), or a loaded Detector.
        data: a folder with a manifest.jsonl (or that file), or a plain folder of photos, all of
            them taken as untouched.
        out: folder for results.json, plots and rows.jsonl. A run that was cut short and is started
            again with the same model, data, seed and pixel limit goes on from rows.jsonl; variants
            and limit may change. None: nothing is written.
        split: only the records of "train", "val" or "test".
        limit: at most this many pictures, drawn by `seed` evenly over the methods and "none".
        recompress: JPEG qualities; each adds a block of rows in which every picture was saved anew.
        robustness: add every level of `robustness.GRIDS`.
        seed: of the draw, of added noise and of the intervals.
        progress: show a bar and the failures on stderr.
        device: of the model.
        workers: processes, each with a model of its own; more than 1 needs `model` by name.
        max_pixels: larger pictures are not decoded and count as failures.

    Raises:
        DataError: nothing to evaluate, a mask that does not fit its picture, bad settings, results
            of another run in `out`, or no picture that could be evaluated.
        ModelError: no such model.
    """
    settings = Settings(tuple(variants(recompress, robustness)), seed, max_pixels)
    if workers < 1 or seed < 0 or (limit is not None and limit < 1):
        raise DataError("Workers and limit are at least 1, the seed at least 0.")
    records, digest = _read(Path(data), split)
    records = _draw(records, limit, seed)
    _check_masks(records)
    begin = time.monotonic()
    if isinstance(model, (str, Path)):
        judge: Judge = _load(model, device)
    elif workers > 1:
        raise DataError("Several workers load the model themselves: give its name or folder.")
    else:
        judge = model
    header = {"model": judge.name, "data_sha256": digest, "seed": seed, "max_pixels": max_pixels}
    root = Path(data) if Path(data).is_dir() else Path(data).parent
    with closing(_Journal(None if out is None else Path(out), header)) as journal:
        tasks = []
        for record in records:
            name = os.path.relpath(record.image, root)
            missing = [v for v in settings.chosen if (name, v.name) not in journal.rows]
            if missing:
                tasks.append((record, name, missing))
        done = len(records) * len(settings.chosen) - sum(len(task[2]) for task in tasks)
        answers = (
            (measure(judge, *task, settings) for task in tasks)
            if workers == 1
            else _in_processes(str(model), device, workers, tasks, settings)
        )
        _collect(answers, journal, done, len(records) * len(settings.chosen), progress)
        names = [os.path.relpath(record.image, root) for record in records]
        rows = [journal.rows[name, v.name] for v in settings.chosen for name in names]
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
        **facts.machine(),
    }
    results = Results(described, rows, seed)
    if out is not None:
        results.save(out)
        plots.save_all(results, Path(out))
    return results


def measure(
    judge: Judge, record: Record, name: str, chosen: Iterable[Variant], settings: Settings
) -> list[Row]:
    """One row per variant of one picture. Whatever goes wrong is a row with its `error`.

    A row: image (relative to the manifest), variant, method, manipulated, source, folder (of the
    source), split; then, None where they do not apply: error, width, height, score, verdict,
    flagged (share of the area above 0.5), seconds, and the metrics of `localization_metrics`
    for a manipulated picture, undefined ones as NaN.
    """
    fixed = {
        "image": name,
        "method": record.method,
        "manipulated": record.manipulated,
        "source": record.source,
        "folder": Path(record.source).parent.name or ".",
        "split": record.split,
    }
    rows = []
    pixels = mask = image = trouble = None
    try:
        image = load_image(record.image, max_pixels=settings.max_pixels)
        pixels, mask = image.pixels, _read_mask(record)
        if mask is not None and mask.shape != pixels.shape[:2]:
            raise DataError(_misfit(record, mask.shape[::-1], pixels.shape[1::-1]))
    except Exception as error:  # a broken file must not end a night's run; it is shown at the end
        trouble = _sentence(error)
    for variant in chosen:
        row: Row = {"variant": variant.name, **fixed, **EMPTY, "error": trouble}
        rows.append(row)
        if pixels is None or trouble is not None:
            continue
        begin = time.monotonic()
        try:
            rng = np.random.default_rng([settings.seed, crc32(f"{name} {variant.name}".encode())])
            source = image if variant == AS_IS else variant.apply(pixels, rng)
            report = judge.analyze(source, max_pixels=4 * settings.max_pixels)
            if report.error is not None or report.heat is None or report.score is None:
                raise DataError(report.error or "the detector gave no probability map")
            row |= {
                "width": report.heat.shape[1],
                "height": report.heat.shape[0],
                "score": float(report.score),
                "verdict": report.verdict,
                "flagged": float(np.mean(report.heat > THRESHOLD)),
            }
            if mask is not None:
                truth = follow(mask, report.heat.shape)
                row |= localization_metrics(report.heat, truth, THRESHOLD)
        except Exception as error:
            row |= {**EMPTY, "error": f"{record.image}: {_sentence(error)}"}
        row["seconds"] = round(time.monotonic() - begin, 4)
    return rows


EMPTY: Row = dict.fromkeys(
    ("width", "height", "score", "verdict", "flagged", "seconds")
    + ("iou", "f1_fixed", "f1_best", "ap", "auc", "error")
)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, ForgemapError) else f"{type(error).__name__}: {error}"


# --- the data -------------------------------------------------------------------------------------


def _read(data: Path, split: str | None) -> tuple[list[Record], str]:
    """The records and a hash of what lists them: the manifest, or names and sizes of the photos."""
    if split is not None and split not in SPLITS:
        raise DataError(f"Unknown split {split!r}: use one of {', '.join(SPLITS)}.")
    manifest = data / MANIFEST if data.is_dir() else data
    if manifest.is_file() and manifest.suffix == ".jsonl":
        records = [r for r in read_manifest(manifest) if split in (None, r.split)]
        if not records:
            raise DataError(f"{manifest} lists no picture of the split {split!r}.")
        return records, sha256(manifest.read_bytes()).hexdigest()
    if not data.is_dir():
        raise DataError(f"{data} is neither a folder nor a {MANIFEST}: name one that exists.")
    if split is not None:
        raise DataError(f"{data} has no {MANIFEST}, so its photos have no split: leave it out.")
    files = find_images([data]).files
    if not files:
        raise DataError(f"{data} holds neither a {MANIFEST} nor pictures.")
    listing = "".join(f"{f.relative_to(data)}\0{f.stat().st_size}\n" for f in files)
    records = [Record(f, None, str(f), "none", "test", {}, 0) for f in files]
    return records, sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()


def _draw(records: list[Record], limit: int | None, seed: int) -> list[Record]:
    """At most `limit` records, one from each method in turn, in their first order."""
    if limit is None or limit >= len(records):
        return records
    rng = np.random.default_rng(seed)
    by_method: dict[str, list[int]] = {}
    for index in rng.permutation(len(records)):
        by_method.setdefault(records[index].method, []).append(int(index))
    turns = [(place, m, i) for m, found in by_method.items() for place, i in enumerate(found)]
    return [records[i] for i in sorted(i for _, _, i in sorted(turns)[:limit])]


def _check_masks(records: list[Record]) -> None:
    """Before the long work: every mask is there and has its picture's size, by the files' heads."""
    for record in records:
        if record.mask is None:
            continue
        mask = _size(record.mask)
        if mask is None:
            raise DataError(f"{record.mask} cannot be read as a mask: write it again as a PNG.")
        picture = _size(record.image)  # None: a picture that fails later, as a row of its own
        if picture is not None and picture != mask:
            raise DataError(_misfit(record, mask, picture))


def _size(file: Path) -> tuple[int, int] | None:
    """(width, height) as displayed, without decoding; None where Pillow cannot tell."""
    try:
        with PILImage.open(file) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except (
        OSError,
        SyntaxError,
        ValueError,
        UnidentifiedImageError,
        PILImage.DecompressionBombError,
    ):
        return None


def _misfit(record: Record, mask: tuple[int, int], picture: tuple[int, int]) -> str:
    return (
        f"{record.mask}: the mask is {mask[0]}x{mask[1]} pixels, but its picture "
        f"{record.image.name} is {picture[0]}x{picture[1]}: make them the same size."
    )


def _read_mask(record: Record) -> np.ndarray | None:
    """(H, W) uint8, 1 = manipulated; None for an untouched picture."""
    if not record.manipulated or record.mask is None:
        return None
    with PILImage.open(record.mask) as image:
        mask = (np.asarray(image.convert("L")) > 127).astype(np.uint8)
    if not mask.any():
        raise DataError(f"{record.mask} marks nothing: manipulated pixels must be white (255).")
    return mask


# --- the run --------------------------------------------------------------------------------------


class _Journal:
    """The rows found so far, by (image, variant); kept in out/rows.jsonl as they come.

    A failed row is not taken over from an earlier run: it is tried again.
    """

    def __init__(self, out: Path | None, header: dict[str, Any]) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self._file: IO[str] | None = None
        if out is None:
            return
        path = out / ROWS
        try:
            if path.exists():
                self._resume(path, header)
            elif out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise DataError(f"{out} already holds something else: give a new or empty folder.")
            else:
                out.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(header) + "\n", encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error

    def _resume(self, path: Path, header: dict[str, Any]) -> None:
        *lines, rest = path.read_bytes().split(b"\n")
        earlier = json.loads(lines[0]) if lines else None
        if earlier != header:
            raise DataError(
                f"{path.parent} holds the results of another model, data set or seed: "
                "give another folder."
            )
        if rest:  # cut off by an interruption
            os.truncate(path, path.stat().st_size - len(rest))
        for line in lines[1:]:
            row = json.loads(line)
            if row["error"] is None:
                self.rows[row["image"], row["variant"]] = row

    def add(self, row: Row) -> None:
        self.rows[row["image"], row["variant"]] = row
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _collect(
    answers: Iterable[list[Row]], journal: _Journal, done: int, total: int, progress: bool
) -> None:
    console = Console(stderr=True, quiet=not progress)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(TextColumn("Evaluating"), *columns, console=console, disable=not progress)
    with bar:
        job = bar.add_task("", total=total, completed=done)
        for rows in answers:
            for row in rows:
                journal.add(row)
                if row["error"] is not None:
                    console.print(f"Failed: {row['error']}", markup=False, highlight=False)
            bar.advance(job, len(rows))


def _load(model: str | Path, device: str) -> Judge:
    from ..detector import Detector  # torch

    return Detector.load(model, device)


_judge: Judge  # of a worker process


def _set_up(model: str, device: str, workers: int) -> None:
    import torch

    global _judge
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    _judge = _load(model, device)


def _work(task: tuple[Record, str, list[Variant]], settings: Settings) -> list[Row]:
    return measure(_judge, *task, settings)


def _in_processes(
    model: str,
    device: str,
    workers: int,
    tasks: Sequence[tuple[Record, str, list[Variant]]],
    settings: Settings,
) -> Iterator[list[Row]]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    spawn = multiprocessing.get_context("spawn")  # a forked torch may hang
    pool = ProcessPoolExecutor(workers, spawn, _set_up, (model, device, workers))
    try:
        futures = [pool.submit(_work, task, settings) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
