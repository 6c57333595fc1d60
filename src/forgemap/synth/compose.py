"""compose.py: edit many photos in parallel, resumably, and list the results in a manifest."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from forgemap.data.records import MANIFEST, SPLITS, split_of
from forgemap.errors import DataError
from forgemap.image import find_images
from forgemap.synth.methods import NEED_AUTOENCODER, choose_methods
from forgemap.synth.worker import Photo, Settings, Task, run_task, set_up, single_thread

JOURNAL = "journal.jsonl"
_Answer = tuple[list[dict[str, Any]], list[str]]  # rows, and a sentence for each failure
EDITS_PER_TASK = 8  # a photo is decoded once per task; an interruption loses at most this much


def synthesize(
    photos: Iterable[str | Path] | str | Path,
    out: str | Path,
    *,
    methods: Sequence[str] | None = None,
    per_photo: int = 1,
    seed: int = 0,
    workers: int = 1,
    autoencoder: str | Path | None = None,
    crop: int | None = None,
    vary: bool = False,
    untouched: bool = False,
    split: str | None = None,
    area: tuple[float, float] = (0.005, 0.5),
    progress: bool = True,
) -> Path:
    """Make edited pictures with exact masks from real photos.

    Each picture depends only on the seed, the photo, its number and the set of photos: never on
    the order of the photos or on the number of workers. An interrupted run that is started again
    with the same settings continues and ends with the same files.

    Args:
        photos: files and folders.
        out: the folder for images/, masks/ and manifest.jsonl; a journal of the run stays there.
        methods: names from METHODS, in equal shares; by default all that are possible.
        per_photo: edits of each photo.
        seed: 0 or more.
        workers: processes. They are spawned, so a script that asks for several must call this
            under `if __name__ == "__main__":`.
        autoencoder: folder or hub id, for the methods that need one (see load_autoencoder).
        crop: edit crops of at most this many pixels a side, not whole photos.
        vary: process and compress the pictures before and after the edit in varied ways.
        untouched: also write the equally processed pictures without their edits (method "none").
        split: "train", "val" or "test": use only the photos of that split.
        area: smallest and largest share of a picture that is edited.
        progress: show a progress bar.

    Returns:
        The manifest. Photos that could not be used are named on the console.

    Raises:
        DataError: bad settings, no usable photo, or `out` holds a run with other settings.
    """
    console = Console(stderr=True)
    out = Path(out)
    names = choose_methods(methods, autoencoder is not None)
    _check(per_photo, seed, workers, crop, split, area)
    if autoencoder is not None:
        from forgemap.synth.autoencoder import load_autoencoder  # imports torch

        load_autoencoder(autoencoder)  # what is wrong with it is said here, once
        autoencoder = Path(autoencoder).resolve() if Path(autoencoder).exists() else autoencoder
    photos = [photos] if isinstance(photos, (str, Path)) else photos
    sources, problems = _read_sources(photos, out)
    sources = [photo for photo in sources if split is None or split_of(photo.sha256) == split]
    if not sources:
        raise DataError(_nothing(split, problems))
    if methods is None and autoencoder is None:
        console.print(
            f"Without --autoencoder there is no {' and no '.join(NEED_AUTOENCODER)}.",
            highlight=False,
        )
    settings = Settings(
        out=out,
        methods=tuple(names),
        per_photo=per_photo,
        seed=seed,
        autoencoder=None if autoencoder is None else str(autoencoder),
        crop=crop,
        vary=vary,
        untouched=untouched,
        area=area,
        photos=tuple(sources),
    )
    done = _open_journal(settings, split)
    tasks = _tasks(settings, done)
    bar = Progress(
        TextColumn("Editing photos"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not progress,
    )
    left = sum(len(task.indices) for task in tasks)
    with bar, (out / JOURNAL).open("a", encoding="utf-8") as journal:
        job = bar.add_task("", total=len(sources) * per_photo)
        bar.advance(job, len(sources) * per_photo - left)
        try:
            for task, (rows, troubles) in _run(settings, tasks, workers):
                problems += troubles
                for row in rows:
                    journal.write(json.dumps(row) + "\n")
                    done[row["image"]] = row
                journal.flush()
                bar.advance(job, len(task.indices))
        except KeyboardInterrupt:
            console.print("Interrupted: the same command goes on from here.", highlight=False)
            raise
        except OSError as error:
            raise DataError(
                f"{out} cannot be written: {error.strerror or error}; the same command goes on "
                "from here."
            ) from None
    for problem in sorted(problems):
        console.print(f"Skipped: {problem}", highlight=False, markup=False, soft_wrap=True)
    if problems:
        console.print(f"{len(problems)} skipped.", highlight=False)
    if not done:
        raise DataError(f"No picture could be made: {sorted(problems)[0]}")
    manifest = out / MANIFEST
    _write(manifest, "".join(json.dumps(done[image]) + "\n" for image in sorted(done)))
    return manifest


def _write(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def _check(
    per_photo: int,
    seed: int,
    workers: int,
    crop: int | None,
    split: str | None,
    area: tuple[float, float],
) -> None:
    if per_photo < 1 or workers < 1 or seed < 0:
        raise DataError("Edits per photo and workers are at least 1, the seed at least 0.")
    if crop is not None and crop < 64:
        raise DataError(f"A crop of {crop} pixels is too small for an edit: use 64 or more.")
    if split is not None and split not in SPLITS:
        raise DataError(f"Unknown split {split!r}: use one of {', '.join(SPLITS)}.")
    if not 0 < area[0] <= area[1] <= 1:
        raise DataError(f"The area must be two shares from 0 to 1, low first, not {area}.")


def _read_sources(photos: Iterable[str | Path], out: Path) -> tuple[list[Photo], list[str]]:
    """The photos with their hashes, sorted by hash, each content once; and what went wrong.

    Pictures of an earlier run in `out` are no photos.
    """
    found: dict[str, Photo] = {}
    files, troubles = find_images(photos)
    problems = [sentence for _, sentence in troubles]
    for path in files:
        if out.resolve() in path.resolve().parents:
            continue
        try:
            digest = sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
            continue
        if digest in found:
            problems.append(f"{path}: the same file as {found[digest].path}")
        else:
            found[digest] = Photo(str(path), digest)
    return [found[digest] for digest in sorted(found)], problems


def _nothing(split: str | None, problems: list[str]) -> str:
    where = f" in the split {split!r}" if split else ""
    reason = f" ({problems[0]})" if problems else ""
    return f"No photos{where}: give files or folders of pictures{reason}."


def _open_journal(settings: Settings, split: str | None) -> dict[str, dict[str, Any]]:
    """The finished rows by image name; a new journal's first line holds the settings."""
    out = settings.out
    journal = out / JOURNAL
    described = settings.describe() | {"split": split}
    try:
        if not journal.exists():
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise DataError(f"{out} already holds something else: give a new or empty folder.")
            out.mkdir(parents=True, exist_ok=True)
            _write(journal, json.dumps(described) + "\n")
        for name in ("images", "masks"):
            (out / name).mkdir(exist_ok=True)
            for torn in (out / name).glob("*.tmp"):
                torn.unlink()
        text = journal.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out} cannot be used: {error.strerror or error}.") from None
    whole = text[: text.rfind("\n") + 1]
    if whole != text:  # an interruption cut the last line
        _write(journal, whole)
    try:
        earlier, *rows = [json.loads(line) for line in whole.splitlines()]
    except ValueError:
        raise DataError(f"{journal} is damaged: give a new folder.") from None
    for key, value in json.loads(json.dumps(described)).items():
        if earlier.get(key) != value:
            raise DataError(
                f"{out} holds a run with other settings ({key} was {earlier.get(key)}, "
                f"now {value}): give another folder or the same settings."
            )
    return {
        row["image"]: row
        for row in rows
        if (out / row["image"]).is_file() and (row["mask"] is None or (out / row["mask"]).is_file())
    }


