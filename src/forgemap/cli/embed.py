"""forgemap embed: the embeddings of real and generated pictures, as a file and as a map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ForgemapError
from .engine import Engine, Precision
from .extras import needs


def embed(
    model: Annotated[str, typer.Argument(help="An embedder's folder, or its hub id.")],
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder (real/ and one for each generator, 0_real and 1_fake, nature and ai), "
            "manifest or shards; or an embedding file of this model, to draw it."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The Parquet file to write; a stopped run goes on.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw a map by generator beside it: umap or tsne.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many, evenly over the generators.")
    ] = None,
    recompress: Annotated[
        str, typer.Option(help="JPEG qualities to save every picture anew with, such as 90,75.")
    ] = "",
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Add the grids of JPEG, WebP, blur, noise, size.")
    ] = False,
    transforms: Annotated[
        bool, typer.Option("--transforms", help="Add every picture after 0 to 2 transforms.")
    ] = False,
    crops: Annotated[str, typer.Option(help="centre, five or grid.")] = "centre",
    seed: Annotated[int, typer.Option(min=0, help="Of the draws and the map.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    engine: Engine = "auto",
    precision: Precision = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Reading processes; 0: none.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 64,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger pictures are refused before they are decoded.")
    ] = 100_000_000,
) -> None:
    """Embed pictures: a Parquet file, and a map of it by generator."""
    from .evaluate import qualities_in

    qualities = qualities_in(recompress)
    with needs("embed"):
        import pyarrow.parquet  # noqa: F401  # before long work

        from ..evaluate.embed import Model
        from ..evaluate.embed import embed as run
        from ..evaluate.embeddings import is_embeddings, read_embeddings
        from ..evaluate.maps import MAPS, draw

        if plot is not None and plot not in MAPS:
            raise ForgemapError(f"--plot {plot!r} is unknown: use one of {', '.join(MAPS)}.")
        loaded = Model.load(model, device, engine=engine, precision=precision)
        if is_embeddings(data):
            if out is not None or plot is None:
                raise ForgemapError(f"{data} holds embeddings already: give --plot to draw it.")
            found, file = read_embeddings(data, loaded.source), data
        elif out is None:
            raise ForgemapError("Missing: --out, the Parquet file to write.")
        else:
            found = run(
                loaded,
                data,
                out,
                split=split,
                limit=limit,
                recompress=qualities,
                robustness=robustness,
                transforms=transforms,
                crops=crops,
                seed=seed,
                workers=workers,
                batch=batch,
                max_pixels=max_pixels,
            )
            file = out
        for path, error in found.errors:
            print(error if path in error else f"{path}: {error}")
        print(f"{file}: {len(found)} embeddings of {loaded.network.width} numbers.")
        if plot is not None:
            print(draw(found, plot, file.with_name(f"{file.stem}-{plot}.png"), seed=seed))
