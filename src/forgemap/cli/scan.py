"""forgemap scan: judge any number of pictures, resumably; rows as Parquet files."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .engine import Engine, Precision
from .extras import needs


def scan(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders, pictures, globs, manifests (.jsonl, .csv, .txt), tar shards "
            "(a-{000..099}.tar), Parquet files, and addresses of these (s3://, gs://, https://).",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the results; a stopped scan goes on.")],
    model: Annotated[
        str, typer.Option("--model", "--localizer", help="As in `forgemap analyze`.")
    ] = "default",
    detector: Annotated[
        str, typer.Option(help='As in `forgemap analyze`; "none" leaves its question out.')
    ] = "default",
    classifier: Annotated[str | None, typer.Option(help="As in `forgemap analyze`.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0.01, max=0.99, help="Probability from which a pixel is marked."),
    ] = None,
    masks: Annotated[
        bool, typer.Option("--masks", help="Also write masks/…/SHA256.png of each picture.")
    ] = False,
    column: Annotated[
        str | None,
        typer.Option(help="Column of manifests and Parquet files with the pictures or paths."),
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(help="Results of an earlier scan: pictures known there are passed over."),
    ] = None,
    windows: Annotated[str | None, typer.Option(help="As in `forgemap analyze`.")] = None,
    copies: Annotated[
        bool, typer.Option("--copies/--no-copies", help="As in `forgemap analyze`.")
    ] = True,
    engine: Engine = "auto",
    precision: Precision = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Pictures in one pass, at most.")] = 8,
    workers: Annotated[
        int, typer.Option(min=0, help="Decoding processes; 0: chosen for the machine.")
    ] = 0,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger pictures are refused before they are decoded.")
    ] = 100_000_000,
    part_rows: Annotated[int, typer.Option(min=1, help="Rows of one Parquet file.")] = 1000,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Run on a Ray cluster: ray (the one of this machine, else a new local one), or "
            "ray:ADDRESS, such as ray:auto or ray:10.0.0.1:6379."
        ),
    ] = None,
    actors: Annotated[
        str,
        typer.Option(metavar="MIN,MAX", help="With --cluster: models at once, scaled between."),
    ] = "1,64",
) -> None:
    """Judge any number of pictures; one row each, in Parquet files below OUT/parts.

    Stopped in whatever way, the same command goes on where it was and ends with the same rows. A
    picture that cannot be read is a row with its error. `forgemap summary OUT` says what was found.

    Exit code: 0 every picture has its row; 2 the command, a source or the model cannot be used;
    130 interrupted.
    """
    with needs("scan"):
        import fsspec  # noqa: F401  # before long work
        import pyarrow.parquet  # noqa: F401

        from ..scan import Settings
        from ..scan import scan as run
    from ..errors import ForgemapError

    options: dict[str, Any] = {
        "detector": None if detector == "none" else detector,
        "classifier": classifier,
        "windows": windows,
        "engine": engine,
        "precision": precision,
        "copies": copies,
    }
    try:
        low, high = (int(number) for number in actors.split(","))
    except ValueError:
        raise ForgemapError(f"--actors {actors!r} must be two numbers, such as 1,64.") from None
    settings = Settings(
        model=model,
        device=device,
        options=tuple(options.items()),
        threshold=threshold,
        max_pixels=max_pixels,
        masks=masks,
        batch=batch,
        workers=workers,
        part_rows=part_rows,
        actors=(low, high),
    )
    # A cluster or a container that ends us asks with this signal: as kindly as Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcome = run(sources, out, settings, column=column, since=since, cluster=cluster)
    except KeyboardInterrupt:
        print(
            f"Stopped: what is finished is in {out}; the same command goes on from there.",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    parts = [f"{outcome.judged:,} judged ({outcome.manipulated:,} manipulated)"]
    parts += [f"{outcome.unreadable:,} not readable"] if outcome.unreadable else []
    parts += [f"{outcome.known:,} known from {since}"] if since is not None else []
    parts += [f"{outcome.before:,} done before"] if outcome.before else []
    print(", ".join(parts))
    if outcome.pictures:
        rate = outcome.pictures / max(outcome.seconds, 1e-9)
        busy = min(outcome.busy / max(outcome.seconds, 1e-9), 1)
        print(f"{rate:.1f} pictures/s; the network computed {busy:.0%} of the time")
    print(f"Rows are in {out / 'parts'}; `forgemap summary {out}` says what they hold.")
