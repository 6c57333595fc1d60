"""Thresholds are chosen on held-out pictures so that the stated limits hold there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.data.records import Record, split_of
from forgemap.detector import Detector
from forgemap.errors import DataError, ForgemapError
from forgemap.evaluate.calibration import (
    Calibration,
    Limits,
    calibrate,
    check,
    choose_shift,
    decide,
    worst_quantile,
)
from forgemap.evaluate.calibration_look import SHIFTS, Observation
from forgemap.evaluate.calibration_pictures import (
    PLAIN,
    PROCESSED,
    WHOLE,
    Label,
    Task,
    untouched_photos,
    views,
)
from forgemap.evaluate.metrics import detection_metrics
from forgemap.evaluate.probability import fit_score

from .edited_set import write_edited_set
from .observations import synthetic


def manifest(folder: Path, split: str, count: int = 8) -> Path:
    """A set of which everything belongs to one split."""
    return write_edited_set(folder, count, held_out=count if split == "val" else 0)


def observation(group: str, overlap: float, flagged: float) -> Observation:
    edited = group != "untouched"
    better = np.linspace(0, overlap, len(SHIFTS)) if edited else np.zeros(0)
    return Observation(group, "a", edited, better, np.linspace(0, flagged, len(SHIFTS)), Path())


def test_calibration_is_written_into_the_model_and_used(tmp_path: Path, model_folder: Path) -> None:
    model = shutil.copytree(model_folder, tmp_path / "model")
    data = manifest(tmp_path / "data", "val")
    decision = calibrate(model, [str(data)]).decision
    assert Detector.load(model).decision == decision
    assert decision.recompression, "the thresholds are those of maps joined with the blocks"
    assert "4 edited and 4 untouched" in decision.calibrated_on
    assert Limits().flagged <= decision.doubt_area <= 1
    assert len(decision.untouched) == 101 and list(decision.untouched) == sorted(decision.untouched)


def made(
    rng: np.random.Generator, photos: int, limits: Limits | None = None, statistic: str = ""
) -> Calibration:
    seen, values = synthetic(rng, photos)
    return decide(seen, values, float(SHIFTS[0]), "val", limits or Limits(), statistic)


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["", "evidence_lse"])
def test_new_untouched_pictures_of_every_kind_are_accused_no_more_often_than_stated(
    statistic: str,
) -> None:
    """The whole way: the score is fitted, turned into a probability, and cut, then new photos."""
    rng = np.random.default_rng(0)
    accused: dict[str, list[float]] = {"untouched crops": [], "text": [], "portrait": []}
    doubted, surprised = [], []
    for _ in range(25):
        decision = made(rng, 90, statistic=statistic).decision
        new, values = synthetic(rng, 200)
        names = [o.kinds[0].name if o.kinds else "edited" for o in new]
        scores = np.array([decision.score(v) for v in values])
        for name in accused:
            mine = scores[[n == name for n in names]]
            accused[name].append(np.mean(mine >= decision.manipulated_at))
        plain = scores[[n == "untouched crops" for n in names]]
        doubted.append(np.mean(plain >= decision.clear_below))
        surprised.append(np.mean([(decision.chance(s) or 1) <= 0.05 for s in plain]))
    # About three standard errors of a mean of 25 on top.
    assert np.mean(accused["untouched crops"]) <= 0.02 + 0.01
    assert np.mean(accused["text"]) <= 0.05 + 0.015
    assert 0.005 < np.mean(accused["portrait"]) <= 0.05 + 0.015
    assert np.mean(doubted) <= 0.1 + 0.02
    assert np.mean(surprised) <= 0.05 + 0.015


def test_the_probability_holds_on_new_photos_and_the_ranks_stay() -> None:
    rng = np.random.default_rng(1)
    found = made(rng, 150)
    new, values = synthetic(rng, 400)
    listed = [i for i, o in enumerate(new) if o.listed]  # half of them edited
    scores = np.array([found.decision.score(values[i]) for i in listed])
    edited = np.array([new[i].edited for i in listed])
    assert detection_metrics(scores, edited)["ece"] < 0.06
    assert found.decision.prevalence == 0.5
    sums = [found.decision.weighted(v) for v in values]
    order = np.argsort(sums)
    ranks = [found.decision.score(values[i]) for i in order]
    assert ranks == sorted(ranks)


def test_pictures_that_are_marked_as_a_whole_accuse_nobody_and_raise_no_threshold() -> None:
    seen, values = synthetic(np.random.default_rng(2), 90)
    for number, one in enumerate(seen):
        # Six photos of 90 are taken for edits in every form, and marked nearly everywhere.
        if not one.edited and int(one.source.removeprefix("p/")) % 15 == 0:
            one.flagged[:] = 0.9
            evidence = ("evidence_peak", "evidence_top", "evidence_lse")
            values[number] |= dict.fromkeys(evidence, 6.0) | {"area": 0.9}
    narrow = decide(seen, values, float(SHIFTS[0]), "val", Limits(whole=1.0)).decision
    found = decide(seen, values, float(SHIFTS[0]), "val", Limits(whole=0.75))
    assert found.decision.manipulated_at < narrow.manipulated_at
    crops = next(line for line in found.lines if line.name == "untouched crops")
    assert crops.manipulated <= 0.02 and crops.inconclusive >= 3 / 90
    marked = [one for one in values if one["area"] == 0.9]
    for one in marked:
        verdict = found.decision.judge(one, width=500, height=500).verdict
        assert verdict == "inconclusive"


def test_a_decision_says_what_it_promises_and_for_which_kinds_it_cannot() -> None:
    found = made(np.random.default_rng(0), 90)
    decision, lines = found.decision, {line.name: line for line in found.lines}
    assert lines["untouched crops"].bound == 0.02 and lines["portrait"].bound == 0.05
    assert lines["untouched crops"].photos == 90 - 23, "a quarter of the ninety is for the score"
    assert lines["portrait"].manipulated <= 0.05 and lines["all edited"].bound is None
    assert lines["all edited"].manipulated > 0.2
    assert "at most 2%" in decision.calibrated_on and "at most 5%" in decision.calibrated_on
    assert "portrait (67 photos): at most 0.05" in decision.bounds
    few = made(np.random.default_rng(0), 20).decision  # fifteen for the thresholds
    assert (
        few.rarity == ()
        and few.prevalence == 0.5
        and "too few photos to bound" in few.calibrated_on
    )
    assert all("no bound" in bound for bound in few.bounds)


def test_stricter_limits_call_fewer_pictures() -> None:
    loose = made(np.random.default_rng(0), 90, Limits(alarms=0.1, processed=0.2))
    strict = made(np.random.default_rng(0), 90, Limits(alarms=0.02))
    assert strict.decision.manipulated_at > loose.decision.manipulated_at
    called = [lines.lines[-1].manipulated for lines in (strict, loose)]
    assert called[0] < called[1]


def test_too_few_photos_are_one_sentence() -> None:
    seen, _ = synthetic(np.random.default_rng(0), 2)
    with pytest.raises(DataError, match="2 edited and 2 untouched photos of the val split are too"):
        check(seen, "val", "data")


@pytest.mark.slow
def test_the_command_prints_what_it_promises_and_writes_its_report(
    tmp_path: Path, model_folder: Path
) -> None:
    """With processing and two processes; the same numbers as one process gives."""
    model = shutil.copytree(model_folder, tmp_path / "model")
    data = manifest(tmp_path / "data", "val")
    out = tmp_path / "report"
    flags = ["--processing", "text,messenger", "--min-side", "0"]
    done = CliRunner().invoke(app, ["calibrate", str(model), str(data), "--out", str(out), *flags])
    assert done.exit_code == 0, done.output
    for name in ("untouched crops", "text", "messenger", "all edited", "none (1 in"):
        assert name in done.output
    assert {p.name for p in out.iterdir()} == {
        "calibration.json",
        "calibration.md",
        "reliability.png",
    }
    told = json.loads((out / "calibration.json").read_text())
    kinds = {line["name"]: line["photos"] for line in told["kinds"]}
    assert kinds["text"] == kinds["messenger"] == kinds["untouched crops"]
    decision = json.loads((model / "config.json").read_text())["decision"]
    assert told["decision"] == decision
    both = ["calibrate", str(model), str(data), "--workers", "2", "--json", *flags]
    done = CliRunner().invoke(app, both)
    assert json.loads(done.stdout) == decision


def test_options_that_are_not_for_localizers_are_refused(model_folder: Path) -> None:
    done = CliRunner().invoke(app, ["calibrate", str(model_folder), "data", "--crops", "grid"])
    assert isinstance(done.exception, DataError | ForgemapError)
    assert "--crops is for embedders" in str(done.exception)


def test_a_limit_leaves_pictures_of_both_kinds(tmp_path: Path, model_folder: Path) -> None:
    model = shutil.copytree(model_folder, tmp_path / "model")
    data = manifest(tmp_path / "data", "val", count=16)
    found = calibrate(model, [str(data)], limit=10)
    assert found.decision.calibrated_on.startswith("5 edited and 5 untouched pictures")


def test_all_splits_are_taken_where_that_is_asked_for(tmp_path: Path, model_folder: Path) -> None:
    model = shutil.copytree(model_folder, tmp_path / "model")
    data = manifest(tmp_path / "data", "train")
    found = calibrate(model, [str(data)], split=None)
    assert "4 edited and 4 untouched pictures of all splits" in found.decision.calibrated_on


def test_the_split_that_was_trained_on_is_not_calibrated_on(
    tmp_path: Path, model_folder: Path
) -> None:
    data = manifest(tmp_path / "data", "train")
    with pytest.raises(DataError, match="val split must hold edited and untouched"):
        calibrate(model_folder, [str(data)])


def test_the_mask_threshold_keeps_untouched_area_within_the_limit() -> None:
    seen = [observation("splice", 0.9, 0.9), observation("untouched", 0, 0.1)]
    shift = choose_shift(seen, Limits(flagged=0.02))
    index = int(np.argmin(np.abs(SHIFTS - shift)))
    assert seen[1].flagged[index] <= 0.02
    looser = choose_shift(seen, Limits(flagged=0.05))
    assert looser > shift, "a looser limit lets more be marked, since that overlaps better here"


def test_a_picture_that_is_marked_as_a_whole_does_not_blunt_the_mask() -> None:
    seen = [observation("splice", 0.9, 0.9), *(observation("untouched", 0, 0.02) for _ in range(9))]
    alone = choose_shift(seen, Limits(flagged=0.02))
    odd = Observation("untouched", "b", False, np.zeros(0), np.full(len(SHIFTS), 0.9), Path())
    assert choose_shift([*seen, odd], Limits(flagged=0.02)) == alone
    half = replace(odd, flagged=np.full(len(SHIFTS), 0.5))  # which is a place that stands out
    assert choose_shift([*seen, half], Limits(flagged=0.02)) < alone


def test_pictures_with_a_palette_set_no_threshold_and_accuse_nobody() -> None:
    seen, values = synthetic(np.random.default_rng(5), 60)
    found = decide(seen, values, 0.0, "val", Limits(), "evidence_peak")
    # Suspected most of all: only as palettes do they leave the threshold where it was.
    gifs = [
        Observation(
            PROCESSED,
            f"p/{n}",
            False,
            np.zeros(0),
            np.zeros(len(SHIFTS)),
            Path(),
            (Label("gif", PROCESSED, True),),
            False,
        )
        for n in range(60)
    ]
    loud = [values[0] | {"evidence_peak": 30.0, "evidence_top": 30.0, "evidence_lse": 30.0}] * 60
    accused = decide([*seen, *gifs], [*values, *loud], 0.0, "val", Limits(), "evidence_peak")
    assert accused.decision.manipulated_at > found.decision.manipulated_at
    coloured = [replace(gif, colours=200) for gif in gifs]
    excused = decide([*seen, *coloured], [*values, *loud], 0.0, "val", Limits(), "evidence_peak")
    assert excused.decision.manipulated_at == pytest.approx(found.decision.manipulated_at, abs=0.05)
    line = next(line for line in excused.lines if line.name == "gif")
    assert line.manipulated == 0 and line.inconclusive == 1
    assert excused.decision.min_colours == 257
    judged = decide(
        [*seen, *coloured], [*values, *loud], 0.0, "val", Limits(colours=0), "evidence_peak"
    )
    assert judged.decision.manipulated_at == accused.decision.manipulated_at


def test_one_photo_of_a_small_folder_does_not_blunt_the_mask() -> None:
    limits = Limits(alarms=0.05, flagged=0.02)

    def photos(folder: str, number: int, area: float) -> list[Observation]:
        kinds = (Label(f"{folder}, as it is", WHOLE),)
        areas = np.where(SHIFTS > -3, area, 0.0)
        nothing = np.zeros(0)
        return [
            Observation(kinds[0].name, f"{folder}/{n}", False, nothing, areas, Path(), kinds)
            for n in range(number)
        ]

    edited = [observation("splice", 0.9, 0.9)]
    small = [one for n in range(6) for one in photos(f"folder {n}", 5, 0.005)]
    best = choose_shift([*edited, *small], limits)
    assert choose_shift([*edited, *small, *photos("camera", 3, 0.1)], limits) == best
    # Twenty are no exception any more.
    assert choose_shift([*edited, *small, *photos("camera", 20, 0.1)], limits) <= -3 < best


def test_honest_processing_may_be_marked_more_than_untouched_pictures_and_not_at_will() -> None:
    edited = [observation("splice", 0.9, 0.9)]

    def shift(kind: Label, **limits: float) -> float:
        one = replace(observation("untouched", 0, 0.1), kinds=(kind,), edited=False)
        return choose_shift([*edited, one], Limits(**limits))

    plain, processed = Label(PLAIN, PLAIN), Label("text", PROCESSED, True)
    tight = shift(plain, flagged=0.02, flagged_processed=0.04)
    assert tight == shift(processed, flagged=0.02, flagged_processed=0.0)
    looser = shift(processed, flagged=0.02, flagged_processed=0.04)
    assert tight < looser == shift(plain, flagged=0.04) < shift(plain, flagged=0.1)


def test_one_bad_group_decides_the_threshold() -> None:
    scores = np.concatenate([np.linspace(0, 0.3, 100), np.linspace(0.5, 0.9, 100)])
    groups = ["web"] * 100 + ["camera"] * 100
    threshold = worst_quantile(scores, groups, 0.02)
    camera = scores[100:]
    assert np.mean(camera >= threshold) <= 0.02
    assert worst_quantile(scores[:100], groups[:100], 0.02) < 0.31


def test_scores_for_thresholds_come_from_fits_that_did_not_see_the_photo() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((60, 20))  # pure noise: a fit can only learn by heart
    edited = np.arange(60) % 2 == 0
    weights, bias, held_out = fit_score(table, edited, [f"{i // 4}" for i in range(60)])
    seen = 1 / (1 + np.exp(-(table @ weights + bias)))
    assert np.mean((seen > 0.5) == edited) > 0.7
    assert np.mean((held_out > 0.5) == edited) < 0.7


def test_whole_photos_are_judged_as_they_are_and_as_they_are_shared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(30):  # about three of them fall into the val split
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (40, 48, 3), dtype=np.uint8))
    val = [p for p in folder.iterdir() if split_of(sha256(p.read_bytes()).hexdigest()) == "val"]
    assert val
    seen = list(untouched_photos([str(folder)], "val"))
    assert {source for _, source, _ in seen} == {str(p) for p in val}
    groups = {group for group, _, _ in seen}
    assert groups == {"photos, as it is", "photos, JPEG 90", "photos, JPEG 75"}


def test_calibration_knows_which_pictures_were_saved_with_loss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (96, 112, 3), dtype=np.uint8)
    for suffix in ("png", "jpg", "webp"):
        cv2.imwrite(str(tmp_path / f"a.{suffix}"), pixels)
        record = Record(tmp_path / f"a.{suffix}", None, "a", "none", "val", {}, 0)
        seen = list(views(Task(0, record, None, ("avif", "tone"))))
        assert [v.image.lossy for v in seen] == [suffix != "png", True, False]
    whole = list(views(Task(0, None, tmp_path / "a.png")))
    assert {v.group.partition(", ")[2]: v.image.lossy for v in whole} == {
        "as it is": False,
        "JPEG 90": True,
        "JPEG 75": True,
    }


def test_a_folder_without_photos_of_the_split_is_one_sentence(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 48, 3), np.uint8))
    other = {"train": "val"}.get(split_of(sha256((tmp_path / "a.png").read_bytes()).hexdigest()))
    other = other or "train"
    with pytest.raises(DataError, match=f"no photo falls into the {other} split"):
        list(untouched_photos([str(tmp_path)], other))
    with pytest.raises(ForgemapError, match="does not exist"):
        list(untouched_photos([str(tmp_path / "missing")], "val"))
