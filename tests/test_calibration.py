"""Thresholds are chosen on held-out pictures so that the stated limits hold there."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest

from forgemap.data.records import split_of
from forgemap.detector import Detector
from forgemap.errors import DataError, ForgemapError
from forgemap.evaluate.calibration import (
    Limits,
    calibrate,
    choose_shift,
    worst_quantile,
)
from forgemap.evaluate.calibration_look import SHIFTS, Observation, untouched_photos
from forgemap.evaluate.probability import fit_score

from .edited_set import write_edited_set


def manifest(folder: Path, split: str, count: int = 8) -> Path:
    """A set of which everything belongs to one split."""
    return write_edited_set(folder, count, held_out=count if split == "val" else 0)


def observation(group: str, overlap: float, flagged: float) -> Observation:
    edited = group != "untouched"
    better = np.linspace(0, overlap, len(SHIFTS)) if edited else np.zeros(0)
    return Observation(group, "a", edited, better, np.linspace(0, flagged, len(SHIFTS)), Path())


def test_calibration_is_written_into_the_model_and_used(tmp_path: Path, model_folder: Path) -> None:
    import shutil

    model = shutil.copytree(model_folder, tmp_path / "model")
    data = manifest(tmp_path / "data", "val")
    decision = calibrate(model, [str(data)]).decision
    assert Detector.load(model).decision == decision
    assert "4 edited and 4 untouched" in decision.calibrated_on
    assert Limits().flagged <= decision.doubt_area <= 1
    assert len(decision.untouched) == 101 and list(decision.untouched) == sorted(decision.untouched)


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


def test_a_folder_without_photos_of_the_split_is_one_sentence(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 48, 3), np.uint8))
    other = {"train": "val"}.get(split_of(sha256((tmp_path / "a.png").read_bytes()).hexdigest()))
    other = other or "train"
    with pytest.raises(DataError, match=f"no photo falls into the {other} split"):
        list(untouched_photos([str(tmp_path)], other))
    with pytest.raises(ForgemapError, match="does not exist"):
        list(untouched_photos([str(tmp_path / "missing")], "val"))
