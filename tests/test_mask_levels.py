"""benchmarks/mask_levels.py: overlap and marked area at each level, and each picture's best."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import mask_levels

from .edited_set import write_edited_set


def test_lower_levels_mark_more_and_no_level_beats_each_pictures_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_edited_set(tmp_path / "data", 4)
    assert mask_levels.main([str(data), "--limit", "6"]) == 0
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
