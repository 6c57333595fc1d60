"""Detector: every kind of picture gets a Report; every mistake gets one sentence."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

import forgemap
from forgemap import engines
from forgemap.detector import Detector
from forgemap.errors import ImageError, ModelError
from forgemap.generated import GenerationDetector
from forgemap.image import load_image
from forgemap.report import VERDICTS
from forgemap.scoring import Decision

from .conftest import picture
from .photographs import photograph, wide_gamut


@pytest.fixture(scope="module")
def detector(model_folder) -> Detector:
    return Detector.load(model_folder)


def with_config(model_folder, tmp_path, **entries):
    """A copy of the model whose config.json has further entries."""
    folder = shutil.copytree(model_folder, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))
    return folder


def test_report_describes_the_picture_and_the_model(detector, photos):
    report = detector.analyze(photos / "b.jpg")
    assert (report.width, report.height) == (80, 120)
    assert report.heat.shape == (120, 80)
    assert report.heat.dtype == np.float32
    assert 0 <= report.heat.min() <= report.heat.max() <= 1
    assert report.verdict in VERDICTS
    assert 0 <= report.score <= 1
    assert report.area == np.mean(report.heat >= 0.5)
    assert report.path == str(photos / "b.jpg")
    assert report.sha256 == load_image(photos / "b.jpg").sha256
    assert report.reason.endswith(".")
    assert report.error is None
    assert report.mask is None


@pytest.mark.parametrize(("kind", "lossy"), [("JPEG", 1), ("WEBP", 1), ("PNG", 0), ("TIFF", 0)])
def test_a_score_may_take_into_account_that_the_file_discards_detail(detector, photos, kind, lossy):
    buffer = io.BytesIO()
    PILImage.open(photos / "b.jpg").save(buffer, kind)
    plain = Decision(features=("logit_mean",), weights=(1.0,))
    aware = Decision(features=("logit_mean", "lossy"), weights=(1.0, 0.5))
    scores = [
        Detector(detector.model, decision).analyze(buffer.getvalue()).score
        for decision in (plain, aware)
    ]
    odds = [np.log(score / (1 - score)) for score in scores]
    assert odds[1] - odds[0] == pytest.approx(0.5 * lossy, abs=1e-6)
    pixels = load_image(buffer.getvalue()).samples  # an array has no file
    assert Detector(detector.model, aware).analyze(pixels).score == pytest.approx(scores[0])


def test_model_id_is_the_folder_and_its_weights(detector, model_folder):
    name, _, digest = detector.name.partition("@")
    assert name == model_folder.name
    assert len(digest) == 12
    assert int(digest, 16) >= 0


def test_path_bytes_file_pil_and_array_get_the_same_answer(detector, photos):
    path = photos / "a.png"
    pixels = np.asarray(PILImage.open(path))
    data = path.read_bytes()
    sources = (str(path), data, io.BytesIO(data), PILImage.fromarray(pixels), pixels)
    expected = detector.analyze(path)
    for source in (*sources, load_image(path)):
        report = detector.analyze(source)
        assert np.array_equal(report.heat, expected.heat)
        assert (report.verdict, report.score) == (expected.verdict, expected.score)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (17, 5), (64, 64), (333, 250)])
def test_heat_has_the_size_of_the_picture(detector, size):
    assert detector.predict(picture(*size)).heat.shape == size


def test_a_colour_profile_changes_nothing_that_is_found(detector, photos):
    with PILImage.open(photos / "b.jpg") as plain:
        tables = {"qtables": plain.quantization, "subsampling": 0}
        managed, same = io.BytesIO(), io.BytesIO()
        plain.save(managed, "JPEG", icc_profile=wide_gamut(), **tables)
        plain.save(same, "JPEG", **tables)
    one, other = (detector.analyze(stream.getvalue()) for stream in (managed, same))
    assert one.notes == ["ICC profile converted to sRGB"] and other.notes == []
    assert one.score == other.score and np.array_equal(one.heat, other.heat)


def test_threshold_moves_the_mask_but_not_the_score(detector):
    pixels = picture()
    heat = detector.predict(pixels).heat
    strict = detector.analyze(pixels, threshold=float(np.quantile(heat, 0.9)))
    loose = detector.analyze(pixels, threshold=float(np.quantile(heat, 0.2)))
    assert strict.area < loose.area
    assert (strict.score, strict.verdict) == (loose.score, loose.verdict)


def test_same_picture_same_answer(detector):
    first, second = (detector.analyze(picture(200, 150)) for _ in range(2))
    assert np.array_equal(first.heat, second.heat)


def test_decision_in_the_model_folder_decides(model_folder, tmp_path):
    decision = {"manipulated_at": 0.0, "clear_below": 0.0, "calibrated_on": "a test"}
    detector = Detector.load(with_config(model_folder, tmp_path, decision=decision))
    report = detector.analyze(picture())
    assert report.verdict == "manipulated"
    assert "calibrated" not in report.reason


def test_calibration_of_the_mask_is_applied(model_folder, tmp_path, detector):
    folder = with_config(model_folder, tmp_path, decision={"mask_shift": 50.0})
    assert Detector.load(folder).predict(picture()).heat.min() > 0.99
    assert detector.predict(picture()).heat.min() < 0.99


def test_one_bad_file_does_not_stop_the_others(detector, photos):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    paths = [photos / "a.png", photos / "broken.jpg", photos / "missing.png", photos / "b.jpg"]
    reports = list(detector.analyze_many(paths))
    assert [report.path for report in reports] == [str(path) for path in paths]
    assert [report.error is None for report in reports] == [True, False, False, True]
    assert "broken.jpg" in reports[1].error
    assert reports[2].verdict is None
    assert reports[2].model == detector.name


def test_unreadable_picture_raises_one_sentence(detector, tmp_path):
    with pytest.raises(ImageError, match=r"missing\.png"):
        detector.analyze(tmp_path / "missing.png")


def test_pixel_limit_is_an_image_error(detector):
    with pytest.raises(ImageError):
        detector.analyze(picture(50, 50), max_pixels=2499)
    assert detector.analyze(picture(50, 50), max_pixels=2500).error is None


def test_thread_count_is_left_alone(model_folder):
    before = torch.get_num_threads()
    Detector.load(model_folder).analyze(picture())
    assert torch.get_num_threads() == before


def test_missing_model_device_and_bad_decision_are_model_errors(model_folder, tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        Detector.load(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="'abacus'"):
        Detector.load(model_folder, device="abacus")
    with pytest.raises(ModelError, match="'abacus'"):
        engines.load(model_folder, device="abacus")
    with pytest.raises(ModelError, match="'abacus'"):
        GenerationDetector.load(device="abacus")
    folder = with_config(model_folder, tmp_path, decision={"treshold": 0.5})
    with pytest.raises(ModelError, match=r"config\.json.*treshold"):
        Detector.load(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has such a device")
def test_absent_device_is_a_model_error(model_folder):
    with pytest.raises(ModelError, match=r"'cuda'.*try cpu"):
        Detector.load(model_folder, device="cuda")


def test_absent_bundled_model_is_a_model_error(monkeypatch, tmp_path):
    monkeypatch.setattr("forgemap.model_folder.WEIGHTS", tmp_path)
    with pytest.raises(ModelError, match="no bundled model"):
        forgemap.load()


def test_package_level_functions_are_the_detector(model_folder, detector, photos):
    report = forgemap.analyze(photos / "a.png", model=model_folder)
    assert isinstance(report, forgemap.Report)
    assert report.score == detector.analyze(photos / "a.png").score
    assert isinstance(forgemap.load(model_folder), forgemap.Detector)


def test_a_gif_is_inconclusive_with_the_bundled_model(tmp_path):
    """The palette's colours are counted on the way from a file to its verdict."""
    PILImage.fromarray(photograph(3)).quantize(128).save(tmp_path / "a.gif")
    report = Detector.load("default", detector=None).analyze(tmp_path / "a.gif")
    assert report.verdict == "inconclusive" and "different colours" in report.reason
