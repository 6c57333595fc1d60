"""familiarity.py: pictures unlike those that thresholds were chosen on are not judged as if."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from forgemap.errors import DataError, ModelError
from forgemap.familiarity import FAR, STATISTICS, Familiarity, Strangeness, statistics, temper
from forgemap.scoring import Judgement

from .photographs import jpeg, photograph

pytest.importorskip("sklearn", reason="the extra evaluate is not installed")
from forgemap.evaluate.calibration_familiarity import FEWEST, fit_familiarity


@pytest.fixture(scope="module")
def photos() -> list[dict[str, float]]:
    """Statistics of 160 photographs."""
    found = [statistics(photograph(seed, 160, 192)) for seed in range(160)]
    return [f for f in found if f is not None]


@pytest.fixture(scope="module")
def fitted(photos: list[dict[str, float]]) -> Familiarity:
    """What the first eighty look like."""
    return fit_familiarity(photos[:80], [str(i) for i in range(80)], share=0.05)


def text() -> np.ndarray:
    picture = PILImage.new("RGB", (600, 400), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for y in range(8, 390, 20):
        pen.text((8, y), "the quick brown fox jumps over the lazy dog " * 2, "black", font)
    return np.asarray(picture)


def drawing() -> np.ndarray:
    picture = PILImage.new("RGB", (400, 400), (200, 220, 255))
    pen, random = ImageDraw.Draw(picture), np.random.default_rng(0)
    for _ in range(25):
        x, y, size = (int(n) for n in random.integers((0, 0, 20), (350, 350, 150)))
        pen.ellipse((x, y, x + size, y + size), tuple(random.integers(0, 255, 3).tolist()), "black")
    return np.asarray(picture)


def larger(factor: int, kernel: int = cv2.INTER_CUBIC) -> np.ndarray:
    side = 480 // factor
    tiny = photograph(900)[:side, :side]
    return cv2.resize(tiny, None, fx=factor, fy=factor, interpolation=kernel)


ODD = {
    "text": text(),
    "text as JPEG": jpeg(text(), 90),
    "drawing": drawing(),
    "one colour": np.full((200, 300, 3), 120, np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8),
    "slope": np.tile(np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], (200, 1, 3)),
    "enlarged 8x": larger(8),
    "enlarged 16x": larger(16, cv2.INTER_LINEAR),
    "blown-up pixels": larger(8, cv2.INTER_NEAREST),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_photograph_is_unfamiliar_and_the_reason_says_what_it_is(
    name: str, fitted: Familiarity
) -> None:
    strange = fitted.judge(ODD[name])
    assert strange is not None and strange.distance >= FAR
    assert "photographs that this model was checked on have at" in strange.reason
    assert temper(Judgement(0.9, "manipulated", "r"), strange).verdict == "inconclusive"


def test_the_stated_share_of_other_photographs_is_unfamiliar(
    photos: list[dict[str, float]], fitted: Familiarity
) -> None:
    others = np.array([fitted.distance(p) for p in photos[80:]])
    assert np.mean(others > fitted.limit) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 80)
    assert np.mean(others > 0.5 * fitted.limit) > 0.05, "the limit is not simply out of reach"


def test_versions_of_one_photograph_do_not_move_the_limit(photos: list[dict[str, float]]) -> None:
    odd = statistics(ODD["blown-up pixels"])
    assert odd is not None
    names = [str(i) for i in range(60)]
    once = fit_familiarity([*photos[:59], odd], names, share=0.05)
    often = fit_familiarity([*photos[:59], *[odd] * 40], [*names, *["59"] * 39], share=0.05)
    assert once.distance(odd) > once.limit
    assert often.distance(odd) > often.limit


def test_statistics_are_repeatable_bounded_and_say_what_they_say() -> None:
    values = statistics(photograph(1))
    assert values is not None and tuple(values) == tuple(STATISTICS)
    assert values == statistics(photograph(1))
    flat = statistics(np.full((64, 64, 3), 255, np.uint8))
    assert flat is not None
    assert (flat["flat"], flat["repeated"], flat["clipped"], flat["levels"]) == (1, 1, 1, 1)
    assert statistics(np.zeros((31, 500, 3), np.uint8)) is None
    noisier = photograph(1).astype(int) + np.random.default_rng(0).integers(-20, 21, (256, 320, 1))
    more = statistics(noisier.clip(0, 255).astype(np.uint8))
    assert more is not None and more["noise"] > values["noise"]
    blurred = statistics(cv2.GaussianBlur(photograph(1), (0, 0), 2))
    assert blurred is not None and blurred["sharpness"] < values["sharpness"]
    assert all(np.isfinite(list(v.values())).all() for v in (values, flat, more, blurred))


def test_a_large_picture_costs_no_more_than_its_sample(fitted: Familiarity) -> None:
    from forgemap.compression import PATCH, PATCHES, patches

    large = np.tile(photograph(2, 512, 512), (6, 8, 1))
    assert patches(large).shape == (PATCHES**2, PATCH, PATCH, 3)
    assert fitted.judge(large) is None


def test_a_verdict_says_no_more_than_it_can() -> None:
    near, far = Strangeness(1.05, "it is flat"), Strangeness(FAR, "it is flat")
    for found in ("no sign of editing", "inconclusive", "manipulated"):
        given = Judgement(0.4, found, "Because.")
        assert temper(given, None) is given
        assert temper(given, far).verdict == "inconclusive"
        assert temper(given, far).score == given.score
    assert temper(Judgement(0.4, "no sign of editing", ""), near).verdict == "inconclusive"
    assert "it is flat." in temper(Judgement(0.4, "no sign of editing", ""), near).reason
    assert temper(Judgement(0.9, "manipulated", ""), near).verdict == "manipulated"


def test_what_was_fitted_survives_json_and_strangers_are_refused(fitted: Familiarity) -> None:
    stored = json.loads(json.dumps(fitted.to_dict()))
    assert Familiarity.from_dict(stored) == fitted
    for entry, value in (
        ("limit", 0.0),
        ("low", [1.0]),
        ("names", ["other"]),
        ("wrong", 1),
        ("share", "x"),
        ("above", [0.0] * len(STATISTICS)),
    ):
        with pytest.raises(ModelError, match="familiarity"):
            Familiarity.from_dict(stored | {entry: value})


def test_too_few_photographs_are_one_sentence(photos: list[dict[str, float]]) -> None:
    with pytest.raises(DataError, match=f"{FEWEST} are needed"):
        fit_familiarity(photos[:50], [str(i % (FEWEST - 1)) for i in range(50)])
