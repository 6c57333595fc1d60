"""forgemap evaluate: a model's scores on pictures whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ForgemapError
from .extras import needs


def evaluate(
    model: Annotated[
        str, typer.Argument(help='"default", a model folder, or an id of the Hugging Face hub.')
    ],
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder with a manifest.jsonl (as `forgemap synth` makes them), or a folder of "
            "photographs, all taken as untouched."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results.json and plots; an interrupted run goes on there."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only train, val or test.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many pictures, evenly over the methods.")
    ] = None,
    recompress: Annotated[
        str, typer.Option(help="JPEG qualities to save every picture anew with, such as 90,75.")
    ] = "",
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Add the grids of JPEG, WebP, blur, noise, size.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the draw, the noise and the intervals.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger pictures are refused before they are decoded.")
    ] = 100_000_000,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON instead of tables.")
    ] = False,
) -> None:
    """Measure a model: IoU, F1, AP, AUC, false alarms; per method, with confidence intervals."""
    import json

    with needs("evaluate"):
        from ..evaluate.benchmark import evaluate as run
    try:
        qualities = [int(quality) for quality in recompress.split(",") if quality.strip()]
    except ValueError:
        raise ForgemapError(
            f"--recompress {recompress!r} must be whole numbers, such as 90,75."
        ) from None
    with needs("evaluate"):
        results = run(
            model,
            data,
            out,
            split=split,
            limit=limit,
            recompress=qualities or None,
            robustness=robustness,
            seed=seed,
            device=device,
            workers=workers,
            max_pixels=max_pixels,
        )
    if as_json:
        print(json.dumps(results.to_dict()))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(highlight=False, width=120)
    for table in results.tables():
        console.print(table)
    for row in results.errors:
        console.print(row["error"], markup=False, soft_wrap=True)
    if out is not None:
        console.print(f"Results and plots are in {out}", markup=False, soft_wrap=True)
