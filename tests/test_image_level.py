"""One score from a map: every pooling right, compared on the same pictures, honest about where."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor, nn
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.data.records import read_manifest
from forgemap.detector import Detector
from forgemap.errors import DataError
from forgemap.evaluate import image_level, image_tables
from forgemap.evaluate.image_level import Look, compare, halves
from forgemap.evaluate.image_scores import POOLINGS, sigmoid
from forgemap.image import load_image
from forgemap.models.output import LocalizerOutput
from forgemap.preprocess import NATIVE
from forgemap.scoring import Decision
from forgemap.train.losses import pool_evidence

from .conftest import picture


class Seer(nn.Module):
    """Marks red pixels with certainty, all others by their brightness: bright photos look worse."""

    native, stride, reach, preprocess = True, 16, 16, NATIVE

    def __init__(self, head: bool = True) -> None:
        super().__init__()
        self.head = head

    def forward(self, images: Tensor) -> LocalizerOutput:
        red, green = images[:, 0], images[:, 1]
        mask = torch.where((red > 0.99) & (green < -0.99), 8.0, 2 * green - 3)[:, None]
        cells = nn.functional.max_pool2d(mask, 16, ceil_mode=True)
        return LocalizerOutput(mask, cells if self.head else None)


def make_data(folder: Path, photos: int = 8, first: int = 0, split: str = "test") -> Path:
    """Plain photos of different brightness, each untouched and with a small and a large red box."""
    folder.mkdir(parents=True)
    rows = []
    for photo in range(first, first + photos):
        level = 40 + 170 * ((photo * 5) % photos) // photos
        for method, side in (("none", 0), ("spot", 6), ("block", 40)):
            pixels = np.full((64, 96, 3), level, np.uint8)
            mask = np.zeros((64, 96), np.uint8)
            mask[8 : 8 + side, 16 : 16 + side] = 255
            pixels[mask > 0] = (255, 0, 0)
            name = f"{photo}-{method}.png"
            PILImage.fromarray(pixels).save(folder / name)
            PILImage.fromarray(mask).save(folder / f"mask-{method}.png")
            row = {"image": name, "mask": f"mask-{method}.png" if side else None}
            source = f"photos/{'ab'[photo % 2]}/{photo}.jpg"
            rows.append({**row, "method": method, "split": split, "source": source})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "test")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data") / "val", first=8, split="val")


def auc(found: image_tables.Figures, group: str, pooling: str) -> float:
    return found[group][pooling]["auc"].value


def test_poolings_of_a_picture_are_what_their_names_say() -> None:
    pixels = picture(64, 96)
    logits = Seer()(NATIVE(pixels))
    values = Look(Detector(Seer().eval()), False, 0).values(load_image(pixels))
    score = {name: pooling.score(values) for name, pooling in POOLINGS.items()}
    heat = torch.sigmoid(logits.mask)
    assert score["mean"] == pytest.approx(float(heat.mean()), rel=1e-4)
    assert score["max"] == pytest.approx(float(heat.max()), rel=1e-4)
    assert score["area"] == pytest.approx(float((heat > 0.5).float().mean()))
    assert score["mean_logit"] == pytest.approx(sigmoid(float(logits.mask.mean())), rel=1e-4)
    assert score["evidence_max"] == pytest.approx(sigmoid(float(logits.evidence.max())), rel=1e-4)
    # The head pools as its loss did.
    assert score["head"] == pytest.approx(sigmoid(float(pool_evidence(logits.evidence))), rel=1e-4)
    assert all(0 <= number <= 1 for number in score.values())
    assert score["mean"] <= score["top"] <= score["max"]


def test_poolings_read_the_calibrated_map_unless_raw() -> None:
    pixels = picture(64, 96)
    detector = Detector(Seer().eval(), Decision(mask_shift=-2.0))
    raw = Look(detector, True, 0).values(load_image(pixels))
    shown = Look(detector, False, 0).values(load_image(pixels))
    assert shown["mean_logit"] == pytest.approx(raw["mean_logit"] - 2, abs=1e-4)
    assert shown["mean"] < raw["mean"] and shown["decision"] == raw["decision"]


def test_the_mean_fails_on_small_edits_where_the_peak_does_not(data: Path) -> None:
    made = compare(Detector(Seer().eval()), data, progress=False)
    found = image_tables.figures(made)
    assert auc(found, "spot", "max") == 1 and auc(found, "block", "mean") == 1
    assert auc(found, "spot", "mean") < 0.7, "brightness decides, not the edit"
    assert found["under 2 % edited"].keys() == found["everything"].keys()
    assert auc(found, "under 2 % edited", "mean") == auc(found, "spot", "mean")
    assert auc(found, "over 10 %", "mean") == auc(found, "block", "mean")
    assert {"folder a", "folder b"} <= found.keys()
    assert found["everything"]["max"]["tpr_at_fpr_1"].value == 1


def test_a_regression_is_fitted_on_other_photos_with_its_thresholds(
    data: Path, other: Path
) -> None:
    made = compare(Detector(Seer().eval()), data, fit=[other], progress=False)
    found = image_tables.figures(made)
    assert made.names[-1] == "fitted" and auc(found, "everything", "fitted") == 1
    assert set(made.thresholds) == set(made.names)
    accuracy = found["everything"]["max"]["fitted_accuracy"].value
    assert accuracy == 1 > found["everything"]["mean"]["fitted_accuracy"].value
    # What is chosen on these very pictures is never worse.
    for values in found["everything"].values():
        assert values["best_accuracy"].value >= values["fitted_accuracy"].value


def test_without_an_evidence_head_its_poolings_are_left_out(data: Path) -> None:
    made = compare(Detector(Seer(head=False).eval()), data, progress=False)
    assert "head" not in made.names and "evidence_max" not in made.names
    assert {"mean", "max", "top", "area", "decision"} <= set(made.names)
    assert "fitted" not in made.names and made.thresholds == {}


def test_variants_are_compared_apart_and_mixed(data: Path) -> None:
    made = compare(Detector(Seer().eval()), data, recompress=[90], progress=False)
    found = image_tables.figures(made)
    assert {"everything", "as is", "jpeg 90"} <= found.keys()
    assert len(made.rows) == 48 and auc(found, "jpeg 90", "max") < auc(found, "as is", "max")


def test_an_interrupted_run_goes_on_and_ends_the_same(
    data: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(Seer().eval())
    whole = compare(detector, data, fit=[other], progress=False)
    localize, seen = image_level.localize, []

    def stops(*rest: Any, **options: Any) -> Any:
        seen.append(1)
        if len(seen) == 30:
            raise KeyboardInterrupt
        return localize(*rest, **options)

    monkeypatch.setattr(image_level, "localize", stops)
    with pytest.raises(KeyboardInterrupt):
        compare(detector, data, tmp_path / "out", fit=[other], progress=False)
    again = compare(detector, data, tmp_path / "out", fit=[other], progress=False)
    assert len(seen) == 30 + 48 - 29, "the 29 that were done are not looked at again"
    for one, two in zip(whole.rows, again.rows, strict=True):
        assert one["image"] == two["image"] and one["scores"] == pytest.approx(two["scores"])


def test_half_of_a_draw_is_untouched(data: Path) -> None:
    drawn = halves(read_manifest(data), 8, seed=0)
    assert sorted(r.method for r in drawn) == ["block"] * 2 + ["none"] * 4 + ["spot"] * 2
    assert len(halves(read_manifest(data), None, 0)) == 24


def test_a_broken_picture_is_counted_and_left_out(tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data", photos=3)
    (folder / "1-spot.png").write_bytes(b"not a picture")
    made = compare(Detector(Seer().eval()), folder, progress=False)
    assert made.facts["failed"] == 1 and len(made.rows) == 8


def test_fitting_on_the_photos_that_are_judged_is_refused(data: Path) -> None:
    with pytest.raises(DataError, match=r"\.jpg is behind pictures of both"):
        compare(Detector(Seer().eval()), data, fit=[data], fit_split="test", progress=False)


def test_data_without_untouched_pictures_is_refused(data: Path, tmp_path: Path) -> None:
    rows = (data / "manifest.jsonl").read_text().splitlines(keepends=True)
    alone = data / "edited-only.jsonl"
    alone.write_text("".join(row for row in rows if '"none"' not in row))
    with pytest.raises(DataError, match="must be edited ones and untouched ones"):
        compare(Detector(Seer().eval()), alone, progress=False)


def test_the_command_prints_one_table_and_writes_finite_json(
    data: Path, other: Path, model_folder: Path, tmp_path: Path
) -> None:
    arguments = ["image-level", model_folder, data, "--fit", other, "--out", tmp_path / "out"]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    assert "accuracy at 0.5" in done.stdout and "TPR, FPR 1%" in done.stdout
    stored = json.loads((tmp_path / "out/image-level.json").read_text())
    assert set(stored["groups"]["everything"]) == {*POOLINGS, "fitted"}
    value = stored["groups"]["everything"]["mean"]["auc"]
    assert len(value) == 3 and all(math.isfinite(n) for n in value)
    text = (tmp_path / "out/image-level.md").read_text()
    assert all(f"| {name} |" in text for name in POOLINGS)
