"""forgemap calibrate: choose a model's thresholds on pictures that it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .extras import needs


def calibrate(
    model: Annotated[Path, typer.Argument(help="Model folder; its config.json is rewritten.")],
    data: Annotated[
        list[str],
        typer.Argument(help="Manifests, folders that hold one, or data sets as NAME:ROOT."),
    ],
    photos: Annotated[
        list[str] | None, typer.Option(help="Folder of untouched photographs; may be repeated.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split that is used: val, test or train.")] = "val",
    alarms: Annotated[
        float,
        typer.Option(min=0, max=1, help="Untouched pictures judged manipulated, at most."),
    ] = 0.02,
    flagged: Annotated[
        float, typer.Option(min=0, max=1, help="Mean share of their area marked, at most.")
    ] = 0.005,
    doubts: Annotated[
        float, typer.Option(min=0, max=1, help="Untouched pictures not cleared, at most.")
    ] = 0.1,
    min_side: Annotated[
        int, typer.Option(min=0, help="Pictures with a shorter side are inconclusive.")
    ] = 96,
    min_jpeg_quality: Annotated[
        int, typer.Option(min=0, max=100, help="JPEGs below it are never cleared.")
    ] = 50,
) -> None:
    """Choose a model's thresholds for few false alarms, and write them into its folder."""
    import json

    with needs("evaluate"):
        from ..evaluate.calibration import Limits
        from ..evaluate.calibration import calibrate as run

        decision = run(
            model,
            data,
            photos or (),
            split=split,
            limits=Limits(alarms, flagged, doubts),
            min_side=min_side,
            min_jpeg_quality=min_jpeg_quality,
        )
    print(json.dumps(decision.to_dict(), indent=2))
