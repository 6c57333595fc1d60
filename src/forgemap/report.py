"""report.py: Report, what is said of one picture, and its files: JSON and PNGs.

report = write_outputs(report, pixels, "out", "photo")   # out/photo.{heatmap,mask,overlay,...}.png
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from PIL import Image as PILImage

from . import drawing
from .confidence import enlarged
from .copies import Copy
from .files import written
from .outlines import outline

VERDICTS = ("no sign of editing", "inconclusive", "manipulated")

MAX_REGIONS = 50

FILES = {
    "heatmap": "heatmap",
    "mask": "mask",
    "overlay": "overlay",
    "confidence_map": "confidence",
}
"""Outputs, and how their files' names end before ``.png``."""


@dataclass(frozen=True)
class Region:
    """A connected part of the picture above the threshold."""

    box: tuple[int, int, int, int]
    """(x0, y0, x1, y1) in pixels of the displayed picture; x1 and y1 are just outside."""
    polygon: list[list[int]]
    """[[x, y], ...] its outer border, simplified; at least three points."""
    score: float
    """Mean probability inside, in [0, 1]."""
    area: float
    """Share of the picture, in [0, 1]."""
    confidence: float | None = None
    """How sure the mask is inside, in [0.5, 1]; None if the model was not calibrated for it."""


