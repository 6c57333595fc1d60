"""Scores become probabilities: on pictures from photos that the curve has not seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from forgemap.evaluate.metrics import detection_metrics
from forgemap.evaluate.plots import save_diagram
from forgemap.evaluate.probability import (
    AS_IS,
    CURVES,
    FEWEST_PHOTOS,
    Curve,
    fit_curve,
    sigmoid,
)
from forgemap.evaluate.reliability import reliability
from forgemap.scoring import Decision

Sums = tuple[np.ndarray, np.ndarray, np.ndarray]


def overconfident(seed: int, slope: float = 0.4, shift: float = 0.8) -> Sums:
    """Sums of which `slope * sum + shift` are the true log-odds; five pictures a photo."""
    rng = np.random.default_rng(seed)
    sums = rng.normal(-shift / slope, 6, 2000)
    edited = rng.random(2000) < sigmoid(slope * sums + shift)
    return sums, edited, np.arange(2000) // 5


def bent(seed: int) -> Sums:
    """Log-odds that no line makes of the sums: a jump in the middle of the range."""
    rng = np.random.default_rng(seed)
    sums = rng.uniform(-4, 4, 2000)
    edited = rng.random(2000) < np.where(sums > 0, 0.8, 0.2)
    return sums, edited, np.arange(2000) // 5


def error(probability: np.ndarray, edited: np.ndarray) -> float:
    return float(detection_metrics(probability, edited)["ece"])


@pytest.mark.parametrize("make", [overconfident, bent])
def test_the_chosen_curve_holds_on_other_photos(make) -> None:
    sums, edited, photos = make(0)
    fitted = fit_curve(sums, edited, photos.tolist())
    new, truth, _ = make(1)
    # Half of the pictures here are edited, but for chance; as many as the curve assumes.
    assert error(sigmoid(new), truth) > 0.1
    assert error(sigmoid(fitted.curve(new)), truth) < 0.045
    assert error(fitted.held_out, edited) < 0.045


def test_a_line_is_kept_where_a_line_will_do_and_a_jump_is_followed() -> None:
    sums, edited, photos = overconfident(0)
    fitted = fit_curve(sums, edited, photos.tolist())
    assert fitted.curve.name == "Platt"
    assert np.diff(fitted.curve.y) / np.diff(fitted.curve.x) == pytest.approx(0.4, abs=0.06)
    sums, edited, photos = bent(0)
    assert fit_curve(sums, edited, photos.tolist()).curve.name == "isotonic"
    rng = np.random.default_rng(0)
    sums = rng.normal(0, 3, 3000)
    honest = fit_curve(sums, rng.random(3000) < sigmoid(sums), (np.arange(3000) // 5).tolist())
    assert honest.curve == AS_IS, "what holds already stays as it is"


def test_probabilities_are_those_of_half_edited_whatever_the_mixture() -> None:
    sums, edited, photos = overconfident(0)
    rng = np.random.default_rng(2)
    kept = ~edited | (rng.random(edited.size) < 0.2)  # one edited picture in six
    all_of_them = fit_curve(sums, edited, photos.tolist()).curve
    few = fit_curve(sums[kept], edited[kept], photos[kept].tolist()).curve
    points = np.linspace(-8, 4, 9)
    assert sigmoid(few(points)) == pytest.approx(sigmoid(all_of_them(points)), abs=0.08)


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("unit", [1, 1e-5, 1e-8])  # a mean probability, say, is no log-odds
def test_every_curve_rises_and_is_what_the_decision_computes(
    name: str, seed: int, unit: float
) -> None:
    """No two pictures change places, or thresholds would not be what was calibrated."""
    rng = np.random.default_rng(seed)
    sums = np.round(rng.normal(0, 3, 300), 1)  # tied ones too
    edited = rng.random(300) < (0.5 if seed == 2 else sigmoid(sums))  # seed 2: nothing to learn
    curve = CURVES[name](unit * sums, edited)
    points = np.linspace(-60, 60, 500)
    assert (np.diff(curve(points)) > 0).all()
    decision = Decision(
        features=("evidence_max",), weights=(1.0,), curve_from=curve.x, curve_to=curve.y
    )
    scores = [decision.score({"evidence_max": float(x)}) for x in points]
    assert scores == pytest.approx(sigmoid(curve(points)).tolist(), abs=1e-12)


def test_a_curve_is_linear_between_and_beyond_its_knots() -> None:
    curve = Curve("a", (0.0, 1.0, 3.0), (0.0, 2.0, 3.0))
    points = np.array([-1, 0, 0.5, 1, 2, 3, 5.0])
    assert curve(points).tolist() == [-2, 0, 1, 2, 2.5, 3, 4]
    decision = Decision(("evidence_max",), (1.0,), curve_from=curve.x, curve_to=curve.y)
    assert [decision.log_odds(float(x)) for x in points] == curve(points).tolist()


def test_with_few_photos_there_is_no_curve_and_no_claim() -> None:
    sums, edited, _ = overconfident(0)
    photos = np.arange(2000) % (FEWEST_PHOTOS - 1)
    fitted = fit_curve(sums, edited, photos.tolist())
    assert fitted.curve == AS_IS and fitted.losses == {}


def test_a_reliable_score_lies_within_its_bands_and_an_overconfident_one_does_not() -> None:
    sums, edited, photos = overconfident(0)
    good = reliability(sigmoid(0.4 * sums + 0.8), edited, photos)
    within = [b.share.low <= b.score <= b.share.high for b in good.bins]
    assert np.mean(within) > 0.7
    assert good.error.value < 2 * good.chance
    bad = reliability(sigmoid(sums), edited, photos)
    assert bad.error.low > 3 * bad.chance
    assert sum(b.pictures for b in good.bins) == good.pictures == 2000
    assert good.error.value == pytest.approx(error(sigmoid(0.4 * sums + 0.8), edited))


def test_by_chance_few_pictures_look_less_reliable() -> None:
    sums, edited, photos = overconfident(0)
    scores = sigmoid(0.4 * sums + 0.8)
    few = reliability(scores[:100], edited[:100], photos[:100])
    assert few.chance > 2 * reliability(scores, edited, photos).chance


def test_a_bin_of_one_photo_has_no_band_and_the_diagram_is_drawn(tmp_path) -> None:
    found = reliability([0.1, 0.12, 0.94, 0.95], [False, True, True, True], ["a", "a", "b", "c"])
    first, last = found.bins[0], found.bins[-1]
    assert math.isnan(first.share.low) and not math.isnan(last.share.low)
    assert (first.share.value, last.share.value) == (0.5, 1.0)
    assert found.to_dict()["bins"][0]["share"][1] is None
    file = save_diagram(found, tmp_path / "reliability.png")
    assert file.read_bytes()[:4] == b"\x89PNG" and not list(tmp_path.glob("*.part"))
