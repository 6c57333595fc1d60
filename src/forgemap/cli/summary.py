"""forgemap summary: what a scan found, as a table, JSON or a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .extras import needs


def summary(
    results: Annotated[Path, typer.Argument(help="Folder given to `forgemap scan` as --out.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Write a histogram of the scores to this PNG file.")
    ] = None,
    folders: Annotated[int, typer.Option(min=0, help="Folders in the table, at most.")] = 20,
) -> None:
    """What the rows of a scan hold: verdicts, scores, errors, folders, speed; also as it runs."""
    import json

    with needs("scan"):
        from ..scan.summary import plot_scores, print_summary, summarize

        found = summarize(results)
    if plot is not None:
        with needs("evaluate"):
            plot_scores(found, plot)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
    else:
        print_summary(found, folders)
