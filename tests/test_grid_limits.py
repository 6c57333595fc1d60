"""benchmarks/grid_limits.py: a coarser second compression wipes the first one's grid out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks import grid_limits
from PIL import Image

from forgemap.synth import synthesize

from .conftest import picture


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies and noise within JPEG photographs of quality 94, saved without loss."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for seed in range(6):
        photo = picture(256, 256, seed=seed).astype(float) + rng.normal(0, 4, (256, 256, 1))
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(
            folder / f"{seed}.jpg", quality=94
        )
    out = folder / "edited"
    return synthesize(
        folder, out, methods=["copy_move", "noise"], area=(0.08, 0.3), per_photo=4, progress=False
    )


def test_the_grid_tells_until_a_coarser_compression_comes(edited: Path) -> None:
    heads, row = grid_limits.measure(str(edited), None, 100)
    assert heads[2:] == ["as saved", *(f"JPEG {q}" for q in grid_limits.QUALITIES)]
    assert row[0] == "fine"
    means = [float(cell.split()[0]) for cell in row[2:]]
    assert means[0] > 0.85
    assert means[-1] < means[0] - 0.3


def test_colours_tell_of_pixels_that_were_computed_since(edited: Path) -> None:
    heads, *rows = grid_limits.by_method(str(edited), None, 100)
    assert heads[2:] == ["JPEG's grid", "JPEG's colours"]
    found = {row[0]: [float(cell.split()[0]) for cell in row[2:]] for row in rows}
    assert set(found) == {"copy_move", "noise"}
    assert found["noise"][1] > 0.8
    assert found["copy_move"][0] > 0.85


def test_what_has_no_such_edits_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.jsonl").write_text("")
    assert grid_limits.main([str(tmp_path)]) == 2
    assert "manifest" in capsys.readouterr().err
