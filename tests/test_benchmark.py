"""forgemap.evaluate: a data set in, honest tables out; nothing lost, nothing hidden."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from rich.console import Console

from forgemap.detector import Detector
from forgemap.errors import DataError, ImageError
from forgemap.evaluate.benchmark import evaluate
from forgemap.evaluate.results import UNTOUCHED, Results
from forgemap.evaluate.robustness import AS_IS, GRIDS, Variant, follow, variants
from forgemap.image import Image, load_image
from forgemap.report import Report

from .conftest import picture

METHODS = ("splice", "fill")


def box() -> np.ndarray:
    mask = np.zeros((96, 128), np.uint8)
    mask[24:72, 32:96] = 255
    return mask


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """Four photos in two folders, each untouched and edited by two methods; 12 pictures."""
    folder = tmp_path / "data"
    folder.mkdir()
    PILImage.fromarray(box()).save(folder / "mask.png")
    rows = []
    for photo in range(4):
        source = f"photos/{'ab'[photo % 2]}/{photo}.jpg"
        for method in ("none", *METHODS):
            name = f"{photo}_{method}.png"
            pixels = picture(seed=photo)
            if method != "none":
                pixels[box() > 0] = 255 - pixels[box() > 0]
            PILImage.fromarray(pixels).save(folder / name)
            mask = None if method == "none" else "mask.png"
            rows.append({"image": name, "mask": mask, "source": source, "method": method})
    write_manifest(folder, rows)
    return folder


def write_manifest(folder: Path, rows: list[dict[str, Any]]) -> None:
    lines = [json.dumps({"split": "test", **row}) + "\n" for row in rows]
    (folder / "manifest.jsonl").write_text("".join(lines))


def read_manifest_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


class Seer:
    """Answers like a Detector, and knows by the name which pictures are edited, and where."""

    name = "seer@1"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def analyze(self, source: Any, *, max_pixels: int = 0) -> Report:
        self.seen.append(source)
        image = source if isinstance(source, Image) else load_image(source)
        is_edited = not image.name.endswith("none.png")
        heat = np.float32(0.9) * (box() > 0) * is_edited
        score = 0.8 if is_edited else 0.1
        verdict = "manipulated" if is_edited else "no sign of editing"
        height, width = heat.shape
        return Report(
            image.name, image.sha256, width, height, 1, verdict, score, 0.0, heat=heat.astype("f4")
        )


@pytest.fixture
def detector(model_folder: Path) -> Detector:
    return Detector.load(model_folder, detector=None)


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "seconds": None} for row in rows]


def printed(results: Results) -> str:
    console = Console(file=io.StringIO(), width=140)
    for table in results.tables():
        console.print(table)
    return console.file.getvalue()


def test_a_model_that_knows_the_truth_gets_perfect_marks(edited):
    results = evaluate(Seer(), edited, progress=False)
    for name in (*METHODS, "all methods"):
        group = results.group(name)
        for metric in ("iou", "f1_fixed", "f1_best", "ap", "auc", "image_auc", "tpr_at_fpr_1"):
            assert group[metric] == (1, 1, 1), metric
        assert group["judged_manipulated"].value == 1
    untouched = results.group(UNTOUCHED)
    assert untouched["flagged"].value == untouched["flagged_max"].value == 0
    assert untouched["judged_clear"].value == 1
    assert untouched.pictures == untouched.photos == 4
    assert results.group("all methods").pictures == 8
    assert results.group("all methods").photos == 4
    assert {group.name for group in results.of("as is", "folder")} == {"a", "b"}


def test_the_tables_are_also_written_as_markdown(edited, tmp_path):
    out = tmp_path / "out"
    evaluate(Seer(), edited, out, recompress=[75], progress=False)
    lines = (out / "results.md").read_text().splitlines()
    assert "| edit | pictures | as is | jpeg 75 |" in lines
    for name in (*METHODS, "all methods"):
        count = 8 if name == "all methods" else 8 // len(METHODS)
        assert f"| {name} | {count} | 1.00 (1.00-1.00) | 1.00 (1.00-1.00) |" in lines
    for start in (
        "| AUC of the score | 1.00 (1.00-1.00) |",
        "| untouched, judged manipulated | 0.000",
    ):
        assert any(line.startswith(start) for line in lines)
    assert "| a | 6 | 1.000 (1.000-1.000) | 0.000 (0.000-0.000) | 0.000 (0.000-0.000) |" in lines


def test_a_real_model_gives_rows_tables_json_and_plots(edited, detector, tmp_path):
    out = tmp_path / "out"
    results = evaluate(detector, edited, out, recompress=[75], progress=False)
    assert len(results.rows) == 24 and not results.errors
    assert results.variants == ["as is", "jpeg 75"]
    saved = json.loads((out / "results.json").read_text())
    assert saved["model"] == detector.name
    assert saved["rows"] == results.rows
    assert len(saved["data_sha256"]) == 64 and saved["versions"]["torch"] and saved["date"]
    for name in ("iou", "roc", "reliability"):
        with PILImage.open(out / f"{name}.png") as plot:
            assert plot.format == "PNG" and np.asarray(plot).std() > 1
    text = printed(results)
    assert "jpeg 75" in text and "splice" in text and "untouched" in text
    assert f"{results.group('splice', 'jpeg 75')['iou'].value:.3f}" in text


def test_rows_agree_with_the_detector_itself(edited, detector):
    results = evaluate(detector, edited, progress=False)
    row = next(row for row in results.rows if row["image"] == "2_splice.png")
    report = detector.analyze(edited / "2_splice.png")
    assert row["score"] == pytest.approx(report.score)
    assert row["verdict"] == report.verdict
    marked = report.heat > 0.5
    assert row["flagged"] == pytest.approx(marked.mean())
    assert row["iou"] == (marked & (box() > 0)).sum() / (marked | (box() > 0)).sum()


def test_an_interrupted_run_goes_on_and_ends_with_the_same_rows(edited, tmp_path):
    whole = evaluate(Seer(), edited, tmp_path / "whole", recompress=75, progress=False)
    out = tmp_path / "cut"
    evaluate(Seer(), edited, out, recompress=75, progress=False)
    rows = (out / "rows.jsonl").read_bytes()
    (out / "rows.jsonl").write_bytes(rows[: len(rows) // 2])  # in the middle of a line
    (out / "results.json").unlink()
    complete = rows[: len(rows) // 2].count(b"\n") - 1
    seer = Seer()
    again = evaluate(seer, edited, out, recompress=75, progress=False)
    assert len(seer.seen) == 24 - complete
    assert without_time(again.rows) == without_time(whole.rows)
    assert (out / "results.json").is_file()
    seer = Seer()
    evaluate(seer, edited, out, recompress=[75, 60], limit=6, progress=False)
    assert len(seer.seen) == 6  # only what is new


def test_results_of_another_model_are_not_mixed_in(edited, tmp_path):
    evaluate(Seer(), edited, tmp_path / "out", progress=False)
    other = Seer()
    other.name = "seer@2"
    with pytest.raises(DataError, match=r"another model"):
        evaluate(other, edited, tmp_path / "out", progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="already holds something else"):
        evaluate(other, edited, tmp_path / "full", progress=False)


def test_results_of_other_thresholds_are_not_mixed_in(edited, detector, tmp_path):
    evaluate(detector, edited, tmp_path / "out", limit=1, progress=False)
    detector.decision = replace(detector.decision, manipulated_at=0.9)
    with pytest.raises(DataError, match=r"another decision"):
        evaluate(detector, edited, tmp_path / "out", limit=1, progress=False)


def test_a_picture_that_fails_is_shown_counted_and_tried_again(edited, tmp_path, capsys):
    whole = (edited / "1_fill.png").read_bytes()
    (edited / "1_fill.png").write_bytes(whole[:200])
    results = evaluate(Seer(), edited, tmp_path / "out")
    (row,) = results.errors
    assert row["image"] == "1_fill.png" and "1_fill.png" in row["error"] and row["iou"] is None
    assert "1_fill.png" in capsys.readouterr().err
    assert results.group("fill").pictures == 3
    assert results.facts["failed"] == 1
    (edited / "1_fill.png").write_bytes(whole)
    assert not evaluate(Seer(), edited, tmp_path / "out", progress=False).errors


def test_a_detector_that_fails_on_one_picture_does_not_end_the_run(edited):
    class Moody(Seer):
        def analyze(self, source: Any, *, max_pixels: int = 0) -> Report:
            if source.name.endswith("0_splice.png"):
                raise RuntimeError("out of memory")
            return super().analyze(source)

    (row,) = evaluate(Moody(), edited, progress=False).errors
    assert "0_splice.png: RuntimeError: out of memory" in row["error"]


def test_nothing_but_failures_is_an_error(edited):
    class Broken(Seer):
        def analyze(self, source: Any, *, max_pixels: int = 0) -> Report:
            raise ImageError("no")

    with pytest.raises(DataError, match=r"No picture could be evaluated.*0_none\.png"):
        evaluate(Broken(), edited, progress=False)


def test_bad_data_is_refused_before_the_work(edited, tmp_path):
    seer = Seer()

    def refused(sentence: str, data: Path = edited, **options: Any) -> None:
        with pytest.raises(DataError, match=sentence):
            evaluate(seer, data, progress=False, **options)

    refused("neither a folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused("neither a manifest.jsonl nor pictures", tmp_path / "empty")
    refused("no picture of the split 'val'", split="val")
    refused("from 1 to 100, not 0", recompress=[0])
    refused("name or folder", workers=2)
    refused("at least 1", limit=0)
    rows = read_manifest_rows(edited)
    PILImage.fromarray(box()[:50]).save(edited / "small.png")
    write_manifest(edited, [*rows, {**rows[1], "mask": "small.png"}])
    refused(r"small\.png: the mask is 128x50 pixels, but its picture .* is 128x96")
    write_manifest(edited, [*rows, {**rows[1], "mask": "gone.png"}])
    refused(r"gone\.png, which does not exist")
    (edited / "text.png").write_text("no picture")
    write_manifest(edited, [*rows, {**rows[1], "mask": "text.png"}])
    refused(r"text\.png cannot be read as a mask")
    write_manifest(edited, [])
    refused("lists no pictures")
    assert seer.seen == []


def test_a_mask_that_marks_nothing_is_an_error_not_a_score(edited):
    PILImage.fromarray(box() // 255).save(edited / "faint.png")  # 0 and 1: black to the eye
    rows = read_manifest_rows(edited)
    write_manifest(edited, [*rows[:1], {**rows[1], "mask": "faint.png"}])
    (row,) = evaluate(Seer(), edited, progress=False).errors
    assert "faint.png marks nothing" in row["error"]


def test_masks_follow_the_displayed_picture(edited):
    """A photo that is stored lying on its side is shown, analysed and masked upright."""
    exif = PILImage.Exif()
    exif[0x0112] = 6
    lying = PILImage.fromarray(np.rot90(picture(seed=0)).copy())
    lying.save(edited / "turned.jpg", exif=exif, quality=95)
    rows = read_manifest_rows(edited)
    write_manifest(edited, [rows[0], {**rows[1], "image": "turned.jpg"}])
    results = evaluate(Seer(), edited, progress=False)
    assert results.group("splice")["iou"].value == 1


def test_a_plain_folder_is_all_untouched(photos, detector):
    results = evaluate(detector, photos, progress=False)
    assert len(results.rows) == 3
    assert [group.kind for group in results.groups if group.kind != "folder"] == ["untouched"]
    group = results.group(UNTOUCHED)
    assert group["flagged_max"].value >= group["flagged"].value
    assert {row["folder"] for row in results.rows} == {"photos", "more"}
    assert "untouched" in printed(results)


def test_recompression_reaches_the_model_as_a_file_of_that_quality(edited):
    seer = Seer()
    evaluate(seer, edited, recompress=[75, 50], limit=1, progress=False)
    as_is, *files = seer.seen
    assert isinstance(as_is, Image) and as_is.format == "PNG"
    assert [load_image(file).format for file in files] == ["JPEG", "JPEG"]
    assert [load_image(file).jpeg_quality for file in files] == [75, 50]


def test_a_limit_is_drawn_evenly_and_by_the_seed(edited):
    def drawn(seed: int) -> list[str]:
        rows = evaluate(Seer(), edited, limit=6, seed=seed, progress=False).rows
        assert sorted(row["method"] for row in rows) == sorted(("none", *METHODS) * 2)
        return [row["image"] for row in rows]

    assert drawn(0) == drawn(0)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1


def test_robustness_gives_a_curve_for_every_change(edited, detector, tmp_path):
    out = tmp_path / "out"
    results = evaluate(detector, edited, out, limit=3, robustness=tuple(GRIDS), progress=False)
    assert not results.errors
    assert len(results.rows) == 3 * (1 + sum(len(grid.levels) for grid in GRIDS.values()))
    for change in GRIDS:
        assert (out / f"robustness_{change}.png").is_file()
    halved = [row for row in results.rows if row["variant"] == "resize 0.5"]
    assert all((row["width"], row["height"]) == (64, 48) for row in halved)
    assert all(row["iou"] is not None for row in halved if row["manipulated"])
    assert "resize 0.5" in printed(results)


@pytest.mark.parametrize("change", GRIDS)
def test_changes_grow_with_their_level_and_depend_on_the_seed_alone(change):
    pixels = picture()
    distances = []
    for level in GRIDS[change].levels:
        first, second = (
            load_image(Variant(change, level).apply(pixels, np.random.default_rng(5))).pixels
            for _ in range(2)
        )
        assert np.array_equal(first, second)
        if first.shape == pixels.shape:
            distances.append(np.abs(first.astype(float) - pixels).mean())
    assert distances == sorted(distances)


def test_noise_has_the_variance_that_was_asked_for():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = Variant("noise", 11).apply(grey, np.random.default_rng(0))
    assert noisy.astype(float).var() == pytest.approx(11, rel=0.05)


def test_masks_are_resized_with_the_picture_and_stay_binary():
    mask = box() // 255
    half = follow(mask, (48, 64))
    assert half.shape == (48, 64) and set(np.unique(half)) == {0, 1}
    assert half.mean() == pytest.approx(mask.mean(), abs=0.02)
    assert follow(mask, (96, 128)) is mask


def test_variants_begin_with_the_pictures_as_they_are_and_repeat_none():
    found = variants([90, 75, 90], robustness=True)
    assert found[0] == AS_IS and found[0].name == "as is"
    assert len({variant.name for variant in found}) == len(found)
    assert [variant.name for variant in variants(75, robustness=False)] == ["as is", "jpeg 75"]


@pytest.mark.slow
def test_workers_give_the_same_rows(edited, model_folder):
    one = evaluate(model_folder, edited, progress=False)
    two = evaluate(model_folder, edited, workers=2, progress=False)
    assert without_time(two.rows) == without_time(one.rows)


@pytest.mark.slow
def test_the_literal_metrics_of_the_benchmark_agree_with_ours():
    from benchmarks.bench_metrics import cases

    for case in cases(quick=True):
        case.check()
