"""benchmarks.baselines and .fooling: each classic finds what it was made for."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from benchmarks import fooling
from benchmarks.baselines import BASELINES
from benchmarks.baselines.__main__ import main, run
from benchmarks.baselines.judge import THRESHOLDS, fit, iou_at, stretch
from benchmarks.baselines.trained import TrainedMap
from benchmarks.into_docs import main as into_docs
from skimage.data import astronaut

from forgemap.data.records import read_manifest
from forgemap.encode import jpeg
from forgemap.errors import DataError, ModelError
from forgemap.evaluate.metrics import iou, pixel_auc
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model

from .conftest import picture
from .edited_set import write_edited_set

PHOTO = cv2.GaussianBlur(picture(320, 384, seed=3), (0, 0), 0.8)
BOX = (slice(96, 216), slice(120, 264))
MASK = np.zeros(PHOTO.shape[:2], np.uint8)
MASK[BOX] = 1


def textured(height: int, width: int, seed: int) -> np.ndarray:
    """Blobs of many sizes: something for keypoints to hold on to."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)), (0, 0), s) * s for s in (2, 4, 8)
    ]
    return np.clip(128 + 60 * sum(layers), 0, 255).astype(np.uint8)


def test_error_level_finds_what_was_never_compressed() -> None:
    made = jpeg(PHOTO, 70)
    made[BOX] = picture(320, 384, seed=8)[BOX]
    assert pixel_auc(BASELINES["ela"](made), MASK) > 0.9


def test_noise_finds_more_and_less_of_it() -> None:
    rng = np.random.default_rng(0)
    grainy = np.clip(PHOTO + rng.normal(0, 3, PHOTO.shape), 0, 255).astype(np.uint8)
    loud, soft = grainy.copy(), grainy.copy()
    loud[BOX] = np.clip(PHOTO[BOX] + rng.normal(0, 12, PHOTO[BOX].shape), 0, 255)
    soft[BOX] = PHOTO[BOX]
    for made in (loud, soft):
        assert pixel_auc(BASELINES["noise"](made), MASK) > 0.9


def test_ghost_finds_a_lower_quality_than_the_rest_has() -> None:
    photo = np.ascontiguousarray(astronaut()[:320, 64:448])
    made = photo.copy()
    made[BOX] = jpeg(photo, 55)[BOX]
    assert pixel_auc(BASELINES["ghost"](jpeg(made, 90)), MASK) > 0.85
    assert pixel_auc(BASELINES["ghost"](jpeg(photo, 90)), MASK) < 0.75


def test_grid_finds_where_it_is_missing_or_moved() -> None:
    grid = jpeg(PHOTO, 60)
    missing, moved = grid.copy(), grid.copy()
    missing[BOX] = PHOTO[BOX]
    moved[BOX] = np.roll(grid, (4, 3), (0, 1))[BOX]
    for made in (missing, moved):
        assert pixel_auc(BASELINES["grid"](made), MASK) > 0.9


def test_sift_finds_both_ends_of_a_copy_and_nothing_elsewhere() -> None:
    scene = textured(320, 400, 1)
    assert not BASELINES["sift"](scene).any()
    turned = cv2.warpAffine(scene, cv2.getRotationMatrix2D((80, 80), 12, 1.1), (400, 320))
    made = scene.copy()
    made[170:300, 250:390] = turned[20:150, 20:160]
    found = BASELINES["sift"](made) > 0.1
    copy, first = found[180:290, 260:380].mean(), found[40:130, 40:130].mean()
    assert copy > 0.6 and first > 0.6
    assert found[170:, :200].mean() < 0.1


@pytest.mark.parametrize("name", BASELINES)
def test_every_map_fits_its_picture_and_repeats(name: str) -> None:
    for shape in ((64, 64), (75, 130), (131, 98)):
        pixels = picture(*shape)
        before = pixels.copy()
        heat = BASELINES[name](pixels)
        assert heat.shape == shape and heat.dtype == np.float32
        assert 0 <= heat.min() <= heat.max() <= 1
        assert np.array_equal(heat, BASELINES[name](pixels))
        assert np.array_equal(pixels, before)
    flat = np.full((64, 80, 3), 77, np.uint8)
    assert np.isfinite(BASELINES[name](flat)).all()


