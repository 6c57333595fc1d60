"""forgemap calibrate: choose a model's thresholds on pictures that it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ForgemapError
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
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report: calibration.md and .json, reliability.png."),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="The split that is used: val, test or train; or all, for photos of which none was "
            "trained on, and for an embedder's folders that say no splits."
        ),
    ] = "val",
    alarms: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Chance that an untouched picture is judged manipulated, at most."
        ),
    ] = 0.02,
    processed: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="The same for each kind of honest processing, where alarms is lower."
        ),
    ] = 0.05,
    flagged: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Mean share of their area marked, at most; one marked as a whole counts as none.",
        ),
    ] = 0.005,
    flagged_processed: Annotated[
        float,
        typer.Option(min=0, max=1, help="The same after honest processing, where flagged is less."),
    ] = 0.01,
    doubts: Annotated[
        float, typer.Option(min=0, max=1, help="Chance that one is not cleared, at most.")
    ] = 0.1,
    manipulated_at: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Score below which none is accused, even where alarms would allow it.",
        ),
    ] = 0.0,
    clear_below: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Score from which on none is cleared, even where doubts would allow it.",
        ),
    ] = 0.5,
    whole: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Pictures of which a larger share is marked are inconclusive: processed or made "
            "as a whole, for all that the mask can say.",
        ),
    ] = 0.75,
    min_colours: Annotated[
        int,
        typer.Option(
            min=0,
            max=257,
            help="Colour pictures with fewer different colours are inconclusive; 0 judges GIFs.",
        ),
    ] = 257,
    processing: Annotated[
        str,
        typer.Option(
            help="Judge an untouched picture of each photo (embedder: of --photos) after each of "
            "these too: names of `forgemap synth --benign`, such as text,portrait, or all."
        ),
    ] = "",
    score: Annotated[
        str,
        typer.Option(
            help="Score by this one statistic of the maps, such as evidence_lse, instead of by a "
            "regression that takes a quarter of the photos: all of them set the thresholds then."
        ),
    ] = "",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many pictures of the data, and so many photos."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw and the processing.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the decision as JSON instead of tables.")
    ] = False,
) -> None:
    """Choose a model's thresholds for few false alarms, and write them into its folder.

    A localizer's for edited pictures, an embedder's for generated ones (`data` then holds real/ and
    a folder for each generator).
    """
    import json

    with needs("evaluate"):
        from ..evaluate.calibration import Limits
        from ..evaluate.embed import is_embedder

        limits = Limits(
            alarms=alarms,
            flagged=flagged,
            doubts=doubts,
            processed=processed,
            whole=whole,
            colours=min_colours,
            flagged_processed=flagged_processed,
            clear_below=clear_below,
            manipulated_at=manipulated_at,
        )
        names = [name.strip() for name in processing.split(",") if name.strip()]
        kinds: tuple[str, ...] = ()
        if names:
            from ..synth.benign import BENIGN, choose

            kinds = tuple(BENIGN) if names == ["all"] else choose(names)
        smallest: dict[str, Any] = {"min_side": min_side, "min_jpeg_quality": min_jpeg_quality}
        if is_embedder(model):
            if names and not photos:
                raise ForgemapError("--processing of an embedder works on --photos: give some.")
            idle = {"--processed": processed != Limits.processed, "--seed": seed != 0}
            if not names:
                _refuse(idle, f"goes with --processing, or is for localizers; {model} is none")
            given = {
                "--out": out is not None,
                "--score": bool(score),
                "--flagged": flagged != Limits.flagged,
                "--flagged-processed": flagged_processed != Limits.flagged_processed,
                "--whole": whole != Limits.whole,
                "--min-colours": min_colours != Limits.colours,
                "--limit": limit is not None,
                "--workers": workers > 1,
            }
            _refuse(given, f"is for localizers, and {model} is an embedder")
            from ..evaluate.calibration_generated import calibrate_generated

            rule = calibrate_generated(
                model,
                data,
                photos or (),
                limits=limits,
                processing=kinds,
                seed=seed,
                split=None if split == "all" else split,
                crops=crops,
                classifier=classifier,
                **smallest,
            )
            print(json.dumps(rule.to_dict(), indent=2))
            return
        own = {"--crops": crops != "five", "--classifier": classifier != "linear"}
        _refuse(own, f"is for embedders, and {model} is none")
        from ..evaluate import calibration_report
        from ..evaluate.calibration import calibrate as run

        if out is not None:
            import matplotlib  # noqa: F401  # before long work
        found = run(
            model,
            data,
            photos or (),
            split=None if split == "all" else split,
            limits=limits,
            processing=kinds,
            score=score,
            limit=limit,
            seed=seed,
            workers=workers,
            **smallest,
        )
        report = calibration_report.Report.of(found, seed)
        if out is not None:
            report.save(out)
    if as_json:
        print(json.dumps(found.decision.to_dict(), indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(highlight=False, width=120)
    for shown in report.shown():
        console.print(shown)
    if out is not None:
        console.print(f"The report is in {out}", markup=False, soft_wrap=True)


def _refuse(given: dict[str, bool], why: str) -> None:
    if wrong := [name for name, used in given.items() if used]:
        raise ForgemapError(f"{wrong[0]} {why}.")
