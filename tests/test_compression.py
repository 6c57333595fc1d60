"""compression.py: the quality of a JPEG and the colours of a palette, from pixels alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from forgemap.compression import palette, pixel_quality

from .photographs import jpeg, photograph

QUALITIES = (30, 40, 50, 60, 70, 75, 80, 85)


@pytest.mark.parametrize("seed", range(3))
def test_the_quality_is_read_from_pixels_alone_and_rises_with_it(seed: int) -> None:
    pixels = photograph(seed)
    read = [pixel_quality(jpeg(pixels, quality)) for quality in QUALITIES]
    assert None not in read
    assert read == sorted(read)  # type: ignore[type-var]
    assert all(abs(r - q) <= 3 for r, q in zip(read, QUALITIES, strict=True))  # type: ignore[operator]
    for quality in (90, 92, 95):  # the steps drown in the rounding, but are never taken for others
        assert abs((pixel_quality(jpeg(pixels, quality)) or quality) - quality) <= 3


def test_a_screenshot_of_a_jpeg_is_read_wherever_its_grid_begins() -> None:
    small = jpeg(photograph(4), 40)
    for top, left in ((1, 0), (3, 5), (7, 2)):
        screen = np.full((400, 500, 3), 240, np.uint8)
        screen[60 + top : 60 + top + small.shape[0], 64 + left : 64 + left + small.shape[1]] = small
        assert abs((pixel_quality(screen[64:320, 72:384]) or 0) - 40) <= 3
        assert abs((pixel_quality(small[top:, left:]) or 0) - 40) <= 3


def test_a_palette_is_counted_and_nothing_else_is_taken_for_one() -> None:
    pixels = np.tile(photograph(6), (2, 2, 1))
    for colours in (16, 256):
        few = np.asarray(Image.fromarray(pixels).quantize(colours).convert("RGB"))
        assert palette(few) == len(np.unique(few.reshape(-1, 3), axis=0)) <= colours
    # A palette but for a corner that the coarse first look does not see.
    few = few.copy()
    few[1:16, 1:16] = pixels[1:16, 1:16]
    assert len(np.unique(few.reshape(-1, 3), axis=0)) > 256 and palette(few) is None
    assert palette(pixels) is None
    assert palette(np.repeat(pixels[..., :1], 3, axis=2)) is None  # grey has no more by nature


def test_the_stronger_of_two_compressions_shows() -> None:
    assert (pixel_quality(jpeg(jpeg(photograph(5), 40), 95)) or 100) < 50


def test_what_was_never_compressed_or_lost_its_traces_has_no_quality() -> None:
    random = np.random.default_rng(0)
    plain = [photograph(seed) for seed in range(10)]
    read = [pixel_quality(p) for p in plain]
    assert all(q is None or q >= 75 for q in read)  # half are JPEGs of 80 or more
    half = cv2.resize(jpeg(plain[0], 40), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert pixel_quality(half) is None
    assert pixel_quality(random.integers(0, 256, (128, 128, 3), dtype=np.uint8)) is None
    stripes = np.zeros((128, 160, 3), np.uint8)
    stripes[:, ::16] = 200
    for drawn in (stripes, np.full((128, 128, 3), 77, np.uint8), plain[0][:20], plain[0][:31, :31]):
        assert pixel_quality(drawn) is None