@dataclass
class Report:
    """What is said of one picture. The same object from Python, the commands and the server."""

    path: str
    """As it was given."""
    sha256: str | None = None
    """Of the file's bytes."""
    width: int | None = None
    height: int | None = None
    """Of the displayed picture, in pixels."""
    orientation: int | None = None
    """EXIF orientation that was applied, 1..8; see ``image.to_stored``."""
    verdict: str | None = None
    """One of ``VERDICTS``; None if the picture could not be read."""
    score: float | None = None
    """In [0, 1]: how strongly the picture as a whole looks edited."""
    area: float | None = None
    """Share of the picture that lies in the mask, in [0, 1]."""
    regions: list[Region] = field(default_factory=list)
    """Largest and surest first."""
    copies: list[Copy] = field(default_factory=list)
    """Regions that occur twice, the surest first; their copies are in the heat map and the mask."""
    mask: str | None = None
    heatmap: str | None = None
    overlay: str | None = None
    confidence_map: str | None = None
    """Paths of the files that ``write_outputs`` wrote."""
    model: str | None = None
    """Which model judged: its name and a part of its weights' SHA-256."""
    error: str | None = None
    """Why the picture could not be read, in one sentence."""
    reason: str | None = None
    """What the verdict rests on, in one sentence."""
    notes: list[str] = field(default_factory=list)
    """What was changed or left out when the picture was read."""
    generated: dict[str, Any] | None = None
    """The second answer, was the whole picture generated?, as ``generated.Generated``: its verdict,
    score, reason, model, crops and notes; None if it was not asked."""
    summary: str | None = None
    """Both answers in one sentence; None if only one was asked for."""
    disagree: bool = False
    """Do the two answers contradict each other? See ``answers.together``."""
    metadata: dict[str, Any] | None = None
    """What the file says of itself, as ``metadata.Metadata``; None if it was not read."""
    mean_confidence: float | None = None
    """Mean of ``confidence``; None if the model was not calibrated for it."""
    heat: np.ndarray | None = field(default=None, repr=False, compare=False)
    """(H, W) float32 probability that each pixel was edited; in memory only."""
    confidence_cells: np.ndarray | None = field(default=None, repr=False, compare=False)
    """``confidence`` at an eighth of the resolution, as it was made; in memory only."""
    threshold: float = field(default=0.5, repr=False, compare=False)
    """The probability from which a pixel belongs to the mask; in memory only."""
    basis: dict[str, Any] | None = field(default=None, repr=False, compare=False)
    """The model's ``weights_sha256``, ``input_size`` and the entries of its ``Decision``, for the
    HTML report; under ``generated`` the same of the model of the second answer. In memory only."""

    @property
    def confidence(self) -> np.ndarray | None:
        """(H, W) float32 in [0.5, 1]: with which probability the mask's answer at each pixel,
        edited or not, is right, if one were as likely to find an edit there as not; see
        ``confidence.py``. None if the model was not calibrated for it. Made anew at every access.
        """
        if self.confidence_cells is None or not self.width or not self.height:
            return None
        return enlarged(self.confidence_cells, self.height, self.width)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``forgemap analyze --json``."""
        hidden = ("heat", "confidence_cells", "threshold", "basis")
        values = {k: v for k, v in vars(self).items() if k not in hidden}
        return values | {
            "regions": [asdict(r) | {"box": list(r.box)} for r in self.regions],
            "copies": [copy.to_dict() for copy in self.copies],
        }


def find_regions(
    heat: np.ndarray, threshold: float = 0.5, min_area: float | None = None
) -> list[Region]:
    """The connected parts of a probability map (H, W) at or above ``threshold``.

    Sorted by area times score, at most ``MAX_REGIONS``. ``min_area``: in pixels; smaller specks are
    dropped; default: 16 pixels or 0.02 % of the picture, whichever is more.
    """
    if min_area is None:
        min_area = max(16, 0.0002 * heat.size)
    binary = (heat >= threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    sums = np.zeros(count)
    for top in range(0, len(heat), 1024):  # by strips: bincount wants copies of 16 bytes a pixel
        part = slice(top, top + 1024)
        sums += np.bincount(labels[part].ravel(), heat[part].ravel(), minlength=count)
    order = [i for i in np.argsort(-sums, kind="stable") if i != 0 and areas[i] >= min_area]
    return [
        _region(labels, i, stats[i], sums[i] / areas[i], areas[i] / heat.size)
        for i in order[:MAX_REGIONS]
    ]


def _region(labels: np.ndarray, i: int, stats: np.ndarray, score: float, area: float) -> Region:
    x, y, width, height = (int(n) for n in stats[:4])
    inside = (labels[y : y + height, x : x + width] == i).astype(np.uint8)
    _, border = outline(inside)
    polygon = [[x + px, y + py] for px, py in border]
    return Region((x, y, x + width, y + height), polygon, float(min(score, 1)), float(area))


def write_outputs(report: Report, pixels: np.ndarray, folder: str | Path, stem: str) -> Report:
    """Write ``<stem>.heatmap.png``, ``.mask.png``, ``.overlay.png`` and, where the model was
    calibrated for it, ``.confidence.png``, all of the displayed size.

    ``heatmap``: grey, round(255 p); ``mask``: 255 from ``report.threshold`` on, else 0;
    ``overlay``: the picture with heat map and numbered outlines; ``confidence_map``, in
    ``.confidence.png``: grey, round(255 c), so that 128 is a coin's toss. ``pixels``: the displayed
    picture (H, W, 3) uint8. The folder is made; each file appears whole or not at all. Returns the
    report with the paths; one without a heat map (an unreadable picture) comes back as it is.

    Raises ForgemapError: a file cannot be written.
    """
    if report.heat is None:
        return report
    names = [name for name in FILES if available(name, report)]
    paths = {name: Path(folder, f"{stem}.{FILES[name]}.png") for name in names}
    said: dict[str, Any] = {name: str(path) for name, path in paths.items()}
    for name, path in paths.items():
        with written(path) as file:
            write_output(name, report, pixels, file)
    return replace(report, **said)


def available(name: str, report: Report) -> bool:
    """Can this output be made of a report? Only its confidence may be missing."""
    return name != "confidence_map" or report.confidence_cells is not None


def write_output(name: str, report: Report, pixels: np.ndarray, file: IO[bytes]) -> None:
    """Write one PNG of a report with a heat map: ``heatmap``, ``mask``, ``overlay`` or
    ``confidence_map`` as described at ``write_outputs``, or ``picture``, which is ``pixels`` as
    they are.
    """
    if report.heat is None:
        raise ValueError("an unreadable picture has no outputs")
    if name == "heatmap":
        picture = drawing.to_levels(report.heat)
    elif name == "mask":
        picture = (report.heat >= report.threshold).astype(np.uint8) * np.uint8(255)
    elif name == "overlay":
        picture = drawing.overlay(pixels, drawing.to_levels(report.heat))
        regions = report.regions
        for copy in report.copies:
            drawing.draw_link(picture, copy.origin_polygon, copy.origin_box, copy.box)
        drawing.draw_outlines(picture, [r.polygon for r in regions], [r.box for r in regions])
    elif name == "confidence_map" and report.confidence is not None:
        picture = drawing.to_levels(report.confidence)
    elif name == "picture":
        picture = pixels
    else:
        raise ValueError(f"no output {name!r}; valid: {', '.join(FILES)}, picture")
    # Level 1 is several times faster than the default and a few per cent larger.
    PILImage.fromarray(picture).save(file, "png", compress_level=1)
