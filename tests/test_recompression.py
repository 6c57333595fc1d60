"""Parts of a JPEG that came after its first compression: found, joined to the maps, told."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.detector import Detector
from forgemap.encode import encode_jpeg, encode_png, jpeg
from forgemap.evaluate.calibration_look import observe
from forgemap.evaluate.calibration_pictures import View
from forgemap.image import load_image, to_stored
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model
from forgemap.pixels import displayed_view
from forgemap.recompression import Later, find_later
from forgemap.recompression.blocks import (
    BOUND,
    LARGEST,
    compare_blocks,
    fine_histogram,
    first_step,
)
from forgemap.recompression.later import SHARE, block_odds
from forgemap.scoring import Decision

from .test_copies import landscape, overlap

SMALL = {"architecture": "tracenet", "widths": [4, 4, 8, 8, 8], "blocks": [1, 1, 1, 1]}
JOINED = Decision(
    features=("area",),
    weights=(100.0,),
    bias=-2.0,
    manipulated_at=0.7,
    clear_below=0.1,
    recompression=True,
    calibrated_on="a test",
)
WHERE = np.zeros((366, 484), bool)
WHERE[90:220, 130:300] = True


def saved_twice(first: int = 70, last: int = 92, edit: bool = True) -> bytes:
    """A landscape saved with one quality, perhaps edited, and saved with another."""
    pixels = jpeg(landscape(3, *WHERE.shape), first)
    if edit:
        pixels = np.where(WHERE[..., None], landscape(4, *WHERE.shape), pixels)
    return encode_jpeg(pixels, last)


def found(data: bytes) -> Later:
    later = find_later(load_image(data))
    assert later is not None
    return later


def test_what_was_pasted_between_two_compressions_stands_out() -> None:
    later = found(saved_twice())
    assert overlap(later.box(), WHERE) > 0.85
    nats = later.of_pixels()
    assert nats.shape == WHERE.shape
    assert np.median(nats[WHERE]) > 1 and np.median(nats[~WHERE]) < -1
    assert ((nats > 0) == WHERE).mean() > 0.95


@pytest.mark.parametrize("quality", [60, 80, 88])
def test_any_first_quality_that_is_the_lower_one_shows(quality: int) -> None:
    assert overlap(found(saved_twice(quality, 95)).box(), WHERE) > 0.8


def test_nothing_stands_out_where_nothing_was_edited_or_nothing_can_be_known() -> None:
    untouched = saved_twice(edit=False)
    assert np.median(block_odds(load_image(untouched))) < -1, "all of it knows the first one"
    once = encode_jpeg(landscape(3), 90)
    lower = saved_twice(95, 70)
    sharpened = cv2.addWeighted(
        load_image(saved_twice(edit=False)).samples,
        1.8,
        cv2.GaussianBlur(load_image(saved_twice(edit=False)).samples, (0, 0), 1.5),
        -0.8,
        0,
    )
    for data in (untouched, once, lower, encode_jpeg(sharpened, 92)):
        assert find_later(load_image(data)) is None


def test_no_first_step_is_read_from_zeros_alone() -> None:
    counts = np.zeros(LARGEST + 1, int)
    counts[0] = 5000
    broad = fine_histogram(np.random.default_rng(0).normal(0, 12, 5000), 1)
    found = first_step(counts, broad, 1)
    assert found is None or 2 * found.step <= LARGEST, "one multiple of it is seen, at least"


def test_other_files_and_tiny_ones_say_nothing() -> None:
    image = load_image(saved_twice())
    assert image.table is not None and len(image.table) == 64
    png = load_image(encode_png(image.samples))
    assert png.table is None and find_later(png) is None
    assert find_later(load_image(image.samples)) is None
    tiny = load_image(encode_jpeg(jpeg(landscape(1, 60, 60), 70), 92))
    assert block_odds(tiny) is None


def test_inks_are_no_luminance() -> None:
    buffer = io.BytesIO()
    PILImage.fromarray(landscape()).convert("CMYK").save(buffer, "JPEG", quality=80)
    assert load_image(buffer.getvalue()).table is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_file_is_marked_as_it_is_displayed(orientation: int) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    first = load_image(saved_twice())
    buffer = io.BytesIO()
    # The blocks as they are: turned back by the file's note alone.
    with PILImage.open(io.BytesIO(saved_twice())) as opened:
        opened.save(buffer, "JPEG", exif=exif, qtables=opened.quantization, subsampling=2)
    image = load_image(buffer.getvalue())
    assert image.orientation == orientation
    later = found(buffer.getvalue())
    assert later.of_pixels().shape == image.samples.shape[:2]
    displayed = displayed_view(WHERE, orientation)
    assert overlap(later.box(), displayed) > 0.8
    stored = to_stored(later.of_pixels(), orientation)
    assert ((stored > 0) == WHERE).mean() > 0.9
    assert first.samples.shape[:2] == WHERE.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_displayed_and_stored_are_inverse(orientation: int) -> None:
    array = np.arange(12).reshape(3, 4)
    assert np.array_equal(to_stored(displayed_view(array, orientation), orientation), array)


def test_maps_are_joined_by_their_odds_and_stay_as_they_are() -> None:
    later = found(saved_twice())
    heat = np.full(WHERE.shape, 0.2, np.float32)
    evidence = np.zeros((23, 31), np.float32)
    joined, more = later.join(heat, evidence)
    assert (heat == np.float32(0.2)).all() and not evidence.any()
    odds = np.log(joined / (1 - joined)) - np.log(0.25)
    assert np.allclose(odds, later.of_pixels(), atol=1e-3)
    assert more is not None and more.shape == evidence.shape
    inside = cv2.resize(WHERE.astype(np.float32), (31, 23), interpolation=cv2.INTER_AREA) == 1
    assert np.median(more[inside]) == pytest.approx(
        SHARE * np.median(later.of_pixels()[WHERE]), rel=0.35
    )
    certain, _ = later.join((np.indices(WHERE.shape)[1] % 2).astype(np.float32), None)
    assert np.isin(certain, (0, 1)).all(), "what is certain stays certain"


def test_the_report_marks_and_tells_it_if_the_model_was_calibrated_with_it() -> None:
    data = saved_twice()
    asked = Detector(build(SMALL).eval(), JOINED, copies=False)
    unasked = Detector(
        build(SMALL).eval(), Decision(**{**JOINED.to_dict(), "recompression": False}), copies=False
    )
    calm = asked.predict(load_image(data).samples)
    calm.heat[:] = 0.2
    report, without = (d.judge(load_image(data), calm) for d in (asked, unasked))
    assert report.verdict == "manipulated" and "saved as a JPEG twice" in (report.reason or "")
    assert report.heat is not None and (report.heat >= 0.5)[WHERE].mean() > 0.8
    assert overlap(report.regions[0].box, WHERE) > 0.8
    assert without.area == 0 and "twice" not in (without.reason or "")
    assert report.basis["recompression"] is True


def test_a_scan_says_the_same(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from forgemap.scan.parts import read_parts

    folder = str(save_model(build(SMALL), tmp_path / "model", extra={"decision": JOINED.to_dict()}))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "photo.jpg").write_bytes(saved_twice())
    asked = ["scan", str(tmp_path / "photos"), "--model", folder, "--detector", "none"]
    result = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    ((table, _),) = read_parts(tmp_path / "out", ["area", "reason"])
    report = Detector.load(folder, detector=None).analyze(tmp_path / "photos" / "photo.jpg")
    assert table.column("area").to_pylist()[0] == pytest.approx(report.area, abs=1e-6)
    assert table.column("reason").to_pylist()[0] == report.reason


def test_blocks_that_are_black_or_white_say_nothing() -> None:
    pixels = landscape(3)
    pixels[:64] = 255
    image = load_image(encode_jpeg(jpeg(pixels, 70), 92))
    blocks = compare_blocks(image.samples, np.reshape(image.table, (8, 8)))
    assert not blocks.odds[:7].any() and blocks.odds[9:].any()
    assert np.abs(blocks.odds).max() <= BOUND


def test_thresholds_are_chosen_on_joined_maps(tmp_path: Path) -> None:
    image = load_image(saved_twice())
    detector = Detector(build(SMALL).eval(), Decision(), copies=False)
    view = View("splice", (), "a/b.jpg", image, WHERE.astype(np.uint8), True)
    seen = observe(detector, view, tmp_path / "maps.npz")
    plain = Detector(detector.model, JOINED, copies=False).analyze(image)
    assert seen.features(JOINED)["area"] == pytest.approx(plain.area, abs=1e-3)
    assert seen.overlap.max() > 0.6, "the network alone, untrained, has none"
