"""The demo: real photographs, exact masks, honest numbers, no network."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage

pytest.importorskip("skimage", reason="needs the extra `synth`")
pytest.importorskip("sklearn", reason="needs the extra `synth`")

from forgemap import demo
from forgemap.image import load_image


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return demo.make_examples(tmp_path_factory.mktemp("demo"), seed=0)


def test_every_photograph_comes_with_the_installed_packages(examples):
    untouched = [example for example in examples if example.method == "none"]
    assert [example.image.name for example in untouched] == list(demo.PHOTOS)
    assert all(example.mask is None for example in untouched)


def test_generated_pictures_are_the_photographs_as_each_bundled_network_gives_them_back(examples):
    generated = [example for example in examples if example.generated]
    assert [e.method for e in generated] == [f"generated: {name}" for name in demo.GENERATORS]
    photos = {e.photo: load_image(e.image).pixels for e in examples if e.method == "none"}
    for example in generated:
        made, photo = load_image(example.image).pixels, photos[example.photo]
        difference = np.abs(made.astype(int) - photo).mean()
        assert made.shape == photo.shape and 0.5 < difference < 20


def test_masks_mark_what_was_edited(examples):
    photos = {e.image.stem: load_image(e.image).pixels for e in examples if e.method == "none"}
    edited = [example for example in examples if example.mask]
    assert {example.method for example in edited} == set(demo.EDITS)
    for example in edited:
        mask = np.asarray(PILImage.open(example.mask)) > 127
        pixels = np.asarray(PILImage.open(example.image))
        photo = photos[example.image.stem.removesuffix(f"-{example.method}")]
        assert mask.shape == pixels.shape[:2] == photo.shape[:2]
        assert 0.01 < mask.mean() < 0.2
        changed = np.abs(pixels.astype(int) - photo).max(axis=2)
        if example.image.suffix == ".png":
            near = cv2.dilate(mask.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
            assert changed[mask].mean() > 1
            assert not changed[~near].any()
        else:  # was compressed once more
            assert changed[mask].mean() > 2 * changed[~mask].mean()


def test_same_seed_same_pictures_other_seed_other_edits(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "PHOTOS", dict(list(demo.PHOTOS.items())[1:3]))
    runs = [demo.make_examples(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1))]
    data = [[e.image.read_bytes() for e in run] for run in runs]
    assert data[0] == data[1]
    assert data[0] != data[2]


def test_iou_of_masks():
    left, both = np.array([[1, 0, 0]], bool), np.array([[1, 1, 0]], bool)
    assert demo.iou(left, both) == 0.5
    assert demo.iou(left, ~left) == 0
    assert demo.iou(left & ~left, left & ~left) == 1


def test_demo_prints_a_verdict_for_each_picture_and_writes_the_report(
    tmp_path, model_folder, monkeypatch, capsys
):
    monkeypatch.setattr(demo, "PHOTOS", dict(list(demo.PHOTOS.items())[1:3]))
    reports = demo.run(tmp_path / "out", model=str(model_folder))
    assert len(reports) == 2 * (1 + demo.EDITS_PER_PHOTO) + 2
    printed = capsys.readouterr().out
    for report in reports:
        assert f"{report.score:.3f}" in printed
    for name in demo.PHOTOS:
        assert name in printed
    page = tmp_path / "out" / "report" / "report.html"
    assert page.is_file()
    assert str(page.resolve()) in printed.replace("\n", "")
    assert f"of {2 * demo.EDITS_PER_PHOTO}, mean IoU" in printed
    assert "judged generated as a whole" in printed
    assert "…" not in printed  # nothing is cut off in 80 columns
