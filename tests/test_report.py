"""report.py: what a Report says, the regions of a heat map, and the PNGs that are written."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage

from forgemap import drawing
from forgemap.errors import ForgemapError
from forgemap.report import MAX_REGIONS, Region, Report, find_regions, write_outputs

from .test_image import as_nobody

KEYS = (
    *("path", "sha256", "width", "height", "orientation", "verdict", "score", "area", "regions"),
    "copies",
    *("mask", "heatmap", "overlay", "model", "error", "reason", "notes", "metadata"),
    *("generated", "summary", "disagree", "confidence_map", "mean_confidence"),
)


def blobs(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (100, 120)) -> np.ndarray:
    """A heat map: 0.9 in the boxes (x0, y0, x1, y1), 0.1 elsewhere."""
    heat = np.full(size, 0.1, np.float32)
    for x0, y0, x1, y1 in boxes:
        heat[y0:y1, x0:x1] = 0.9
    return heat


def report_of(heat: np.ndarray | None, **values: object) -> Report:
    """The report of a picture that is called odd."""
    height, width = (None, None) if heat is None else heat.shape
    described: dict[str, object] = {
        "path": "photo.jpg",
        "sha256": "0f" * 32,
        "width": width,
        "height": height,
        "orientation": 1,
        "verdict": "manipulated",
        "score": 0.875,
        "area": None if heat is None else float((heat >= 0.5).mean()),
        "regions": [] if heat is None else find_regions(heat),
        "model": "default@0123456789ab",
        "heat": heat,
    }
    return Report(**(described | values))  # type: ignore[arg-type]


def unreadable(path: str = "bad.jpg") -> Report:
    return Report(path, error=f"{path} is empty: get a complete copy")


# ---------------------------------------------------------------------------------- the object


def test_a_report_is_the_promised_json_object_without_its_arrays() -> None:
    described = report_of(blobs((10, 20, 40, 50))).to_dict()
    assert tuple(sorted(described)) == tuple(sorted(KEYS))
    again = json.loads(json.dumps(described))
    assert again["regions"][0]["box"] == [10, 20, 40, 50]
    assert again["verdict"] == "manipulated"
    assert again["mask"] is None
    assert json.loads(json.dumps(unreadable().to_dict()))["error"].startswith("bad.jpg is empty")


# --------------------------------------------------------------------------------- the regions


def test_a_box_is_found_where_it_is() -> None:
    (region,) = find_regions(blobs((10, 20, 40, 50)))
    assert region.box == (10, 20, 40, 50)
    assert region.score == pytest.approx(0.9)
    assert region.area == 30 * 30 / (100 * 120)
    assert sorted(region.polygon) == [[10, 20], [10, 49], [39, 20], [39, 49]]


def test_regions_are_sorted_by_area_times_score() -> None:
    heat = blobs((0, 0, 20, 20), (50, 50, 80, 80), (0, 50, 20, 70))
    heat[50:70, 0:20] = 0.6
    assert [r.box[:2] for r in find_regions(heat)] == [(50, 50), (0, 0), (0, 50)]


def test_the_threshold_belongs_to_the_region() -> None:
    heat = np.full((20, 20), 0.5, np.float32)
    assert [r.box for r in find_regions(heat, 0.5)] == [(0, 0, 20, 20)]
    assert find_regions(heat, 0.51) == []


def test_specks_are_dropped_by_pixels_and_by_share() -> None:
    assert find_regions(blobs((5, 5, 8, 10))) == []  # 15 pixels
    assert len(find_regions(blobs((5, 5, 9, 9)))) == 1  # 16 pixels
    large = (1000, 1000)  # of which 0.02 % is 200 pixels
    assert find_regions(blobs((5, 5, 15, 24), size=large)) == []
    assert len(find_regions(blobs((5, 5, 15, 25), size=large))) == 1
    assert len(find_regions(blobs((5, 5, 6, 6)), min_area=1)) == 1


def test_at_most_fifty_regions_are_told_the_largest_ones() -> None:
    boxes = [(x, y, x + 5, y + 5) for x in range(0, 110, 10) for y in range(0, 100, 10)]
    regions = find_regions(blobs(*boxes, (111, 0, 120, 90)))
    assert len(regions) == MAX_REGIONS == 50
    assert regions[0].box == (111, 0, 120, 90)


def test_nothing_everything_and_single_lines_are_well_defined() -> None:
    assert find_regions(np.zeros((50, 50), np.float32)) == []
    (whole,) = find_regions(np.ones((50, 60), np.float32))
    assert (whole.box, whole.area, whole.score) == ((0, 0, 60, 50), 1.0, 1.0)
    (line,) = find_regions(blobs((10, 10, 60, 11)))
    assert line.box == (10, 10, 60, 11)
    assert len(line.polygon) >= 3
    assert find_regions(np.ones((1, 1), np.float32)) == []
    (pixel,) = find_regions(np.ones((1, 1), np.float32), min_area=1)
    assert pixel.box == (0, 0, 1, 1)


def test_diagonal_neighbours_are_one_region_and_strips_do_not_cut_it() -> None:
    heat = np.zeros((3000, 30), np.float32)
    heat[1000:2100, 5:15] = 0.75
    heat[2100:2110, 15:25] = 0.75
    (region,) = find_regions(heat)
    assert region.box == (5, 1000, 25, 2110)
    assert region.score == pytest.approx(0.75)


def test_a_simplified_polygon_still_covers_its_region() -> None:
    heat = np.zeros((400, 500), np.float32)
    cv2.ellipse(heat, (200, 180), (120, 70), 30, 0, 360, 0.9, -1)
    cv2.rectangle(heat, (260, 200), (420, 260), 0.9, -1)
    (region,) = find_regions(heat)
    assert len(region.polygon) < 80
    filled = np.zeros(heat.shape, np.uint8)
    cv2.fillPoly(filled, [np.array(region.polygon)], 1)
    inside = heat >= 0.5
    assert (inside & (filled == 1)).sum() / (inside | (filled == 1)).sum() > 0.97


# ----------------------------------------------------------------------------------- the files


def read(path: str | None) -> np.ndarray:
    assert path is not None
    with PILImage.open(path) as im:
        return np.asarray(im)


def test_files_have_the_displayed_size_and_the_values_of_the_map(tmp_path: Path) -> None:
    heat = np.linspace(0, 1, 90 * 70, dtype=np.float32).reshape(90, 70)
    pixels = np.full((90, 70, 3), 200, np.uint8)
    report = write_outputs(report_of(heat, threshold=0.6), pixels, tmp_path / "new", "photo")
    assert sorted(os.listdir(tmp_path / "new")) == [
        "photo.heatmap.png",
        "photo.mask.png",
        "photo.overlay.png",
    ]
    assert np.array_equal(read(report.heatmap), np.rint(heat * 255))
    assert np.array_equal(read(report.mask), np.where(heat >= np.float32(0.6), 255, 0))
    assert read(report.overlay).shape == (90, 70, 3)
    assert report.mask == str(tmp_path / "new" / "photo.mask.png")


def test_the_overlay_colours_what_is_likely_and_leaves_the_rest_grey(tmp_path: Path) -> None:
    heat = blobs((60, 20, 100, 80))
    pixels = np.zeros((100, 120, 3), np.uint8) + np.array([40, 90, 160], np.uint8)
    overlay = read(write_outputs(report_of(heat), pixels, tmp_path, "p").overlay).astype(int)
    untouched, found = overlay[50, 20], overlay[30, 70]
    assert np.ptp(untouched) == 0
    assert found[0] > found[2] + 50  # warm
    assert np.array_equal(pixels, np.zeros_like(pixels) + np.array([40, 90, 160], np.uint8))


def test_the_heat_colours_rise_in_lightness_for_every_kind_of_eye() -> None:
    colours = drawing.HEAT_COLOURS.astype(float)
    luminance = colours[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) >= -1).all()
    assert luminance[-1] - luminance[0] > 100
    assert (np.diff(colours[:, 3]) >= 0).all()
    assert colours[0, 3] == 0


@pytest.mark.parametrize(
    "box", [(0, 0, 5, 5), (115, 95, 120, 100), (0, 0, 120, 100), (50, 0, 52, 99)]
)
def test_numbers_stay_inside_the_picture(box: tuple[int, int, int, int]) -> None:
    x, y = drawing.label_place(box, 120, 100)
    half = drawing.label_size(120, 100) / 2
    assert half <= x <= 120 - half
    assert half <= y <= 100 - half


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (17, 5)])
def test_tiny_pictures_get_their_files_too(size: tuple[int, int], tmp_path: Path) -> None:
    heat = np.ones(size, np.float32)
    report = report_of(heat, regions=find_regions(heat, min_area=1))
    report = write_outputs(report, np.zeros((*size, 3), np.uint8), tmp_path, "tiny")
    assert read(report.overlay).shape == (*size, 3)


def test_an_unreadable_picture_has_no_files(tmp_path: Path) -> None:
    report = unreadable()
    assert write_outputs(report, np.zeros((1, 1, 3), np.uint8), tmp_path / "out", "x") is report
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_one_sentence_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    heat, pixels = blobs(), np.zeros((100, 120, 3), np.uint8)
    Path("file").write_text("mine")
    with pytest.raises(ForgemapError, match=r"file/p\.heatmap.png cannot be written"):
        write_outputs(report_of(heat), pixels, "file", "p")
    Path("closed").mkdir()
    with as_nobody(), pytest.raises(ForgemapError, match=r"Permission denied.*another folder"):
        write_outputs(report_of(heat), pixels, "closed", "p")
    Path("taken/p.mask.png").mkdir(parents=True)
    with pytest.raises(ForgemapError, match=r"mask\.png cannot be written"):
        write_outputs(report_of(heat), pixels, "taken", "p")
    assert sorted(os.listdir("taken")) == ["p.heatmap.png", "p.mask.png"]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no quotas")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # as a quota of 2,000 bytes
    try:
        noise = np.random.default_rng(0).random((100, 120)).astype(np.float32)
        with pytest.raises(
            ForgemapError, match=r"heatmap\.png cannot be written .*free some space"
        ):
            write_outputs(report_of(noise), np.zeros((100, 120, 3), np.uint8), tmp_path, "p")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.listdir(tmp_path) == []


def test_regions_compare_by_value() -> None:
    assert Region((0, 0, 1, 1), [[0, 0]], 0.5, 0.1) == Region((0, 0, 1, 1), [[0, 0]], 0.5, 0.1)
    assert report_of(blobs()) == report_of(blobs())
