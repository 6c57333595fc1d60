"""forgemap analyze: judge pictures; a table or JSON, and a report for the lot."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ForgemapError
from .engine import Engine, Precision
from .start import quickly

if TYPE_CHECKING:
    from ..report import Report

COLOURS = {
    "manipulated": "bold red",
    "generated": "bold red",
    "inconclusive": "yellow",
    "no sign of editing": "green",
    "no sign of generation": "green",
}


def analyze(
    paths: Annotated[list[str], typer.Argument(help="Pictures, folders or globs.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the outputs; files of the same names are replaced.")
    ] = Path("forgemap-out"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON array on stdout and nothing else.")
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "--localizer",
            help='Which localizer answers "edited, and where?": "default", a model folder, a '
            "published model (`forgemap models list`), or an id of the Hugging Face hub.",
        ),
    ] = "default",
    detector: Annotated[
        str,
        typer.Option(
            help='Which embedder answers "generated as a whole?": "default", "code" (the published '
            'one), a folder, an id of the hub, or "none".'
        ),
    ] = "default",
    classifier: Annotated[
        str | None,
        typer.Option(
            help="Its classifier: linear, nearest, one-class, or a file that `forgemap convert` or "
            "`train embedder` wrote; default: the embedder's own."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=0.99,
            help="Probability from which a pixel belongs to the mask; default: the model's own. "
            "Verdicts rest on the model's thresholds.",
        ),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger pictures are refused before they are decoded.")
    ] = 100_000_000,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    engine: Engine = "auto",
    precision: Precision = "auto",
    windows: Annotated[
        str | None,
        typer.Option(
            help="For models that shrink pictures to a fixed size, as DeCLIP: look through windows "
            'of them too, at 1, 2 and 4 pixels for one, and fuse by "mean" or "max" of the logits; '
            '"mean:1,3" names the scales. Each window costs what a picture does.'
        ),
    ] = None,
    copies: Annotated[
        bool,
        typer.Option(
            "--copies/--no-copies",
            help="Look for regions that occur twice, if the model's score counts them.",
        ),
    ] = True,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.json and report.html.")
    ] = True,
    files: Annotated[
        bool, typer.Option("--files/--no-files", help="Write any files at all.")
    ] = True,
) -> None:
    """Judge pictures: was each one edited, and where? Was it generated as a whole?

    Writes for every picture PHOTO.overlay.png, PHOTO.mask.png (black and white) and
    PHOTO.heatmap.png (probability), and report.html for all of them. A picture that cannot be
    read does not stop the others.

    Exit code: 0 no picture is judged manipulated or generated; 1 at least one is; 2 the command
    or a model cannot be used; 3 at least one picture could not be read (whatever the others are).
    """
    with quickly():
        from ..analysis import analyze_files, to_json, with_progress, write_json
        from ..detector import Detector
        from ..image import find_images
        from ..report import Report
        from ..report_html import ReportWriter

    found = find_images(paths)
    pictures = without_outputs(found.files, paths, out)
    if not pictures and not found.problems:
        raise ForgemapError(f"No pictures in {', '.join(paths)} besides earlier outputs in {out}.")
    judge = Detector.load(
        model,
        device,
        windows=windows,
        detector=None if detector == "none" else detector,
        classifier=classifier,
        engine=engine,
        precision=precision,
        copies=copies,
    )
    page = None
    settings = {
        "threshold of the mask": threshold or judge.decision.mask_threshold,
        "pixel limit": f"{max_pixels:,}",
        "device": device,
        "computed by": str(judge.computed),
        **({} if windows is None else {"windows": str(judge.windows)}),
    }
    with ExitStack() as stack:
        if files and report:
            page = ReportWriter(out / "report.html", title="Forgemap report", settings=settings)
            stack.enter_context(page)
        reports = [
            Report(path, model=judge.name, error=problem) for path, problem in found.problems
        ]
        for problem in reports:
            if page is not None:
                page.add(problem)
        analysed = analyze_files(
            judge,
            pictures,
            out if files else None,
            page=page,
            max_pixels=max_pixels,
            threshold=threshold,
        )
        reports += with_progress(analysed, len(pictures))
    if page is not None:
        write_json(reports, out / "report.json")

    if as_json:
        print(to_json(reports))
    else:
        print_table(reports)
        if files:
            print(f"Files are in {out}" + (f", the report is {page.path}" if page else ""))
    for bad in reports:
        if bad.error:
            print(bad.error, file=sys.stderr)
    raise typer.Exit(exit_code(reports))


def without_outputs(files: Sequence[Path], named: Sequence[str], out: Path) -> list[Path]:
    """Leaves out an earlier run's maps in `out`, which are no photographs, unless named."""
    asked = {Path(path).absolute() for path in named}
    maps = (".heatmap.png", ".mask.png", ".overlay.png", ".confidence.png")
    return [
        file
        for file in files
        if file.absolute() in asked
        or not (file.absolute().parent == out.absolute() and file.name.endswith(maps))
    ]


def exit_code(reports: Sequence[Report]) -> int:
    """See the help of `forgemap analyze`."""
    if any(report.error for report in reports):
        return 3
    return int(
        any(
            report.verdict == "manipulated"
            or (report.generated or {}).get("verdict") == "generated"
            for report in reports
        )
    )


def print_table(reports: Sequence[Report]) -> None:
    """Both answers for each picture: verdicts and scores, marked area and number of regions."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..decode import shown

    table = Table(box=None, pad_edge=False)
    table.add_column("picture", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for name in ("score", "area", "regions"):
        table.add_column(name, justify="right", no_wrap=True)
    both = any(report.generated for report in reports)
    if both:
        table.add_column("as a whole", no_wrap=True)
        table.add_column("score", justify="right", no_wrap=True)
    for report in reports:
        path = Text(shown(report.path))
        if report.error or report.score is None or report.area is None:
            table.add_row(path, Text("not readable", "magenta"), "", "", "")
            continue
        verdict = Text(report.verdict or "", COLOURS[report.verdict or ""])
        area, regions = f"{report.area:.1%}", str(len(report.regions))
        cells: list[Text | str] = [path, verdict, f"{report.score:.3f}", area, regions]
        if report.generated:
            whole = report.generated
            cells += [Text(whole["verdict"], COLOURS[whole["verdict"]]), f"{whole['score']:.3f}"]
        table.add_row(*cells)
    console = Console(highlight=False)
    console.print(table)
    if len(reports) == 1:
        (only,) = reports
        whole = only.generated or {}
        for sentence in (only.summary, only.reason, whole.get("reason"), *whole.get("notes", ())):
            if sentence:
                console.print(sentence, markup=False)
    for report in reports if len(reports) > 1 else ():
        if report.disagree:
            console.print(f"{shown(report.path)}: {report.summary}", markup=False)
