"""journal.py: what of a run is finished, written down so that the same command goes on there."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from forgemap.errors import DataError
from forgemap.files import write_whole

JOURNAL = "journal.jsonl"
Row = dict[str, Any]
Answer = tuple[list[Row], list[str]]  # rows, and a sentence for each failure
Job = TypeVar("Job")


def open_journal(
    out: Path, described: Row, folders: tuple[str, ...] = ("images", "masks")
) -> dict[str, Row]:
    """The finished rows by image name; a new journal's first line holds the settings.

    Args:
        out: the run's folder; new, empty, or of a run with the same settings.
        described: the settings, JSON-able; equal exactly when the same pictures are made.
        folders: made inside of ``out``; half-written files there are removed.

    Raises:
        DataError: the folder holds something else, or a run with other settings.
    """
    journal = out / JOURNAL
    try:
        if not journal.exists():
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise DataError(f"{out} already holds something else: give a new or empty folder.")
            out.mkdir(parents=True, exist_ok=True)
            write_whole(journal, json.dumps(described) + "\n")
        for name in folders:
            (out / name).mkdir(parents=True, exist_ok=True)
            for torn in (out / name).glob("*.tmp"):
                torn.unlink()
        text = journal.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out} cannot be used: {error.strerror or error}.") from None
    kept = text[: text.rfind("\n") + 1]
    if kept != text:  # an interruption cut the last line
        write_whole(journal, kept)
    try:
        earlier, *rows = [json.loads(line) for line in kept.splitlines()]
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


def finish_run(
    out: Path,
    done: dict[str, Row],
    problems: list[str],
    answers: Generator[tuple[Job, Answer], None, None],
    *,
    size: Callable[[Job], int],
    what: str,
    total: int,
    left: int,
    console: Console,
    progress: bool,
) -> None:
    """Write the rows of a run down as they come, behind a bar; then name what was left out.

    Args:
        out: the run's folder.
        done: what `open_journal` gave; the rows are added.
        problems: sentences for what was left out before.
        answers: the jobs that are left; closed in any case, so that no process outlives the run.
        size: how many of `total` a job is.
        what: the bar's name.
        total: steps of the bar, of which `left` are not done.
        console: for the bar and the sentences.
        progress: whether there is a bar.

    Raises:
        DataError: the folder cannot be written, or the run has made nothing at all.
    """
    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not progress,
    )
    with bar, closing(answers), (out / JOURNAL).open("a", encoding="utf-8") as journal:
        task = bar.add_task("", total=total, completed=total - left)
        try:
            for job, (rows, troubles) in answers:
                problems += troubles
                for row in rows:
                    journal.write(json.dumps(row) + "\n")
                    done[row["image"]] = row
                journal.flush()
                bar.advance(task, size(job))
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
