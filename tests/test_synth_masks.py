"""synth/masks.py: regions of every kind have the area asked for, on pictures of any size."""

from __future__ import annotations

import numpy as np
import pytest

from forgemap.errors import DataError
from forgemap.synth.masks import MASKS, random_mask

from .conftest import picture


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("shape", [(64, 64), (70, 400), (700, 640)])
def test_area_is_within_the_range(kind: str, shape: tuple[int, int]) -> None:
    image = picture(*shape)
    for seed in range(8):
        mask, _ = random_mask(image, np.random.default_rng(seed), (0.02, 0.3), [kind])
        assert mask.shape == shape
        assert mask.dtype == bool
        assert 0.02 <= mask.mean() <= 0.3


@pytest.mark.parametrize("kind", MASKS)
def test_most_tries_give_the_kind_asked_for(kind: str) -> None:
    image = picture(128, 128)
    drawn = [random_mask(image, np.random.default_rng(s), kinds=[kind])[1] for s in range(20)]
    assert drawn.count(kind) >= 19


@pytest.mark.parametrize("kind", MASKS)
def test_same_seed_gives_the_same_region_and_another_seed_another(kind: str) -> None:
    image = picture()
    first, again, other = (
        random_mask(image, np.random.default_rng(seed), kinds=[kind])[0] for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_small_regions_are_as_common_as_large_ones() -> None:
    image = picture(256, 256)
    areas = [random_mask(image, np.random.default_rng(s))[0].mean() for s in range(300)]
    # The middle of 0.5 % to 50 % on a logarithmic scale is 5 %.
    assert 0.4 < np.mean(np.array(areas) < 0.05) < 0.6


def test_narrow_range_is_met_exactly() -> None:
    image = picture(200, 200)
    for seed in range(10):
        mask, _ = random_mask(image, np.random.default_rng(seed), (0.1, 0.105))
        assert 0.1 <= mask.mean() <= 0.105


def test_segment_follows_the_objects_of_the_picture() -> None:
    image = np.full((128, 128, 3), 40, np.uint8)
    image[30:80, 40:100] = (200, 180, 30)
    share = 50 * 60 / 128**2
    inside = np.zeros((128, 128), bool)
    inside[30:80, 40:100] = True
    best = 0.0
    for seed in range(12):
        mask, _ = random_mask(
            image, np.random.default_rng(seed), (share * 0.8, share * 1.2), ["segment"]
        )
        best = max(best, (mask & inside).sum() / (mask | inside).sum())
    assert best > 0.9


def test_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(DataError, match=r"'star'.*blob, polygon, strokes, box, ellipse, segment"):
        random_mask(picture(), np.random.default_rng(0), kinds=["star"])


@pytest.mark.parametrize("area", [(0, 0.5), (0.5, 0.1), (0.5, 1.5)])
def test_impossible_range_is_refused(area: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="0 < low <= high <= 1"):
        random_mask(picture(), np.random.default_rng(0), area)


def test_range_between_two_whole_pixels_is_refused() -> None:
    with pytest.raises(DataError, match="fits a picture of 8 x 8"):
        random_mask(picture(8, 8), np.random.default_rng(0), (0.001, 0.002))
