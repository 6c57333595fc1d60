"""synth/benign.py: honest processing treats edited pictures and their twins alike, by one draw."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.data.records import read_manifest, write_manifest
from forgemap.errors import DataError
from forgemap.image import EXTENSIONS, load_image
from forgemap.synth import synthesize
from forgemap.synth.benign import BENIGN, draw, process

from .conftest import picture

PHOTO = picture(270, 330)
PLAIN = ("geometry", "format", "life", "origin")  # families that change no light
SAVED = ("format", "life", "origin")  # families that end with a file


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def synth(out: Path, photos: Path, **options: object) -> Path:
    settings = {"methods": ["splice", "copy_move"], "untouched": True, "progress": False}
    return synthesize(photos, out, **settings | options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for seed in range(16):
        Image.fromarray(picture(160, 200, seed=seed)).save(folder / f"{seed}.png")
    return folder


@pytest.mark.parametrize("name", BENIGN)
def test_what_is_drawn_does_not_depend_on_the_content(name: str) -> None:
    other = picture(270, 330, seed=9)
    for seed in range(2):
        one, two = process(name, PHOTO, rng(seed)), process(name, other, rng(seed))
        assert one.parameters == two.parameters
        assert one.pixels.shape == two.pixels.shape
        assert one.suffix == two.suffix


@pytest.mark.parametrize("name", BENIGN)
def test_equal_draws_give_equal_pictures(name: str) -> None:
    one, two = process(name, PHOTO, rng(4)), process(name, PHOTO, rng(4))
    assert np.array_equal(one.pixels, two.pixels)
    assert one.data == two.data


@pytest.mark.parametrize("name", [n for n in BENIGN if n != "lossless"])
def test_processing_changes_the_picture_and_can_be_listed(name: str) -> None:
    drawn = [process(name, PHOTO, rng(seed)) for seed in range(2)]
    assert any(
        done.pixels.shape != PHOTO.shape or not np.array_equal(done.pixels, PHOTO) for done in drawn
    )
    for done in drawn:
        assert done.pixels.dtype == np.uint8 and done.pixels.shape[2] == 3
        assert done.mask.shape == done.pixels.shape[:2] and not done.mask.any()
        assert json.loads(json.dumps(done.parameters)) == done.parameters


@pytest.mark.parametrize("name", BENIGN)
def test_the_mask_moves_with_the_picture(name: str) -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[110:190, 140:250] = 255
    black_and_white = np.repeat(mask[..., None], 3, axis=2)
    for seed in range(3):
        done = process(name, black_and_white, rng(seed), mask)
        assert {*np.unique(done.mask)} <= {0, 255}
        if BENIGN[name].family not in PLAIN:
            assert np.array_equal(done.mask, mask)
            continue
        shown, truth = done.pixels.mean(-1) > 127, done.mask > 0
        assert (shown & truth).sum() / (shown | truth).sum() > 0.93


@pytest.mark.parametrize("name", [n for n in BENIGN if BENIGN[n].family in SAVED])
def test_a_file_shows_what_the_pixels_say(name: str) -> None:
    for seed in range(2):
        done = process(name, PHOTO, rng(seed))
        assert done.data is not None and done.suffix in EXTENSIONS
        shown = load_image(done.data)
        assert np.abs(shown.pixels.astype(int) - done.pixels).max() <= 1
        assert (done.suffix[1:4], shown.format) in {
            ("jpg", "JPEG"), ("png", "PNG"), ("web", "WebP"), ("avi", "AVIF"), ("hei", "HEIC"),
            ("gif", "GIF"), ("tif", "TIFF"), ("bmp", "BMP"),
        }  # fmt: skip


@pytest.mark.parametrize("shape", [(64, 64), (70, 301), (333, 65)])
def test_small_and_odd_pictures_are_processed_too(shape: tuple[int, int]) -> None:
    for name in BENIGN:
        for seed in range(2):
            done = process(name, picture(*shape), rng(seed))
            assert min(done.pixels.shape[:2]) >= 32, (name, seed)


def test_a_large_picture_is_sent_at_the_messenger_s_size() -> None:
    large = picture(700, 2000)
    sides = {max(process("messenger", large, rng(seed)).pixels.shape) for seed in range(8)}
    assert sides == {1280, 1600}


def test_draws_have_the_share_asked_for_and_every_family() -> None:
    found = Counter(draw(rng(seed), 0.5, tuple(BENIGN)) for seed in range(2000))
    assert 0.45 < found.pop(None) / 2000 < 0.55
    assert {*found} == {*BENIGN}
    families = Counter[str]()
    for name, count in found.items():
        families[BENIGN[name].family] += count
    assert min(families.values()) > 0.65 * max(families.values())
    assert draw(rng(), 0, ()) is None
    assert draw(rng(), 1, ()) is None


def test_twins_differ_by_the_edit_alone(scenes: Path, tmp_path: Path) -> None:
    kinds = ["tone", "crop", "rotate", "text"]
    manifest = synth(tmp_path / "out", scenes, per_photo=2, benign=0.9, processing=kinds)
    records = {r.image.name: r for r in read_manifest(manifest)}
    processed = 0
    for record in records.values():
        if not record.manipulated:
            continue
        twin = records[record.image.name.replace(f"-{record.method}", "-none")]
        assert twin.benign == record.benign
        names = {*record.benign.split("+")} - {""}
        assert names <= {*kinds}
        processed += bool(names)
        edited, plain = load_image(record.image).pixels, load_image(twin.image).pixels
        assert edited.shape == plain.shape
        mask = np.asarray(Image.open(record.mask))  # type: ignore[arg-type]
        assert mask.shape == edited.shape[:2] and mask.any()
        # Feathered by up to three pixels, interpolated by two more.
        near = cv2.dilate(mask, np.ones((15, 15), np.uint8)) > 0
        changed = (edited != plain).any(-1)
        assert changed[mask > 0].any()
        assert not changed[~near].any()
    assert processed > 20


def test_a_run_is_reproducible_and_none_changes_nothing(scenes: Path, tmp_path: Path) -> None:
    def files(out: Path) -> dict[str, bytes]:
        return {f.name: f.read_bytes() for f in out.rglob("*") if f.parent.name == "images"}

    runs = [files(synth(tmp_path / str(i), scenes, benign=0.7).parent) for i in range(2)]
    assert runs[0] == runs[1]
    plain = [
        files(synth(tmp_path / f"plain {i}", scenes, **options).parent)
        for i, options in enumerate(({}, {"benign": 0.0}))
    ]
    assert plain[0] == plain[1] != runs[0]


def test_the_manifest_names_the_processing(scenes: Path, tmp_path: Path) -> None:
    manifest = synth(tmp_path / "out", scenes, benign=0.5, vary=True, crop=128)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    some = [row for row in rows if "benign" in row]
    assert 0 < len(some) < len(rows)
    assert any(row["method"] == "none" for row in some)
    for row in some:
        told = [row["parameters"].get(f"benign_{when}") for when in ("before", "after")]
        assert row["benign"] == "+".join(one["name"] for one in told if one)
    again = read_manifest(write_manifest(read_manifest(manifest), tmp_path / "out" / "again.jsonl"))
    assert [r.benign for r in again] == [row.get("benign", "") for row in rows]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"benign": 1.5}, "a number from 0 to 1"),
        ({"benign": 0.5, "processing": ["sepia"]}, "Unknown processing 'sepia'"),
        ({"benign": 0.5, "processing": ["tone", "tone"]}, "each but once"),
        ({"processing": ["tone"]}, "go with --benign"),
        ({"benign": 0.5, "whole": True, "methods": None}, "leave out --benign"),
    ],
)
def test_bad_settings_are_refused(
    options: dict[str, object], sentence: str, scenes: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=sentence):
        synth(tmp_path / "out", scenes, **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="Unknown processing 'sepia'"):
        process("sepia", PHOTO, rng())


def test_the_command_takes_the_share_and_the_kinds(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ["--out", str(out), "--methods", "copy_move", "--untouched"]
    flags += ["--benign", "1", "--processing", "crop,web"]
    ended = CliRunner().invoke(app, ["synth", str(scenes), *flags])
    assert ended.exit_code == 0, ended.output
    kinds = {r.benign for r in read_manifest(out)}
    assert kinds <= {f"{one}+{two}" for one in ("crop", "web") for two in ("crop", "web")}
    assert len(kinds) > 1


def test_a_frame_hides_the_rim_and_nothing_else() -> None:
    for seed in range(12):
        done = process("frame", PHOTO, rng(seed))
        wide, sides = done.parameters["width"], done.parameters["sides"]
        rims = [done.pixels[:wide], done.pixels[-wide:]] if sides != 2 else []
        rims += [done.pixels[:, :wide], done.pixels[:, -wide:]] if sides != 1 else []
        colours = {tuple(colour) for rim in rims for colour in rim.reshape(-1, 3).tolist()}
        assert len(colours) == 1
        inner = np.s_[60:-60, 60:-60]  # a round corner ends before
        assert np.array_equal(done.pixels[inner], PHOTO[inner])


def test_a_watermark_lets_the_picture_through() -> None:
    for seed in range(12):
        done = process("watermark", PHOTO, rng(seed))
        change = np.abs(done.pixels.astype(int) - PHOTO)
        assert change.max() <= 1.2 * done.parameters["alpha"]  # of 255; a bicubic kernel overshoots
        assert 0 < (change > 0).any(-1).mean() < 0.6


def test_a_logo_lies_in_a_corner_or_anywhere_but_covers_little() -> None:
    centred = 0
    for seed in range(40):
        done = process("logo", PHOTO, rng(seed))
        ys, xs = np.nonzero((done.pixels != PHOTO).any(-1))
        side = done.parameters["side"]
        room = 1.4 * side + 8  # a shadow reaches farther
        assert np.ptp(ys) <= room and np.ptp(xs) <= room
        centred += bool((np.abs([ys.mean() - 135, xs.mean() - 165]) < 60).all())
    assert centred
