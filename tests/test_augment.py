"""data/augment.py: crops of the size asked for, half of them on the picture's own JPEG grid."""

from __future__ import annotations

import numpy as np
import pytest

from forgemap.data.augment import augment, window

from .conftest import picture


def coordinates(height: int = 320, width: int = 400) -> np.ndarray:
    """A picture whose first two channels say modulo 256 where a pixel lies."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y % 256, x % 256, y * 0], axis=-1).astype(np.uint8)


def test_half_of_the_native_crops_lie_on_the_grid() -> None:
    pixels, mask = coordinates(), np.zeros((320, 400), np.uint8)
    aligned = 0
    for seed in range(400):
        crop, _ = window(pixels, mask, 224, np.random.default_rng(seed))
        assert crop.shape == (224, 224, 3)
        aligned += bool((crop[0, 0, :2] % 8 == 0).all())
    assert 0.42 < aligned / 400 < 0.6  # one in 64 of the others by chance


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_a_crop_is_a_function_of_its_draws_alone(strength: float) -> None:
    pixels, mask = picture(300, 260), np.zeros((300, 260), np.uint8)
    mask[100:180, 90:200] = 255
    for seed in range(12):
        one, two = (
            augment(pixels, mask, np.random.default_rng(seed), 208, strength) for _ in range(2)
        )
        assert one[0].shape == (208, 208, 3) and one[1].shape == (208, 208)
        assert {*np.unique(one[1])} <= {0, 1}
        assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


def own(crop: np.ndarray) -> bool:
    """Are these pixels of `coordinates`, turned or flipped at most?"""
    steps = [
        np.abs(np.diff(crop[..., c].astype(int), axis=axis)) for c in (0, 1) for axis in (0, 1)
    ]
    return all({*np.unique(step)} <= {0, 1, 255} for step in steps)


def test_without_strength_the_pixels_are_the_pictures_own() -> None:
    pixels, mask = coordinates(), np.zeros((320, 400), np.uint8)
    for seed in range(12):
        assert own(augment(pixels, mask, np.random.default_rng(seed), 208, 0.0)[0])


@pytest.mark.parametrize(("strength", "compressed"), [(0.0, 0.4), (0.0, 1.0), (0.2, 0.05)])
def test_the_share_of_compressed_crops_is_the_larger_of_both(
    strength: float, compressed: float
) -> None:
    pixels, mask = coordinates(), np.zeros((320, 400), np.uint8)
    changed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        changed += not own(augment(pixels, mask, rng, 64, strength, compressed=compressed)[0])
    # With strength, resampling and light processing change further crops, 7 % each.
    least = max(0.5 * strength, compressed)
    most = least + (1 - least) * 0.7 * strength
    assert least - 0.08 <= changed / 300 <= most + 0.08
