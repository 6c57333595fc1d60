"""GridTraces: JPEG's grid is seen wherever it lies, and pixels without it stand out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from forgemap.models import grid
from forgemap.models.grid import BLOCK, LEVELS, LOW, GridTraces, dct_matrix, extend

SHARE, COMMON, OWN, LEAD, AGREED, SINGLE, MISSING, RATIO, SIMILARITY = range(9)


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8, grey: noise with the falling spectrum of photographs."""
    grain = np.random.default_rng(seed).normal(0, 60, (height, width, 1))
    grey = (cv2.GaussianBlur(grain, (0, 0), 1.2) * 2 + 128).clip(0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def compressed(pixels: np.ndarray, quality: int = 80) -> np.ndarray:
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def traces(pixels: np.ndarray) -> Tensor:
    images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None] / 127.5 - 1
    return GridTraces()(images)[0]


def test_the_dct_is_orthonormal() -> None:
    torch.testing.assert_close(dct_matrix() @ dct_matrix().T, torch.eye(8))


def test_a_compressed_picture_has_one_grid_and_an_uncompressed_one_has_none() -> None:
    before, after = traces(textured(128, 160)), traces(compressed(textured(128, 160)))
    assert after[COMMON].min() > 10 * before[COMMON].max()
    assert after[SIMILARITY].mean() > 0.9 > 0.5 > before[SIMILARITY].mean()
    assert after[MISSING].abs().max() < 0.05


@pytest.mark.parametrize("shift", [(0, 0), (3, 5), (7, 1), (4, 0)])
def test_it_does_not_matter_where_the_grid_begins(shift: tuple[int, int]) -> None:
    pixels = compressed(textured(192, 192))
    whole, cut = traces(pixels), traces(pixels[shift[0] :, shift[1] :])
    assert (
        abs(float(cut[AGREED].mean()) - float(whole[AGREED].mean())) < 0.15 * whole[AGREED].mean()
    )
    assert cut[RATIO].mean() > 0.8


@pytest.mark.parametrize("change", ["uncompressed", "moved"])
def test_pixels_without_the_common_grid_stand_out(change: str) -> None:
    pixels = compressed(textured(256, 256))
    other = textured(256, 256, seed=1)
    if change == "moved":  # a compressed picture whose grid falls elsewhere
        other = np.roll(compressed(other), (3, 2), (0, 1))
    pixels[96:176, 80:160] = other[96:176, 80:160]
    maps = traces(pixels)
    inside = maps[:, 13:21, 11:19]
    outside = torch.cat([maps[:, :10].flatten(1), maps[:, 24:].flatten(1)], 1)
    assert inside[AGREED].max() < outside[AGREED].min()
    assert inside[RATIO].max() < outside[RATIO].min()
    if change == "moved":
        assert inside[MISSING].min() > outside[MISSING].max()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 23), (40, 33), (63, 64)])
def test_every_cell_has_its_traces_at_any_size(height: int, width: int) -> None:
    maps = traces(compressed(textured(height, width)))
    assert maps.shape == (14, -(-height // 8), -(-width // 8))
    assert maps.isfinite().all()


def test_what_is_missing_at_the_end_repeats_the_last_period() -> None:
    x = torch.arange(10.0).reshape(1, 1, 1, 10)
    assert extend(x, 7, 3).flatten().tolist() == [*range(10), 2, 3, 4, 5, 6, 7, 8]


def test_what_was_compressed_twice_lacks_small_coefficients() -> None:
    pixels, other = compressed(textured(256, 256), 50), textured(256, 256, seed=1)
    pixels[96:176, 80:160] = other[96:176, 80:160]
    levels = traces(compressed(pixels, 95))[9:]
    small = levels[2] - levels[0]  # neither zero nor large
    assert small[13:21, 11:19].mean() > 2 * small[:10].mean()


@pytest.mark.parametrize("strip", [1, 100, 2**14])
def test_counts_are_those_of_each_block_alone(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "STRIP", strip)
    torch.manual_seed(0)
    luma = 40 * torch.randn(2, 1, 21, 18)
    counts = GridTraces().counts(luma)
    assert counts.shape == (2, 1 + len(LEVELS), 24, 24)
    blocks = luma[:, 0].unfold(1, BLOCK, 1).unfold(2, BLOCK, 1)
    sizes = (dct_matrix() @ blocks @ dct_matrix().T).abs().flatten(3)
    order = (torch.arange(BLOCK)[:, None] + torch.arange(BLOCK)).flatten()
    low = sizes[..., (order > 0) & (order <= LOW)]
    wanted = [(sizes[..., 1:] < 0.5).sum(-1), *((low < level).sum(-1) for level in LEVELS)]
    assert torch.equal(counts[:, :, :14, :11], torch.stack(wanted, 1).to(torch.uint8))
