"""Metrics: the published numbers, the awkward cases by name, and properties that must always hold.

FORGEMAP_GOLDEN names a folder with a metrics.npz; by default the small copy beside this test and,
where it is present, ../shared/golden. In the small copy cases 21 and 22 are cut-outs.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import maximum_filter, minimum_filter
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from forgemap.errors import DataError
from forgemap.evaluate.metrics import (
    average_precision,
    cuts,
    detection_metrics,
    f1_best,
    f1_fixed,
    iou,
    localization_metrics,
    pixel_auc,
    scored_regions,
)
from forgemap.evaluate.ranking import TWO_PASSES, _sort


def golden_files() -> list[Path]:
    here = Path(__file__).parent
    named = os.environ.get("FORGEMAP_GOLDEN")
    folders = [Path(named)] if named else [here / "golden", here.parents[1] / "shared" / "golden"]
    files = [file for folder in folders for file in sorted(folder.glob("metrics*.npz"))]
    if named and not files:
        raise FileNotFoundError(f"FORGEMAP_GOLDEN={named}: holds no metrics.npz")
    return files


@pytest.fixture(params=golden_files(), ids=lambda file: file.stem)
def golden(request: pytest.FixtureRequest):
    with np.load(request.param) as file:
        return dict(file)


def case(golden: dict[str, np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    if f"pred_{number:02d}" not in golden:
        pytest.skip(f"no case {number} here")
    return golden[f"pred_{number:02d}"], golden[f"mask_{number:02d}"]


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A map that knows something of its mask; every third with few distinct values."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(18, 70, 2)
    top, left = rng.integers(0, height), rng.integers(0, width)
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + rng.integers(1, 50), left : left + rng.integers(1, 50)] = 1
    prob = np.clip(rng.normal(0.35 + 0.2 * mask, 0.2), 0, 1).astype(np.float32)
    return (np.round(prob * 7) / 7 if seed % 3 == 0 else prob), mask


# --- the published numbers ------------------------------------------------------------------------


@pytest.mark.skipif(not golden_files(), reason="no reference files")
def test_pixel_metrics_are_the_published_ones(golden):
    """All cases but those where the published definition breaks down."""
    compared = 0
    for number, expected in enumerate(golden["expected"]):
        if np.isnan(expected).any() or f"pred_{number:02d}" not in golden:
            continue
        prob, mask = case(golden, number)
        if mask.all() or not minimum_filter(mask, 15).any():
            continue
        found = localization_metrics(prob, mask)
        values = [found[name] for name in golden["columns"]]
        np.testing.assert_allclose(values, expected, rtol=0, atol=5e-7, err_msg=f"case {number}")
        compared += 1
    assert compared


@pytest.mark.skipif(not golden_files(), reason="no reference files")
def test_cuts_are_what_cutting_gives():
    rng = np.random.default_rng(0)
    heat = rng.uniform(0, 1, (20, 30)).astype(np.float32)
    mask, levels = rng.uniform(0, 1, (20, 30)) > 0.7, np.array([-0.5, 0.2, 0.5, 0.9, 2])
    marked, overlap = cuts(heat, mask, levels)
    for level, area, found in zip(levels, marked, overlap, strict=True):
        assert area == pytest.approx((heat > level).mean())
        assert found == pytest.approx(iou(heat, mask, level))
    assert np.isnan(cuts(heat, np.zeros_like(mask), levels)[1]).all()


def test_image_metrics_are_the_published_ones(golden):
    found = detection_metrics(golden["scores"], golden["labels"])
    names = {"acc_at_0.5": "accuracy", "acc_at_best": "best_accuracy"}
    values = [found[names.get(name, name)] for name in golden["detection_columns"]]
    np.testing.assert_allclose(values, golden["detection"], rtol=0, atol=5e-7)


# --- the awkward cases ----------------------------------------------------------------------------


def test_case_20_empty_mask_has_no_ap_and_counts_every_prediction_as_wrong(golden):
    prob, mask = case(golden, 20)
    assert not mask.any() and (prob > 0.5).any()
    found = localization_metrics(prob, mask)
    assert found["iou"] == found["f1_fixed"] == 0
    assert np.isnan(found["ap"]) and np.isnan(found["auc"])


def test_empty_mask_predicted_empty_is_perfect():
    prob, mask = np.full((40, 50), 0.5, np.float32), np.zeros((40, 50), bool)
    found = localization_metrics(prob, mask)
    assert found["iou"] == found["f1_fixed"] == found["f1_best"] == 1
    assert iou(prob, mask) == f1_fixed(prob, mask) == f1_best(prob, mask) == 1
    assert np.isnan(average_precision(prob, mask)) and np.isnan(pixel_auc(prob, mask))


def test_case_21_full_mask_is_found_by_predicting_everything(golden):
    prob, mask = case(golden, 21)
    assert mask.all()
    found = localization_metrics(prob, mask)
    assert found["f1_best"] == found["ap"] == 1
    assert np.isnan(found["auc"])
    assert found["iou"] == np.mean(prob > 0.5)
    assert found["f1_fixed"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))


def test_case_22_mask_smaller_than_the_erosion_is_scored_whole(golden):
    prob, mask = case(golden, 22)
    assert mask.any() and not minimum_filter(mask, 15).any()
    positives, _ = scored_regions(mask)
    assert np.array_equal(positives, mask != 0)
    found, hit = localization_metrics(prob, mask), localization_metrics(mask * 0.9, mask)
    assert 0 <= found["f1_fixed"] < found["f1_best"] < 1
    assert found["ap"] == pytest.approx(average_precision_score(mask.ravel(), prob.ravel()))
    assert hit == {"iou": 1, "f1_fixed": 1, "f1_best": 1, "ap": 1, "auc": 1}


def test_case_23_equal_scores_are_one_threshold(golden):
    prob, mask = case(golden, 23)
    assert np.unique(prob).size < 20
    found = localization_metrics(prob, mask)
    assert found["ap"] == pytest.approx(average_precision_score(mask.ravel(), prob.ravel()))
    assert found["f1_best"] == pytest.approx(
        max(f1_fixed(prob, mask, threshold) for threshold in [-1, *np.unique(prob)])
    )


def test_constant_map_has_one_threshold():
    mask = np.zeros((60, 60), np.uint8)
    mask[10:40, 10:40] = 1
    found = localization_metrics(np.full((60, 60), 0.7), mask)
    assert found["ap"] == pytest.approx(0.25)
    assert found["auc"] == 0.5
    assert found["f1_best"] == found["f1_fixed"]


# --- what must always hold ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_one_sort_gives_what_each_definition_gives(seed):
    prob, mask = random_case(seed)
    found = localization_metrics(prob, mask)
    assert found["iou"] == iou(prob, mask)
    assert found["f1_fixed"] == f1_fixed(prob, mask)
    assert found["ap"] == pytest.approx(average_precision_score(mask.ravel(), prob.ravel()))
    if not mask.all():
        assert found["auc"] == pytest.approx(roc_auc_score(mask.ravel(), prob.ravel()))
    thresholds = [-1.0, *np.unique(prob).tolist()]
    assert found["f1_best"] == max(f1_fixed(prob, mask, t) for t in thresholds)
    for threshold in (0.0, 0.3, 1.0):
        at = localization_metrics(prob, mask, threshold)
        assert at["iou"] == iou(prob, mask, threshold)
        assert at["f1_fixed"] == f1_fixed(prob, mask, threshold)


@pytest.mark.parametrize("seed", range(6))
def test_metrics_do_not_change_when_the_picture_is_turned(seed):
    prob, mask = random_case(seed)
    upright = localization_metrics(prob, mask)
    for turned in (
        localization_metrics(prob.T, mask.T),
        localization_metrics(prob[::-1], mask[::-1]),
    ):
        assert turned == pytest.approx(upright, nan_ok=True)


@pytest.mark.parametrize("seed", range(6))
def test_ranking_metrics_depend_on_the_order_alone(seed):
    prob, mask = random_case(seed)
    before, after = localization_metrics(prob, mask), localization_metrics(prob / 1024, mask)
    for name in ("ap", "auc", "f1_best"):
        assert after[name] == before[name]


@pytest.mark.parametrize("seed", range(6))
def test_scored_regions_follow_the_filters_of_trufor(seed):
    _, mask = random_case(seed)
    positives, negatives = scored_regions(mask)
    eroded = minimum_filter(mask, 15)
    assert np.array_equal(positives, (eroded if eroded.any() else mask) > 0)
    assert np.array_equal(negatives, maximum_filter(mask, 11) == 0)


def test_true_map_is_perfect_and_its_inverse_is_worthless():
    mask = np.zeros((80, 90), np.uint8)
    mask[20:60, 0:50] = 255
    assert set(localization_metrics(mask > 0, mask).values()) == {1.0}
    assert localization_metrics(mask == 0, mask)["auc"] == 0
    assert localization_metrics(mask == 0, mask)["iou"] == 0


def test_extreme_probabilities_sort_rightly():
    """-0.0, the smallest positive number and 1 have unusual bits."""
    mask = np.array([[0, 0, 1, 0, 1, 1]])
    prob = np.array([[-0.0, 0.0, 1e-45, 1e-38, 1 - 2**-24, 1.0]], np.float32)
    expected = average_precision_score(mask.ravel(), prob.ravel())
    assert average_precision(prob, mask) == pytest.approx(expected)
    assert pixel_auc(prob, mask) == pytest.approx(8 / 9)


def test_inputs_are_left_as_they_were():
    prob, mask = random_case(1)
    before = prob.copy(), mask.copy()
    localization_metrics(prob, mask)
    assert np.array_equal(prob, before[0]) and np.array_equal(mask, before[1])


@pytest.mark.parametrize(
    ("prob", "mask", "sentence"),
    [
        (np.zeros((4, 5)), np.zeros((5, 4)), r"shape \(4, 5\).*shape \(5, 4\)"),
        (np.zeros((0, 4)), np.zeros((0, 4)), "not empty"),
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 4)), "same \\(H, W\\)"),
        (np.full((4, 4), np.nan), np.zeros((4, 4)), "NaN"),
        (np.full((4, 4), 1.5), np.zeros((4, 4)), "outside"),
        (np.full((4, 4), -0.1), np.zeros((4, 4)), "outside"),
    ],
)
def test_broken_maps_are_refused(prob, mask, sentence):
    for function in (localization_metrics, iou, f1_fixed, f1_best, average_precision, pixel_auc):
        with pytest.raises(DataError, match=sentence):
            function(prob, mask)


# --- image level ----------------------------------------------------------------------------------


def random_scores(seed: int, number: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, number)
    return np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(seed % 2 + 1), labels


@pytest.mark.parametrize("seed", range(10))
def test_image_metrics_follow_their_definitions(seed):
    scores, labels = random_scores(seed)
    found = detection_metrics(scores, labels)
    judged = scores >= 0.5
    assert found["accuracy"] == pytest.approx(np.mean(judged == labels))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, judged))
    assert found["ap"] == pytest.approx(average_precision_score(labels, scores))
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores))
    accuracies = [np.mean((scores >= score) == labels) for score in scores]
    assert found["best_accuracy"] == pytest.approx(max(accuracies))
    at_best = np.mean((scores >= found["best_threshold"]) == labels)
    assert at_best == pytest.approx(found["best_accuracy"])
    for name, limit in (("tpr_at_fpr_1", 0.01), ("tpr_at_fpr_5", 0.05)):
        rates = [
            (np.mean(scores[labels == 1] >= t), np.mean(scores[labels == 0] >= t))
            for t in [*scores, 2]
        ]
        assert found[name] == pytest.approx(max(tpr for tpr, fpr in rates if fpr <= limit))


def test_order_of_the_pictures_does_not_matter():
    scores, labels = random_scores(0)
    order = np.random.default_rng(1).permutation(scores.size)
    assert detection_metrics(scores[order], labels[order]) == pytest.approx(
        detection_metrics(scores, labels)
    )


def test_best_threshold_of_separable_scores_lies_between_them():
    found = detection_metrics([0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1])
    assert found["best_threshold"] == pytest.approx(0.4)
    assert found["best_accuracy"] == found["auc"] == found["tpr_at_fpr_1"] == 1


def test_false_positive_limit_counts_whole_pictures():
    """Of 50 untouched pictures one is 2 %: too many at a limit of 1 %, fine at 5 %."""
    scores = np.concatenate((np.linspace(0, 0.4, 49), [0.8], [0.7, 0.9]))
    labels = np.array([0] * 50 + [1, 1])
    found = detection_metrics(scores, labels)
    assert found["tpr_at_fpr_1"] == 0.5
    assert found["tpr_at_fpr_5"] == 1


def test_calibration_error_is_zero_for_honest_scores_and_large_for_bold_ones():
    honest = np.repeat([0.25, 0.75], 4), np.array([1, 0, 0, 0, 1, 1, 1, 0])
    assert detection_metrics(*honest)["ece"] == pytest.approx(0)
    assert detection_metrics(np.ones(8), honest[1])["ece"] == pytest.approx(0.5)


def test_one_class_alone_leaves_rates_undefined():
    found = detection_metrics([0.2, 0.7], [0, 0])
    assert found["accuracy"] == 0.5
    undefined = ("auc", "ap", "balanced_accuracy", "tpr_at_fpr_1", "tpr_at_fpr_5")
    assert all(np.isnan(found[name]) for name in undefined)


@pytest.mark.parametrize("seed", range(4))
def test_weights_count_like_repeated_pictures(seed):
    scores, labels = random_scores(seed, 30)
    weights = np.random.default_rng(seed).integers(0, 4, (5, 30))
    found = detection_metrics(scores, labels, weights=weights)
    for row, weight in enumerate(weights):
        again = np.repeat(np.arange(30), weight)
        for name, value in detection_metrics(scores[again], labels[again]).items():
            if name != "best_threshold":
                assert found[name][row] == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize(
    ("scores", "labels"), [([], []), ([0.5], [1, 0]), ([np.nan], [1]), ([2.0], [1])]
)
def test_broken_scores_are_refused(scores, labels):
    with pytest.raises(DataError):
        detection_metrics(scores, labels)


@pytest.mark.parametrize("size", [1, 2, 4095, TWO_PASSES, TWO_PASSES + 1])
def test_keys_are_sorted_whatever_their_number_and_range(size):
    rng = np.random.default_rng(size)
    for highest in (1, 2**10, 2**32):
        keys = rng.integers(0, highest, size, np.uint32)
        assert np.array_equal(_sort(keys.copy()), np.sort(keys))
