"""benchmarks/mask_levels.py: overlap and marked area at each level, and each picture's best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks import mask_levels

from .edited_set import write_edited_set


def test_cuts_are_what_cutting_gives() -> None:
    rng = np.random.default_rng(0)
    heat = rng.uniform(0, 1, (20, 30)).astype(np.float32)
    mask = rng.uniform(0, 1, (20, 30)) > 0.7
    marked, overlap = mask_levels.cuts(heat, mask)
    for level, area, found in zip(mask_levels.LEVELS, marked, overlap, strict=True):
        cut = heat > 1 / (1 + np.exp(-level))
        assert area == pytest.approx(cut.mean())
        assert found == pytest.approx((cut & mask).sum() / (cut | mask).sum())
    assert np.isnan(mask_levels.cuts(heat, np.zeros_like(mask))[1]).all()


def test_lower_levels_mark_more_and_no_level_beats_each_pictures_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_edited_set(tmp_path / "data", 4)
    assert mask_levels.main([str(data), "--limit", "4"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [line.split("|")[1:-1] for line in lines]
    start = next(n for n, row in enumerate(cells) if row[0].strip() == "edit")
    table, methods = cells[:start], cells[start:]
    rows = {row[0].strip(): row[1:] for row in table[2:]}
    assert list(rows) == ["-3", "-2", "-1", "0 (ships)", "+1", "each picture's own best"]
    first = {name: float(row[0].split()[0]) for name, row in rows.items()}
    areas = [float(row[3].split()[0]) for name, row in rows.items() if "own" not in name]
    assert areas == sorted(areas, reverse=True)
    assert first["each picture's own best"] >= max(first.values())
    for row in methods[2:]:
        assert float(row[3].split()[0]) >= float(row[2].split()[0])


def test_a_set_without_untouched_pictures_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.jsonl").write_text("")
    assert mask_levels.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("benchmarks.mask_levels: ")
