"""forgemap report verify: are these the files that a report speaks of?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.errors import ForgemapError
from forgemap.verify import read_hashes, verify


@pytest.fixture
def judged(photos: Path, model_folder: Path, tmp_path: Path, monkeypatch) -> Path:
    """A folder with the report of `photos`, written by the command."""
    monkeypatch.chdir(tmp_path)
    (photos / "odd & <b>.png").write_bytes((photos / "a.png").read_bytes() + b"\0")
    (photos / "bad.jpg").write_bytes(b"no picture")
    run = CliRunner().invoke(app, ["analyze", "photos", "--model", str(model_folder)])
    assert run.exit_code == 3, run.output
    return tmp_path / "forgemap-out"


@pytest.mark.parametrize("name", ["report.html", "report.json"])
def test_the_files_of_a_report_are_the_same_until_one_changes(judged, photos, name) -> None:
    report = judged / name
    assert len(read_hashes(report)) == 4  # not the one that could not be read
    for places in ([], [photos], [str(photos / "**" / "*.png"), photos / "b.jpg"]):
        assert {c.state for c in verify(report, places)} == {"same"}
    with open(photos / "a.png", "ab") as file:
        file.write(b"\0\0")
    (photos / "b.jpg").unlink()
    states = {Path(c.path).name: c.state for c in verify(report, [photos])}
    expected = {"a.png": "changed", "b.jpg": "missing", "c.png": "same", "odd & <b>.png": "same"}
    assert states == expected
    assert {Path(c.path).name: c.state for c in verify(report)} == expected


def test_a_renamed_file_is_still_the_same(judged, photos, tmp_path) -> None:
    shutil.copy(photos / "b.jpg", tmp_path / "renamed.bin")
    checked = {
        Path(c.path).name: c for c in verify(judged / "report.html", [tmp_path / "renamed.bin"])
    }
    assert checked["b.jpg"].state == "same"
    assert Path(checked["b.jpg"].file or "").name == "renamed.bin"


def test_the_command_says_it_in_its_exit_code(judged, photos) -> None:
    run = CliRunner().invoke(app, ["report", "verify", str(judged / "report.html")])
    assert run.exit_code == 0 and "4 of 4" in run.output
    (photos / "b.jpg").write_bytes(b"other")
    run = CliRunner().invoke(app, ["report", "verify", str(judged / "report.json"), "--json"])
    assert run.exit_code == 1
    assert [c["state"] for c in json.loads(run.output) if c["path"].endswith("b.jpg")] == [
        "changed"
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>hello</html>", "is no report"),
        (b"[1, 2]", "is no report"),
        (b"{", "is no report"),
        (b"\xff\xfe", "is no report"),
        (b"[]", "holds no hashes"),
    ],
)
def test_what_is_no_report_is_one_sentence(tmp_path, content, words) -> None:
    path = tmp_path / "report.html"
    path.write_bytes(content)
    with pytest.raises(ForgemapError, match=words):
        verify(path)
    with pytest.raises(ForgemapError, match="cannot be read"):
        verify(tmp_path / "none.html")


def test_a_report_says_what_judged_and_within_which_limits(judged, model_folder) -> None:
    from forgemap.models.checkpoint import weights_sha256

    page = (judged / "report.html").read_text()
    for words in (weights_sha256(model_folder), "Its thresholds", "Calibrated on", "Its limits"):
        assert words in page
