"""The stated chances of a false alarm hold for new pictures, whatever the scores are like."""

from __future__ import annotations

import math

import numpy as np
import pytest

from forgemap.evaluate.conformal import (
    EVERYTHING,
    Bound,
    Kind,
    Levels,
    attainable,
    bounds,
    empirical,
    highest,
    rarities,
    threshold,
)

LEVELS = Levels(0.02, 0.05)


def photos_of(rng: np.random.Generator, spread: float, ties: bool, count: int, most: int):
    """Scores of `count` photos with 1 to `most` pictures each, which resemble each other."""
    pictures = rng.integers(1, most + 1, count)
    photo = np.repeat(np.arange(count), pictures)
    scores = rng.standard_t(3, count)[photo] + spread * rng.standard_normal(photo.size)
    return (np.round(scores) if ties else scores), photo


def alarms(level: float, *, spread: float, ties: bool, count: int, most: int) -> float:
    """How often one picture of a new photo exceeds the bound, over many repetitions."""
    rng = np.random.default_rng(0)
    beyond = []
    for _ in range(REPETITIONS):
        scores, photo = photos_of(rng, spread, ties, count + 1, most)
        new = photo == count
        cut = highest(scores[~new], photo[~new], level)
        beyond.append(rng.choice(scores[new]) > cut)
    return float(np.mean(beyond))


REPETITIONS = 2000


def noise(level: float) -> float:
    """Four standard errors of a share: the chance that a sound bound is missed is 1 in 30,000."""
    return 4 * math.sqrt(level * (1 - level) / REPETITIONS)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("most", [1, 6])
@pytest.mark.parametrize(("level", "count"), [(0.02, 49), (0.05, 30), (0.1, 57)])
def test_a_new_picture_exceeds_the_bound_no_more_often_than_stated(level, count, most, ties):
    found = alarms(level, spread=0.5, ties=ties, count=count, most=most)
    assert found <= level + noise(level)


def test_with_one_picture_a_photo_the_bound_is_exact():
    # 19 photos and 10 %: the 18th of them is exceeded by exactly one new one in ten.
    found = alarms(0.1, spread=0.5, ties=False, count=19, most=1)
    assert found == pytest.approx(0.1, abs=noise(0.1))


def test_counting_pictures_as_if_they_were_independent_would_promise_too_much():
    """Some photos score high in all of their many pictures: the reason why photos are counted."""
    rng = np.random.default_rng(0)
    photo, naive = np.repeat(np.arange(10), 30), []
    for _ in range(REPETITIONS):
        level = rng.standard_normal(11)
        scores = level[photo] + 0.01 * rng.standard_normal(photo.size)
        new = level[10] + 0.01 * rng.standard_normal()
        naive.append(new > highest(scores, np.arange(photo.size), 0.05))
        assert highest(scores, photo, 0.05) == math.inf, "ten photos cannot bound one in twenty"
    assert np.mean(naive) > 0.05 + noise(0.05)


def test_one_picture_a_photo_gives_the_order_statistic_of_the_textbook():
    scores = np.random.default_rng(0).permutation(100) / 100
    names = [str(i) for i in range(100)]
    for level in (0.02, 0.05, 0.1, 0.37):
        place = math.ceil((1 - level) * 101) - 1
        assert highest(scores, names, level) == np.sort(scores)[place]


def test_too_few_photos_bound_nothing():
    scores = np.arange(48.0)
    assert highest(scores, range(48), 0.02) == math.inf
    assert highest(np.arange(49.0), range(49), 0.02) == 48
    assert attainable(49) == pytest.approx(0.02)
    # Many pictures of few photos are still few photos.
    assert highest(np.arange(4800.0), np.arange(4800) % 48, 0.02) == math.inf


def test_copies_of_pictures_do_not_move_the_bound():
    rng = np.random.default_rng(1)
    scores, names = rng.random(60), np.array([str(i) for i in range(60)])
    copies = np.concatenate([np.arange(60), np.repeat(np.arange(5), 40)])
    assert highest(scores[copies], names[copies].tolist(), 0.05) == highest(
        scores, names.tolist(), 0.05
    )


def test_a_kind_too_small_for_a_share_counts_with_its_second_highest_score():
    assert empirical([0.1, 0.9, 0.5], 0.02) == 0.5
    assert empirical([0.3], 0.02) == 0.3
    assert empirical(np.arange(100.0), 0.02) == 97


