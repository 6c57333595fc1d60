"""forgemap evaluate: a model's scores on pictures whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ForgemapError
from .engine import Engine, Precision
from .extras import needs

if TYPE_CHECKING:
    from rich.console import Console


def evaluate(
    model: Annotated[
        str, typer.Argument(help='"default", a model folder, or an id of the Hugging Face hub.')
    ],
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder with a manifest.jsonl (as `forgemap synth` makes them), a data set as "
            "NAME:ROOT (see `forgemap data list`), or a folder of photographs, all taken as "
            "untouched. For an embedder: a folder with real/ and one for each generator (or 0_real "
            "and 1_fake, nature and ai), a manifest, shards, or a file of `forgemap embed`."
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
        bool,
        typer.Option(
            "--robustness",
            help="Add the grids of JPEG, WebP, blur, noise, size; for a localizer also "
            "pipelines of social media, benign processing, and robustness.md.",
        ),
    ] = False,
    parts: Annotated[
        str,
        typer.Option(
            help="Only these parts of --robustness: jpeg, webp, blur, blur_kernel, noise, resize, "
            "pipelines, benign."
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of the draw, the noise and the intervals.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    engine: Engine = "auto",
    precision: Precision = "auto",
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger pictures are refused before they are decoded.")
    ] = 100_000_000,
    transforms: Annotated[
        bool, typer.Option("--transforms", help="Embedder: also after 0 to 2 of CoDE's transforms.")
    ] = False,
    classifier: Annotated[
        list[str] | None,
        typer.Option(
            help="Embedder: linear, nearest, one-class, or a classifier's file [its own]."
        ),
    ] = None,
    fit: Annotated[
        Path | None, typer.Option(help="Embedder: pictures to fit classifiers on, or their file.")
    ] = None,
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out",
            help="Embedder: also classifiers that never saw the generator they are judged on.",
        ),
    ] = False,
    crops: Annotated[str, typer.Option(help="Embedder: centre, five or grid.")] = "centre",
    aggregation: Annotated[
        str, typer.Option(help="Embedder: mean-embedding, mean-score, median-score, max-score.")
    ] = "mean-score",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON instead of tables.")
    ] = False,
) -> None:
    """Measure a model: IoU, F1, AP, AUC, false alarms; per method, with confidence intervals.

    An embedder is measured per generator: accuracy, AUC, AP, TPR at few false alarms, ECE.
    """
    import json

    qualities = qualities_in(recompress)
    own = {
        "--transforms": transforms,
        "--classifier": bool(classifier),
        "--fit": fit is not None,
        "--leave-one-out": leave_one_out,
        "--crops": crops != "centre",
        "--aggregation": aggregation != "mean-score",
    }
    chosen = [part.strip() for part in parts.split(",") if part.strip()]
    if chosen and not robustness:
        raise ForgemapError("--parts are those of --robustness: give that as well.")
    with needs("evaluate"):
        from ..evaluate.embed import is_embedder
    if is_embedder(model):
        if chosen:
            raise ForgemapError(f"--parts is for localizers, and {model} is an embedder.")
        _generated(
            as_json,
            model,
            data,
            out,
            classifiers=classifier or (),
            fit=fit,
            leave_one_out=leave_one_out,
            split=split,
            limit=limit,
            recompress=qualities,
            robustness=robustness,
            transforms=transforms,
            crops=crops,
            aggregation=aggregation,
            seed=seed,
            device=device,
            engine=engine,
            precision=precision,
            workers=0 if workers == 1 else workers,
            max_pixels=max_pixels,
        )
        return
    if foreign := [name for name, given in own.items() if given]:
        raise ForgemapError(f"{foreign[0]} is for embedders, and {model} is none.")
    with needs("evaluate"):
        from ..evaluate.benchmark import evaluate as run

        results = run(
            model,
            data,
            out,
            split=split,
            limit=limit,
            recompress=qualities or None,
            robustness=chosen or robustness,
            seed=seed,
            device=device,
            engine=engine,
            precision=precision,
            workers=workers,
            max_pixels=max_pixels,
        )
    if as_json:
        print(json.dumps(results.to_dict()))
        return
    console = _console()
    for table in results.tables():
        console.print(table)
    for row in results.errors:
        console.print(row["error"], markup=False, soft_wrap=True)
    if out is not None:
        console.print(f"Results and plots are in {out}", markup=False, soft_wrap=True)


def qualities_in(recompress: str) -> list[int]:
    """``90,75`` as numbers."""
    try:
        return [int(quality) for quality in recompress.split(",") if quality.strip()]
    except ValueError:
        raise ForgemapError(
            f"--recompress {recompress!r} must be whole numbers, such as 90,75."
        ) from None


def _console(width: int = 120) -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(highlight=False, width=width)
    return console


def _generated(as_json: bool, model: str, data: Path, out: Path | None, **settings: Any) -> None:
    """An embedder and its classifiers."""
    import json
    import sys

    with needs("embed"):
        import pyarrow.parquet  # noqa: F401  # before long work

        from ..evaluate import generated_tables
        from ..evaluate.generated import evaluate as run

        found = run(model, data, out, **settings)
    if sentence := found.imbalance:
        print(f"forgemap: {sentence}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_dict()))
        return
    console = _console(150)
    for table in generated_tables.tables(found):
        console.print(table)
    for path, error in found.errors:
        console.print(error if path in error else f"{path}: {error}", markup=False, soft_wrap=True)
    if out is not None:
        console.print(f"Results and plots are in {out}", markup=False, soft_wrap=True)
