"""Copied regions in the score, the report, its page, scans and the client."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.client import _report
from forgemap.copies import Copy
from forgemap.detector import Detector
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model
from forgemap.report import Report, write_outputs
from forgemap.report_html import ReportWriter
from forgemap.scoring import Decision

from .test_copies import copied, landscape, overlap

SMALL = {"architecture": "tracenet", "widths": [4, 4, 8, 8, 8], "blocks": [1, 1, 1, 1]}
COUNTED = Decision(
    features=("logit_mean", "copies"),
    weights=(0.0, 1.0),
    bias=-1.0,
    manipulated_at=0.7,
    clear_below=0.5,
    calibrated_on="a test",
)
PIXELS, HERE, THERE = copied(15, 1.1)


def detector(decision: Decision = COUNTED, **options: bool) -> Detector:
    return Detector(build(SMALL).eval(), decision, **options)


def test_a_copy_decides_the_verdict_and_is_told() -> None:
    report = detector().analyze(PIXELS)
    assert report.verdict == "manipulated" and report.score is not None and report.score > 0.7
    assert report.reason is not None and "A region occurs twice: (" in report.reason
    (copy, *_) = report.copies
    boxes = copy.box, copy.origin_box
    assert max(overlap(box, THERE) for box in boxes) > 0.6
    # Which of them is the copy an untrained network guesses.
    assert report.heat is not None and report.heat[HERE | THERE].max() >= 0.5
    assert report.to_dict()["copies"][0]["box"] == list(copy.box)
    json.dumps(report.to_dict()["copies"])


def test_what_is_not_counted_is_not_searched_for() -> None:
    unasked = detector(copies=False)
    other = detector(Decision())
    for judge in (unasked, other):
        report = judge.analyze(PIXELS)
        assert report.copies == [] and judge.search(PIXELS) is None
    score = unasked.analyze(PIXELS).score
    assert score == pytest.approx(1 / (1 + np.exp(1)))
    assert other.basis["copies"] is False and detector().basis["copies"] is True


def test_a_cleared_picture_shows_no_copies() -> None:
    careful = detector(Decision(**{**COUNTED.to_dict(), "bias": -20.0}))
    report = careful.analyze(PIXELS)
    assert report.verdict == "no sign of editing" and report.copies == []
    assert detector().analyze(landscape(7)).copies == []


def test_the_overlay_and_the_page_show_both_places(tmp_path: Path) -> None:
    report = detector().analyze(PIXELS)
    report = write_outputs(report, PIXELS, tmp_path, "photo")
    without = write_outputs(replace(report, copies=[]), PIXELS, tmp_path, "without")
    shown, bare = (np.asarray(PILImage.open(str(r.overlay)), int) for r in (report, without))
    for x, y in report.copies[0].origin_polygon:
        assert np.abs(shown - bare)[y, x].max() > 20
    with ReportWriter(tmp_path / "page.html", title="t", settings={}) as page:
        page.add(report, PIXELS)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert 'class="over from"' in text and "dashed, where a copied one seems to be from" in text
    assert f"<dd>{report.copies[0].words()}" in text
    plain = Report("x.png", verdict="no sign of editing", score=0.1)
    with ReportWriter(tmp_path / "plain.html", title="t", settings={}) as page:
        page.add(plain)
    assert "Occurs twice" not in (tmp_path / "plain.html").read_text("utf-8")


def test_the_client_gives_the_copies_back() -> None:
    report = detector().analyze(PIXELS)
    said = json.loads(json.dumps(report.to_dict()))
    assert _report(said).copies == report.copies
    del said["copies"]  # of an older server
    assert _report(said).copies == []


def test_a_scan_keeps_them(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from forgemap.scan.parts import report_row, schema

    report = detector().analyze(PIXELS)
    row = dict.fromkeys(schema().names) | report_row(report)
    (back,) = pa.Table.from_pylist([row], schema=schema()).to_pylist()
    (told, *_), (copy, *_) = back["copies"], report.to_dict()["copies"]
    assert told.keys() == copy.keys()
    for name, value in copy.items():
        assert told[name] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value)


def test_the_command_can_leave_it_out(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(build(SMALL), folder, extra={"decision": COUNTED.to_dict()})
    PILImage.fromarray(PIXELS).save(tmp_path / "photo.png")
    found = []
    for flag in ("--copies", "--no-copies"):
        asked = ["analyze", str(tmp_path / "photo.png"), "--model", str(folder), "--no-files"]
        result = CliRunner().invoke(app, [*asked, "--detector", "none", "--json", flag])
        found.append((result.exit_code, json.loads(result.stdout)[0]["copies"]))
    assert found[0][0] == 1 and found[0][1]
    assert found[1] == (0, [])


def test_scans_and_workers_can_leave_it_out(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from forgemap.scan.parts import read_parts
    from forgemap.serve import worker

    folder = str(
        save_model(build(SMALL), tmp_path / "model", extra={"decision": COUNTED.to_dict()})
    )
    (tmp_path / "photos").mkdir()
    PILImage.fromarray(PIXELS).save(tmp_path / "photos" / "photo.png")
    for flag, told in (("--copies", True), ("--no-copies", False)):
        out = tmp_path / flag
        asked = ["scan", str(tmp_path / "photos"), "--model", folder, "--detector", "none"]
        assert CliRunner().invoke(app, [*asked, flag, "--out", str(out)]).exit_code == 0
        ((table, _),) = read_parts(out, ["copies"])
        assert bool(table.column("copies").to_pylist()[0]) is told
        start = {"models": [folder], "device": "cpu", "detector": "none", "classifier": None}
        start |= {"engine": "torch", "precision": "fp32", "copies": told}
        (judge,) = (worker._load(start, io.BytesIO()) or {}).values()
        assert judge.copies is told


def test_copies_are_told_in_pixels_of_the_picture() -> None:
    copy = Copy(0.9, (0, 0, 4, 4), [[0, 0]], (5, 5, 9, 9), [[5, 5]], 0.7, 0.0, 1.0, False)
    assert copy.words().startswith("(0, 0 – 4, 4) shows (5, 5 – 9, 9) once more (a copy")
