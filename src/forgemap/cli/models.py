"""forgemap models …: the published models: list, show, download, verify."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ForgemapError

if TYPE_CHECKING:
    from ..models.fetch import Transfer
    from ..models.zoo import Licence, Published

models = typer.Typer(help="Published models: list, show, download, verify.", no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(help="Names, as `forgemap models list` shows them.")]
AcceptLicence = Annotated[
    bool, typer.Option("--accept-licence", help="Accept the licence without being asked.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Use no network (or FORGEMAP_OFFLINE=1).")]
Proxy = Annotated[
    str | None, typer.Option(help="http://host:port; default: as HTTPS_PROXY and its like say.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models.command("list")
def list_models(as_json: AsJson = False) -> None:
    """Print the published models, and which of them are on this machine."""
    from ..models.download import state
    from ..models.zoo import LICENCES, ZOO

    rows = [
        {
            "name": entry.name,
            "state": state(entry),
            "backbone": "+".join(entry.backbones) or "-",
            "licence": LICENCES[entry.licence].name,
            "training": entry.training,
        }
        for entry in ZOO.values()
    ]
    if as_json:
        _print_json(rows)
    else:
        _print_table(rows)


@models.command()
def show(name: Annotated[str, typer.Argument(help="A name.")], as_json: AsJson = False) -> None:
    """Print all that is known of a published model."""
    from ..models.download import state
    from ..models.ledger import read_record
    from ..models.zoo import LICENCES, file_of, find, folder_of

    entry = find(name)
    record, licence = read_record(entry), LICENCES[entry.licence]
    size, sha256 = entry.size or record.get("size"), entry.sha256 or record.get("sha256")
    origin = "as published" if entry.sha256 else "recorded at the first download"
    facts: dict[str, Any] = {
        "name": entry.name,
        "state": state(entry),
        "use": entry.use,
        "training": entry.training,
        "licence": f"{licence.name}: {licence.summary} ({licence.address})",
        "features": entry.layer or "-",
        "needs": ", ".join(entry.backbones) if entry.backbones and not entry.whole else "-",
        "address": entry.address,
        "page": entry.page,
        "size": f"{size:,} bytes" if size else "not published",
        "sha256": f"{sha256} ({origin})" if sha256 else "not published; recorded at first download",
        "file": str(file_of(entry)),
    }
    if entry.kind == "localizer":
        facts["model folder"] = str(folder_of(entry))
    if as_json:
        _print_json(facts | {"size": size, "sha256": sha256})
        return
    for key, value in facts.items():
        print(f"{key:13} {value}")


@models.command()
def download(
    names: Names,
    accept_licence: AcceptLicence = False,
    offline: Offline = False,
    proxy: Proxy = None,
    file: Annotated[
        Path | None, typer.Option(help="Take this copy, fetched otherwise, of the one name given.")
    ] = None,
    convert: Annotated[
        bool, typer.Option("--convert/--no-convert", help="Make the model folder as well.")
    ] = True,
) -> None:
    """Download published models and make them ready: `forgemap analyze --model NAME`.

    Interrupted or cut off, the same command goes on where it stopped. A licence that needs it is
    shown and has to be accepted before the first download. Files are kept in FORGEMAP_HOME
    (default: ~/.cache/forgemap); FORGEMAP_MIRROR is the address of a folder that holds them under
    their published names, to be used instead of the published addresses.
    """
    from ..models.zoo import find, folder_of

    entries = [find(name) for name in names]
    if file is not None and len(entries) != 1:
        raise ForgemapError("--file is a copy of one file: give one name.")
    if file is not None and not file.is_file():
        raise ForgemapError(f"{file}: no such file.")
    get = Getter(accept_licence=accept_licence, offline=offline, proxy=proxy)
    for entry in entries:
        print(get(entry.name, file))
        if not convert or entry.kind == "backbone":
            continue
        if (folder_of(entry) / "config.json").is_file():
            print(folder_of(entry))
            continue
        from ..models.convert import convert as run

        print(run(entry.name, get=get))


@models.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names; default: all that are here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check downloaded files, and the models made of them, against the hashes on record.

    Exit code: 0 all as they were, 1 something changed, 2 wrong usage.
    """
    from ..models.download import verify as run

    rows = []
    for name, what, path, fault in run(names or []):
        rows.append({"name": name, "what": what, "verdict": fault or "ok", "path": str(path)})
    if as_json:
        _print_json(rows)
    elif rows:
        _print_table(rows)
    else:
        print("Nothing was downloaded yet.")
    raise typer.Exit(int(any(row["verdict"] != "ok" for row in rows)))


class Getter:
    """Finds a published file by its name, downloading it with a progress bar if it may.

    Args:
        accept_licence: take licences as accepted; otherwise a person at a terminal is asked.
        offline: use no network.
        proxy: see `Transfer`.
    """

    def __init__(self, *, accept_licence: bool, offline: bool, proxy: str | None) -> None:
        self.accept_licence = accept_licence
        self.offline = offline
        self.proxy = proxy

    def __call__(self, name: str, file: Path | None = None) -> Path:
        from ..models.download import download as run
        from ..models.zoo import find

        with _progress(find(name).file, self.proxy) as how:
            return run(
                name,
                agree=self.agree,
                file=file,
                forbid=self.offline,
                how=how,
                waiting=lambda sentence: print(sentence, file=sys.stderr),
            )

    def agree(self, licence: Licence, entry: Published) -> bool:
        """Show the licence; is it accepted?"""
        print(
            f"{entry.name} is published under {licence.name}: {licence.summary}.\n"
            f"{licence.address}",
            file=sys.stderr,
        )
        if self.accept_licence:
            return True
        if not sys.stdin.isatty():
            return False
        return typer.confirm("Do you accept it?", default=False, err=True)


@contextmanager
def _progress(label: str, proxy: str | None) -> Iterator[Transfer]:
    """A `Transfer` that draws a bar on stderr from the first byte on, if that is a terminal."""
    from rich import progress as bars
    from rich.console import Console

    from ..models.fetch import Transfer

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    bar = bars.Progress(*columns, console=console, disable=not console.is_terminal)
    task: list[bars.TaskID] = []

    def show(have: int, total: int | None) -> None:
        if not task:  # not before the licence was asked for
            bar.start()
            task.append(bar.add_task(label, total=total))
        bar.update(task[0], completed=have, total=total)

    try:
        yield Transfer(proxy=proxy, progress=show)
    finally:
        bar.stop()


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, no_wrap=column in ("name", "state", "what"), overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(highlight=False, width=200)
    console.print(table)


def _print_json(content: Any) -> None:
    import json

    print(json.dumps(content, indent=2))
