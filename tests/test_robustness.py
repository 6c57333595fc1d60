"""evaluate --robustness: pipelines, benign processing, flips and false alarms, told with bounds."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.detector import Detector
from forgemap.errors import DataError
from forgemap.evaluate.benchmark import evaluate
from forgemap.evaluate.results import Results
from forgemap.evaluate.robustness import GRIDS, PARTS, Variant, variants
from forgemap.evaluate.robustness_pipelines import PIPELINES
from forgemap.evaluate.robustness_report import FLIPS, markdown, save, summarise, upper_bound
from forgemap.image import load_image
from forgemap.synth.benign import BENIGN

from .conftest import picture

MASK = np.zeros((300, 360), np.uint8)
MASK[90:210, 120:260] = 1


def row(image: int, variant: str, edited: bool, verdict: str) -> dict[str, object]:
    values = {
        "iou": 0.5 if edited else None, "score": 0.5, "flagged": 0.01, "error": None,
        "verdict": verdict,
    }  # fmt: skip
    method = "splice" if edited else "none"
    return {
        "image": f"{image}.png", "variant": variant, "manipulated": edited,
        "method": method, "source": f"{image // 2}.jpg", "folder": "a", "split": "test",
        **dict.fromkeys(("f1_fixed", "f1_best", "ap", "auc", "width", "height", "seconds")),
        **values,
    }  # fmt: skip


def results(rows: list[dict[str, object]]) -> Results:
    return Results({"model": "test"}, rows)


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """Three photos, each untouched and edited, and one untouched picture that was processed."""
    folder = tmp_path / "data"
    folder.mkdir()
    Image.fromarray(MASK * 255).save(folder / "mask.png")
    rows = []
    for photo in range(3):
        for method in ("none", "splice"):
            pixels = picture(300, 360, seed=photo)
            if method != "none":
                pixels[MASK > 0] = 255 - pixels[MASK > 0]
            Image.fromarray(pixels).save(folder / f"{photo}_{method}.png")
            rows.append(
                {
                    "image": f"{photo}_{method}.png", "method": method, "source": f"{photo}.jpg",
                    "mask": None if method == "none" else "mask.png", "split": "test",
                    **({"benign": "tone+web"} if photo == 2 else {}),
                }
            )  # fmt: skip
    (folder / "manifest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_changes_the_picture_the_same_way_each_time(name: str) -> None:
    pixels = picture(300, 1700)
    one, two = PIPELINES[name](pixels), PIPELINES[name](pixels)
    shown = [c if isinstance(c, np.ndarray) else load_image(c).pixels for c in (one, two)]
    assert np.array_equal(*shown)
    assert shown[0].shape != pixels.shape or not np.array_equal(shown[0], pixels)
    limits = {"messenger-1280": 1280, "messenger-1600": 1600, "feed-1080": 1080, "thumbnail": 640}
    if name in limits:
        assert max(shown[0].shape) == limits[name]


@pytest.mark.parametrize(
    "variant",
    [
        *(Variant(name, kind="pipeline") for name in PIPELINES),
        *(Variant(n, kind="benign") for n in BENIGN if BENIGN[n].family in ("geometry", "life")),
    ],
    ids=lambda v: v.name,
)
def test_the_mask_follows_every_variant(variant: Variant) -> None:
    pixels = np.repeat((MASK * 255)[..., None], 3, axis=2)
    changed, mask = variant.apply_to(pixels, MASK, np.random.default_rng(1))
    shown = changed if isinstance(changed, np.ndarray) else load_image(changed).pixels
    assert mask is not None and {*np.unique(mask)} <= {0, 1}
    mask = cv2.resize(mask, shown.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    found = shown.mean(-1) > 127
    assert (found & (mask > 0)).sum() / (found | (mask > 0)).sum() > 0.93


def test_what_cuts_the_edit_away_is_drawn_anew() -> None:
    corner = np.zeros((600, 720), np.uint8)
    corner[:70, :80] = 1
    pixels = picture(600, 720)
    crop = Variant("crop", kind="benign")
    kept = [crop.apply_to(pixels, corner, np.random.default_rng(seed))[1] for seed in range(6)]
    assert all(mask is not None and mask.any() for mask in kept)
    shares = [mask.mean() / corner.mean() for mask in kept if mask is not None]
    assert np.mean(np.array(shares) >= 0.5) > 0.5
    corner[:, 1:] = 0  # the outermost column, which hardly any crop shows
    with pytest.raises(DataError, match="cuts the edit away"):
        crop.apply_to(pixels, corner, np.random.default_rng(0))


def test_parts_are_chosen_by_name() -> None:
    assert {v.kind for v in variants(None, PARTS)} == {"grid", "pipeline", "benign"}
    assert {v.kind for v in variants(None, robustness=True)} == {"grid"}
    names = [v.name for v in variants(None, PARTS)]
    assert len({*names}) == len(names)
    assert len(names) == 1 + len(PIPELINES) + len(BENIGN) + sum(
        len(grid.levels) for grid in GRIDS.values()
    )
    chosen = variants([75], ["resize", "pipelines"])
    assert [v.name for v in chosen[:3]] == ["as is", "jpeg 75", "resize 0.5"]
    with pytest.raises(DataError, match="Unknown part of robustness 'colour'"):
        variants(None, ["colour"])


def test_flips_are_counted_against_the_picture_as_it_is() -> None:
    clear, unsure, found = "no sign of editing", "inconclusive", "manipulated"
    before = [(False, clear), (False, found), (False, unsure), (False, clear)]
    after = [found, clear, clear, clear]
    edits_before, edits_after = [found, found, unsure, clear], [found, clear, found, clear]
    rows = []
    for i, ((edited, old), new) in enumerate(
        [*zip(before, after, strict=True),
         *zip([(True, v) for v in edits_before], edits_after, strict=True)]
    ):  # fmt: skip
        rows += [row(i, "as is", edited, old), row(i, "jpeg 75", edited, new)]
    flips = summarise(results(rows))["flips"]["jpeg 75"]
    shares = {name: flips[name][0] for name in FLIPS}
    assert shares == {
        "changed": 5 / 8, "accused": 1 / 4, "cleared": 1 / 4, "found": 1 / 4, "lost": 1 / 4
    }  # fmt: skip
    for value, low, high in flips.values():
        assert 0 <= low <= value <= high <= 1


def test_no_alarm_among_few_photos_is_no_proof() -> None:
    assert upper_bound(0, 60) == pytest.approx(0.0487, abs=1e-4)
    assert upper_bound(0, 10) > upper_bound(0, 100) > 0
    assert upper_bound(3, 100) > 0.03
    assert upper_bound(5, 5) == 1
    rows = [row(i, "as is", False, "no sign of editing") for i in range(20)]
    alarms = summarise(results(rows))["alarms"]["as is"]
    assert alarms["accused"][0] == 0 and alarms["photos"] == 10
    assert alarms["at_most"] == pytest.approx(1 - 0.05 ** (1 / 10))


def test_a_picture_that_failed_counts_nowhere() -> None:
    rows = [row(i, "as is", i % 2 == 0, "manipulated") for i in range(6)]
    rows += [row(i, "jpeg 75", i % 2 == 0, "manipulated") for i in range(5)]
    broken = {"error": "broken", "verdict": None, "flagged": None}
    rows.append(row(5, "jpeg 75", False, "manipulated") | broken)
    found = summarise(results(rows))
    assert found["alarms"]["as is"]["pictures"] == 3
    assert found["alarms"]["jpeg 75"]["pictures"] == 2
    assert found["flips"]["jpeg 75"]["changed"][0] == 0


def test_the_report_holds_every_part(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    names = [v.name for v in variants(None, ("jpeg", "pipelines", "benign"))]
    verdicts = ("no sign of editing", "manipulated", "inconclusive")
    rows = [
        row(i, name, i % 2 == 0, verdicts[(i + len(name)) % 3]) for name in names for i in range(4)
    ]
    found = results(rows)
    assert len(save(found, out)) == 4
    text = (out / "robustness.md").read_text()
    for name in (*PIPELINES, *(f"benign {name}" for name in BENIGN), *FLIPS.values()):
        assert name in text
    assert "| splice | 0.50 (0.50-0.50) |" in text
    numbers = json.loads((out / "robustness.json").read_text())
    assert {*numbers["flips"]} == {*found.variants} - {"as is"}
    assert {*numbers["alarms"]} == {*found.variants}
    for name in ("flips.png", "benign.png"):
        assert Image.open(out / name).size[0] > 400
    assert not [*out.glob("*.part")]


def test_an_evaluation_writes_it(edited: Path, model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    detector = Detector.load(model_folder, detector=None)
    found = evaluate(detector, edited, out, robustness=["resize"], limit=4, progress=False)
    assert not found.errors
    assert found.variants == ["as is", "resize 0.5", "resize 0.75", "resize 1.5", "resize 2"]
    assert {*json.loads((out / "robustness.json").read_text())["flips"]} == {*found.variants[1:]}
    assert {f.name for f in out.glob("*.png")} >= {"flips.png", "robustness_resize.png"}


def test_untouched_pictures_are_listed_by_their_processing(
    edited: Path, model_folder: Path
) -> None:
    found = evaluate(Detector.load(model_folder, detector=None), edited, progress=False)
    assert {g.name: g.pictures for g in found.of("as is", "benign")} == {"tone": 1, "web": 1}
    from forgemap.evaluate.markdown import markdown as all_tables

    assert "| tone | 1 |" in all_tables(found)


def test_markdown_of_photos_alone_has_alarms_and_no_empty_table() -> None:
    rows = [
        row(i, variant, False, "no sign of editing")
        for i in range(4)
        for variant in ("as is", "benign tone")
    ]
    text = markdown(summarise(results(rows)))
    assert "False alarms" in text and "benign tone" in text
    assert "IoU" not in text and "nan" not in text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--parts", "jpeg"], "give that as well"),
        (["--robustness", "--parts", "sepia"], "Unknown part of robustness 'sepia'"),
    ],
)
def test_bad_flags_are_one_sentence(
    flags: list[str], sentence: str, edited: Path, model_folder: Path
) -> None:
    ended = CliRunner().invoke(app, ["evaluate", str(model_folder), str(edited), *flags])
    assert ended.exit_code != 0
    assert sentence in str(ended.exception) + ended.output