def _tasks(settings: Settings, done: dict[str, dict[str, Any]]) -> list[Task]:
    finished: dict[tuple[str, int], int] = {}
    for row in done.values():
        key = (row["source_sha256"], row["parameters"]["index"])
        finished[key] = finished.get(key, 0) + 1
    tasks = []
    for photo in settings.photos:
        missing = [
            index
            for index in range(settings.per_photo)
            if finished.get((photo.sha256, index), 0) < (2 if settings.has_twin(index) else 1)
        ]
        for start in range(0, len(missing), EDITS_PER_TASK):
            tasks.append(Task(photo, tuple(missing[start : start + EDITS_PER_TASK])))
    return tasks


def _run(settings: Settings, tasks: list[Task], workers: int) -> Iterator[tuple[Task, _Answer]]:
    """Each task with its answer, in the order in which they finish."""
    if workers == 1 or len(tasks) <= 1:
        with single_thread(with_torch=settings.autoencoder is not None):
            set_up(settings)
            for task in tasks:
                yield task, run_task(task)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=set_up,
        initargs=(settings,),
    )
    futures: dict[Future[_Answer], Task] = {pool.submit(run_task, task): task for task in tasks}
    try:
        while futures:
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                yield futures.pop(future), future.result()
    except BrokenProcessPool:
        raise DataError(
            "A worker was ended from outside, perhaps for want of memory: use fewer workers; "
            "the same command goes on from here."
        ) from None
    except BaseException:
        # Files are written beside and renamed, so a worker can be stopped at any moment.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
