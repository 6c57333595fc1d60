"""python -m benchmarks.recompression: JPEGs are made, edited, saved again, judged, and fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks import recompression
from PIL import Image as PILImage

from forgemap.models.build import build
from forgemap.models.checkpoint import save_model
from forgemap.recompression.later import WEIGHTS
from forgemap.synth import synthesize

from .test_copies import landscape
from .test_recompression import JOINED, SMALL


def test_from_photographs_to_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        PILImage.fromarray(landscape(number)).save(tmp_path / "photos" / f"{number}.png")
    first, edited = tmp_path / "first", tmp_path / "edited"
    assert recompression.main([str(tmp_path / "photos"), "--first", str(first)]) == 0
    assert "Wrote 4 JPEGs" in capsys.readouterr().out
    synthesize([first], edited, methods=["splice"], untouched=True, per_photo=2, seed=1)
    model = str(save_model(build(SMALL), tmp_path / "model", extra={"decision": JOINED.to_dict()}))
    assert recompression.main([str(edited), "--model", model]) == 0
    said = capsys.readouterr().out
    rows = [row.split("|") for row in said.splitlines() if "edited, IoU" in row]
    without, joined = np.array([[float(c.split()[0]) for c in row[4:6]] for row in rows]).max(0)
    assert joined > without + 0.1, said
    assert "of the network's time" in said
    assert recompression.main([str(edited), "--model", model, "--fit"]) == 0
    fitted = capsys.readouterr().out
    assert fitted.startswith("WEIGHTS = {") and all(f"{side}: " in fitted for side in WEIGHTS)


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PILImage.fromarray(landscape(1)).save(tmp_path / "photo.png")
    synthesize([tmp_path / "photo.png"], tmp_path / "edited", methods=["blur"], untouched=True)
    model = str(save_model(build(SMALL), tmp_path / "model"))
    assert recompression.main([str(tmp_path / "edited"), "--model", model]) == 2
    assert "is no JPEG" in capsys.readouterr().err
