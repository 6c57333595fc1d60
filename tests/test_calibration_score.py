"""The score is a regression that has its own photos, or one statistic that needs none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.detector import Detector
from forgemap.errors import DataError
from forgemap.evaluate.calibration import Calibration, Limits, decide
from forgemap.evaluate.calibration_look import SHIFTS, Observation
from forgemap.evaluate.calibration_pictures import PROCESSED, Label
from forgemap.evaluate.calibration_report import Report
from forgemap.evaluate.calibration_score import check_statistic, part_for_score
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model
from forgemap.pooling import STATISTICS

from .edited_set import TINY, write_edited_set
from .observations import synthetic

Values = list[dict[str, float]]


#: Cleared is what `doubts` alone allows.
BY_DOUBTS = Limits(clear_below=1.0)


def calibrated(
    seen: list[Observation], values: Values, statistic: str = "evidence_lse"
) -> Calibration:
    return decide(seen, values, float(SHIFTS[0]), "val", BY_DOUBTS, statistic)


def test_no_photo_is_on_both_sides_of_the_division() -> None:
    seen, _ = synthetic(np.random.default_rng(0), 31)
    fitting = part_for_score(seen)
    sides = [
        {o.source for o, used in zip(seen, fitting, strict=True) if used is side}
        for side in (np.True_, np.False_)
    ]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 31
    assert 6 <= len(sides[0]) <= 9


def test_with_one_statistic_every_photo_sets_the_thresholds() -> None:
    seen, values = synthetic(np.random.default_rng(0), 60)
    alone, regression = calibrated(seen, values), calibrated(seen, values, "")
    decision = alone.decision
    assert (decision.features, decision.weights, decision.bias) == (("evidence_lse",), (1.0,), 0.0)
    assert "60 photos, all of them for the thresholds" in decision.calibrated_on
    assert "by evidence_lse alone" in decision.calibrated_on
    assert "15 of them for the score and 45 for" in regression.decision.calibrated_on
    crops = [
        next(line for line in found.lines if line.name == "untouched crops")
        for found in (alone, regression)
    ]
    # 2 % takes 49 photos; fewer bound 5 %.
    assert [(line.photos, line.bound) for line in crops] == [(60, 0.02), (45, 0.05)]
    assert "fifth of 60 at a time" in " ".join(Report.of(alone).sentences())
    assert "fifth of 45 at a time" in " ".join(Report.of(regression).sentences())


def test_the_highest_untouched_picture_counts_whoever_took_it() -> None:
    """Photos that a regression would take are not left out: each raises the threshold."""
    seen, values = synthetic(np.random.default_rng(0), 49)
    taken = {o.source for o, used in zip(seen, part_for_score(seen), strict=True) if used}
    for photo in sorted(taken)[:6]:
        one = next(i for i, o in enumerate(seen) if o.source == photo and not o.edited)
        raised = [v | {"evidence_lse": 9.0} if i == one else v for i, v in enumerate(values)]
        decision = calibrated(seen, raised).decision
        assert decision.score(raised[one]) < decision.manipulated_at


@pytest.mark.parametrize("change", [lambda x: 3 * x - 2, np.sinh, lambda x: x + 2 * np.sign(x)])
def test_another_scale_of_the_statistic_gives_the_same_verdicts(change) -> None:
    seen, values = synthetic(np.random.default_rng(0), 90)
    changed = [v | {"evidence_lse": float(change(v["evidence_lse"]))} for v in values]

    def verdicts(of: Values) -> list[str]:
        decision = calibrated(seen, of).decision
        return [decision.judge(v, width=500, height=500).verdict for v in of]

    found = verdicts(values)
    assert found == verdicts(changed)
    assert {"manipulated", "inconclusive", "no sign of editing"} == {*found}


def test_the_stated_error_is_of_curves_that_have_not_seen_the_picture() -> None:
    """What a photo's pictures are has no say in their own probabilities, only in the others'."""
    seen, values = synthetic(np.random.default_rng(0), 60)
    before = calibrated(seen, values)
    own = [i for i, o in enumerate(seen) if o.source == "p/7" and o.listed]
    other = list(seen)
    for plain, edited in zip(own[::2], own[1::2], strict=True):
        assert seen[edited].edited and not seen[plain].edited
        other[plain], other[edited] = seen[edited], seen[plain]
    after = calibrated(other, values)
    mine = before.photos == "p/7"
    assert (before.edited != after.edited).tolist() == mine.tolist()
    assert (before.scores == after.scores)[mine].all()
    assert (before.scores != after.scores)[~mine].any()
    assert before.decision.curve_to != after.decision.curve_to
    assert len(before.scores) == 60 * 4, "every listed picture is judged so"


def test_scores_are_probabilities_of_files_with_and_without_loss_alike() -> None:
    """Where compression hides most edits, an empty map of a JPEG is no proof of anything."""
    rng = np.random.default_rng(0)
    seen, values = synthetic(rng, 640)
    listed = np.array([o.listed for o in seen])
    edited = np.array([o.edited for o in seen])
    lossy = rng.random(len(seen)) < 0.5
    for one, saved, o in zip(values, lossy, seen, strict=True):
        if saved and o.edited:
            for name in ("evidence_peak", "evidence_top", "evidence_lse"):
                one[name] -= 3.0
    apart = {}
    for aware in (False, True):
        known = [
            v | {"lossy": float(saved and aware)} for v, saved in zip(values, lossy, strict=True)
        ]
        decision = calibrated(seen, known, "").decision
        scores = np.array([decision.score(v) for v in known])
        among = [(lossy == side) & listed for side in (True, False)]
        apart[aware] = [float(abs(scores[k].mean() - edited[k].mean())) for k in among]
    assert max(apart[True]) < 0.05 < 0.07 < min(apart[False])


def test_pictures_with_a_palette_do_not_decide_what_is_cleared() -> None:
    """They are inconclusive by rule, whatever the thresholds."""
    seen, values = synthetic(np.random.default_rng(0), 80)
    plain = calibrated(seen, values).decision
    marked = np.full(len(SHIFTS), 0.5)
    kinds = (Label("gif", PROCESSED, True),)
    for colours in (100, None):
        more = [
            Observation(
                *(PROCESSED, f"p/{photo}", False, marked, marked, Path(), kinds, False),
                colours=colours,
            )
            for photo in range(80)
        ]
        loud = [dict.fromkeys(values[0], 9.0) | {"area": 0.5} for _ in more]
        decision = calibrated([*seen, *more], [*values, *loud]).decision
        rise = decision.clear_below - plain.clear_below, decision.doubt_area - plain.doubt_area
        assert max(rise) <= 0 if colours else min(rise) > 0.05


def test_no_picture_is_accused_below_or_cleared_from_a_score_on() -> None:
    seen, values = synthetic(np.random.default_rng(0), 60)
    usual, sure, lax = (
        decide(seen, values, float(SHIFTS[0]), "val", limits).decision
        for limits in (
            BY_DOUBTS,
            Limits(clear_below=0.5, manipulated_at=0.999),
            Limits(clear_below=0.99, manipulated_at=0.1),
        )
    )
    assert (sure.clear_below, sure.manipulated_at) == (0.5, 0.999)
    own = {"clear_below": usual.clear_below, "manipulated_at": usual.manipulated_at}
    assert 0.5 < usual.clear_below < usual.manipulated_at < 0.999
    assert replace(sure, **own) == usual == lax


def test_files_are_not_taken_for_edited_because_edits_were_saved_without_loss() -> None:
    rng = np.random.default_rng(0)
    seen, values = synthetic(rng, 320)
    for one, o in zip(values, seen, strict=True):
        one["lossy"] = float(rng.random() < (0.1 if o.edited else 0.9))
    decision = calibrated(seen, values, "").decision
    assert decision.features[-1] == "lossy" and abs(decision.weights[-1]) < 0.8
    for one, o in zip(values, seen, strict=True):
        one["lossy"] = float(not o.edited)
    assert "lossy" not in calibrated(seen, values, "").decision.features, "nothing to compare"


def test_an_unknown_statistic_is_one_sentence_that_lists_the_others() -> None:
    check_statistic("")
    check_statistic("evidence_lse")
    with pytest.raises(DataError) as caught:
        check_statistic("evidence_sum")
    assert "'evidence_sum'" in str(caught.value) and ", ".join(STATISTICS) in str(caught.value)
    with pytest.raises(DataError, match="Unknown statistic 'lossy'"):
        check_statistic("lossy", ["lossy", "logit_top"])  # of the file, and no score by itself
    assert str(caught.value).count(". ") == 0


def test_evidence_of_a_network_that_has_none_is_refused_before_the_work(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = {"backbone": "rn50", "layer": "layer2", "decoder": "conv-4"}
    network = build({"architecture": "declip", **layers, **TINY["model"]})
    model = save_model(network, tmp_path / "declip")
    before = (model / "config.json").read_text()
    data = write_edited_set(tmp_path / "data", 8, held_out=8)
    done = CliRunner().invoke(app, ["calibrate", str(model), str(data), "--score", "evidence_lse"])
    assert isinstance(done.exception, DataError)
    told = str(done.exception)
    assert told.startswith("evidence_lse needs an evidence head") and "logit_peak32" in told
    assert "evidence_top" not in told, "nor is another of them offered"
    assert (model / "config.json").read_text() == before


def test_the_command_scores_by_the_statistic(tmp_path: Path, model_folder: Path) -> None:
    model = shutil.copytree(model_folder, tmp_path / "model")
    data = write_edited_set(tmp_path / "data", 8, held_out=8)
    flags = ["--score", "evidence_lse", "--min-colours", "16", "--json"]
    flags += ["--manipulated-at", "0.999999", "--clear-below", "0.000001"]
    done = CliRunner().invoke(app, ["calibrate", str(model), str(data), *flags])
    assert done.exit_code == 0, done.output
    decision = Detector.load(model, detector=None).decision
    assert decision.features == ("evidence_lse",) and decision.weights == (1.0,)
    assert decision.min_colours == 16
    assert (decision.manipulated_at, decision.clear_below) == (0.999999, 0.000001)
    assert "from 8 photos, all of them for the thresholds" in decision.calibrated_on
    wrong = CliRunner().invoke(app, ["calibrate", str(model), "nowhere", "--score", "sum"])
    assert "Unknown statistic 'sum'" in str(wrong.exception), "said before anything is read"
