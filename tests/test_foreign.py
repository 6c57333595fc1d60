"""Foreign pictures: edited where the mask says, and the same again; the gallery of failures."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from benchmarks import foreign, foreign_origins, gallery
from benchmarks.foreign import EDITS, SAVINGS
from PIL import Image

from forgemap.data.datasets import load_pair
from forgemap.data.records import Record, read_manifest, split_of
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model

from .conftest import picture


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of the split "test"."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(1000):
        path = folder / f"{seed}.png"
        Image.fromarray(picture(160, 200, seed=seed)).save(path)
        if split_of(hashlib.sha256(path.read_bytes()).hexdigest()) == "test":
            return path
        path.unlink()
    raise AssertionError("no photograph of the split")


@pytest.fixture(scope="module")
def records(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Eighteen turns over one photograph: every edit, saved in each of the ways."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign_origins, "INSTALLED", {})
        out = tmp_path_factory.mktemp("foreign")
        return read_manifest(foreign.make([str(photo.parent)], out, per_photo=18))


def test_every_edit_is_saved_in_every_way(records: list[Record]) -> None:
    edited = {(r.method, r.benign) for r in records if r.manipulated}
    assert edited == {(method, saving) for method in EDITS for saving in SAVINGS}


def test_an_edit_changes_what_the_mask_marks_and_nothing_else(records: list[Record]) -> None:
    lossless = [r for r in records if r.benign == "png"]
    for before, after in zip(
        [r for r in lossless if not r.manipulated],
        [r for r in lossless if r.manipulated],
        strict=True,
    ):
        changed = (load_pair(before)[0] != load_pair(after)[0]).any(axis=2)
        mask = load_pair(after)[1] > 0
        assert not changed[~mask].any(), after.method
        assert changed[mask].mean() > 0.3, after.method


def test_a_twin_has_the_same_size_and_format(records: list[Record]) -> None:
    for after, before in zip(records[::2], records[1::2], strict=True):
        assert after.manipulated and not before.manipulated
        assert after.image.suffix == before.image.suffix
        assert load_pair(after)[0].shape == load_pair(before)[0].shape


def test_the_same_seed_gives_the_same_pictures(
    photo: Path, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_origins, "INSTALLED", {})
    again = read_manifest(foreign.make([str(photo.parent)], tmp_path, per_photo=2))
    for one, other in zip(
        sorted(again, key=lambda r: r.image.name),
        sorted(
            (r for r in records if r.image.name[5] in "01" and r.image.name[6] == "-"),
            key=lambda r: r.image.name,
        ),
        strict=True,
    ):
        assert np.array_equal(load_pair(one)[0], load_pair(other)[0])


def test_the_gallery_shows_the_worst_of_each_kind(
    records: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    save_model(
        build({"architecture": "tracenet", "widths": [4, 4, 8, 8, 8], "blocks": [1, 1, 1, 1]}),
        model,
    )
    page = tmp_path / "worst.png"
    folder = records[0].image.parent.parent
    assert gallery.main([str(folder / "png.jsonl"), "--model", str(model), "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "Missed" in printed and "Untouched, most suspected" in printed
    assert Image.open(page).size[0] == 3 * (gallery.SIDE + gallery.GAP) + gallery.GAP


def test_a_model_that_is_not_there_is_one_sentence(
    records: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = records[0].image.parent.parent
    assert gallery.main([str(folder), "--model", "/nowhere"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("origin", foreign.ORIGINS)
def test_photographs_of_another_origin_are_small_and_saved_without_loss(
    origin: str, tmp_path: Path
) -> None:
    """Reduced to a place of their own in size, and left out where that leaves too little."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed, (height, width) in enumerate([(700, 900), (400, 500)]):
        large = picture(height, width, seed=seed)
        Image.fromarray(large).save(photos / f"{seed}.jpg", quality=40)
    found = {split_of(hashlib.sha256(p.read_bytes()).hexdigest()) for p in photos.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign_origins, "INSTALLED", {})
        records = [
            record
            for split in found
            for record in read_manifest(
                foreign.make([str(photos)], tmp_path / split, split=split, origin=origin)
            )
        ]
    assert {Path(r.source).name for r in records} == {"0.jpg"}
    assert {r.image.suffix for r in records} == {".png"} and len(records) == 6
    for record in records:
        height, width = load_pair(record)[0].shape[:2]
        assert min(height, width) >= 260 and max(height, width) <= 900 / foreign_origins.LEAST


def test_a_panorama_keeps_its_shorter_side() -> None:
    long = np.zeros((700, 5000, 3), np.uint8)
    for seed in range(4):
        small = foreign_origins.reduced(long, np.random.default_rng(seed))
        assert min(small.shape[:2]) >= foreign_origins.SHORTEST


def test_photographs_that_are_all_too_small_are_one_sentence(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(foreign_origins, "INSTALLED", {})
    out = tmp_path / "out"
    assert foreign.main([str(photo.parent), "--origin", "camera", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "650 pixels" in said and not out.exists()
