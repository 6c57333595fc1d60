"""Preprocess: what reaches the model is what the configuration says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from forgemap.errors import ModelError
from forgemap.preprocess import CLIP, NATIVE, Preprocess

from .conftest import picture


def test_native_keeps_every_pixel_and_maps_0_and_255_to_minus_one_and_one():
    pixels = picture(33, 50)
    pixels[0, 0], pixels[0, 1] = 0, 255
    tensor = NATIVE(pixels)
    assert tensor.shape == (1, 3, 33, 50)
    assert tensor.dtype == torch.float32
    assert tensor[0, :, 0, 0].tolist() == pytest.approx([-1, -1, -1])
    assert tensor[0, :, 0, 1].tolist() == pytest.approx([1, 1, 1])
    back = ((tensor[0].permute(1, 2, 0) * 0.5 + 0.5) * 255).round().byte().numpy()
    assert np.array_equal(back, pixels)


def test_fixed_size_is_pillows_antialiased_resize_without_keeping_the_aspect_ratio():
    pixels = picture(301, 97)
    resized = PILImage.fromarray(pixels).resize((224, 224), PILImage.Resampling.BILINEAR)
    expected = np.asarray(resized) / 255.0
    expected = (expected - np.array(CLIP.mean)) / np.array(CLIP.std)
    result = CLIP(pixels)[0].permute(1, 2, 0).numpy()
    assert np.abs(result - expected).max() < 1e-5


def test_bicubic_differs_from_bilinear():
    bicubic = Preprocess(64, (0.5,) * 3, (0.5,) * 3, "bicubic")
    bilinear = Preprocess(64, (0.5,) * 3, (0.5,) * 3)
    assert not torch.equal(bicubic(picture()), bilinear(picture()))


def test_pixels_are_not_changed():
    pixels = picture()
    before = pixels.copy()
    NATIVE(pixels)
    assert np.array_equal(pixels, before)


ODD = Preprocess(8, (0, 0, 0), (1, 1, 1), "bicubic")


@pytest.mark.parametrize("preprocess", [CLIP, NATIVE, ODD])
def test_dictionary_gives_the_same_preprocess_back(preprocess):
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sise": 224}, "sise"),
        ({"size": 0}, "size"),
        ({"size": "224"}, "size"),
        ({"mean": [0.5]}, "mean"),
        ({"std": [0.5, 0.5, 0]}, "std"),
        ({"std": 0.5}, "std"),
        ({"interpolation": "lanczos"}, "bilinear, bicubic"),
    ],
)
def test_impossible_entries_are_named(change, named):
    with pytest.raises(ModelError, match=named):
        Preprocess.from_dict(CLIP.to_dict() | change)


def test_missing_entry_is_named():
    with pytest.raises(ModelError, match="'std'"):
        Preprocess.from_dict({"size": 224, "mean": [0, 0, 0]})


def test_wrong_arrays_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        NATIVE(np.zeros((8, 8, 3), np.float32))
