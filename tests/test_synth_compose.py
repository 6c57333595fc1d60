"""synth/compose.py: a run depends on its seed and photos alone, and hides no failure."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from forgemap.data.records import read_manifest, split_of
from forgemap.errors import DataError, ModelError
from forgemap.synth import METHODS, synthesize

from .conftest import picture
from .test_synth_autoencoder import save_taef2

QUICK = ["splice", "copy_move", "blur", "noise", "jpeg_region"]


def add_photo(folder: Path, seed: int, shape: tuple[int, int] = (80, 112)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{seed}.png"
    Image.fromarray(picture(*shape, seed=seed)).save(path)
    return path


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder but the journal, whose lines are in the order of finishing."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "journal.jsonl"
    }


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five photos, all of them of the split "train"."""
    folder, count, seed = tmp_path_factory.mktemp("camera"), 0, 0
    while count < 5:
        path = add_photo(folder, seed)
        if split_of(hashlib.sha256(path.read_bytes()).hexdigest()) == "train":
            count += 1
        else:
            path.unlink()
        seed += 1
    return folder


def run(photos: object, out: Path, **options: object) -> Path:
    return synthesize(
        photos,  # type: ignore[arg-type]
        out,
        **{"methods": QUICK, "per_photo": 3, "progress": False} | options,  # type: ignore[arg-type]
    )


def test_every_picture_and_mask_is_in_the_manifest(camera: Path, tmp_path: Path) -> None:
    records = read_manifest(run(camera, tmp_path / "out"))
    assert len(records) == 5 * 3
    listed = {path for record in records for path in (record.image, record.mask)}
    on_disk = {p for p in (tmp_path / "out").rglob("*.*") if p.parent.name in ("images", "masks")}
    assert listed == on_disk
    for record in records:
        pixels, mask = np.asarray(Image.open(record.image)), np.asarray(Image.open(record.mask))
        source = np.asarray(Image.open(record.source))
        assert pixels.shape == source.shape
        assert mask.shape == pixels.shape[:2]
        assert set(np.unique(mask)) == {0, 255}
        assert record.parameters["area"] == pytest.approx((mask > 0).mean(), abs=1e-5)
        changed = (pixels != source).any(axis=-1)
        assert changed[mask > 0].mean() >= 0.1
        assert not changed.all()


def test_the_number_of_workers_changes_nothing(camera: Path, tmp_path: Path) -> None:
    options = {"vary": True, "crop": 64, "untouched": True}
    run(camera, tmp_path / "one", workers=1, **options)
    run(camera, tmp_path / "two", workers=2, **options)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_the_order_of_the_photos_changes_nothing(camera: Path, tmp_path: Path) -> None:
    photos = sorted(camera.iterdir())
    run(photos, tmp_path / "forward")
    run(photos[::-1], tmp_path / "backward")
    assert content(tmp_path / "forward") == content(tmp_path / "backward")


def test_another_seed_gives_other_pictures(camera: Path, tmp_path: Path) -> None:
    run(camera, tmp_path / "a", seed=0)
    run(camera, tmp_path / "b", seed=1)
    first, second = content(tmp_path / "a"), content(tmp_path / "b")
    assert not {first[k] for k in first if k.startswith("images")} & set(second.values())


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"per_photo": 4}, {"methods": ["blur"]}, {"crop": 64}, {"vary": True}]
)
def test_a_folder_with_other_settings_is_refused(
    camera: Path, tmp_path: Path, other: dict[str, object]
) -> None:
    run(camera, tmp_path / "out", per_photo=1)
    before = content(tmp_path / "out")
    with pytest.raises(DataError, match=f"other settings \\({next(iter(other))} was"):
        run(camera, tmp_path / "out", **{"per_photo": 1} | other)
    assert content(tmp_path / "out") == before


