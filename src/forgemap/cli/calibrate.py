"""forgemap calibrate: choose a model's thresholds on pictures that it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    split: Annotated[
        str,
        typer.Option(
            help="The split that is used: val, test or train; for an embedder also all, for "
            "folders that say no splits."
        ),
    ] = "val",
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
    crops: Annotated[
        str, typer.Option(help="Embedder: which squares are looked at: centre, five or grid.")
    ] = "five",
    classifier: Annotated[
        str, typer.Option(help="Embedder: whose thresholds: linear, nearest or one-class.")
    ] = "linear",
) -> None:
    """Choose a model's thresholds for few false alarms, and write them into its folder.

    A localizer's for edited pictures, an embedder's for generated ones (`data` then holds real/ and
    a folder for each generator).
    """
    import json

    with needs("evaluate"):
        from ..evaluate.embed import is_embedder

        limits: dict[str, Any] = {"min_side": min_side, "min_jpeg_quality": min_jpeg_quality}
        if is_embedder(model):
            from ..evaluate.calibration import Limits
            from ..evaluate.calibration_generated import calibrate_generated

            rule = calibrate_generated(
                model,
                data,
                photos or (),
                limits=Limits(alarms, flagged, doubts),
                split=None if split == "all" else split,
                crops=crops,
                classifier=classifier,
                **limits,
            )
            print(json.dumps(rule.to_dict(), indent=2))
            return
        from ..evaluate.calibration import Limits
        from ..evaluate.calibration import calibrate as run

        decision = run(
            model,
            data,
            photos or (),
            split=split,
            limits=Limits(alarms, flagged, doubts),
            **limits,
        )
    print(json.dumps(decision.to_dict(), indent=2))
