"""results.py: the folder of a run: its journal, its lock, and which runs it refuses.

RESULTS/journal.json     the settings and the listing's fingerprint; written when all is listed
RESULTS/listing/         what is to be scanned, see listing.py
RESULTS/parts/           the rows, see parts.py
RESULTS/masks/           with --masks: <sha256>.png, 255 = judged edited
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..files import write_whole
from .listing import Facts, write_listing
from .parts import FOLDER, MASKS, read_parts
from .sources import find

JOURNAL = "journal.json"
LISTING = "listing"
FORMAT = "forgemap scan"
VERSION = 1


@dataclass(frozen=True)
class Results:
    """An open folder of results."""

    out: Path
    listing: Facts
    journal: dict[str, Any]
    resumed: bool


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """One run at a time; the lock ends with its process, however that ends."""
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise DataError(
            f"Another scan is writing to {out}: wait for it, or give another folder."
        ) from None
    except OSError as error:
        raise cannot_write(out, error) from None
    try:
        yield
    finally:
        lock.release()


def open_results(
    out: Path,
    sources: Sequence[str],
    column: str | None,
    decisive: dict[str, Any],
    about: dict[str, Any],
) -> Results:
    """Begin a run, or go on with the same one.

    Args:
        out: a new or empty folder, or one with results of the same sources and settings.
        sources, column: as in `sources.find`.
        decisive: see `Settings.decisive`.
        about: further facts for the journal, not compared.

    Raises:
        DataError: the folder holds something else; nothing to scan; a source that cannot be listed.
    """
    wanted = {"sources": list(sources), "column": column, **decisive}
    path = out / JOURNAL
    if path.is_file():
        journal = read_journal(out)
        refuse_others(out, journal["settings"], wanted)
        return Results(out, Facts(**journal["listing"]), journal, True)
    strange = [p.name for p in out.iterdir() if p.name not in (".lock", LISTING, FOLDER)]
    if strange:
        raise DataError(f"{out} already holds something else: give a new or empty folder.")
    try:
        shutil.rmtree(out / LISTING, ignore_errors=True)  # of a run that was killed while listing
        (out / FOLDER).mkdir(exist_ok=True)
        facts = write_listing(out / LISTING, _outside(find(sources, column), out))
        if not facts.pictures and not facts.tars:
            shutil.rmtree(out / LISTING, ignore_errors=True)
            raise DataError(f"{', '.join(sources)}: no pictures there; check the path or pattern.")
        journal = {
            "format": FORMAT,
            "version": VERSION,
            "settings": wanted,
            "listing": asdict(facts),
            "begun": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **about,
        }
        write_whole(path, json.dumps(journal, indent=1) + "\n", sync=True)
    except OSError as error:
        shutil.rmtree(out / LISTING, ignore_errors=True)
        raise cannot_write(out, error) from None
    return Results(out, facts, read_journal(out), False)


def _outside(entries: Any, out: Path) -> Iterator[Any]:
    """Without what an earlier or this run has written itself."""
    inside = str(out.resolve()) + "/"
    for entry in entries:
        if "://" in entry.address or not str(Path(entry.address).absolute()).startswith(inside):
            yield entry


def read_journal(out: Path) -> dict[str, Any]:
    """The journal of a folder of results.

    Raises:
        DataError: there is none, it is damaged or of a newer version.
    """
    path = out / JOURNAL
    try:
        journal = json.loads(path.read_text(encoding="utf-8"))
        if journal["format"] != FORMAT or not isinstance(journal["settings"], dict):
            raise ValueError
        version = int(journal["version"])
        Facts(**journal["listing"])
    except FileNotFoundError:
        raise DataError(
            f"{out} holds no results of `forgemap scan`: name the folder given with --out."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path} is not what `forgemap scan` wrote: give a new folder.") from None
    if version > VERSION:
        raise DataError(f"{path} was written by a newer Forgemap: update this one.")
    return journal


def refuse_others(out: Path, earlier: dict[str, Any], wanted: dict[str, Any]) -> None:
    """DataError if results are of another model, other sources or other settings."""
    wanted = json.loads(json.dumps(wanted))
    changed = [name for name in wanted if earlier.get(name) != wanted[name]]
    if not changed:
        return
    if "model" in changed:
        before, now = earlier.get("model") or {}, wanted["model"]
        keys = [k for k in {**before, **now} if before.get(k) != now.get(k)]
        what = "another model" if "weights_sha256" in keys else f"another {' and '.join(keys)}"
        raise DataError(
            f"{out} holds results of {what}: give another folder, or the model that made them."
        )
    raise DataError(
        f"{out} holds results of another {' and '.join(changed)}: give another folder, or the same "
        "options to go on."
    )


def known_hashes(folder: Path, decisive: dict[str, Any]) -> np.ndarray:
    """SHA-256 of all pictures that an earlier scan has judged, sorted: (N,) of 32 bytes each.

    Raises:
        DataError: no results there, or of another model or settings.
    """
    earlier = read_journal(folder)["settings"]
    refuse_others(folder, earlier, decisive)
    found: list[np.ndarray] = []
    for table, _ in read_parts(folder, ["sha256", "error"]):
        judged = table.filter(table.column("error").is_null())
        digests = b"".join(bytes.fromhex(text) for text in judged.column("sha256").to_pylist())
        found.append(np.frombuffer(digests, "S32"))
    return np.unique(np.concatenate(found)) if found else np.empty(0, "S32")


def hashes_digest(known: np.ndarray) -> str:
    """One hash of many, for the journal."""
    return hashlib.sha256(known.tobytes()).hexdigest()


def is_known(known: np.ndarray, sha256: str) -> bool:
    """Whether a hash in hex is among them."""
    digest = np.array(bytes.fromhex(sha256), "S32")
    place = int(np.searchsorted(known, digest))
    return place < len(known) and bool(known[place] == digest)


def cannot_write(out: Path, error: OSError) -> DataError:
    """A full disk or a folder without permission, as one sentence."""
    return DataError(
        f"{out} cannot be written ({error.strerror or error}): what it holds is whole; make room, "
        "and the same command goes on from there."
    )


__all__ = ["MASKS", "Results", "locked", "open_results"]
