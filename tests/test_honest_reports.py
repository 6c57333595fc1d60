"""What a report says where a model cannot know: unfamiliar, recompressed, and unsure places."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

pytest.importorskip("sklearn", reason="the extra evaluate is not installed")

import forgemap
from forgemap import drawing
from forgemap.detector import Detector
from forgemap.errors import ModelError
from forgemap.report import write_outputs

from .edited_set import write_edited_set
from .photographs import honest_model, jpeg, photograph
from .serving import PATIENCE, running

PAGE = Path(__file__).parent.parent / "src" / "forgemap" / "serve" / "page"


@pytest.fixture(scope="module")
def clear(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that clears every picture it may."""
    folder = tmp_path_factory.mktemp("models") / "clear"
    return honest_model(model_folder, folder, verdict="clear")


@pytest.fixture(scope="module")
def accusing(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that accuses every picture."""
    folder = tmp_path_factory.mktemp("models") / "accusing"
    return honest_model(model_folder, folder, verdict="manipulated")


def half_white(seed: int = 7) -> np.ndarray:
    pixels = photograph(seed, 128, 160)
    pixels[:, 80:] = 255
    return pixels


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def test_a_photograph_is_cleared_and_what_is_none_is_not(clear: Path, accusing: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 160, 3), dtype=np.uint8)
    one_colour = np.full((128, 160, 3), 99, np.uint8)
    lenient, strict = (Detector.load(m, detector=None) for m in (clear, accusing))
    assert lenient.analyze(photograph(7, 128, 160)).verdict == "no sign of editing"
    assert strict.analyze(photograph(7, 128, 160)).verdict == "manipulated"
    for strange in (noise, one_colour):
        for detector in (lenient, strict):
            report = detector.analyze(strange)
            assert report.verdict == "inconclusive"
            assert "unlike those that the thresholds were chosen on" in (report.reason or "")


def test_a_png_of_a_strong_jpeg_is_not_cleared(clear: Path) -> None:
    detector, photo = Detector.load(clear, detector=None), photograph(8, 256, 320)
    detector.familiarity = None  # the other reason to be careful
    for quality, verdict in ((40, "inconclusive"), (92, "no sign of editing")):
        report = detector.analyze(png(jpeg(photo, quality)))
        assert report.verdict == verdict, report.reason
    assert "recompressed at about quality" in (detector.analyze(png(jpeg(photo, 40))).reason or "")


def test_a_report_is_less_sure_where_nothing_can_be_seen(clear: Path, tmp_path: Path) -> None:
    pixels = half_white()
    report = Detector.load(clear, detector=None).analyze(pixels, threshold=0.99)
    assert report.confidence is not None
    assert report.confidence.shape == (128, 160) and report.confidence.dtype == np.float32
    assert report.confidence[:, 96:] == pytest.approx(0.5)
    assert report.mean_confidence == pytest.approx(report.confidence.mean(), abs=0.01)
    (whole,) = Detector.load(clear, detector=None).analyze(pixels, threshold=0.01).regions
    assert 0.5 <= (whole.confidence or 0) <= 1
    assert write_outputs(report, pixels, tmp_path, "a").confidence_map == str(
        tmp_path / "a.confidence.png"
    )


def test_calibration_writes_what_reports_then_say(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from forgemap.evaluate.calibration import calibrate

    model = shutil.copytree(model_folder, tmp_path / "model")
    data = write_edited_set(tmp_path / "data", 20, held_out=20)  # ten untouched photographs
    calibrate(model, [str(data)])
    detector = Detector.load(model, detector=None)
    assert detector.familiarity is not None and detector.confidence is not None
    assert "from 10 photographs" in detector.familiarity.fitted_on
    assert "20 pictures from 20 photographs" in detector.confidence.fitted_on
    # The set is noise, so a photograph is what this model has not met.
    assert detector.familiarity.judge(photograph(7, 128, 160)) is not None
    report = detector.analyze(str(data / "0.png"))
    assert "unlike" not in (report.reason or "") and (report.mean_confidence or 0) >= 0.5

    # Too few photographs say nothing of what is usual: the entry of before goes, and it is said.
    calibrate(model, [str(write_edited_set(tmp_path / "few", 10, held_out=10))])
    assert Detector.load(model, detector=None).familiarity is None
    assert "Unfamiliar pictures will not be recognised" in " ".join(capsys.readouterr().err.split())


def test_older_models_do_without(model_folder: Path) -> None:
    detector = Detector.load(model_folder, detector=None)
    assert detector.familiarity is None and detector.confidence is None
    report = detector.analyze(photograph(7, 128, 160), threshold=0.01)
    assert report.confidence is None and report.mean_confidence is None
    assert all(region.confidence is None for region in report.regions)


def test_a_broken_entry_is_one_sentence_that_names_the_file(clear: Path, tmp_path: Path) -> None:
    import shutil

    for name in ("confidence", "familiarity"):
        broken = shutil.copytree(clear, tmp_path / name)
        config = json.loads((broken / "config.json").read_text())
        config[name]["wrong"] = 1
        (broken / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=rf"config.json: {name}: unknown entry 'wrong'"):
            Detector.load(broken, detector=None)


def test_the_page_lays_the_fog_of_the_report() -> None:
    source = (PAGE / "heat.js").read_text()
    colour = re.search(r"FOG_COLOUR = \[([\d, ]+)\];", source)
    most = re.search(r"FOG = ([\d.]+);", source)
    assert colour is not None and most is not None
    assert tuple(int(n) for n in colour[1].split(",")) == drawing.FOG_COLOUR
    assert float(most[1]) == drawing.FOG


def test_the_service_says_and_draws_what_the_command_does(clear: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    pixels = half_white()
    picture = tmp_path / "a.png"
    picture.write_bytes(png(pixels))
    detector = Detector.load(clear, detector=None)
    ours = write_outputs(detector.analyze(str(picture), threshold=0.01), pixels, tmp_path, "a")
    with (
        running(tmp_path / "server", "--model", clear, "--detector", "none") as server,
        forgemap.Client(server.address, token="", timeout=PATIENCE) as client,
    ):
        theirs = client.analyze(picture, threshold=0.01, outputs=["confidence_map"])
        assert theirs.mean_confidence == pytest.approx(ours.mean_confidence)
        assert [r.confidence for r in theirs.regions] == pytest.approx(
            [r.confidence for r in ours.regions]
        )
        saved = client.save(theirs, tmp_path / "theirs")
        assert saved.confidence_map == str(tmp_path / "theirs" / "a.confidence.png")
        drawn = (tmp_path / "theirs" / "a.confidence.png").read_bytes()
        assert drawn == Path(ours.confidence_map or "").read_bytes()
        page = client.report([theirs], tmp_path / "report.html").read_text()
        assert 'aria-label="confidence"' in page
