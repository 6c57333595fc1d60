"""synth/methods.py: every edit changes what its mask marks, nothing else, and is repeatable."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from torch.nn import functional as F

from forgemap.errors import DataError
from forgemap.synth.autoencoder import Autoencoder
from forgemap.synth.edit import Context, Edit, blend, window_of
from forgemap.synth.methods import METHODS, NEED_AUTOENCODER, NEED_DONOR, choose_methods
from forgemap.synth.paste import match_colours
from forgemap.synth.retouch import _clear_of

from .conftest import picture

DONORS = [picture(150, 90, seed=11), picture(80, 200, seed=12)]


def lossy_autoencoder() -> Autoencoder:
    """8 x 8 pixels to 192 latents and back, coarsely rounded: exact, local and quick."""
    return Autoencoder(
        lambda images: (F.pixel_unshuffle(images, 8) * 20).round() / 20,
        lambda latents: F.pixel_shuffle(latents, 8),
        "lossy",
    )


def context(area: tuple[float, float] = (0.01, 0.4)) -> Context:
    def donor(rng: np.random.Generator) -> tuple[str, np.ndarray]:
        index = int(rng.integers(len(DONORS)))
        return str(index), DONORS[index]

    return Context(donor=donor, autoencoder=lossy_autoencoder(), area=area)


PHOTO = picture(96, 128, seed=5)
PHOTO.setflags(write=False)  # edits never change the picture they are given


@functools.cache
def edits(method: str) -> list[Edit]:
    return [METHODS[method](PHOTO, np.random.default_rng(s), context()) for s in range(10)]


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_mask_is_0_or_255_of_the_pictures_size(self, method: str) -> None:
        for edit in edits(method):
            assert edit.pixels.shape == PHOTO.shape
            assert edit.pixels.dtype == edit.mask.dtype == np.uint8
            assert edit.mask.shape == PHOTO.shape[:2]
            assert set(np.unique(edit.mask)) == {0, 255}

    def test_nothing_changes_outside_the_mask(self, method: str) -> None:
        for edit in edits(method):
            before = PHOTO
            if method == "latent_edit":  # every pixel of it has been decoded
                before = lossy_autoencoder().reconstruct(PHOTO)
            feather = edit.parameters.get("feather", 0)
            reach = cv2.dilate(edit.mask, np.ones((4 * feather + 1,) * 2, np.uint8)) > 0
            assert np.array_equal(edit.pixels[~reach], before[~reach])

    def test_pixels_change_inside_the_mask(self, method: str) -> None:
        for edit in edits(method):
            inside = edit.mask > 0
            assert (edit.pixels[inside] != PHOTO[inside]).any(axis=1).mean() > 0.2

    def test_same_seed_same_bytes_and_other_seeds_others(self, method: str) -> None:
        first = edits(method)[:4]
        again = [METHODS[method](PHOTO, np.random.default_rng(s), context()) for s in range(4)]
        for one, two in zip(first, again, strict=True):
            assert np.array_equal(one.pixels, two.pixels)
            assert np.array_equal(one.mask, two.mask)
            assert one.parameters == two.parameters
        assert len({edit.pixels.tobytes() for edit in first}) == len(first)

    def test_parameters_are_json(self, method: str) -> None:
        for edit in edits(method):
            assert json.loads(json.dumps(edit.parameters)) == edit.parameters

    @pytest.mark.parametrize("shape", [(64, 64), (67, 301), (301, 67)])
    def test_any_shape_of_picture(self, method: str, shape: tuple[int, int]) -> None:
        for seed in range(2):
            edit = METHODS[method](picture(*shape), np.random.default_rng(seed), context())
            assert edit.pixels.shape == (*shape, 3)
            assert edit.mask.any()


def first_with(method: str, wanted: Callable[[dict], bool]) -> Edit:
    for seed in range(200):
        edit = METHODS[method](PHOTO, np.random.default_rng(seed), context())
        if wanted(edit.parameters):
            return edit
    raise AssertionError("no such edit in 200 seeds")


def test_splice_without_processing_shows_the_donors_own_pixels() -> None:
    edit = first_with(
        "splice",
        lambda p: (
            p["scale"] == 1 and p["feather"] == 0 and not {"colour_match", "donor_jpeg"} & {*p}
        ),
    )
    donor = DONORS[int(edit.parameters["donor"])]
    known = {tuple(pixel) for pixel in donor.reshape(-1, 3)}
    assert {tuple(pixel) for pixel in edit.pixels[edit.mask > 0]} <= known


def test_small_donor_is_enlarged_to_the_area_asked_for() -> None:
    tiny = picture(64, 64, seed=1)
    large = picture(600, 800, seed=2)
    for seed in range(5):
        edit = METHODS["splice"](
            large, np.random.default_rng(seed), Context(lambda rng: ("tiny", tiny), area=(0.3, 0.4))
        )
        assert 0.28 < (edit.mask > 0).mean() < 0.42


def test_unturned_copy_is_an_exact_copy() -> None:
    edit = first_with(
        "copy_move",
        lambda p: p["angle"] == 0 and p["scale"] == 1 and p["feather"] == 0 and not p["mirrored"],
    )
    dx, dy = edit.parameters["shift"]
    rows, columns = np.nonzero(edit.mask)
    assert np.array_equal(edit.pixels[rows, columns], PHOTO[rows - dy, columns - dx])


def test_copy_does_not_land_on_its_source() -> None:
    for edit in edits("copy_move"):
        shift = edit.parameters["shift"]
        assert abs(shift[0]) + abs(shift[1]) > 3


def test_exemplars_are_copied_from_outside_the_mask() -> None:
    height, width = 96, 160
    number = np.arange(height * width).reshape(height, width)
    # Every pixel has its own colour, so that a filled pixel tells where it came from.
    pixels = np.stack([number // 256, number % 256, number // 256], axis=-1).astype(np.uint8)
    for seed in range(6):
        edit = METHODS["inpaint_exemplar"](pixels, np.random.default_rng(seed), context())
        filled = edit.pixels[edit.mask > 0].astype(int)
        origin = filled[:, 0] * 256 + filled[:, 1]
        assert np.array_equal(pixels.reshape(-1, 3)[origin], filled)
        assert not (edit.mask.ravel()[origin] > 0).any()


def test_latent_edit_marks_whole_latent_cells() -> None:
    for edit in edits("latent_edit"):
        cells = edit.mask.reshape(96 // 8, 8, 128 // 8, 8)
        assert np.array_equal(cells.min(axis=(1, 3)), cells.max(axis=(1, 3)))


def test_latent_edit_draws_every_variant() -> None:
    generators = map(np.random.default_rng, range(40))
    many = [METHODS["latent_edit"](PHOTO, rng, context()) for rng in generators]
    drawn = {edit.parameters["variant"] for edit in many}
    assert drawn == {"donor", "shift", "shuffle", "smooth", "noise"}


def test_splice_without_a_second_photo_says_so() -> None:
    for method in NEED_DONOR:
        with pytest.raises(DataError, match="second photo of the same split"):
            METHODS[method](PHOTO, np.random.default_rng(0), Context())


def test_missing_autoencoder_names_the_option() -> None:
    for method in NEED_AUTOENCODER:
        with pytest.raises(DataError, match="--autoencoder"):
            METHODS[method](PHOTO, np.random.default_rng(0), Context())


def test_feathered_mask_starts_at_half_weight() -> None:
    black, white = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)
    region = np.zeros((40, 40), bool)
    region[10:30, 10:25] = True
    window = window_of(region, 3)
    pixels, mask = blend(black, white[window], region, window, feather=3)
    assert np.array_equal(mask > 0, pixels[..., 0] >= 128)
    assert len(np.unique(pixels)) > 4


def test_matched_colours_have_the_targets_mean() -> None:
    patch, target = picture(seed=1), np.full((20, 20, 3), (90, 120, 150), np.uint8)
    matched = match_colours(patch, target, 1.0)
    assert matched.mean((0, 1)) == pytest.approx([90, 120, 150], abs=2)
    assert np.array_equal(match_colours(patch, target, 0.0), patch)


def test_methods_are_chosen_by_name_and_by_what_is_possible() -> None:
    assert choose_methods(None, autoencoder=True) == list(METHODS)
    assert choose_methods(None, autoencoder=False) == [
        name for name in METHODS if name not in NEED_AUTOENCODER
    ]
    assert choose_methods(["blur", "splice"], autoencoder=False) == ["splice", "blur"]
    with pytest.raises(DataError, match=r"'morph'.*splice, splice_poisson.*jpeg_region"):
        choose_methods(["morph"], autoencoder=False)
    with pytest.raises(DataError, match=r"latent_edit needs an autoencoder.*--autoencoder"):
        choose_methods(["latent_edit"], autoencoder=False)


def test_a_healed_place_has_its_surroundings_brightness_and_another_places_texture() -> None:
    ramp = np.linspace(40, 200, 160)[None, :, None] + np.zeros((160, 1, 3))
    grain = np.random.default_rng(0).normal(0, 6, (160, 160, 1))
    photo = np.rint(ramp + grain).clip(0, 255).astype(np.uint8)
    for seed in range(20):
        edit = METHODS["heal"](photo, np.random.default_rng(seed), context((0.02, 0.05)))
        inside = edit.mask > 0
        rest = (edit.pixels[..., 0] - ramp[..., 0])[inside]
        assert abs(rest.mean()) < 8 and 1.5 < rest.std() < 12, seed


def test_recolouring_keeps_the_structure() -> None:
    compared = 0
    for edit in edits("recolour"):
        inside = cv2.erode(edit.mask, np.ones((9, 9), np.uint8)) > 0
        before, after = (
            cv2.cvtColor(np.ascontiguousarray(p), cv2.COLOR_RGB2HLS)[..., 1][inside].astype(float)
            for p in (PHOTO, edit.pixels)
        )
        if inside.sum() > 100 and before.std() > 5:
            compared += 1
            assert np.corrcoef(before, after)[0, 1] > 0.8
    assert compared >= 3


def test_a_picture_that_is_healed_all_over_is_refused() -> None:
    whole = np.ones((40, 40), bool)
    with pytest.raises(DataError, match="smaller area"):
        _clear_of(whole, (slice(0, 40), slice(0, 40)), np.random.default_rng(0))