def setting(sizes: dict[str, int], processed: bool = True) -> tuple[list[Kind], np.ndarray]:
    """Kinds with so many photos, of one picture each, and the photo of every picture."""
    kinds, begin = [], 0
    for name, size in sizes.items():
        members = np.arange(begin, begin + size)
        kinds.append(Kind(name, members, "processed", processed))
        begin += size
    return kinds, np.array([str(i) for i in range(begin)])


def levels_of(found: list[Bound]) -> dict[str, float | None]:
    return {bound.kind.name: bound.level for bound in found}


def test_kinds_with_few_photos_are_counted_together() -> None:
    kinds, photos = setting({"text": 60, "portrait": 25, "gif": 3})
    assert levels_of(bounds(kinds, photos, LEVELS)) == {
        "text": 0.05,
        "portrait": 0.05,
        "gif": None,
        "processed": 0.02,
    }, "the pool is also everything here, and is bounded once"
    kinds, photos = setting({"crops": 60, "camera": 25, "web": 26}, processed=False)
    found = levels_of(bounds(kinds, photos, LEVELS))
    assert found == {
        "crops": 0.02,
        "camera": None,
        "web": None,
        "processed": 0.02,
        EVERYTHING: 0.02,
    }


def test_what_has_no_bound_says_so_and_what_could_be_reached() -> None:
    kinds, photos = setting({"gif": 3})
    (only,) = bounds(kinds, photos, LEVELS)
    assert only.level is None and str(only) == "gif (3 photos): no bound, 25% at best"
    assert rarities(np.zeros(3), photos, [only]) == {}


def test_a_pool_with_too_few_photos_promises_what_it_can() -> None:
    kinds, photos = setting({"gif": 15, "heic": 15}, processed=False)
    found = levels_of(bounds(kinds, photos, LEVELS))
    assert found == {"gif": None, "heic": None, "processed": 0.05}
    kinds, photos = setting({"crops": 26}, processed=False)
    assert levels_of(bounds(kinds, photos, LEVELS)) == {"crops": 0.05}


def test_every_kind_keeps_its_bound_under_one_threshold():
    """Kinds with quite different scores, one of them tied, one too small, pictures in two kinds."""
    rng = np.random.default_rng(0)
    sizes = {"crops": 60, "portrait": 30, "tied": 45, "tiny": 4}
    shift = {"crops": 0.0, "portrait": 2.0, "tied": -1.0, "tiny": 1.0}
    beyond: dict[str, list[float]] = {name: [] for name in sizes}
    rare: list[float] = []
    for _ in range(400):
        kinds, photos = setting(sizes)
        scores = np.concatenate(
            [draw(rng, name, shift[name], size) for name, size in sizes.items()]
        )
        found = bounds(kinds, photos, LEVELS)
        cut = threshold(scores, photos, found, LEVELS)
        seldom = rarities(scores, photos, found)
        for name in sizes:
            new = draw(rng, name, shift[name], 50)
            beyond[name].append(float(np.mean(new > cut)))
            if name == "portrait":
                rare.append(float(np.mean(new > seldom[0.1])))
    assert levels_of(found) == {
        "crops": 0.05,
        "portrait": 0.05,
        "tied": 0.05,
        "tiny": None,
        "processed": 0.02,
    }
    for name in ("crops", "portrait", "tied"):
        assert np.mean(beyond[name]) <= 0.05 + 0.01
    assert 0.05 < np.mean(rare) <= 0.1 + 0.01, "the kind that scores highest decides"


def draw(rng: np.random.Generator, name: str, shift: float, size: int) -> np.ndarray:
    scores = rng.standard_normal(size) + shift
    return np.round(scores) if name == "tied" else scores


def test_rarities_stop_where_a_bounded_kind_has_too_few_photos():
    kinds, photos = setting({"text": 200, "portrait": 25})
    scores = np.random.default_rng(0).random(225)
    found = rarities(scores, photos, bounds(kinds, photos, LEVELS))
    assert list(found) == [0.5, 0.3, 0.2, 0.1, 0.05]  # 25 photos reach 1 in 26
    assert list(found.values()) == sorted(found.values())