def test_a_folder_with_something_else_is_refused(camera: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="already holds something else"):
        run(camera, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_every_method_gets_an_equal_share(camera: Path, tmp_path: Path) -> None:
    records = read_manifest(run(camera, tmp_path / "out", per_photo=2 * len(QUICK)))
    for source in {record.source for record in records}:
        used = [record.method for record in records if record.source == source]
        assert sorted(used) == sorted(2 * QUICK)


def test_donors_come_from_the_same_split(tmp_path: Path) -> None:
    for seed in range(60):
        add_photo(tmp_path / "photos", seed, (64, 64))
    records = read_manifest(run(tmp_path / "photos", tmp_path / "out", methods=["splice"]))
    assert {record.split for record in records} == {"train", "val", "test"}
    for record in records:
        digest = hashlib.sha256(Path(record.source).read_bytes()).hexdigest()
        assert record.split == split_of(digest) == split_of(record.parameters["donor"])
        assert not digest.startswith(record.parameters["donor"])


def test_split_keeps_only_its_photos(tmp_path: Path) -> None:
    for seed in range(40):
        add_photo(tmp_path / "photos", seed, (64, 64))
    options = {"methods": ["noise"], "per_photo": 1}
    alone = read_manifest(run(tmp_path / "photos", tmp_path / "test", split="test", **options))
    every = read_manifest(run(tmp_path / "photos", tmp_path / "all", **options))
    assert {record.split for record in alone} == {"test"}
    assert len(alone) == sum(record.split == "test" for record in every) < len(every)


def test_untouched_twins_share_everything_but_the_edit(camera: Path, tmp_path: Path) -> None:
    manifest = run(camera, tmp_path / "out", methods=["noise"], crop=72, vary=True, untouched=True)
    records = read_manifest(manifest)
    edited = {r.image.stem.rsplit("-", 1)[0]: r for r in records if r.manipulated}
    twins = {r.image.stem.rsplit("-", 1)[0]: r for r in records if not r.manipulated}
    assert edited.keys() == twins.keys()
    for key, twin in twins.items():
        assert twin.mask is None
        assert twin.image.suffix == edited[key].image.suffix
        own = {"area", "region", "feather", "sigma", "channels"}
        drawn = {k: v for k, v in edited[key].parameters.items() if k not in own}
        assert drawn == {k: v for k, v in twin.parameters.items() if k != "area"}
        if twin.image.suffix == ".png" and "final_resize" not in twin.parameters:
            pixels, other = (np.asarray(Image.open(r.image)) for r in (edited[key], twin))
            mask = np.asarray(Image.open(edited[key].mask))
            far = cv2.dilate(mask, np.ones((13, 13), np.uint8)) == 0
            assert np.array_equal(pixels[far], other[far])
            assert not np.array_equal(pixels, other)


def test_one_twin_is_enough_where_all_edits_start_from_the_whole_photo(
    camera: Path, tmp_path: Path
) -> None:
    records = read_manifest(run(camera, tmp_path / "out", untouched=True))
    twins = [record for record in records if not record.manipulated]
    assert len(twins) == 5
    for twin in twins:
        assert np.array_equal(
            np.asarray(Image.open(twin.image)), np.asarray(Image.open(twin.source))
        )


def test_unusable_photos_are_named_and_do_not_stop_the_rest(
    camera: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    small = add_photo(tmp_path / "small", 0, (40, 200))
    photos = [camera, tmp_path / "torn.jpg", small, tmp_path / "missing.png"]
    records = read_manifest(run(photos, tmp_path / "out", methods=["blur"]))
    assert len(records) == 5 * 3
    said = capsys.readouterr().err
    for name in ("torn.jpg", "0.png is too small", "missing.png"):
        assert said.count(name) == 1
    assert "3 skipped" in said


def test_a_photo_without_anything_to_change_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (80, 80), "white").save(tmp_path / "white.png")
    add_photo(tmp_path, 1)
    records = read_manifest(run(tmp_path, tmp_path / "out", methods=["blur"], per_photo=1))
    assert [Path(record.source).name for record in records] == ["1.png"]
    assert "white.png: blur found no region that it would change" in capsys.readouterr().err


def test_a_lone_photo_gets_the_methods_that_need_no_donor(tmp_path: Path) -> None:
    photo = add_photo(tmp_path / "photos", 1)
    records = read_manifest(run(photo, tmp_path / "out", per_photo=8))
    assert {record.method for record in records} == set(QUICK) - {"splice"}
    with pytest.raises(DataError, match="splice can only be made with a second photo"):
        run(photo, tmp_path / "splices", methods=["splice"])


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="No photos"):
        run(tmp_path / "photos", tmp_path / "out")
    (tmp_path / "photos" / "a.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"No picture could be made.*a\.jpg"):
        run(tmp_path / "photos", tmp_path / "out")


def test_results_of_an_earlier_run_inside_the_photo_folder_are_no_photos(tmp_path: Path) -> None:
    add_photo(tmp_path, 1)
    add_photo(tmp_path, 2)
    run(tmp_path, tmp_path / "out")
    run(tmp_path, tmp_path / "out")
    assert len(read_manifest(tmp_path / "out")) == 6


def test_without_an_autoencoder_its_methods_are_left_out_and_this_is_said_once(
    camera: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = sorted(camera.iterdir())[:2]
    records = read_manifest(run(photos, tmp_path / "out", methods=None, per_photo=13))
    left_out = {"autoencoder_paste", "latent_edit"}
    assert {record.method for record in records} == set(METHODS) - left_out
    assert capsys.readouterr().err.count("Without --autoencoder") == 1


def test_autoencoder_methods_run_from_a_folder_of_weights(camera: Path, tmp_path: Path) -> None:
    weights = save_taef2(tmp_path / "weights")
    options = {"methods": ["autoencoder_paste", "latent_edit"], "per_photo": 2}
    photos = sorted(camera.iterdir())[:2]
    records = read_manifest(run(photos, tmp_path / "out", autoencoder=weights, **options))
    assert [r.method for r in records].count("latent_edit") == 2
    with pytest.raises(ModelError, match="No autoencoder at"):
        run(photos, tmp_path / "none", autoencoder=tmp_path / "no" / "weights", **options)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"methods": ["morph"]}, "Unknown method 'morph'"),
        ({"per_photo": 0}, "at least 1"),
        ({"workers": 0}, "at least 1"),
        ({"seed": -1}, "at least 0"),
        ({"crop": 16}, "crop of 16 pixels is too small"),
        ({"split": "holdout"}, "Unknown split 'holdout'"),
        ({"area": (0.5, 0.1)}, "area must be two shares"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    camera: Path, tmp_path: Path, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        run(camera, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_dataset_card_counts_what_was_made(camera: Path, tmp_path: Path) -> None:
    manifest = run(camera, tmp_path / "set", benign=0.9, untouched=True, processing=["tone"])
    card = (tmp_path / "set" / "README.md").read_text()
    rows = read_manifest(manifest)
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head)["size_categories"] == ["n<1K"]
    untouched = sum(not row.manipulated for row in rows)
    assert f"| untouched | {untouched} |" in body
    assert f"{len(rows)} pictures" in body and "from 5 photographs" in body
    assert hashlib.sha256(manifest.read_bytes()).hexdigest() in body
    toned = sum("tone" in row.benign for row in rows)
    assert toned and f"| tone | {sum(row.benign.count('tone') for row in rows)} |" in body


@pytest.mark.parametrize(("kind", "said"), [("frame", True), ("tone", False)])
def test_a_dataset_card_says_that_overlays_are_not_marked(
    kind: str, said: bool, camera: Path, tmp_path: Path
) -> None:
    run(camera, tmp_path / "set", benign=1.0, processing=[kind])
    card = (tmp_path / "set" / "README.md").read_text()
    assert ("laid over a picture openly (processing) are not marked" in card) is said
