"""python -m benchmarks.copies: finds are counted where they are right; the fit prints numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import copies
from PIL import Image as PILImage

from forgemap.copies.finder import WEIGHTS, candidates
from forgemap.data.catalog import open_data

from .test_copies import copied, landscape, with_wheel


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copied disk of each method and two untouched pictures, one with something alike in it."""
    picture, _, there = copied(15, 1.1)
    pattern = landscape(4)
    pattern[100:172, 300:372] = 0.8 * pattern[100:172, 60:132].astype(float) + 20
    rows = []
    for number, (method, pixels) in enumerate(
        [*((m, picture) for m in copies.METHODS), ("none", pattern), ("none", landscape(5))]
    ):
        PILImage.fromarray(pixels).save(tmp_path / f"{number}.png")
        mask = None
        if method != "none":
            mask = f"mask-{number}.png"
            PILImage.fromarray(there.astype(np.uint8) * 255).save(tmp_path / mask)
        rows.append(
            {
                "image": f"{number}.png",
                "mask": mask,
                "source": f"{number}.jpg",
                "source_sha256": "ab" * 32,
                "split": "val",
                "method": method,
                "parameters": {},
                "seed": 0,
            }
        )
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_right_finds_are_counted_and_numbers_fitted(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert copies.main([str(data), "--fit", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "BIAS = " in said and all(f"'{name}'" in said for name in WEIGHTS)
    assert "A search takes" in said and "DIRECTION = " in said
    above = next(line for line in said.splitlines() if line.startswith("| above 0"))
    cells = [cell.strip()[:4] for cell in above.split("|")[2:-1]]
    assert cells[:6] == ["1.00"] * 6, "both copies, in each way of saving"
    assert all(float(cell) <= 0.5 for cell in cells[6:]), "at most the one with something alike"


def test_a_symmetric_thing_teaches_nothing(data: Path) -> None:
    """As it counts for nothing in a picture."""
    wheel = with_wheel()
    PILImage.fromarray(wheel).save(data / "3.png")
    seen = copies.look(open_data(str(data))[3], 0)
    assert not seen.method and seen.pairs == [] and seen.finds == []
    assert candidates(wheel).pairs, "there is something to leave out"


def test_what_is_missing_is_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (data / "manifest.jsonl").read_text().splitlines(keepends=True)
    (data / "manifest.jsonl").write_text("".join(rows[:2]))
    assert copies.main([str(data)]) == 2
    assert "untouched pictures too" in capsys.readouterr().err
    (data / "manifest.jsonl").write_text("".join(rows[2:]))
    assert copies.main([str(data)]) == 2
    assert "must hold edits by copy_move and by inpaint_exemplar" in capsys.readouterr().err
