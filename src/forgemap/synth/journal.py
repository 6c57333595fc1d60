"""journal.py: which pictures of a run are finished, so that the same command goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgemap.errors import DataError
from forgemap.files import write_whole

JOURNAL = "journal.jsonl"
Row = dict[str, Any]


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
