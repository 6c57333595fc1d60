"""forgemap image-level: which way of pooling a map tells edited from untouched pictures?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ForgemapError
from .extras import needs


def image_level(
    model: Annotated[
        str, typer.Argument(help='"default", a model folder, or an id of the Hugging Face hub.')
    ],
    data: Annotated[
        Path, typer.Argument(help="Folder with a manifest.jsonl: edited and untouched pictures.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for JSON and Markdown; an interrupted run goes on there."),
    ] = None,
    fit: Annotated[
        list[Path] | None,
        typer.Option(help="Manifest of other photos, to fit a regression over the poolings on."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only train, val or test.")] = None,
    fit_split: Annotated[str | None, typer.Option(help="The split of --fit.")] = "val",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many pictures, half untouched.")
    ] = None,
    recompress: Annotated[
        str, typer.Option(help="JPEG qualities to save every picture anew with, such as 90,75.")
    ] = "",
    raw: Annotated[
        bool, typer.Option("--raw", help="The network's own probabilities, not calibrated.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw and the intervals.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON instead of tables.")
    ] = False,
) -> None:
    """Compare poolings of a map into one score: AUC, AP, accuracy, TPR at few false alarms."""
    import json

    with needs("evaluate"):
        from ..evaluate import image_tables
        from ..evaluate.image_level import compare
    try:
        qualities = [int(quality) for quality in recompress.split(",") if quality.strip()]
    except ValueError:
        raise ForgemapError(
            f"--recompress {recompress!r} must be whole numbers, such as 90,75."
        ) from None
    with needs("evaluate"):
        comparison = compare(
            model,
            data,
            out,
            fit=fit or (),
            split=split,
            fit_split=fit_split,
            limit=limit,
            recompress=qualities,
            raw=raw,
            seed=seed,
            device=device,
        )
        found = image_tables.figures(comparison, seed)
    if out is not None:
        image_tables.save(comparison, found, out)
    if as_json:
        print(json.dumps(image_tables.to_dict(comparison, found)))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(highlight=False, width=140)
    for table in image_tables.tables(comparison, found):
        console.print(table)
    if out is not None:
        console.print(f"Results are in {out}", markup=False, soft_wrap=True)
