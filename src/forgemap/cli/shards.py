"""forgemap shards: real and generated pictures as tar files, for millions of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ForgemapError
from .extras import needs

if TYPE_CHECKING:
    from ..data.shards.layout import Index
    from ..data.shards.photos import Photos

shards = typer.Typer(
    name="shards",
    help="Write, check and look into WebDataset shards in D3's naming.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@shards.command()
def write(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of real and generated pictures, a manifest, hf:elsaEU/ELSA_D3 (streamed "
            "from the hub), or a folder with such a data set as Parquet or Arrow files."
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder; or of a run to go on with.")],
    split: Annotated[
        str | None, typer.Option(help="Only this split; of a hub's set one must be chosen [train].")
    ] = None,
    per_shard: Annotated[int, typer.Option(min=1, help="Records of a shard.")] = 1000,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    part: Annotated[
        str, typer.Option(metavar="K/N", help="This machine's part, for N that share the folder.")
    ] = "1/1",
    exclude: Annotated[
        Path | None,
        typer.Option(
            help="File with ids to leave out: JSON list or one per line. D3's authors publish "
            "theirs as src/dataset/filter_real_images.json in github.com/aimagelab/CoDE."
        ),
    ] = None,
    encode: Annotated[
        str, typer.Option(help="keep: JPEG and PNG files as they are; published: anew, as D3's.")
    ] = "keep",
    incomplete: Annotated[
        str | None,
        typer.Option(help="keep or drop records without all pictures [keep; with photos: drop]."),
    ] = None,
    fetch_photos: Annotated[
        bool,
        typer.Option("--fetch-photos", help="Ask the network for photos named only by address."),
    ] = False,
    photos: Annotated[
        Path | None,
        typer.Option(help="Take such photos from a folder that img2dataset has downloaded to."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Of a fetch, in seconds.")] = 10.0,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Of a photo; larger are left.")
    ] = 20_000_000,
    at_once: Annotated[int, typer.Option(min=1, help="Fetches under way in a worker.")] = 16,
    private_addresses: Annotated[
        bool, typer.Option("--private-addresses", help="Fetch from the local network, too.")
    ] = False,
    name: Annotated[str, typer.Option(help="First part of keys and files.")] = "elsa_v2",
) -> None:
    """Write shards with checksums. Interrupted or killed, the same command goes on."""
    with needs("shards"):
        import webdataset  # noqa: F401  # at the beginning, not in a worker

        from ..data.shards import Settings, open_source, read_exclusions, write_shards

        if source.startswith("hf:"):
            import datasets  # noqa: F401
    from ..models.home import offline

    if offline() and (fetch_photos or source.startswith("hf:")):
        raise ForgemapError("FORGEMAP_OFFLINE is set: neither hf: nor --fetch-photos can be had.")
    try:
        k, n = (int(number) for number in part.split("/"))
    except ValueError:
        raise ForgemapError(f"--part {part!r} must be like 1/4.") from None
    getter = _photos(fetch_photos, photos, timeout, max_bytes, at_once, private_addresses)
    settings = Settings(
        name, per_shard, encode, incomplete or ("drop" if getter is not None else "keep")
    )
    with needs("shards"):
        index = write_shards(
            open_source(source, split),
            out,
            settings,
            exclude=read_exclusions(exclude) if exclude is not None else frozenset(),
            photos=getter,
            workers=workers,
            part=(k, n),
        )
    if index is None:
        print(f"Part {part} is done; the index comes with the last one.")
        return
    print(_summary(index))


@shards.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of shards, or one .tar file.")],
    decode: Annotated[bool, typer.Option("--decode", help="Decode every picture, too.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read every shard: checksums, members, doubles. Exit code 1 if there is a problem."""
    with needs("shards"):
        from ..data.shards import check_shards

        found = check_shards(folder, decode=decode, workers=workers)
    if as_json:
        answer = {
            "samples": found.samples,
            "pictures": dict(found.pictures),
            "problems": found.problems,
        }
        print(json.dumps(answer))
    else:
        for problem in found.problems:
            print(problem)
        count = len(found.problems)
        state = "no problem" if not count else f"{count} problem{'s' if count > 1 else ''}"
        print(f"{found.samples} samples, {sum(found.pictures.values())} pictures: {state}.")
    if found.problems:
        raise typer.Exit(1)


@shards.command()
def info(
    folder: Annotated[Path, typer.Argument(help="Folder of shards, or one .tar file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a folder of shards holds, by its index; nothing is checked."""
    with needs("shards"):
        from ..data.shards.layout import open_index

        index = open_index(folder)
        facts = _facts(index)
    if as_json:
        print(json.dumps(facts))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("member", "made by", "pictures", title=str(folder), title_justify="left")
    for member in index.members:
        maker = index.generators.get(member, "a camera")
        table.add_row(member, maker, str(facts["pictures"].get(member, "?")))
    console.print(table)
    console.print(_summary(index), markup=False, soft_wrap=True)


def _facts(index: Index) -> dict[str, Any]:
    splits: dict[str, int] = {}
    pictures: dict[str, int] = {}
    for shard in index.shards:
        splits[shard.split] = splits.get(shard.split, 0) + max(0, shard.samples)
        for member, number in shard.members.items():
            pictures[member] = pictures.get(member, 0) + number
    return {
        "shards": len(index.shards),
        "indexed": index.known,
        "bytes": sum((index.folder / s.file).stat().st_size for s in index.shards),
        "samples": sum(splits.values()) if index.known else None,
        "splits": splits if index.known else sorted(splits),
        "members": list(index.members),
        "generators": index.generators,
        "pictures": pictures,
        **{key: index.facts[key] for key in ("incomplete", "dropped", "source") if index.known},
    }


def _summary(index: Index) -> str:
    facts = _facts(index)
    size = f"{facts['shards']} shards, {facts['bytes'] / 2**20:.1f} MiB"
    if not index.known:
        return f"{size}; no index.json, so that what they hold is not known without a check."
    by_split = ", ".join(f"{split} {number}" for split, number in facts["splits"].items())
    text = f"{size}, {facts['samples']} samples ({by_split})."
    if facts["incomplete"]:
        text += f" {facts['incomplete']} samples lack a picture."
    if facts["dropped"]:
        text += f" {facts['dropped']} records were left out: see dropped.jsonl."
    return text


def _photos(
    fetch: bool, folder: Path | None, timeout: float, max_bytes: int, at_once: int, private: bool
) -> Photos | None:
    if fetch and folder is not None:
        raise ForgemapError("Photos come from the network or from --photos: give one of the two.")
    if not fetch and folder is None:
        return None
    from ..data.shards.photos import Downloaded, Fetch

    if folder is not None:
        if not folder.is_dir():
            raise ForgemapError(f"--photos {folder} is not a folder.")
        return Downloaded(folder)
    return Fetch(timeout=timeout, max_bytes=max_bytes, at_once=at_once, private=private)
