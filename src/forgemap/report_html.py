"""report_html.py: the report of any number of pictures as one HTML page that needs nothing else.

with ReportWriter("out/report.html", title="...", settings={}) as page:
    page.add(report, pixels)                             # one picture in memory at a time
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from . import drawing
from .files import written
from .report import VERDICTS, Report


class ReportWriter:
    """One self-contained HTML page for any number of pictures, which are given one by one.

    What has been given waits in a temporary file, so that memory holds one picture at a time. The
    page appears at the end of the ``with`` block, whole, and not at all after an exception. It asks
    nothing of the network: pictures are data URIs of at most ``max_side`` pixels (about 0.3 MB each
    at 1600), there is no script, and the page itself forbids any request.
    """

    def __init__(
        self, path: str | Path, *, title: str, settings: Mapping[str, object], max_side: int = 1600
    ) -> None:
        self.path = Path(path)
        self.title = title
        self.settings = settings
        self.max_side = max_side
        self._rows: list[dict[str, Any]] = []
        self._models: dict[str, dict[str, Any] | None] = {}

    def __enter__(self) -> ReportWriter:
        self._waiting = tempfile.TemporaryFile("w+", encoding="ascii")
        return self

    def add(self, report: Report, pixels: np.ndarray | None = None) -> None:
        """Take up one picture; ``pixels`` (H, W, 3) uint8 as displayed, None if there are none.

        Without ``pixels`` the page shows ``report.overlay`` if that file is there; without
        ``report.heat`` it shows no heat map.
        """
        self.add_row(picture_row(report, pixels, self.max_side))

    def add_row(self, values: Mapping[str, Any]) -> None:
        """Take up what ``picture_row`` made, perhaps in another process."""
        values = {**values, "number": len(self._rows) + 1}
        if values["model"]:
            # The same of all its pictures; a picture that could not be read brings none.
            self._models[values["model"]] = values["basis"] or self._models.get(values["model"])
        row = (
            *("number", "path", "name", "verdict", "score", "area", "error", "thumb", "model"),
            *("generated", "disagree", "mean_confidence"),
        )
        self._rows.append({name: values[name] for name in row})
        self._waiting.write(json.dumps(values) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with self._waiting:
            if kind is None:
                self._write()

    def _write(self) -> None:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("forgemap"),
            autoescape=True,  # paths come from strangers
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["percent"] = _percent
        self._waiting.seek(0)
        whole = [row["generated"] for row in self._rows if row["generated"]]
        page = environment.get_template("report.html").generate(
            title=self.title,
            settings=self.settings,
            rows=self._rows,
            counts=[(v, sum(row["verdict"] == v for row in self._rows)) for v in VERDICTS[::-1]],
            generated=sum(row["verdict"] == "generated" for row in whole),
            asked_whole=bool(whole),
            tells_confidence=any(row["mean_confidence"] is not None for row in self._rows),
            unreadable=sum(row["error"] is not None for row in self._rows),
            models=sorted(self._models.items()),
            pictures=map(json.loads, self._waiting),
            date=datetime.now().astimezone().isoformat(" ", "minutes"),
            versions=_versions(),
            scale=drawing.CSS_SCALE,
            fog=drawing.CSS_FOG,
        )
        with written(self.path) as file:
            for piece in page:
                # A path may hold bytes that are no UTF-8, which Python keeps as lone surrogates.
                file.write(piece.encode("utf-8", "backslashreplace"))


def picture_row(
    report: Report, pixels: np.ndarray | None = None, max_side: int = 1600
) -> dict[str, Any]:
    """All that the page says and shows of one picture, JSON-able; see ``ReportWriter.add``."""
    values = report.to_dict() | _pictures(report, pixels, max_side)
    values |= {"threshold": report.threshold, "basis": report.basis}
    for copy, said in zip(report.copies, values["copies"], strict=True):
        said["told"] = copy.words()
    values["name"] = os.path.basename(report.path) or report.path
    if report.width and report.height:
        size = report.width, report.height
        values["label_size"] = round(drawing.label_size(*size), 1)
        values["labels"] = [drawing.label_place(r.box, *size) for r in report.regions]
    return values


def _pictures(report: Report, pixels: np.ndarray | None, max_side: int) -> dict[str, str | None]:
    caption = "photo"
    if pixels is None and report.overlay is not None and os.path.isfile(report.overlay):
        stored = cv2.imdecode(np.fromfile(report.overlay, np.uint8), cv2.IMREAD_COLOR)
        if stored is not None:
            pixels, caption = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB), "overlay"
    if pixels is None:
        return dict.fromkeys(("thumb", "photo", "heat", "fog", "caption"))
    small = drawing.shrink(pixels, max_side)
    heat = None
    if report.heat is not None:
        # Half the size is enough for a map that is smooth, and weighs a quarter.
        levels = drawing.to_levels(drawing.shrink(report.heat, max_side // 2))
        heat = drawing.heat_uri(levels)
    fog = None
    if report.confidence_cells is not None:
        fog = drawing.fog_uri(drawing.shrink(report.confidence_cells, max_side // 2))
    thumb = drawing.jpeg_uri(drawing.shrink(small, 160), quality=75)
    photo = drawing.jpeg_uri(small)
    return {"thumb": thumb, "photo": photo, "heat": heat, "fog": fog, "caption": caption}


def _percent(share: float) -> str:
    if share == 0 or share >= 0.0995:
        return f"{share:.0%}"
    return f"{share:.1%}" if share >= 0.0005 else "< 0.1%"


def _versions() -> dict[str, str]:
    """What took part: packages that are not installed are left out."""
    versions = {}
    for package in ("forgemap", "torch", "numpy", "pillow"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions | {"Python": platform.python_version()}
