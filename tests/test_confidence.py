"""confidence.py: the confidence map says how often the mask is right, and where it cannot know."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from forgemap.confidence import (
    CELL,
    SHAPE,
    TEXTURES,
    Confidence,
    Ground,
    corners,
    enlarged,
    ground,
    inside,
    to_cells,
)
from forgemap.errors import DataError, ModelError
from forgemap.report import Report, find_regions, write_outputs
from forgemap.report_html import ReportWriter

from .conftest import picture

pytest.importorskip("sklearn", reason="the extra evaluate is not installed")
from forgemap.evaluate.calibration_confidence import Seen, cells_of, fit_confidence


def seen(seed: int, side: int = 24) -> Seen:
    """A picture of which a quarter is edited: a network sees it where there is texture, by chance
    elsewhere."""
    random = np.random.default_rng(seed)
    edited = np.zeros((side, side), np.float32)
    if seed % 2:
        edited[: side // 2, : side // 2] = 1
    texture = random.choice(TEXTURES, (side, side)).astype(np.float32)
    clipped = (random.random((side, side)) < 0.2).astype(np.float32)
    sees = (texture >= 4) & (clipped == 0)
    logit = random.standard_normal((side, side)) * 1.5 + np.where(sees, 4 * edited - 2, 0)
    heat = (1 / (1 + np.exp(-logit))).astype(np.float32)
    return Seen(f"{seed // 2}.jpg", heat, edited, Ground(texture, clipped))


@pytest.fixture(scope="module")
def fitted() -> Confidence:
    return fit_confidence(seen(seed) for seed in range(120))


def lookup(fitted: Confidence, heat: np.ndarray, where: Ground) -> np.ndarray:
    places, weights = corners(heat, where)
    return (np.array(fitted.table)[places] * weights).sum(0)


def test_the_table_says_how_often_the_mask_is_right_on_other_pictures(fitted: Confidence) -> None:
    others = [seen(seed) for seed in range(1000, 1200)]
    q = np.concatenate([lookup(fitted, s.heat, s.where) for s in others])
    heat = np.concatenate([s.heat.ravel() for s in others])
    edited = np.concatenate([s.edited.ravel() for s in others]) > 0.5
    sees = np.concatenate(
        [((s.where.texture >= 4) & (s.where.clipped == 0)).ravel() for s in others]
    )
    for kind in (sees, ~sees):
        sure = np.where(heat >= 0.5, q, 1 - q)[kind]
        right = ((heat >= 0.5) == edited)[kind]
        # Edited and untouched places weigh the same: that is the prior that is promised.
        weight = np.where(edited, 0.5 / edited[kind].sum(), 0.5 / (~edited[kind]).sum())[kind]
        assert (sure * weight).sum() == pytest.approx((right * weight).sum(), abs=0.03)
        for low, high in ((0.5, 0.65), (0.65, 0.8), (0.8, 0.9), (0.9, 1.01)):
            part = (sure >= low) & (sure < high)
            if weight[part].sum() > 0.05:
                share = (right * weight)[part].sum() / weight[part].sum()
                assert (sure * weight)[part].sum() / weight[part].sum() == pytest.approx(
                    share, abs=0.06
                )


def test_confidence_rises_with_the_distance_from_the_threshold(fitted: Confidence) -> None:
    table = np.array(fitted.table).reshape(SHAPE)
    assert (np.diff(table, axis=2) >= 0).all()
    heat = np.linspace(0.001, 0.999, 500, dtype=np.float32)
    for texture in (0.0, 2.0, 30.0):
        where = Ground(np.full(500, texture, np.float32), np.zeros(500, np.float32))
        q = lookup(fitted, heat, where)
        assert (np.diff(q) >= -1e-9).all()
        assert np.abs(np.diff(q)).max() < 0.05, "no jumps"


def test_where_nothing_can_be_seen_it_is_a_coins_toss(fitted: Confidence) -> None:
    heat = np.full((64, 64), 0.02, np.float32)
    random = np.random.default_rng(0)
    grain = random.integers(60, 180, (64, 64, 1)).repeat(3, 2).astype(np.uint8)
    white, flat = np.full((64, 64, 3), 255, np.uint8), np.full((64, 64, 3), 90, np.uint8)
    sure = {
        name: fitted.cells(pixels, heat, 0.5).mean()
        for name, pixels in {"grain": grain, "white": white, "flat": flat}.items()
    }
    assert sure["grain"] > 0.9
    assert sure["white"] < 0.65 and sure["flat"] < 0.65


def test_where_a_copy_is_told_its_own_probability_holds(fitted: Confidence) -> None:
    random = np.random.default_rng(0)
    grain = random.integers(60, 180, (64, 64, 3)).astype(np.uint8)
    heat = np.full((64, 64), 0.02, np.float32)
    told = heat.copy()
    told[16:48, 16:48] = 0.7
    alone, both = fitted.cells(grain, heat, 0.5), fitted.cells(grain, heat, 0.5, told)
    assert both[2:6, 2:6] == pytest.approx(0.7)
    both[2:6, 2:6] = alone[2:6, 2:6]
    assert (both == alone).all()
    assert (fitted.cells(grain, heat, 0.5, heat) == alone).all(), "nothing was raised"


def test_what_was_hardly_tried_is_not_known() -> None:
    few = fit_confidence([seen(1), seen(2)])
    assert np.abs(np.array(few.table).reshape(SHAPE)[1] - 0.5).max() < 0.45
    never = [
        s._replace(where=s.where._replace(clipped=0 * s.where.clipped)) for s in (seen(1), seen(2))
    ]
    assert np.array(fit_confidence(never).table).reshape(SHAPE)[1] == pytest.approx(0.5)
    with pytest.raises(DataError, match="edited and untouched"):
        fit_confidence([seen(2)])


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (65, 33), (1100, 40), (96, 128)])
def test_the_map_has_the_pictures_size_and_lies_in_its_range(
    size: tuple[int, int], fitted: Confidence
) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    heat = random.random(size).astype(np.float32)
    cells = fitted.cells(pixels, heat, 0.5)
    assert cells.shape == (-(-size[0] // CELL), -(-size[1] // CELL))
    whole = enlarged(cells, *size)
    assert whole.shape == size and whole.dtype == np.float32
    assert whole.min() >= 0.5 and whole.max() <= 1
    assert 0.5 <= inside(cells, [[0, 0], [size[1] - 1, size[0] - 1]]) <= 1


def test_cells_are_means_and_strips_do_not_show() -> None:
    random = np.random.default_rng(0)
    values = random.random((2064, 48)).astype(np.float32)
    blocks = values.reshape(258, CELL, 6, CELL).mean((1, 3))
    assert to_cells(values) == pytest.approx(blocks, abs=1e-5)
    burnt = np.full((64, 64, 3), 128, np.uint8)
    burnt[:, 32:] = 255
    assert ground(burnt).clipped[:, [0, -1]].tolist() == [[0, 1]] * 8


def test_what_is_remembered_of_a_picture_is_what_is_counted() -> None:
    pixels, mask = picture(64, 80), np.zeros((64, 80), np.uint8)
    mask[:32, :40] = 255
    found = cells_of(pixels, mask)
    assert found["edited"].sum() == 4 * 5
    assert found["texture"] == pytest.approx(ground(pixels).texture, rel=1e-2)


def test_a_table_survives_json_and_strangers_are_refused(fitted: Confidence) -> None:
    stored = json.loads(json.dumps(fitted.to_dict()))
    assert Confidence.from_dict(stored) == fitted
    for entry, value in (("table", [0.5]), ("wrong", 1), ("table", [2.0] * len(fitted.table))):
        with pytest.raises(ModelError, match="confidence"):
            Confidence.from_dict(stored | {entry: value})


# --------------------------------------------------------------------------------- in reports


def report_of(fitted: Confidence, pixels: np.ndarray) -> Report:
    heat = np.full(pixels.shape[:2], 0.05, np.float32)
    heat[16:64, 24:80] = 0.95
    cells = fitted.cells(pixels, heat, 0.5)
    (region,) = find_regions(heat)
    from dataclasses import replace

    sure = inside(cells, region.polygon)
    return Report(
        "a.png", "0f" * 32, heat.shape[1], heat.shape[0], 1, "manipulated", 0.9, 0.2,
        [replace(region, confidence=sure)], heat=heat, confidence_cells=cells,
        mean_confidence=float(cells.mean()),
    )  # fmt: skip


def test_a_report_carries_writes_and_shows_its_confidence(
    fitted: Confidence, tmp_path: Path
) -> None:
    pixels = picture(96, 128)
    report = report_of(fitted, pixels)
    assert report.confidence is not None and report.confidence.shape == (96, 128)
    described = report.to_dict()
    assert json.loads(json.dumps(described))["regions"][0]["confidence"] >= 0.5
    assert "confidence" not in described and "confidence_cells" not in described
    written = write_outputs(report, pixels, tmp_path, "a")
    assert written.confidence_map == str(tmp_path / "a.confidence.png")
    with PILImage.open(written.confidence_map) as im:
        assert im.size == (128, 96) and im.mode == "L"
        assert np.abs(np.asarray(im) / 255 - report.confidence).max() < 0.003
    with ReportWriter(tmp_path / "r.html", title="t", settings={}) as writer:
        writer.add(written, pixels)
    page = (tmp_path / "r.html").read_text()
    assert 'aria-label="confidence"' in page and "Confidence of the mask" in page


def test_without_a_table_nothing_is_said(fitted: Confidence, tmp_path: Path) -> None:
    from dataclasses import replace

    pixels = picture(96, 128)
    report = replace(report_of(fitted, pixels), confidence_cells=None, mean_confidence=None)
    assert report.confidence is None
    assert write_outputs(report, pixels, tmp_path, "a").confidence_map is None
    assert not (tmp_path / "a.confidence.png").exists()
    with ReportWriter(tmp_path / "r.html", title="t", settings={}) as writer:
        writer.add(report, pixels)
    assert "coin’s toss" not in (tmp_path / "r.html").read_text()
