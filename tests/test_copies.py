"""Regions that occur twice: found, measured, told, and counted in the score."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from forgemap.copies import Copies, Copy, find_copies, sentence, tell
from forgemap.copies.finder import HIGHEST, Found, _once, candidates
from forgemap.copies.keypoints import detect, matches, mirrored
from forgemap.copies.telling import places
from forgemap.copies.transforms import similarity
from forgemap.encode import jpeg


def landscape(seed: int = 0, height: int = 360, width: int = 480) -> np.ndarray:
    """Something with structure at every scale, nowhere twice: like a photograph's texture."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for scale in (4, 8, 16, 32, 64):
        coarse = rng.normal(size=(height // scale + 3, width // scale + 3, 3))
        enlarged = cv2.resize(coarse, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += enlarged[:height, :width] * scale**0.5
    total = total / total.std() * 45 + 128 + rng.normal(size=total.shape) * 2
    return np.rint(total.clip(0, 255)).astype(np.uint8)


def copied(
    degrees: float = 0.0, scale: float = 1.0, mirror: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A landscape with a disk of it moved from (120, 110) to (350, 240); masks of both places."""
    picture = landscape()
    centre, goal, radius = (120.0, 110.0), (350.0, 240.0), 50
    matrix = cv2.getRotationMatrix2D(centre, degrees, scale)
    if mirror:
        matrix = matrix @ np.array([[-1, 0, 2 * centre[0]], [0, 1, 0], [0, 0, 1]])
    matrix[:, 2] += np.array(goal) - centre
    size = picture.shape[1::-1]
    moved = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC)
    source = np.zeros(picture.shape[:2], np.uint8)
    cv2.circle(source, (int(centre[0]), int(centre[1])), radius, 1, -1)
    there = cv2.warpAffine(source, matrix, size, flags=cv2.INTER_NEAREST)
    return np.where(there[..., None] > 0, moved, picture), source > 0, there > 0


def overlap(box: tuple[int, int, int, int], mask: np.ndarray) -> float:
    """IoU of a box with the bounding box of a mask."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    inside = np.zeros(mask.shape, bool)
    inside[box[1] : box[3], box[0] : box[2]] = True
    truth = np.zeros(mask.shape, bool)
    truth[y : y + height, x : x + width] = True
    return float((inside & truth).sum() / (inside | truth).sum())


@pytest.mark.parametrize(
    ("degrees", "scale", "mirror"),
    [(0, 1, False), (30, 1, False), (0, 1.3, False), (-75, 0.8, False), (0, 1, True)],
)
@pytest.mark.parametrize("quality", [0, 75])
def test_a_copied_disk_is_found_as_it_was_moved(
    degrees: float, scale: float, mirror: bool, quality: int
) -> None:
    """Also after JPEG 75, where its traces are gone."""
    picture, source, there = copied(degrees, scale, mirror)
    if quality:
        picture = jpeg(picture, quality)
    found = find_copies(picture)
    assert found.strength > 2
    heat = np.full(picture.shape[:2], 0.01, np.float32)
    heat[there] = 0.2  # the network suspects the copy a little
    marked, told = tell(found, heat)
    best = told[0]
    assert overlap(best.box, there) > 0.6 and overlap(best.origin_box, source) > 0.6
    assert best.scale == pytest.approx(scale, abs=0.05) and best.mirrored == mirror
    if not mirror:
        assert best.degrees == pytest.approx(-degrees, abs=3)  # OpenCV turns the other way
    assert marked[there].mean() > 0.5 > marked[source].mean()


def test_a_region_reaches_as_far_as_the_copy() -> None:
    """And not only to where whole squares are alike."""
    picture, source, there = copied(degrees=30)
    copies = find_copies(picture)
    regions = places(copies, copies.found[0], source.shape)
    one, two = sorted(regions, key=lambda region: -int(region[source].sum()))
    for region, truth in ((one > 0, source), (two > 0, there)):
        assert (region & truth).sum() > 0.9 * (region | truth).sum()


def test_a_picture_in_which_nothing_recurs_has_no_copies() -> None:
    found = find_copies(landscape(3))
    assert found.strength < 1
    heat = np.zeros((360, 480), np.float32)
    marked, told = tell(found, heat)
    assert marked is heat and told == [] and sentence(told) == ""


def test_things_of_one_kind_are_no_copies() -> None:
    """The same shapes again, each with its own light and grain, as windows have."""
    rng = np.random.default_rng(1)
    window = landscape(5, 72, 72).astype(float)
    rows = []
    for _ in range(4):
        row = []
        for _ in range(6):
            light = rng.uniform(0.7, 1.2) * window + rng.uniform(-25, 25)
            bent = cv2.warpAffine(
                light, cv2.getRotationMatrix2D((36, 36), rng.uniform(-4, 4), 1), (72, 72)
            )
            row.append(bent + rng.normal(size=bent.shape) * 6)
        rows.append(np.hstack(row))
    facade = np.rint(np.vstack(rows).clip(0, 255)).astype(np.uint8)
    search = candidates(facade)
    assert search.pairs, "they do look alike"
    assert find_copies(facade).strength < 2


def test_letters_of_a_caption_are_no_copies() -> None:
    picture = landscape(6)
    cv2.rectangle(picture, (20, 280), (460, 345), (20, 20, 20), -1)
    for line in range(2):
        place, letters = (28, 308 + 28 * line), "banana banana banana"
        cv2.putText(picture, letters, place, cv2.FONT_HERSHEY_DUPLEX, 1, (250, 250, 250), 2)
    finds = [likeness for _, likeness in candidates(picture).pairs]
    assert any(find.points > 5 and find.bits > 3 for find in finds), "they do recur exactly"
    assert find_copies(picture).strength < 1


def test_the_end_that_the_network_suspects_is_the_copy() -> None:
    picture, source, there = copied(20, 1.2)
    found = find_copies(picture)
    ways = []
    for suspected in (source, there):
        heat = np.full(picture.shape[:2], 0.01, np.float32)
        heat[suspected] = 0.4
        ways.append(tell(found, heat)[1][0])
    assert overlap(ways[0].box, source) > 0.6 and overlap(ways[1].box, there) > 0.6
    assert ways[0].degrees == pytest.approx(-ways[1].degrees, abs=0.2)
    assert ways[0].scale == pytest.approx(1 / ways[1].scale, abs=0.01)
    assert min(way.direction for way in ways) > 0.6


def test_what_the_network_has_marked_keeps_its_borders() -> None:
    picture, _, there = copied(0, 1.0)
    heat = np.where(there, 0.9, 0.01).astype(np.float32)
    marked, told = tell(find_copies(picture), heat)
    assert told and marked is heat


@pytest.mark.parametrize(
    ("size", "searched"),
    [((500, 600), 0.3e6), ((800, 600), 0.3e6), ((1000, 2000), 0.6e6), ((3000, 4000), 1e6)],
)
def test_large_pictures_are_searched_small(size: tuple[int, int], searched: float) -> None:
    height, width = candidates(np.zeros((*size, 3), np.uint8)).shape
    assert height * width == pytest.approx(searched, rel=0.01)
    assert height / width == pytest.approx(size[0] / size[1], rel=0.01)


def test_large_pictures_are_told_large() -> None:
    picture, _, there = copied()
    large = cv2.resize(picture, (1920, 1440), interpolation=cv2.INTER_CUBIC)
    found = find_copies(large)
    heat = np.full(large.shape[:2], 0.01, np.float32)
    mask = cv2.resize(there.astype(np.uint8), (1920, 1440), interpolation=cv2.INTER_NEAREST) > 0
    heat[mask] = 0.4
    assert overlap(tell(found, heat)[1][0].box, mask) > 0.6


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((20, 400, 3), np.uint8),
        np.full((200, 200, 3), 200, np.uint8),
    ],
    ids=["a pixel", "a strip", "one colour"],
)
def test_pictures_without_anything_to_find(picture: np.ndarray) -> None:
    found = find_copies(picture)
    assert found.found == () and found.strength == 0


def test_a_search_gives_the_same_twice() -> None:
    picture = copied(10, 1.1)[0]
    one, two = find_copies(picture), find_copies(picture)
    assert [f.strength for f in one.found] == [f.strength for f in two.found]
    assert 0 < one.strength <= HIGHEST


def test_mirrored_descriptors_are_those_of_the_mirrored_picture() -> None:
    grey = cv2.cvtColor(landscape(2), cv2.COLOR_RGB2GRAY)
    here, there = detect(grey), detect(np.ascontiguousarray(grey[:, ::-1]))
    places = there.points * (-1, 1) + (grey.shape[1] - 1, 0)
    nearest = np.hypot(*(here.points[:, None] - places[None]).transpose(2, 0, 1)).argmin(1)
    flipped = mirrored(here.descriptors)
    alike = (flipped * there.descriptors[nearest]).sum(1)
    unlike = (here.descriptors * there.descriptors[nearest]).sum(1)
    assert np.median(alike) > 0.97 > np.median(unlike)


def test_matches_are_apart_and_stand_out() -> None:
    grey = cv2.cvtColor(copied()[0], cv2.COLOR_RGB2GRAY)
    found = detect(grey)
    pairs = matches(found)
    distance = np.hypot(*(found.points[pairs[:, 0]] - found.points[pairs[:, 1]]).T)
    assert len(pairs) > 20 and distance.min() >= 16
    shift = found.points[pairs[:, 1]] - found.points[pairs[:, 0]]
    right = np.hypot(*(np.abs(shift) - (230, 130)).T) < 2
    assert right.mean() > 0.8


@pytest.mark.parametrize("mirror", [False, True])
def test_similarity_of_least_squares(mirror: bool) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (9, 2))
    flip = -1 if mirror else 1
    cosine, sine = 1.4 * np.cos(0.3), 1.4 * np.sin(0.3)
    linear = np.array([[cosine, -flip * sine], [sine, flip * cosine]])
    matrix = similarity(points, points @ linear.T + (5, -7), mirror)
    assert np.allclose(matrix, np.column_stack((linear, (5, -7))))


def test_words_say_where_and_what_was_done() -> None:
    copy = Copy(0.98, (1, 2, 3, 4), [], (5, 6, 7, 8), [], 0.8, 12.0, 1.5, True)
    assert copy.words() == (
        "(1, 2 – 3, 4) shows (5, 6 – 7, 8) once more, mirrored, turned by 12°, 1.50 times as large "
        "(a copy with a probability of 0.98; the other way round with 0.20)"
    )
    assert sentence([copy, copy]).endswith(", and 1 more.")
    assert copy.to_dict()["box"] == [1, 2, 3, 4]


def test_nothing_found_has_no_strength() -> None:
    assert Copies((), (10, 10)).strength == 0


DISK = np.hypot(*(np.indices((160, 160)) - 79.5)) < 78


def with_wheel() -> np.ndarray:
    """A landscape with a disk that looks the same after every quarter turn."""
    picture, part = landscape(3), landscape(8)[:160, :160].astype(float)
    wheel = sum(np.rot90(part, turns).astype(float) for turns in range(4)) / 4
    wheel = (wheel - wheel.mean()) * 2 + 128
    picture[100:260, 200:360][DISK] = np.rint(wheel.clip(0, 255)).astype(np.uint8)[DISK]
    return picture


def test_a_symmetric_thing_is_no_copy_of_itself() -> None:
    picture = with_wheel()
    assert find_copies(picture).strength == 0
    # The same wheel twice is another matter.
    picture[20:180, 20:180][DISK] = picture[100:260, 200:360][DISK]
    assert find_copies(picture).strength > 2


def test_what_a_symmetric_thing_consists_of_is_no_copy_either() -> None:
    class Marked(Found):
        def masks(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            here, there = np.zeros((2, *shape), np.uint8)
            first, second = places_of[self.strength]
            here[first], there[second] = 1, 1
            return here, there

    whole, left, right = np.s_[10:50, 10:50], np.s_[20:40, 12:28], np.s_[20:40, 32:48]
    far, farther = np.s_[60:80, 10:30], np.s_[60:80, 60:80]
    places_of = {3.0: (whole, whole), 2.0: (left, right), 1.0: (far, farther)}
    moved, likeness = candidates(copied()[0]).pairs[0]  # any will do
    found: list[Found] = [Marked(strength, moved, likeness) for strength in places_of]
    assert [one.strength for one in _once(found, (90, 90))] == [1.0]
    assert [one.strength for one in _once(found[1:], (90, 90))] == [2.0, 1.0]
