"""synth/prepare.py: crops are native pixels, and what is drawn does not depend on the edit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from forgemap.encode import drawn_tables, encode_jpeg, encode_jpeg_by, encode_png, encode_webp
from forgemap.synth.edit import Edit
from forgemap.synth.prepare import finish, prepare

from .conftest import picture

PHOTO = picture(300, 400)


def test_without_options_the_photo_stays_as_it_is() -> None:
    pixels, parameters = prepare(PHOTO, np.random.default_rng(0))
    assert np.array_equal(pixels, PHOTO)
    assert parameters == {}


def test_crops_are_native_pixels_or_reduced_ones() -> None:
    reduced = 0
    for seed in range(40):
        pixels, parameters = prepare(PHOTO, np.random.default_rng(seed), crop=100)
        assert pixels.shape == (100, 100, 3)
        left, top, right, bottom = parameters["crop"]
        if "downscale" in parameters:
            reduced += 1
            assert parameters["downscale"][0] < 1
            assert max(right - left, bottom - top) > 100
        else:
            assert np.array_equal(pixels, PHOTO[top:bottom, left:right])
    assert 10 < reduced < 30


def test_a_photo_smaller_than_the_crop_stays_whole() -> None:
    pixels, _ = prepare(PHOTO, np.random.default_rng(0), crop=1000)
    assert np.array_equal(pixels, PHOTO)


def test_varied_preparation_draws_every_earlier_life() -> None:
    lives = set()
    for seed in range(60):
        pixels, parameters = prepare(PHOTO, np.random.default_rng(seed), vary=True)
        assert pixels.shape[0] > 300 - 8  # the shifted grid of a second JPEG cuts some pixels
        assert pixels.shape[1] > 400 - 8
        lives |= {len(parameters.get("earlier_jpeg", ())), *({"webp"} & {*parameters})}
        lives |= {key for key in parameters if key == "earlier_webp"}
    assert lives == {0, 1, 2, "earlier_webp"}


def test_finish_is_an_exact_png_by_default() -> None:
    mask = np.zeros(PHOTO.shape[:2], np.uint8)
    data, suffix, _, parameters = finish(Edit(PHOTO, mask), np.random.default_rng(0))
    assert (suffix, parameters) == (".png", {})
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), PHOTO)


def test_varied_finish_keeps_the_mask_and_the_picture_the_same_size() -> None:
    mask = np.zeros(PHOTO.shape[:2], np.uint8)
    mask[50:200, 60:220] = 255
    suffixes, resized = set(), 0
    for seed in range(40):
        data, suffix, truth, parameters = finish(
            Edit(PHOTO, mask), np.random.default_rng(seed), vary=True
        )
        picture_ = Image.open(io.BytesIO(data))
        assert truth.shape == picture_.size[::-1]
        assert set(np.unique(truth)) == {0, 255}
        assert (truth > 0).mean() == pytest.approx((mask > 0).mean(), abs=0.01)
        suffixes.add(suffix)
        resized += "final_resize" in parameters
    assert suffixes == {".png", ".jpg", ".webp"}
    assert resized


def test_finish_draws_the_same_for_any_content() -> None:
    mask = np.zeros(PHOTO.shape[:2], np.uint8)
    other = picture(300, 400, seed=9)
    for seed in range(20):
        one, two = (
            finish(Edit(pixels, mask), np.random.default_rng(seed), vary=True)
            for pixels in (PHOTO, other)
        )
        assert one[1] == two[1]
        assert one[3] == two[3]


def test_encoders_write_what_they_say() -> None:
    png, webp = encode_png(PHOTO), encode_webp(PHOTO, 80)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), PHOTO)
    assert Image.open(io.BytesIO(webp)).format == "WEBP"
    sizes = [len(encode_jpeg(PHOTO, quality)) for quality in (60, 80, 95)]
    assert sizes == sorted(sizes)
    for sampling, factors in (("4:4:4", (1, 1)), ("4:2:2", (2, 1)), ("4:2:0", (2, 2))):
        jpeg = Image.open(io.BytesIO(encode_jpeg(PHOTO, 90, sampling)))
        assert jpeg.layer[0][1:3] == factors


def test_drawn_tables_are_no_scaled_version_of_the_standards() -> None:
    standard = np.asarray(Image.open(io.BytesIO(encode_jpeg(PHOTO, 50))).quantization[0])
    for seed in range(20):
        tables = drawn_tables(np.random.default_rng(seed))
        for table in tables:
            assert len(table) == 64 and min(table) >= 1 and max(table) <= 255
        luma, chroma = np.asarray(tables, float)
        assert chroma.sum() >= 0.95 * luma.sum()
        scale = np.log(luma / standard)
        assert scale.std() > 0.2  # one factor for all frequencies would show 0, but for rounding


def test_a_jpeg_has_the_tables_that_were_asked_for() -> None:
    tables = drawn_tables(np.random.default_rng(3))
    for sampling, factors in (("4:4:4", (1, 1)), ("4:2:0", (2, 2))):
        jpeg = Image.open(io.BytesIO(encode_jpeg_by(PHOTO, tables, sampling)))
        assert [list(jpeg.quantization[k]) for k in (0, 1)] == tables
        assert jpeg.layer[0][1:3] == factors


def test_some_lives_have_an_encoder_of_another_kind() -> None:
    ways = []
    for seed in range(60):
        _, parameters = prepare(PHOTO, np.random.default_rng(seed), vary=True)
        ways += parameters.get("earlier_jpeg", [])
    foreign = sum(way[0] == "tables" for way in ways)
    assert 0.1 < foreign / len(ways) < 0.5
