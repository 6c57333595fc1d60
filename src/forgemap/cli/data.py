"""forgemap data …: what published sets look like, whether a copy is sound, sets built here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ForgemapError
from .extras import needs

if TYPE_CHECKING:
    from ..data.catalog import Check

data = typer.Typer(help="List, verify and build data sets.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A name from `forgemap data list`.")]
Root = Annotated[Path, typer.Argument(help="The copy: its folder (imdl-json: the file).")]


@data.command("list")
def list_sets(
    name: Annotated[str | None, typer.Argument(help="One set: its layout and its traps.")] = None,
) -> None:
    """The sets that can be read, and how a copy of each looks."""
    import inspect

    from ..data.catalog import SETS

    if name is None:
        for known, one in SETS.items():
            print(f"{known:12} {one.tree.splitlines()[0]}")
        print("\n`forgemap data list NAME` draws its tree; commands take NAME:ROOT as data.")
    elif name in SETS:
        print(inspect.cleandoc(SETS[name].tree).replace("\n::\n", ""))
    else:
        raise ForgemapError(f"Unknown data set {name!r}: use one of {', '.join(SETS)}.")


@data.command()
def check(
    name: Name,
    root: Root,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Decode at most so many pictures of each method.")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Fewer pictures than were published are a fault.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Threads.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Verify a copy: counts, pairing, sizes, readability, polarity of the masks.

    Exit codes: 0 sound, 1 faults were found (one sentence each), 2 not such a set at all.
    """
    import json

    from ..data.catalog import check as run

    result = run(name, root, sample=sample, complete=complete, workers=workers)
    if as_json:
        counts = [
            {"method": m, "split": s, "pictures": n} for (m, s), n in sorted(result.counts.items())
        ]
        findings = {"problems": result.problems, "notes": result.notes}
        print(json.dumps({"name": name, "root": str(root), "counts": counts, **findings}))
    else:
        _show(result)
    raise typer.Exit(1 if result.problems else 0)


def _show(result: Check) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..data.records import SPLITS

    console = Console(highlight=False)
    table = Table(title=f"{result.name}: {result.root}", title_justify="left")
    table.add_column("method")
    for split in SPLITS:
        table.add_column(split, justify="right")
    for method in sorted({method for method, _ in result.counts}):
        table.add_row(method, *(str(result.counts.get((method, s), 0)) for s in SPLITS))
    console.print(table)
    for note in result.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    for problem in result.problems:
        console.print(f"Wrong: {problem}", markup=False, soft_wrap=True)
    faults = len(result.problems)
    console.print(f"{faults} fault{'' if faults == 1 else 's'}." if faults else "Sound.")


@data.command()
def manifest(
    name: Name,
    root: Root,
    out: Annotated[Path, typer.Option(help="The manifest, such as DATA/manifest.jsonl.")],
    split: Annotated[
        str | None, typer.Option(help="Put every picture into this split: train, val or test.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Only this method, and the untouched pictures.")
    ] = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave out faulty pictures instead of refusing.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Threads.")] = 4,
) -> None:
    """Write a manifest of a copy, with which every other command works.

    Every picture is decoded; a copy with faults is refused, or with --leave-out listed without
    the faulty pictures. Pictures stay where they are.
    """
    import sys
    from dataclasses import replace

    from ..data.catalog import check as run
    from ..data.catalog.sets import Named, keep_method
    from ..data.records import SPLITS, write_manifest

    if split is not None and split not in SPLITS:
        raise ForgemapError(f"Unknown split {split!r}: use one of {', '.join(SPLITS)}.")
    result = run(name, root, workers=workers)
    if result.problems and not leave_out:
        more = f" {len(result.problems) - 1} more faults." if len(result.problems) > 1 else ""
        raise ForgemapError(
            f"{result.problems[0]}{more} `forgemap data check {name} {root}` lists all; "
            "--leave-out writes the manifest without the faulty pictures."
        )
    inverted = [problem for problem in result.problems if "look inverted" in problem]
    if inverted:  # every picture of the method is concerned: there is nothing to leave out
        raise ForgemapError(inverted[0])
    for problem in result.problems:
        print(f"Left out: {problem}", file=sys.stderr)
    records = keep_method(result.records, Named(name, method, root))
    once = {record.image: record for record in records if record.image not in result.faulty}
    kept = [r if split is None else replace(r, split=split) for r in once.values()]
    print(write_manifest(kept, out))
    print(f"{len(kept)} pictures", file=sys.stderr)


@data.command()
def build(
    what: Annotated[str, typer.Argument(help="coco-sd (with --coco) or faces (with --faces).")],
    model: Annotated[
        str, typer.Option(help="Inpainting pipeline of diffusers: a folder or a hub id.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for images, masks and manifest.jsonl.")],
    coco: Annotated[
        Path | None,
        typer.Option(help="COCO: annotations/instances_train2017.json, train2017/ ..."),
    ] = None,
    faces: Annotated[
        Path | None, typer.Option(help="Aligned face photographs, in a folder and those in it.")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Faces: masks of the same names, white = redraw; default: face parts."),
    ] = None,
    variants: Annotated[
        str, typer.Option(help="Comma-separated: ldm, ldm_clean, ldm_real.")
    ] = "ldm",
    untouched: Annotated[
        bool, typer.Option("--untouched", help="Also write the pictures before the edit.")
    ] = False,
    prompt: Annotated[
        str, typer.Option(help="{label} is COCO's category, or the part of the face.")
    ] = "{label}",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many photographs.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Only photographs of this split: train, val or test.")
    ] = None,
    area: Annotated[
        str, typer.Option(metavar="MIN,MAX", help="Share of the picture that is redrawn.")
    ] = "0.02,0.5",
    size: Annotated[int, typer.Option(min=16, help="Longer side of the pictures.")] = 512,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 50,
    guidance: Annotated[float, typer.Option(min=0, help="Classifier-free guidance.")] = 7.5,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same pictures.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    devices: Annotated[
        str, typer.Option(help="Several, one process each: cuda:0,cuda:1 (or cpu,cpu).")
    ] = "",
    precision: Annotated[
        str, typer.Option(help="32, 16 or bf16; default: 32 on a CPU, 16 on a GPU.")
    ] = "auto",
) -> None:
    """Build a set by inpainting: COCO-SD from COCO's objects, or a Dolos-like set from faces.

    Interrupted, the same command goes on where it stopped.
    """
    with needs("diffusers"):
        from ..synth.coco_sd import build as run

    try:
        low, high = (float(share) for share in area.split(","))
    except ValueError:
        raise ForgemapError(f"--area {area!r} must be two numbers, such as 0.02,0.5.") from None
    wanted = {"coco-sd": coco, "faces": faces}
    if what not in wanted:
        raise ForgemapError(f"Unknown set {what!r}: use one of {', '.join(wanted)}.")
    photos = wanted[what]
    if photos is None or (what == "coco-sd") == (faces is not None):
        flag = "--coco" if what == "coco-sd" else "--faces"
        raise ForgemapError(f"`forgemap data build {what}` takes {flag} FOLDER, and only that.")
    with needs("diffusers"):
        path = run(
            what,
            photos,
            model,
            out,
            masks=masks,
            variants=[name.strip() for name in variants.split(",") if name.strip()],
            untouched=untouched,
            prompt=prompt,
            limit=limit,
            split=split,
            area=(low, high),
            size=size,
            steps=steps,
            guidance=guidance,
            batch=batch,
            seed=seed,
            devices=[name.strip() for name in devices.split(",") if name.strip()] or [device],
            precision=precision,
        )
    print(path)
