"""Scores and verdicts: each statistic is what its name says, each rule does what it says."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from forgemap.errors import ModelError
from forgemap.scoring import FEATURES, Decision, features

CALIBRATED = Decision(manipulated_at=0.7, clear_below=0.4, calibrated_on="a test")


def heat_with_square(side: int = 64, value: float = 0.9, top: int = 30) -> np.ndarray:
    heat = np.full((200, 300), 0.1, np.float32)
    heat[top : top + side, 50 : 50 + side] = value
    return heat


def judge(decision: Decision, mean: float, **info: object):
    """A verdict on a picture whose mean probability is `mean`."""
    values = features(np.full((100, 100), mean, np.float32), None)
    return decision.judge(values, **{"width": 100, "height": 100} | info)


def test_statistics_of_a_known_map():
    values = features(heat_with_square(), None)
    share = 64 * 64 / (200 * 300)
    assert values["mean"] == pytest.approx(0.1 + 0.8 * share, abs=1e-5)
    assert values["max"] == pytest.approx(0.9)
    assert values["area"] == pytest.approx(share)
    assert values["top"] == pytest.approx(0.9, abs=1e-5)
    assert values["peak16"] == pytest.approx(0.9)
    assert values["logit_max"] == pytest.approx(math.log(9), abs=1e-5)


def test_peak_of_one_hot_pixel_is_low_but_its_maximum_is_high():
    heat = np.zeros((128, 128), np.float32)
    heat[70, 70] = 1
    values = features(heat, None)
    assert values["max"] == 1
    assert values["peak16"] == pytest.approx(1 / 256)
    assert values["peak64"] == pytest.approx(1 / 4096)


def test_peak_is_the_highest_box_mean_of_the_naive_loop():
    cells = np.random.default_rng(0).random((11, 14))
    heat = np.repeat(np.repeat(cells, 8, 0), 8, 1).astype(np.float32)
    naive = max(cells[y : y + 4, x : x + 4].mean() for y in range(8) for x in range(11))
    assert features(heat, None)["peak32"] == pytest.approx(naive)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (7, 9), (8, 8), (17, 63)])
def test_maps_of_any_size_have_all_statistics(shape):
    values = features(np.full(shape, 0.25, np.float32), np.full((1, 1), -1.0, np.float32))
    assert set(values) == set(FEATURES)
    for name in ("mean", "max", "top", "peak16", "peak64"):
        assert values[name] == pytest.approx(0.25)
    assert values["evidence_peak"] == pytest.approx(-1)


def test_evidence_lse_lies_between_mean_and_maximum_and_never_overflows():
    evidence = np.array([[-800.0, 0.0], [3.0, 900.0]], np.float32)
    values = features(np.zeros((32, 32), np.float32), evidence)
    assert values["evidence_mean"] < values["evidence_lse"] < values["evidence_max"]
    assert values["evidence_lse"] == pytest.approx(900 - math.log(4))


def test_without_calibration_the_score_is_the_mean_probability_as_published():
    judged = judge(Decision(), 0.3)
    assert judged.score == pytest.approx(0.3, abs=1e-6)
    assert judged.verdict == "no sign of editing"
    assert "not calibrated" in judged.reason
    assert judge(Decision(), 0.6).verdict == "manipulated"


@pytest.mark.parametrize(
    ("mean", "verdict"),
    [(0.1, "no sign of editing"), (0.5, "inconclusive"), (0.8, "manipulated")],
)
def test_verdict_follows_the_thresholds(mean, verdict):
    judged = judge(CALIBRATED, mean)
    assert judged.verdict == verdict
    assert "calibrated" not in judged.reason
    assert judged.reason.endswith(".")


def test_small_picture_is_inconclusive_whatever_its_score():
    decision = Decision(min_side=64, calibrated_on="a test")
    assert judge(decision, 0.99, width=63).verdict == "inconclusive"
    assert "63 pixels" in judge(decision, 0.99, width=63).reason
    assert judge(decision, 0.99, width=64).verdict == "manipulated"


def test_a_picture_of_which_much_is_marked_is_never_cleared():
    """The score may weigh other statistics; a marked region that it overlooks is still said."""
    decision = Decision(
        doubt_area=0.02, manipulated_at=0.7, clear_below=0.4, calibrated_on="a test"
    )
    small, large = heat_with_square(side=16), heat_with_square(side=64)
    for heat, verdict in ((small, "no sign of editing"), (large, "inconclusive")):
        judged = decision.judge(features(heat, None), width=300, height=200)
        assert judged.score < 0.4 and judged.verdict == verdict
    # A threshold that somebody sets for the mask does not change the verdict.
    judged = decision.judge(features(small, None), width=300, height=200, area=0.9)
    assert judged.verdict == "no sign of editing"


def test_a_picture_that_is_marked_as_a_whole_is_never_accused():
    """An edit is a difference between parts: where all is marked there is nothing to differ."""
    decision = Decision(whole_area=0.6, manipulated_at=0.7, clear_below=0.4, calibrated_on="a test")
    values = {"logit_mean": 4.0, "area": 0.6}
    assert decision.judge(values, width=300, height=200).verdict == "manipulated"
    judged = decision.judge(values | {"area": 0.61}, width=300, height=200)
    assert judged.verdict == "inconclusive" and "61% of the picture" in judged.reason
    # One that scores low is cleared or doubted as ever.
    low = {"logit_mean": -4.0, "area": 0.61}
    assert decision.judge(low, width=300, height=200).verdict == "no sign of editing"


def test_a_palette_is_inconclusive_whatever_the_score():
    decision = Decision(min_colours=257, calibrated_on="a test", prevalence=0.5)
    for mean in (0.1, 0.9):
        judged = judge(decision, mean, colours=130)
        assert judged.verdict == "inconclusive" and "only 130 different colours" in judged.reason
        assert "probability" not in judged.reason  # of such pictures it is none
        assert "probability" in judge(decision, mean, colours=None).reason
    assert judge(decision, 0.9, colours=None).verdict == "manipulated"
    assert judge(Decision(calibrated_on="a test"), 0.9, colours=130).verdict == "manipulated"


def test_low_quality_jpeg_is_inconclusive_only_when_nothing_is_found():
    decision = Decision(min_jpeg_quality=60, calibrated_on="a test")
    assert judge(decision, 0.1, jpeg_quality=40).verdict == "inconclusive"
    assert "about quality 40" in judge(decision, 0.1, jpeg_quality=40).reason
    assert judge(decision, 0.9, jpeg_quality=40).verdict == "manipulated"
    assert judge(decision, 0.1, jpeg_quality=60).verdict == "no sign of editing"
    assert judge(decision, 0.1, jpeg_quality=None).verdict == "no sign of editing"


def test_score_is_the_sigmoid_of_the_weighted_sum():
    decision = Decision(features=("logit_max", "area"), weights=(2.0, -1.0), bias=0.5)
    expected = 1 / (1 + math.exp(-(0.5 + 2 * 1.5 - 0.25)))
    assert decision.score({"logit_max": 1.5, "area": 0.25}) == pytest.approx(expected)
    assert decision.score({"logit_max": 1e6, "area": 0}) == 1
    assert decision.score({"logit_max": -1e6, "area": 0}) == 0


def test_calibrated_probability_is_the_sigmoid_of_the_scaled_logit():
    logits = np.array([[-1000.0, -2.0, 0.0, 3.0, 1000.0]], np.float32)
    expected = [0, *(1 / (1 + np.exp(-(0.5 * x - 1))) for x in (-2, 0, 3)), 1]
    heat = Decision(mask_scale=0.5, mask_shift=-1).heat(logits.copy())
    assert heat.dtype == np.float32
    assert heat[0] == pytest.approx(expected, abs=1e-6)


def test_decision_survives_json():
    decision = Decision(features=("top", "evidence_lse"), weights=(1, 2), min_side=48)
    assert Decision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"treshold": 1}, "treshold"),
        ({"features": ["beauty"]}, "beauty"),
        ({"features": "mean"}, "features"),
        ({"features": ["mean", "max"]}, "2 features"),
        ({"weights": ["1"]}, "weights"),
        ({"min_side": 1.5}, "min_side"),
        ({"bias": True}, "bias"),
        ({"bias": float("nan")}, "bias"),
        ({"manipulated_at": 0.2}, "clear_below <= manipulated_at"),
        ({"doubt_area": 1.5}, "doubt_area must lie in 0..1"),
        ({"whole_area": -0.1}, "whole_area must lie in 0..1"),
        ({"mask_threshold": 1.0}, "mask_threshold"),
        ({"calibrated_on": None}, "calibrated_on"),
        ({"untouched": ["0.1"]}, "untouched"),
        ({"untouched": [0.2, 0.1]}, "untouched"),
    ],
)
def test_impossible_decisions_are_named(data, named):
    with pytest.raises(ModelError, match=named):
        Decision.from_dict(data)


def test_decision_on_evidence_that_the_network_lacks_is_a_model_error():
    decision = Decision(features=("evidence_lse",))
    with pytest.raises(ModelError, match="evidence head"):
        judge(decision, 0.5)


def test_a_decision_of_an_older_model_loads_and_says_nothing_that_it_does_not_know():
    old = {"features": ["logit_top"], "weights": [1.0], "bias": 0.5, "calibrated_on": "a test"}
    decision = Decision.from_dict(old | {"manipulated_at": 0.9, "clear_below": 0.6})
    assert decision.curve_from == () and decision.prevalence == 0
    assert decision.chance(0.99) is None
    values = features(heat_with_square(value=0.999), None)
    reason = decision.judge(values, width=300, height=200).reason
    assert "of 100" not in reason and "probability" not in reason


RARE = Decision(
    manipulated_at=0.7,
    clear_below=0.4,
    prevalence=0.5,
    rarity=(0.5, 0.1, 0.02),
    rarity_at=(0.2, 0.5, 0.7),
    bounds=("text (60 photos): at most 0.05",),
    calibrated_on="a test",
)


def test_chance_is_the_least_that_is_known_of_scores_so_high():
    scores = (0.0, 0.19, 0.2, 0.49, 0.5, 0.69, 0.7, 1.0)
    assert [RARE.chance(s) for s in scores] == [1, 1, 0.5, 0.5, 0.1, 0.1, 0.02, 0.02]


def test_the_reason_says_what_the_score_means_where_that_is_known():
    reason = judge(RARE, 0.8).reason
    assert "at most 2 of 100 untouched photographs" in reason
    assert "50% of them edited, the score is the probability of an edit" in reason
    assert "of 100" not in judge(RARE, 0.1).reason
    small = judge(RARE.__class__(**RARE.to_dict() | {"min_side": 400}), 0.8).reason
    assert "probability" not in small, "no score is shown there"


def test_a_decision_for_other_maps_promises_nothing():
    plain = RARE.uncalibrated()
    assert (plain.manipulated_at, plain.clear_below) == (RARE.manipulated_at, RARE.clear_below)
    assert plain.chance(0.8) is None and plain.bounds == ()
    reason = judge(plain, 0.8).reason
    assert "of 100" not in reason and "probability" not in reason and "not calibrated" in reason


def test_tables_survive_json():
    assert Decision.from_dict(json.loads(json.dumps(RARE.to_dict()))) == RARE


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"curve_from": [0.0, 1.0]}, "as many knots"),
        ({"curve_from": [0.0], "curve_to": [0.0]}, "two at least"),
        ({"curve_from": [0.0, 1.0], "curve_to": [1.0, 1.0]}, "must rise"),
        ({"curve_from": [0.0, 1.0], "curve_to": [0.0, float("inf")]}, "all tables must be finite"),
        ({"curve_from": ["0"], "curve_to": [0]}, "curve_from"),
        ({"prevalence": 1.0}, "prevalence"),
        ({"rarity": [0.1], "rarity_at": []}, "rarity"),
        ({"rarity": [0.1, 0.2], "rarity_at": [0.5, 0.6]}, "must fall"),
        ({"rarity": [0.2, 0.1], "rarity_at": [0.6, 0.5]}, "rarity_at rise"),
        ({"rarity": [0.2], "rarity_at": [1.5]}, "within 0..1"),
        ({"bounds": [0.5]}, "bounds"),
        ({"bounds": "text"}, "bounds"),
    ],
)
def test_impossible_tables_are_named(data, named):
    with pytest.raises(ModelError, match=named):
        Decision.from_dict(data)
