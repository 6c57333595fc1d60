"""write.py: records -> shards with checksums; parallel, and a killed run goes on where it stopped.

Each part of a source is written by one worker, shard by shard. A shard appears under its name only
when it is whole; a note in ``.progress/`` then says its checksum and what it holds. When the notes
of all parts are there they become ``index.json``, and the folder is done. The same records give the
same bytes, however many workers there were and however often they were stopped.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from ...errors import DataError
from ...files import whole
from .layout import (
    DROPPED,
    FORMAT,
    INDEX,
    PROGRESS,
    REAL,
    VERSION,
    Index,
    open_index,
    read_json,
    write_json,
)
from .photos import Photos
from .shard import Job, Settings, notes_of, write_part
from .sources import Part, Source

PLAN = "plan.json"


def write_shards(
    source: Source,
    out: str | Path,
    settings: Settings | None = None,
    *,
    exclude: frozenset[str] = frozenset(),
    photos: Photos | None = None,
    workers: int = 1,
    part: tuple[int, int] = (1, 1),
    progress: bool = True,
) -> Index | None:
    """Write a folder of shards with its index; an interrupted run goes on.

    Args:
        source: see `open_source`.
        out: a new or empty folder, or that of the same run stopped earlier.
        exclude: ids that are left out, see `read_exclusions`.
        photos: where photos come from that the source names only by address; None = nowhere, such
            records have no real picture.
        workers: processes.
        part: (k, n): of all parts only the k-th of every n, for n machines that share `out`. Who
            finishes last writes the index.

    Returns:
        The index, or None while other machines are not done.

    Raises:
        DataError: `out` holds something else, a source that cannot be read, no disk.
    """
    settings = settings or Settings()
    out = Path(out)
    members = source.members
    if photos is not None and REAL not in members:
        members = (*members, REAL)
    plan = {
        "source": source.name,
        "fingerprint": source.fingerprint,
        "settings": asdict(settings),
        "excluded": hashlib.sha256("\n".join(sorted(exclude)).encode()).hexdigest(),
        "photos": photos is not None,
    }
    if workers < 1 or not 1 <= part[0] <= part[1]:
        raise DataError(f"{workers} workers, part {part[0]} of {part[1]}: both count from 1.")
    try:
        if _prepared(out, plan):
            return open_index(out)
        job = Job(out, settings, members, exclude, photos)
        parts = list(enumerate(source.parts(settings.per_shard)))
        mine = [numbered for numbered in parts if numbered[0] % part[1] == part[0] - 1]
        _run(job, mine, workers, progress)
        notes = [notes_of(out, settings, number, piece) for number, piece in parts]
        if not all(found and found[-1]["end"] for found in notes):
            # Another machine may have finished just now.
            return open_index(out) if (out / INDEX).is_file() else None
        _finish(job, source, plan, [note for found in notes for note in found])
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}.") from None
    return open_index(out)


def _prepared(out: Path, plan: dict[str, Any]) -> bool:
    """Whether all is done already; otherwise the folder is ready."""
    at = out / PROGRESS / PLAN
    earlier = None
    if (out / INDEX).is_file():
        earlier = read_json(out / INDEX).get("plan")
    elif at.is_file():
        earlier = read_json(at)
    elif out.exists() and (not out.is_dir() or any(p.name != PROGRESS for p in out.iterdir())):
        raise DataError(f"{out} already holds something else: give a new or empty folder.")
    else:
        at.parent.mkdir(parents=True, exist_ok=True)
        write_json(at, plan)
    if earlier is not None and earlier != plan:
        changed = [name for name in plan if earlier.get(name) != plan[name]]
        raise DataError(
            f"{out} holds shards of a different run (another {' and '.join(changed)}): give "
            "another folder, or the same options to go on."
        )
    if not (out / INDEX).is_file():
        return False
    shutil.rmtree(out / PROGRESS, ignore_errors=True)  # of a run that was killed at its very end
    return True


def _run(job: Job, mine: list[tuple[int, Part]], workers: int, progress: bool) -> None:
    console = Console(stderr=True, quiet=not progress)
    if workers == 1:
        for number, piece in track(mine, "Writing", console=console, disable=not progress):
            write_part(job, number, piece)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, spawn, _end_with, (os.getpid(),))
    try:
        futures = [pool.submit(write_part, job, number, piece) for number, piece in mine]
        done = track(
            as_completed(futures),
            "Writing",
            total=len(futures),
            console=console,
            disable=not progress,
        )
        for future in done:
            future.result()
    except BrokenProcessPool:
        raise DataError(
            "A worker process died, perhaps for lack of memory: run the same command again with "
            "fewer workers; it goes on from here."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with(parent: int) -> None:
    """Ends this worker when its parent was killed: nobody else would."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _finish(job: Job, source: Source, plan: dict[str, Any], notes: list[dict[str, Any]]) -> None:
    """dropped.jsonl and index.json from the notes; then the notes are no longer needed."""
    shards = sorted((n["shard"] for n in notes if n["shard"]), key=lambda row: row["file"])
    dropped = [(id, why) for note in notes for id, why in note["dropped"]]
    if not shards:
        why = f" (the first, {dropped[0][0]}: {dropped[0][1]})" if dropped else ""
        shutil.rmtree(job.out / PROGRESS, ignore_errors=True)
        raise DataError(f"{source.name} gave no record to write{why}.")
    with whole(job.out / DROPPED) as beside, beside.open("w", encoding="utf-8") as stream:
        for id, why in dropped:
            stream.write(json.dumps({"id": id, "why": why}) + "\n")
    pictures = Counter[str]()
    for row in shards:
        pictures.update(row["members"])
    partial = sum(why.startswith("only in part") for _, why in dropped)
    index = {
        "format": FORMAT,
        "version": VERSION,
        "members": list(job.members),
        "generators": source.generators,
        "samples": sum(row["samples"] for row in shards),
        "pictures": {member: pictures[member] for member in job.members},
        "incomplete": sum(len(row["incomplete"]) for row in shards),
        "dropped": len(dropped) - partial,
        "excluded": sum(why == "excluded" for _, why in dropped),
        "source": source.facts,
        "plan": plan,
        "shards": shards,
    }
    write_json(job.out / INDEX, index)
    shutil.rmtree(job.out / PROGRESS, ignore_errors=True)
