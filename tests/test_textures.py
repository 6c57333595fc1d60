"""data/textures.py: strong textures in a scene hide edits, are none, and end up in one JPEG."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forgemap.data.augment import augment
from forgemap.data.textures import PATTERNS, draw_textures
from forgemap.errors import ForgemapError
from forgemap.models.colours import jpeg_colours
from forgemap.train.config import LocalizerConfig

from .conftest import picture

SCENE = picture(300, 260)


def drawn(seed: int, marked: bool = True) -> tuple[np.ndarray, np.ndarray]:
    mask = np.full(SCENE.shape[:2], 255 * marked, np.uint8)
    return draw_textures(SCENE, mask, np.random.default_rng(seed))


def test_what_is_hidden_is_no_edit_and_all_else_stays_one() -> None:
    partly = 0
    for seed in range(40):
        pixels, mask = drawn(seed)
        assert pixels.dtype == mask.dtype == np.uint8 and {*np.unique(mask)} <= {0, 255}
        kept, edit = (pixels == SCENE).all(axis=2), mask == 255
        assert not edit.any() or kept[edit].mean() > 0.7  # the others are soft borders
        assert edit.all() or kept[~edit].mean() < 0.2
        partly += bool(edit.any() and not edit.all())
        assert not drawn(seed, marked=False)[1].any()
    assert partly > 25


def test_equal_draws_give_equal_textures_and_leave_the_picture_itself_alone() -> None:
    before = SCENE.copy()
    for seed in range(10):
        one, two = drawn(seed), drawn(seed)
        assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
    assert np.array_equal(SCENE, before)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("size", [(40, 40), (200, 90)])
def test_each_pattern_is_a_texture_of_the_whole_area(name: str, size: tuple[int, int]) -> None:
    for seed in range(20):
        pattern = PATTERNS[name](size, np.random.default_rng(seed))
        assert pattern.shape == size and pattern.dtype == np.float32
        assert pattern.min() >= 0 and pattern.max() <= 1
        halves = np.array_split(pattern, 2, axis=0)
        assert all(half.std() > 0.02 for half in halves)


def test_pasted_into_the_finished_picture_they_are_the_edit() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        pixels, mask = draw_textures(SCENE, np.zeros(SCENE.shape[:2], np.uint8), rng, edit=True)
        same = (pixels == SCENE).all(axis=2)
        assert mask.any() and not mask.all()
        assert same[mask == 255].mean() < 0.2 and same[mask == 0].mean() > 0.7


def test_textured_crops_are_one_jpeg_throughout_or_marked() -> None:
    mask = np.zeros(SCENE.shape[:2], np.uint8)
    edits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        crop, marked = augment(SCENE, mask, rng, 128, 0.0, textures=1.0)
        assert crop.shape == (128, 128, 3)
        edits += bool(marked.any())
        if not marked.any():
            levels = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1
            assert float(jpeg_colours(levels).mean()) > 0.99
    assert 10 <= edits <= 30


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"textures": 1.5}, "textures"),
        (
            {"textures": 0.2, "samples": "whole", "architecture": "declip"},
            "--textures and --compressed change crops",
        ),
    ],
)
def test_a_share_that_cannot_work_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ForgemapError, match=sentence):
        LocalizerConfig(data=["somewhere"], **values).check()  # type: ignore[arg-type]