def test_stretching_keeps_the_order_and_puts_the_threshold_at_one_half() -> None:
    values = np.linspace(0, 1, 101)
    for threshold in (0.02, 0.3, 0.98):
        moved = stretch(values, threshold)
        assert (np.diff(moved) >= 0).all() and (moved[0], moved[-1]) == (0, 1)
        assert ((moved > 0.5) == (values > threshold + 1e-7)).mean() > 0.98
        assert stretch(np.float64(threshold), threshold) == pytest.approx(0.5)


def test_the_ious_of_all_thresholds_are_those_of_each() -> None:
    heat = np.random.default_rng(0).random((60, 70)).astype(np.float32)
    mask = (heat + np.random.default_rng(1).normal(0, 0.3, heat.shape) > 0.7).astype(np.uint8)
    found = iou_at(heat, mask, THRESHOLDS)
    assert found == pytest.approx([iou(heat, mask, float(t)) for t in THRESHOLDS], abs=2e-3)


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures, some with a smooth square; half of them "val", the others "test"."""
    folder = write_edited_set(tmp_path_factory.mktemp("edited"), pictures=16, held_out=8)
    manifest = folder / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"train"', '"test"'))
    return folder


def test_thresholds_come_from_val_and_hold_on_test(edited: Path) -> None:
    found = run(str(edited), models=[], val=str(edited), names=["noise"], progress=False)
    group = found["noise"].group()
    assert group["auc"].value > 0.95 and group["iou"].value > 0.6
    assert group["image_auc"].value == 1
    assert found["noise"].group("untouched")["judged_manipulated"].value <= 0.25
    records = [r for r in read_manifest(edited) if r.split == "val"]
    with pytest.raises(DataError, match="edited and untouched"):
        fit("noise", BASELINES["noise"], [r for r in records if r.manipulated])


def test_one_command_writes_one_table_with_the_model(
    edited: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--model", str(model_folder), "--only", "ela,grid", "--limit", "4", "--out", str(out)]
    assert main([str(edited), *flags]) == 0
    text = (out / "baselines.md").read_text()
    assert text in capsys.readouterr().out
    assert f"| ela | grid | {model_folder} |" in text
    assert text.count("| blur |") == 4 and text.count("| untouched |") == 1
    assert {*json.loads((out / "baselines.json").read_text())["thresholds"]} == {"ela", "grid"}
    rows = {name: (out / name / "rows.jsonl") for name in ("ela", "grid", model_folder.name)}
    before = {name: path.read_bytes() for name, path in rows.items()}
    assert main([str(edited), *flags]) == 0
    assert before == {name: path.read_bytes() for name, path in rows.items()}, "measured once"
    assert main([str(edited), "--only", "magic"]) == 2
    assert "Unknown baseline 'magic'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shrinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained network that reads 64 x 64 pixels."""
    torch.manual_seed(0)
    model = {"architecture": "declip", "backbone": "xception", "decoder": "linear"}
    folder = tmp_path_factory.mktemp("run") / "model"
    save_model(build({**model, "image_size": 64}).eval(), folder)
    return folder


def test_a_trained_baseline_sees_native_resolution_in_windows(shrinking: Path) -> None:
    look = TrainedMap(shrinking)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 112, 3), dtype=np.uint8)
    whole = look(pixels)
    assert whole.shape == (64, 112) and whole.min() >= 0 and whole.max() <= 1
    # The first and the last 32 columns lie in one window each, as if there were nothing else.
    assert np.allclose(whole[:, :32], look(pixels[:, :64])[:, :32], atol=1e-5)
    assert np.allclose(whole[:, -32:], look(pixels[:, -64:])[:, -32:], atol=1e-5)
    assert not np.allclose(whole[:, :32], whole[:, -32:], atol=1e-5)
    assert look(pixels[:40, :50]).shape == (40, 50)


