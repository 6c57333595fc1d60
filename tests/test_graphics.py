"""data/graphics.py: what is drawn over training crops hides edits, and knows nothing of them."""

from __future__ import annotations

import numpy as np
import pytest

from forgemap.data.augment import augment
from forgemap.data.graphics import KINDS, draw_graphics
from forgemap.data.graphics_parts import figure
from forgemap.errors import ForgemapError
from forgemap.train.config import LocalizerConfig

DARK = np.zeros((224, 200, 3), np.uint8)
LIGHT = np.full((224, 200, 3), 255, np.uint8)


def drawn(pixels: np.ndarray, seed: int, marked: bool = True) -> tuple[np.ndarray, np.ndarray]:
    mask = np.full(pixels.shape[:2], 255 * marked, np.uint8)
    return draw_graphics(pixels, mask, np.random.default_rng(seed))


def opacity(seed: int) -> np.ndarray:
    """The share of what lies below that is hidden, (H, W): 1 where black and white look alike."""
    dark, light = drawn(DARK, seed)[0], drawn(LIGHT, seed)[0]
    return 1 - (light.astype(float) - dark).mean(-1) / 255


def test_what_is_hidden_is_no_edit_and_all_else_stays_one() -> None:
    hidden = 0
    for seed in range(60):
        covered, mask = opacity(seed), drawn(DARK, seed)[1]
        assert mask.dtype == np.uint8 and {*np.unique(mask)} <= {0, 255}
        assert (mask[covered < 0.3] == 255).all()
        assert (mask[covered > 0.9] == 0).all()
        hidden += bool((mask == 0).any())
    assert hidden > 30


def test_an_untouched_picture_stays_unmarked() -> None:
    assert not any(drawn(DARK, seed, marked=False)[1].any() for seed in range(40))


def test_the_pictures_themselves_are_not_drawn_upon() -> None:
    pixels, mask = DARK.copy(), np.full(DARK.shape[:2], 255, np.uint8)
    for seed in range(20):
        draw_graphics(pixels, mask, np.random.default_rng(seed))
    assert not pixels.any() and (mask == 255).all()


def test_equal_draws_give_equal_graphics() -> None:
    for seed in range(20):
        one, two = drawn(LIGHT, seed), drawn(LIGHT, seed)
        assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(48, 48), (224, 160), (40, 300)])
def test_each_kind_draws_something_of_every_size(name: str, size: tuple[int, int]) -> None:
    shapes, seen = set(), 0
    for seed in range(60):
        layer, _ = KINDS[name][0](size, np.random.default_rng(seed))
        assert layer.mode == "RGBA"
        shapes.add(layer.size)
        seen += layer.getchannel("A").getextrema()[1] > 0
    assert seen > 50
    assert name == "pattern" or len(shapes) > 20


def test_shapes_of_a_few_pixels_can_be_drawn() -> None:
    for seed in range(3000):
        rng = np.random.default_rng(seed)
        width, height = (int(n) for n in rng.integers(8, 24, 2))
        assert figure((width, height), float(rng.uniform(0.1, 1)), rng).shape == (height, width)


def test_graphics_are_small_and_large() -> None:
    shares = np.array([(opacity(seed) > 0.1).mean() for seed in range(150)])
    assert (shares < 0.02).mean() > 0.1
    assert (shares > 0.2).mean() > 0.1


def test_the_share_of_crops_with_graphics_is_the_one_asked_for() -> None:
    pixels, mask = np.full((300, 300, 3), 90, np.uint8), np.zeros((300, 300), np.uint8)
    changed = 0
    for seed in range(400):
        crop, _ = augment(pixels, mask, np.random.default_rng(seed), 208, 0.0, graphics=0.4)
        changed += bool((crop != 90).any())
    assert 0.3 < changed / 400 < 0.44  # some lie beyond the rim


def test_without_graphics_nothing_is_drawn() -> None:
    pixels, mask = np.full((300, 300, 3), 90, np.uint8), np.zeros((300, 300), np.uint8)
    for seed in range(20):
        assert (augment(pixels, mask, np.random.default_rng(seed), 208, 0.0)[0] == 90).all()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"graphics": 1.5}, "graphics"),
        ({"compressed": 1.5}, "compressed"),
        (
            {"compressed": 0.2, "samples": "whole", "architecture": "declip"},
            "--textures and --compressed change crops",
        ),
        (
            {"graphics": 0.2, "samples": "whole", "architecture": "declip"},
            "--textures and --compressed change crops",
        ),
    ],
)
def test_an_option_that_cannot_work_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ForgemapError, match=sentence):
        LocalizerConfig(data=["somewhere"], **values).check()  # type: ignore[arg-type]
