"""analysis.py: many picture files in, their Reports and output files out; used by the commands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .detector import Detector
from .errors import ForgemapError, ImageError
from .files import write_whole
from .image import DEFAULT_MAX_PIXELS, load_image
from .report import Report, write_outputs
from .report_html import ReportWriter


def analyze_files(
    detector: Detector,
    files: Sequence[Path],
    out: Path | None,
    *,
    page: ReportWriter | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    threshold: float | None = None,
) -> Iterator[Report]:
    """Judge one file after the other; one that cannot be read gives a Report with `error` set.

    Args:
        detector: the model.
        files: see `forgemap.image.find_images`.
        out: folder for each picture's heat map, mask, overlay and confidence; None = write nothing.
        page: the HTML report that takes up each picture.
        max_pixels: larger pictures are refused before they are decoded.
        threshold: as in `Detector.analyze`.

    Yields:
        The reports in the order of the files, without their probability maps, so that memory does
        not grow with the number of pictures.
    """
    for path, stem in zip(files, unique_stems(files), strict=True):
        try:
            image = load_image(path, max_pixels=max_pixels, metadata=True)
        except ImageError as error:
            report = Report(str(path), model=detector.name, error=str(error))
            if page is not None:
                page.add(report)
            yield report
            continue
        report = detector.analyze(image, threshold=threshold)
        if out is not None:
            report = write_outputs(report, image.pixels, out, stem)
        if page is not None:
            page.add(report, image.pixels)
        del image  # before the next picture comes
        yield replace(report, heat=None, confidence_cells=None)


def with_progress(reports: Iterable[Report], total: int) -> list[Report]:
    """Collects the reports behind a progress bar on stderr; no bar for one picture or in a pipe."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = total < 2 or not console.is_terminal
    return list(track(reports, "Analysing", total, console=console, transient=True, disable=hidden))


def unique_stems(files: Iterable[Path]) -> list[str]:
    """A name for the outputs of each file: its own, with a number where another has taken it."""
    taken: set[str] = set()
    stems = []
    for path in files:
        stem, number = path.stem, 1
        while stem.lower() in taken:  # some file systems take A and a for the same name
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
    return stems


def to_json(reports: Iterable[Report]) -> str:
    """One JSON array, a line for each report; ASCII only, to survive every terminal."""
    return "[" + ",".join(f"\n{json.dumps(report.to_dict())}" for report in reports) + "\n]"


def write_json(reports: Iterable[Report], path: Path) -> None:
    """The same array as a file, which appears whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, to_json(reports) + "\n")
    except OSError as error:
        raise ForgemapError(f"{path}: cannot be written ({error.strerror}).") from error
