"""Both questions are answered, each by its own model, and contradictions are said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from typer.testing import CliRunner

from forgemap import classifiers
from forgemap.answers import together
from forgemap.cli import app
from forgemap.detector import Detector
from forgemap.errors import ModelError
from forgemap.generated import VERDICTS, GenerationDetector, Rule
from forgemap.image import load_image
from forgemap.models.checkpoint import save_model
from forgemap.models.embedder import Embedder
from tests.conftest import picture


def embedder_folder(folder: Path, seed: int = 0, **rule: object) -> Path:
    """A small random embedder, a linear classifier of its embeddings, and its rule."""
    torch.manual_seed(seed)
    network = Embedder(width=16, layers=1, heads=2, mlp=32, image_size=32).eval()
    save_model(network, folder, extra={"generated": rule} if rule else None)
    source = classifiers.Source(str(folder), network.fingerprint(), 16)
    rng = np.random.default_rng(seed)
    fitted = classifiers.fit("linear", rng.normal(size=(40, 16)), np.arange(40) % 2, source)
    classifiers.save(fitted, folder / "linear.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return embedder_folder(tmp_path / "emb")


def test_the_answer_is_the_classifiers_score_of_the_crops_embedding(folder):
    judge = GenerationDetector.load(folder)
    pixels = picture(50, 41, seed=3)
    found = judge.judge(load_image(pixels))
    vectors = judge.embedder.embed(pixels)
    (wanted,) = judge.classifier.scores(vectors.numpy())
    assert found.score == pytest.approx(wanted)
    assert found.verdict == (VERDICTS[2] if wanted > 0.5 else VERDICTS[0])
    assert found.crops == 1 and found.notes == ()


def test_calibration_rescales_the_logit_and_keeps_the_order():
    rule = Rule(scale=2.0, shift=-1.0)
    scores = [rule.score(raw) for raw in (0.0, 0.2, 0.5, 0.9, 1.0)]
    assert scores == sorted(scores) and scores[0] >= 0 and scores[-1] <= 1
    assert rule.score(0.5) == pytest.approx(1 / (1 + np.e))


@pytest.mark.parametrize(
    ("score", "side", "quality", "verdict"),
    [
        (0.95, 300, None, "generated"),
        (0.95, 20, None, "inconclusive"),
        (0.5, 300, None, "inconclusive"),
        (0.1, 300, None, "no sign of generation"),
        (0.1, 300, 30, "inconclusive"),
        (0.95, 300, 30, "generated"),
    ],
)
def test_a_rule_abstains_where_it_says_so(score, side, quality, verdict):
    rule = Rule(generated_at=0.9, clear_below=0.3, min_side=64, min_jpeg_quality=40)
    found, reason = rule.judge(score, width=side, height=400, jpeg_quality=quality)
    assert found == verdict
    assert reason.endswith("not calibrated.")


def test_the_reason_says_how_many_real_pictures_score_as_high():
    rule = Rule(generated_at=0.9, calibrated_on="x", real=tuple(np.linspace(0, 1, 101)))
    _, reason = rule.judge(0.955, width=300, height=300, jpeg_quality=None)
    assert "about 5% of real pictures" in reason


def test_a_detector_joins_both_answers(folder, model_folder):
    report = Detector.load(model_folder, detector=folder).analyze(picture(80, 90, seed=1))
    assert report.generated["verdict"] in VERDICTS
    assert report.generated["model"].startswith("emb@") and "linear" in report.generated["model"]
    assert report.summary
    assert json.loads(json.dumps(report.to_dict()))["generated"]["crops"] == 1
    alone = Detector.load(model_folder, detector=None).analyze(picture(80, 90, seed=1))
    assert (alone.generated, alone.summary, alone.disagree) == (None, None, False)
    assert (alone.verdict, alone.score) == (report.verdict, report.score)


def test_contradictions_are_those_over_the_same_pixels():
    assert together("manipulated", 0.1, "generated")[1]
    assert together("manipulated", 0.9, "no sign of generation")[1]
    for edited, area, generated in (
        ("manipulated", 0.1, "no sign of generation"),
        ("no sign of editing", 0.0, "generated"),
        ("no sign of editing", 0.0, "no sign of generation"),
        ("inconclusive", 0.0, "generated"),
        ("manipulated", 0.9, "inconclusive"),
    ):
        sentence, disagree = together(edited, area, generated)
        assert not disagree and sentence.endswith(".")


def test_a_small_picture_is_padded_and_that_is_said(folder):
    found = GenerationDetector.load(folder).judge(load_image(picture(20, 20)))
    assert "padded" in found.notes[0]


def test_what_cannot_be_used_is_said_in_one_sentence(folder, tmp_path, model_folder):
    with pytest.raises(ModelError, match="no one-class classifier"):
        GenerationDetector.load(folder, classifier="one-class")
    with pytest.raises(ModelError, match="localizes edits"):
        GenerationDetector.load(model_folder)
    other = embedder_folder(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="fit it anew"):
        GenerationDetector.load(folder, classifier=other / "linear.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["generated"] = {"generated_at": 0.1, "clear_below": 0.2}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="clear_below <= generated_at"):
        GenerationDetector.load(folder)
    config["generated"] = {"thresholds": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="unknown entry 'thresholds'"):
        GenerationDetector.load(folder)


def test_the_command_shows_both_answers_and_can_ask_only_one(model_folder, tmp_path):
    # Everything reaches this threshold: the exit code speaks of either answer.
    accuser = embedder_folder(tmp_path / "accuser", generated_at=0.0, clear_below=0.0)
    PILImage.fromarray(picture(64, 64)).save(tmp_path / "a.png")
    common = ["analyze", str(tmp_path / "a.png"), "--localizer", str(model_folder), "--json"]
    common += ["--no-files"]
    asked = CliRunner().invoke(app, [*common, "--detector", str(accuser)])
    (found,) = json.loads(asked.stdout)
    assert found["generated"]["verdict"] == "generated" and asked.exit_code == 1
    (found,) = json.loads(CliRunner().invoke(app, [*common, "--detector", "none"]).stdout)
    assert found["generated"] is None and found["summary"] is None


def test_the_report_page_names_both_models(folder, model_folder, tmp_path):
    PILImage.fromarray(picture(64, 64)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    models = ["--model", str(model_folder), "--detector", str(folder)]
    CliRunner().invoke(app, ["analyze", str(tmp_path / "a.png"), *models, "--out", str(out)])
    page = (out / "report.html").read_text()
    assert "As a whole" in page and "emb@" in page and "Judged by" in page
    (row,) = json.loads((out / "report.json").read_text())
    assert row["summary"] in page
