"""run.py: a scan on one machine: sources in, a folder of results out, resumable at any moment."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .listing import Unit, read_unit
from .parts import Part, Progress, read_progress, write_part
from .results import (
    LISTING,
    Results,
    cannot_write,
    hashes_digest,
    is_known,
    known_hashes,
    locked,
    open_results,
)
from .settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from ..detector import Detector


@dataclass
class Outcome:
    """What one call of `scan` did.

    Attributes:
        out: the folder of results.
        before: pictures that an earlier call had finished.
        judged, unreadable, known: pictures of this call: with a verdict, with an error, and passed
            over because an earlier scan knows them.
        manipulated: of those judged.
        seconds, busy: wall time of this call's work, and the part in which the network computed.
    """

    out: Path
    before: int = 0
    judged: int = 0
    unreadable: int = 0
    known: int = 0
    manipulated: int = 0
    seconds: float = 0.0
    busy: float = 0.0

    @property
    def pictures(self) -> int:
        return self.judged + self.unreadable + self.known

    def add(self, part: Part) -> None:
        bad = sum(row["error"] is not None for row in part.rows)
        self.unreadable += bad
        self.judged += len(part.rows) - bad
        self.known += part.known
        self.manipulated += sum(row.get("verdict") == "manipulated" for row in part.rows)
        self.busy += part.busy


def scan(
    sources: Sequence[str | Path],
    out: str | Path,
    settings: Settings | None = None,
    *,
    column: str | None = None,
    since: str | Path | None = None,
    cluster: str | None = None,
    progress: bool = True,
) -> Outcome:
    """Judge every picture of the sources once; the rows become Parquet files in `out`.

    Stopped at any moment and called again with the same arguments it goes on, and ends with the
    rows of a run that was not stopped. A picture that cannot be read is a row with its error.
    Decoders are processes that are spawned: a script must call this under
    `if __name__ == "__main__":`.

    Args:
        sources: see `sources.find`.
        out: a new or empty folder, or that of the same scan stopped earlier.
        settings: see `Settings`.
        column: of manifests and Parquet files, the one with the pictures.
        since: results of an earlier scan with the same model; pictures that it has judged, by
            hash, are passed over.
        cluster: None: this machine. "ray" or "ray:ADDRESS": see `cluster.py`.
        progress: show a bar on stderr, if that is a terminal.

    Raises:
        ForgemapError: nothing to scan; `out` holds something else; a full disk (what was written
            stays valid); a model that cannot be used.
        KeyboardInterrupt: after Ctrl-C, when what was finished has been written.
    """
    settings = settings or Settings()
    out = Path(out)
    names = [str(source) for source in sources]
    if not names:
        raise DataError("Name at least one picture, folder, manifest or address to scan.")
    detector = settings.load()
    decisive = settings.decisive(detector)
    known = None if since is None else known_hashes(Path(since), decisive)
    if known is not None:
        decisive["since"] = {"pictures": len(known), "hash": hashes_digest(known)}
    else:
        decisive["since"] = None
    with locked(out):
        results = open_results(out, names, column, decisive, {"model": detector.name})
        try:
            done = read_progress(out)
        except OSError as error:
            raise cannot_write(out, error) from None
        outcome = Outcome(out, before=sum(unit.position for unit in done.values()))
        left = (
            unit for unit in range(results.listing.units) if unit not in done or not done[unit].done
        )
        began = time.monotonic()
        shown = _bar(results, outcome) if progress else contextlib.nullcontext(_nothing)
        with shown as tell:
            if cluster is None:
                parts = _local(out, detector, settings, known, left, done)
            else:
                from .cluster import parts_on_cluster

                parts = parts_on_cluster(cluster, out, settings, known, left, done)
            _write_all(out, parts, outcome, tell)
        outcome.seconds = time.monotonic() - began
    return outcome


def _write_all(out: Path, parts: Iterator[Part], outcome: Outcome, tell: Any) -> None:
    """Write each part as it comes; after Ctrl-C also what is finished since the last."""
    try:
        for part in parts:
            write_part(out, part)
            outcome.add(part)
            tell(part)
    except OSError as error:
        raise cannot_write(out, error) from None
    finally:
        close = getattr(parts, "close", None)
        if close is not None:
            close()


def _local(
    out: Path,
    detector: Detector,
    settings: Settings,
    known: np.ndarray | None,
    left: Iterator[int],
    done: dict[int, Progress],
) -> Iterator[Part]:
    from .pipeline import Pipeline

    ask = None if known is None else (lambda sha256: is_known(known, sha256))
    pipeline = Pipeline(detector, settings, known=ask)
    written = True
    part: Part | None = None
    try:
        for part in pipeline.run(units_from(out, left, done)):
            written = False
            yield part
            written = True
    except (KeyboardInterrupt, GeneratorExit) as stop:
        # GeneratorExit: the interruption came while the part was being written.
        if isinstance(stop, KeyboardInterrupt) or not written:
            _keep(out, part if not written else None, pipeline.rest())
        raise
    finally:
        pipeline.close()


def _keep(out: Path, unwritten: Part | None, rest: Part) -> None:
    """After Ctrl-C: write what is finished. If the disk is full it is judged again, that is all."""
    with contextlib.suppress(OSError):
        if unwritten is not None:
            write_part(out, unwritten)
        if rest.stop > rest.start:
            write_part(out, rest)


def units_from(
    out: Path, left: Iterator[int], done: dict[int, Progress]
) -> Iterator[tuple[Unit, int]]:
    """The units that are left, each with the item to go on from."""
    for number in left:
        unit = read_unit(out / LISTING, number)
        yield unit, done[number].position if number in done else 0


def _nothing(part: Part) -> None:
    """No progress is shown."""


@contextlib.contextmanager
def _bar(results: Results, outcome: Outcome) -> Iterator[Any]:
    """A bar with rate, busy share and time left; on stderr, and nowhere else."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield _nothing
        return
    bar = Progress(
        TextColumn("Scanning"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.fields[total_text]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        total = _Total(results)
        job = bar.add_task("", completed=outcome.before, rate="", **total.shown())
        began = time.monotonic()

        def tell(part: Part) -> None:
            passed = max(time.monotonic() - began, 1e-9)
            rate = f"{outcome.pictures / passed:.1f}/s, busy {outcome.busy / passed:.0%}"
            total.add(part)
            bar.update(job, advance=part.stop - part.start, rate=rate, **total.shown())

        yield tell


class _Total:
    """How many pictures there will be: of tar shards, estimated from those that are finished."""

    def __init__(self, results: Results) -> None:
        self._out, self._facts = results.out, results.listing
        self._bytes = self._members = 0

    def add(self, part: Part) -> None:
        if self._facts.tars and part.end:
            entry = read_unit(self._out / LISTING, part.unit).entries[0]
            if entry.kind == "tar":
                self._bytes += entry.size or 0
                self._members += part.stop

    def shown(self) -> dict[str, Any]:
        if not self._facts.tars:
            total = self._facts.pictures + self._facts.problems
            return {"total": total, "total_text": f"{total:,}"}
        if not self._members:
            return {"total": None, "total_text": "?"}
        share = self._members / max(self._bytes, 1)
        total = self._facts.pictures + round(share * self._facts.tar_bytes)
        return {"total": total, "total_text": f"about {total:,}"}
