"""forgemap report: what is done with a report that was written before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

report = typer.Typer(
    help="Reports that were written before.",
    no_args_is_help=True,
    add_completion=False,
)

STYLES = {"same": "green", "changed": "bold red", "missing": "yellow"}


@report.callback()
def _group() -> None:
    """Keeps `verify` a subcommand although it is the only one."""


@report.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="REPORT", help="report.html or report.json.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or globs; default: where the report says they were."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON array on stdout and nothing else.")
    ] = False,
) -> None:
    """Check that files are the ones that a report speaks of, by their SHA-256.

    It proves nothing about the report itself, which is not signed.

    Exit code: 0 all are the same; 1 a file has changed or is missing; 2 the report or a file cannot
    be read.
    """
    import json

    from ..verify import verify as check

    checked = check(path, files or ())
    if as_json:
        print(json.dumps([c.to_dict() for c in checked], indent=1))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from ..decode import shown

        table = Table(box=None, pad_edge=False)
        for name in ("picture", "state", "file"):
            table.add_column(name, overflow="fold")
        for c in checked:
            file = Text(shown(c.file)) if c.file else Text("")
            table.add_row(Text(shown(c.path)), Text(c.state, STYLES[c.state]), file)
        console = Console(highlight=False)
        console.print(table)
        same = sum(c.state == "same" for c in checked)
        console.print(f"{same} of {len(checked)} are the files of the report.")
    raise typer.Exit(int(any(c.state != "same" for c in checked)))
