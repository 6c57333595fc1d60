"""benchmarks/generated_alarms.py: every kind of photograph is counted, for each model."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import generated_alarms
from PIL import Image as PILImage

from forgemap.synth.benign import BENIGN

from .conftest import picture
from .edited_set import write_edited_set
from .soft_pictures import small_embedder


def test_every_kind_of_photograph_has_a_line_and_every_model_a_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(24):  # about a tenth of them are of the test split
        PILImage.fromarray(picture(180, 420, seed=i)).save(tmp_path / f"photos/{i}.png")
    edited = write_edited_set(tmp_path / "set", 4)
    model = str(small_embedder(tmp_path))
    flags = ["--edits", str(edited), "--model", model, "--model", model]
    assert generated_alarms.main([str(tmp_path / "photos"), *flags]) == 0
    lines = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "|" in line]
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in lines[2:]}
    assert {f"after {name}" for name in BENIGN} <= rows.keys()
    assert {"as it is", "JPEG 90", "JPEG 75", "set, edited", "set, untouched"} <= rows.keys()
    assert all(len(row) == 3 and row[1] == row[2] for row in rows.values())
    assert len({rows[f"after {name}"][0] for name in BENIGN}) == 1


def test_what_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert generated_alarms.main(["nowhere"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("benchmarks.generated_alarms: ")
