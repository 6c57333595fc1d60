"""models/colours.py: which pixels have a colour that a JPEG decoder can give."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from forgemap.encode import SUBSAMPLING, decode, encode_jpeg
from forgemap.models.colours import jpeg_colours, jpeg_share
from forgemap.models.grid import GridTraces

from .conftest import picture


def marked(pixels: np.ndarray, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """(H, W) bool: the colour is one of a JPEG decoder's."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].to(dtype)
    found = jpeg_colours(image / 127.5 - 1)
    assert found.shape == (1, 1, *pixels.shape[:2]) and {*found.unique().tolist()} <= {-1, 1}
    return (found[0, 0] > 0).numpy()


def photo(seed: int = 0) -> np.ndarray:
    """Colours that stay clear of black and white, so that no pixel is saturated."""
    return (60 + 0.5 * picture(240, 300, seed=seed)).astype(np.uint8)


@pytest.mark.parametrize("sampling", SUBSAMPLING)
@pytest.mark.parametrize("quality", [60, 90, 98])
def test_every_decoded_pixel_is_one(quality: int, sampling: str) -> None:
    pixels = decode(encode_jpeg(photo(), quality, sampling))
    assert marked(pixels).mean() > 0.999


def test_of_all_colours_a_quarter_is() -> None:
    anything = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    found, saturated = marked(anything), ((anything == 0) | (anything == 255)).any(axis=-1)
    assert 0.22 < found[~saturated].mean() < 0.26
    assert found[saturated].all(), "what was cut off may have been any"


@pytest.mark.parametrize(
    "change",
    [
        lambda x: cv2.GaussianBlur(x, (0, 0), 1.5),
        lambda x: cv2.cvtColor(cv2.cvtColor(x, cv2.COLOR_RGB2HSV) + 8, cv2.COLOR_HSV2RGB),
        lambda x: np.clip(1.06 * x, 0, 255).astype(np.uint8),
        lambda x: cv2.resize(cv2.resize(x, None, fx=1.1, fy=1.1), x.shape[1::-1]),
    ],
    ids=["blurred", "recoloured", "brighter", "resampled"],
)
def test_a_region_that_was_computed_since_stands_out(change) -> None:
    pixels = decode(encode_jpeg(photo(), 90, "4:2:0"))
    edited = pixels.copy()
    area = np.s_[60:180, 80:220]
    edited[area] = change(pixels)[area]
    found = marked(edited)
    assert found[area].mean() < 0.65
    found[area] = True
    assert found.mean() > 0.98
    assert marked(decode(encode_jpeg(edited, 90, "4:2:0"))).mean() > 0.98, "compressed once more"


def test_neither_precision_nor_strips_change_it() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    found = marked(pixels)
    assert np.array_equal(found, marked(pixels, torch.float64))
    assert np.array_equal(found[64:128], marked(pixels[64:128]))
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert marked(greys).all(), "a grey is what no chroma gives"


@pytest.mark.parametrize("size", [(64, 64), (70, 133), (200, 41)])
def test_shares_are_means_of_cells(size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (2, 3, *size)) / 127.5 - 1
    share, marks = jpeg_share(image, 8), jpeg_colours(image)
    assert share.shape == (2, 1, -(-size[0] // 8), -(-size[1] // 8))
    assert torch.allclose(share[..., 3, 2], marks[..., 24:32, 16:24].mean((2, 3)))
    last = marks[..., -(size[0] % 8 or 8) :, -(size[1] % 8 or 8) :]
    assert torch.allclose(share[..., -1, -1], last.mean((2, 3)))


def test_they_join_the_maps_of_the_grid() -> None:
    image = torch.randint(0, 256, (1, 3, 72, 88)) / 127.5 - 1
    with_, without = GridTraces(colours=True), GridTraces()
    assert (with_.channels, without.channels) == (15, 14)
    assert torch.equal(with_(image)[:, :14], without(image))
    assert torch.equal(with_(image)[:, 14:], jpeg_share(image, 8))