def test_a_trained_baseline_is_a_column_by_its_runs_name(
    edited: Path, shrinking: Path, model_folder: Path
) -> None:
    found = run(
        str(edited), models=[], val=str(edited), trained=[str(shrinking)], names=["ela"],
        limit=4, progress=False,
    )  # fmt: skip
    assert list(found) == ["ela", shrinking.parent.name]
    with pytest.raises(ModelError, match="native resolution"):
        TrainedMap(model_folder)


def test_the_attack_stays_within_its_budget_and_works() -> None:
    torch.manual_seed(0)
    network = build({"architecture": "tracenet", "widths": [4, 4, 8, 8, 8], "blocks": [1, 1, 1, 1]})
    network.eval().requires_grad_(False)
    pixels = picture(64, 80)

    def score(pictured: np.ndarray) -> float:
        with torch.no_grad():
            return float(fooling.suspicion(*network(network.preprocess(pictured))))

    for budget in (1, 4):
        for goal in (fooling.HIDE, fooling.FRAME):
            made = fooling.pgd(network, pixels, budget, goal=goal)
            assert made.dtype == np.uint8 and made.shape == pixels.shape
            assert np.abs(made.astype(int) - pixels).max() <= budget
            assert goal * (score(made) - score(pixels)) > 0
    random = fooling.random_change(pixels, 2, np.random.default_rng(0))
    assert np.abs(random.astype(int) - pixels).max() == 2


def test_the_experiment_has_a_row_for_each_picture_and_attack(
    edited: Path, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = ["--model", str(model_folder), "--limit", "2", "--steps", "1", "--out", str(out)]
    assert fooling.main([str(edited), *flags]) == 0
    rows = json.loads((out / "fooling.json").read_text())["rows"]
    attacks = {row["attack"] for row in rows}
    assert len(attacks) == 1 + 2 * len(fooling.BUDGETS) + len(fooling.TRIVIAL)
    assert len(rows) == 2 * len(attacks)
    assert {row["manipulated"] for row in rows} == {True, False}
    text = (out / "fooling.md").read_text()
    assert all(f"| {attack} |" in text for attack in attacks)


def test_a_jpeg_reaches_the_model_as_a_file() -> None:
    for name, change in fooling.TRIVIAL.items():
        changed = change(picture(), np.random.default_rng(0))
        assert isinstance(changed, bytes) is ("JPEG" in name), name


def test_the_tables_count_what_was_found_before() -> None:
    def row(image: int, edited: bool, attack: str, found: bool) -> dict[str, object]:
        verdict = "manipulated" if found else "inconclusive"
        return {
            "image": str(image), "source": str(image), "manipulated": edited, "attack": attack,
            "verdict": verdict, "iou": 0.5 if edited else None,
        }  # fmt: skip

    rows = [row(i, i < 4, "none", i in (0, 1, 4)) for i in range(6)]
    rows += [row(i, i < 4, "jpeg", i in (1, 2, 5)) for i in range(6)]
    line = fooling.table(rows).splitlines()[-1].split(" | ")
    assert line[0] == "| jpeg" and line[1] == "2" and line[2].startswith("0.50 ")
    assert line[5] == "1" and line[6].startswith("1.00 ")


def test_a_table_goes_between_its_marks_and_nothing_else_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, made = tmp_path / "page.md", tmp_path / "made.md"
    page.write_text("# Page\n<!-- begin a -->\nold\n<!-- end a -->\nrest\n")
    made.write_text("# Its own title\n\n| new |\n")
    for _ in range(2):
        assert into_docs([str(page), f"a={made}"]) == 0
        assert page.read_text() == "# Page\n<!-- begin a -->\n| new |\n<!-- end a -->\nrest\n"
    before = page.read_text()
    assert into_docs([str(page), f"a={made}", f"b={made}"]) == 2
    assert "begin b" in capsys.readouterr().err
    assert page.read_text() == before and not [*tmp_path.glob("*.part")]
    docs = Path(__file__).parent.parent / "docs" / "experiments"
    for name, marks in {
        "robustness": ("robustness", "alarms", "fooling"),
        "baselines": ("baselines",),
    }.items():
        text = (docs / f"{name}.md").read_text()
        assert all(text.count(f"<!-- begin {mark} -->\n") == 1 for mark in marks)
