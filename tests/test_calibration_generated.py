"""An embedder's thresholds keep what they promise on the pictures that they were chosen on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.errors import DataError, ModelError
from forgemap.evaluate.calibration import Limits
from forgemap.evaluate.calibration_generated import Scores, decide, reduced_photos
from forgemap.generated import GenerationDetector, Rule
from forgemap.image import load_image

from .soft_pictures import pictures, small_embedder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_embedder(tmp_path)


def test_the_command_writes_a_rule_that_keeps_the_limit(folder, tmp_path):
    data = pictures(tmp_path / "held", 30)
    flags = ["--split", "all", "--alarms", "0.2", "--crops", "grid", "--min-side", "0"]
    flags += ["--manipulated-at", "0.6", "--clear-below", "0.3"]
    done = CliRunner().invoke(app, ["calibrate", str(folder), str(data), *flags])
    assert done.exit_code == 0, done.output
    rule = Rule.from_dict(json.loads((folder / "config.json").read_text())["generated"])
    assert rule.crops == "grid" and rule.calibrated_on and len(rule.real) == 101
    assert rule.generated_at >= 0.6 and rule.clear_below <= 0.3
    judge = GenerationDetector.load(folder)
    assert judge.rule == rule
    verdicts = {
        name: [judge.judge(load_image(p)).verdict for p in sorted((data / name).iterdir())]
        for name in ("real", "soft")
    }
    assert verdicts["real"].count("generated") <= 6
    assert verdicts["soft"].count("generated") > 10


@pytest.mark.parametrize("flag", ["--flagged", "--flagged-processed", "--whole", "--min-colours"])
def test_limits_of_the_mask_are_refused_for_an_embedder(folder, flag):
    before = (folder / "config.json").read_text()
    done = CliRunner().invoke(app, ["calibrate", str(folder), "nowhere", flag, "0"])
    assert f"{flag} is for localizers" in str(done.exception)
    assert (folder / "config.json").read_text() == before


def test_a_score_of_one_half_is_as_often_generated_as_real_and_limits_hold():
    rng = np.random.default_rng(1)
    fake = np.arange(400) % 2 == 1
    raw = 1 / (1 + np.exp(-(1.5 * fake + rng.normal(size=400) + 2)))  # far too sure of "generated"
    groups = ["a" if i % 4 < 2 else "b" for i in range(400)]
    found = Scores(list(raw), list(fake), groups, [str(i) for i in range(400)])
    rule = decide(found, Rule(), "val", "here", Limits(alarms=0.05))
    scores = np.array([rule.score(value) for value in raw])
    assert scores.mean() == pytest.approx(fake.mean(), abs=1e-3)  # the raw ones' mean is .9
    near = np.abs(scores - 0.5) < 0.2
    assert fake[near].mean() == pytest.approx(0.5, abs=0.15)
    for name in "ab":
        mine = np.array([g == name for g in groups]) & ~fake
        assert (scores[mine] >= rule.generated_at).mean() <= 0.05
    assert rule.clear_below <= min(rule.generated_at, 0.5)
    lax = decide(found, Rule(), "val", "here", Limits(alarms=0.05, doubts=0.01, clear_below=1.0))
    assert 0.5 < lax.clear_below <= lax.generated_at == rule.generated_at
    sure = decide(found, Rule(), "val", "here", Limits(alarms=0.05, manipulated_at=0.999))
    assert sure.generated_at == 0.999


def test_what_cannot_be_calibrated_is_said():
    with pytest.raises(DataError, match="must hold real and generated"):
        decide(Scores([0.1], [False], ["a"], ["x"]), Rule(), "val", "here", Limits())
    upside_down = Scores([0.9, 0.8, 0.2, 0.1], [False, False, True, True], ["a"] * 4, list("wxyz"))
    with pytest.raises(ModelError, match="needs more training"):
        decide(upside_down, Rule(), "val", "here", Limits())


def test_honest_processing_has_a_limit_of_its_own_and_moves_no_probability():
    rng = np.random.default_rng(1)
    fake = np.arange(400) % 2 == 1
    raw = 1 / (1 + np.exp(-(3 * fake + rng.normal(size=400) - 1.5)))
    found = Scores([], [], [], [])
    names = [str(i) for i in range(400)]
    found.extend(raw, fake, ["as is"] * 400, names)
    plain = decide(found, Rule(), "val", "here", Limits(alarms=0.05))
    for kind, high in (("denoise", 0.999), ("crop", 0.2)):
        scores = np.r_[np.full(10, high), np.full(90, 0.1)]
        found.extend(scores, [False] * 100, [kind] * 100, names[:100], processed=True)
    strict = decide(found, Rule(), "val", "here", Limits(alarms=0.05, processed=0.05))
    lenient = decide(found, Rule(), "val", "here", Limits(alarms=0.05, processed=0.15))
    assert strict.generated_at > plain.score(0.999) >= plain.generated_at
    assert lenient.generated_at == plain.generated_at
    assert strict.scale == plain.scale and strict.real == plain.real
    assert "5% after any of 2 kinds of honest processing" in strict.calibrated_on


def test_reduced_photos_have_no_side_below_the_smallest_and_are_much_smaller(tmp_path):
    for name, shape in (("large", (900, 1500)), ("wide", (100, 600)), ("small", (200, 300))):
        PILImage.fromarray(np.full((*shape, 3), 90, np.uint8)).save(tmp_path / f"{name}.png")
    found = [
        (Path(source).stem, pixels.shape[:2])
        for source, pixels in reduced_photos([str(tmp_path)], None, 120)
    ]
    assert found == [("large", (384, 640)), ("large", (144, 240))]


def test_the_command_judges_photos_after_honest_processing(folder, tmp_path):
    data, photos = pictures(tmp_path / "held", 30), tmp_path / "held/real"
    flags = ["--split", "all", "--photos", str(photos), "--processing", "sharpen,jpeg"]
    done = CliRunner().invoke(app, ["calibrate", str(folder), str(data), *flags])
    assert done.exit_code == 0, done.output
    rule = Rule.from_dict(json.loads((folder / "config.json").read_text())["generated"])
    assert "any of 2 kinds of honest processing" in rule.calibrated_on
    done = CliRunner().invoke(app, ["calibrate", str(folder), str(data), "--processing", "jpeg"])
    assert "works on --photos" in str(done.exception)
    for flag in ("--processed", "--seed"):  # nothing is processed
        done = CliRunner().invoke(app, ["calibrate", str(folder), "nowhere", flag, "1"])
        assert f"{flag} goes with --processing" in str(done.exception)
