"""Confidence intervals: they cover, resample photos, and are the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from forgemap.evaluate.bootstrap import intervals, mean_interval, resamples
from forgemap.evaluate.metrics import detection_metrics


def test_interval_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(3, 1, 400)
    found = mean_interval(values)
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.2 * half)


def test_edits_of_one_photo_do_not_feign_precision():
    """Ten equal edits of each of 20 photos say as much as one edit of each."""
    values = np.random.default_rng(0).normal(size=20)
    once = mean_interval(values)
    copied = mean_interval(np.repeat(values, 10), np.repeat(np.arange(20), 10))
    pretended = mean_interval(np.repeat(values, 10))
    assert copied.high - copied.low == pytest.approx(once.high - once.low)
    assert pretended.high - pretended.low < 0.5 * (once.high - once.low)


def test_every_resample_draws_as_many_photos_as_there_are():
    clusters = np.array(["a", "a", "b", "c", "c", "c"])
    weights = np.concatenate(list(resamples(clusters, number=250)))
    assert weights.shape == (250, 6)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()


def test_undefined_values_are_left_out():
    assert mean_interval([1, np.nan, 3]).value == 2
    assert all(np.isnan(mean_interval([np.nan, np.nan])))


def test_one_photo_gives_a_value_but_no_interval():
    found = mean_interval([1, 2, 3], ["a", "a", "a"])
    assert found.value == 2
    assert np.isnan(found.low) and np.isnan(found.high)


def test_same_seed_same_interval():
    values = np.random.default_rng(0).random(30)
    assert mean_interval(values, seed=4) == mean_interval(values, seed=4)
    assert mean_interval(values, seed=4) != mean_interval(values, seed=5)


def test_interval_of_an_auc_holds_it_and_shrinks_with_more_photos():
    rng = np.random.default_rng(0)
    widths = []
    for number in (50, 500):
        labels = rng.integers(0, 2, number)
        scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)

        def statistics(weights, scores=scores, labels=labels):
            return detection_metrics(scores, labels, weights=weights)

        found = intervals(statistics, np.arange(number))["auc"]
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < 0.5 * widths[0]
