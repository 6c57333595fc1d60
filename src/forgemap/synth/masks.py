"""masks.py: random regions of varied shape and size, the places where edits happen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from forgemap.errors import DataError

# Regions are drawn on a picture of at most this many pixels a side and enlarged: their outline
# needs no more detail, and a 24 MP photo then costs as little as a crop.
WORKING_SIDE = 512
SEGMENT_SIDE = 128
THINNEST = 4  # pixels, each side of a region's bounding box
TRIES = 40

Shape = tuple[int, int]
MaskMaker = Callable[[Shape, float, np.random.Generator, np.ndarray], np.ndarray]


def random_mask(
    image: np.ndarray,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.005, 0.5),
    kinds: Sequence[str] | None = None,
) -> tuple[np.ndarray, str]:
    """A random region of a picture.

    Args:
        image: (H, W, 3) uint8; "segment" regions follow its content.
        rng: source of all randomness.
        area: smallest and largest share of the picture; the share is drawn log-uniformly, so that
            small regions are as common as large ones.
        kinds: names from MASKS to draw from; all of them by default.

    Returns:
        The region, (H, W) bool, its share of the picture always within `area`, and its kind.

    Raises:
        DataError: an unknown kind, or an `area` that no region of this picture can have.
    """
    names = list(MASKS) if kinds is None else list(kinds)
    for name in names:
        if name not in MASKS:
            raise DataError(f"Unknown kind of region {name!r}: use one of {', '.join(MASKS)}.")
    height, width = image.shape[:2]
    low, high = area
    if not 0 < low <= high <= 1:
        raise DataError(f"The area must be two shares, 0 < low <= high <= 1, not {low} and {high}.")
    scale = min(1.0, WORKING_SIDE / max(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    view = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA) if scale < 1 else image
    for attempt in range(TRIES):
        # The last tries draw boxes, whose area can be had exactly.
        name = str(rng.choice(names)) if attempt < TRIES - 5 else "box"
        share = float(np.exp(rng.uniform(math.log(low), math.log(high))))
        mask = MASKS[name](small, share, rng, view)
        if scale < 1:
            mask = enlarge(mask, (height, width))
        if low <= np.count_nonzero(mask) / mask.size <= high and not _is_sliver(mask):
            return mask, name
    raise DataError(
        f"No region of {low:.2%} to {high:.2%} fits a picture of {width} x {height} pixels: "
        "use larger pictures or a wider area."
    )


def enlarge(mask: np.ndarray, shape: Shape) -> np.ndarray:
    """A bool mask resized to `shape` (H, W) with smooth outlines."""
    soft = cv2.resize(mask.astype(np.uint8) * 255, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(soft >= 128)


def blob(shape: Shape, area: float, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Smooth noise over a hill, thresholded: from one round patch to a few islands."""
    height, width = shape
    cells = rng.integers(3, 14, size=2)
    noise = cv2.resize(
        rng.standard_normal(cells).astype(np.float32),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    y, x = rng.uniform(0.1, 0.9, size=2) * shape
    radius = math.sqrt(area * height * width / math.pi)
    rows = ((np.arange(height, dtype=np.float32) - y) / radius)[:, None] ** 2
    columns = ((np.arange(width, dtype=np.float32) - x) / radius)[None, :] ** 2
    field = noise - np.float32(rng.uniform(0.3, 2.5)) * np.sqrt(rows + columns)
    count = min(max(1, round(area * field.size)), field.size)
    threshold = np.partition(field, field.size - count, axis=None)[field.size - count]
    return np.asarray(field >= threshold)


def polygon(shape: Shape, area: float, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A star-shaped polygon of 3 to 12 corners, stretched and turned."""
    corners = int(rng.integers(3, 13))
    angles = np.sort((np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners)
    radii = rng.uniform(0.45, 1.0, corners)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    points = points * [1.0, rng.uniform(0.4, 1.0)]
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = math.cos(turn), math.sin(turn)
    points = points @ np.array([[cos, -sin], [sin, cos]])
    x, y = points.T
    unit = 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
    points *= math.sqrt(area * shape[0] * shape[1] / unit)
    return _fill(shape, points + _centre(shape, np.ptp(points, axis=0), rng))


def ellipse(shape: Shape, area: float, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """An ellipse of aspect 1 to 3, turned."""
    aspect = math.exp(rng.uniform(0, math.log(3)))
    radius = math.sqrt(area * shape[0] * shape[1] / math.pi)
    a, b = radius * math.sqrt(aspect), radius / math.sqrt(aspect)
    turn, around = rng.uniform(0, np.pi), np.linspace(0, 2 * np.pi, 90, endpoint=False)
    x, y = a * np.cos(around), b * np.sin(around)
    points = np.stack(
        [x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], axis=1
    )
    return _fill(shape, points + _centre(shape, np.ptp(points, axis=0), rng))


def box(shape: Shape, area: float, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """An upright rectangle of aspect 1/3 to 3."""
    height, width = shape
    pixels = area * height * width
    aspect = math.exp(rng.uniform(-math.log(3), math.log(3)))
    w = min(width, max(1, round(math.sqrt(pixels * aspect))))
    h = min(height, max(1, round(pixels / w)))
    w = min(width, max(1, round(pixels / h)))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    mask = np.zeros(shape, bool)
    mask[top : top + h, left : left + w] = True
    return mask


def strokes(shape: Shape, area: float, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Brush strokes, as a hand draws them over an object to remove."""
    height, width = shape
    canvas = np.zeros(shape, np.uint8)
    size = math.sqrt(area * height * width)
    thickness = max(2, round(size * rng.uniform(0.2, 0.6)))
    point = rng.uniform(0.1, 0.9, 2) * (width, height)
    heading = rng.uniform(0, 2 * np.pi)
    for _ in range(200):
        heading += rng.normal(0, 0.7)
        step = rng.uniform(0.3, 1.0) * thickness
        ahead = point + step * np.array([math.cos(heading), math.sin(heading)])
        if not (0 <= ahead[0] < width and 0 <= ahead[1] < height):
            heading += np.pi / 2
            continue
        ends = (
            tuple(np.rint(point).astype(int).tolist()),
            tuple(np.rint(ahead).astype(int).tolist()),
        )
        cv2.line(canvas, *ends, 1, thickness)
        point = ahead
        if rng.random() < 0.05:  # the brush is lifted and set down again nearby
            point = np.clip(point + rng.normal(0, size, 2), 0, (width - 1, height - 1))
        if cv2.countNonZero(canvas) >= area * canvas.size:
            break
    return canvas.astype(bool)


def segment(shape: Shape, area: float, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Neighbouring segments of the picture that look alike, merged up to the wanted area.

    Segments are those of Felzenszwalb and Huttenlocher (IJCV 2004), so the outline follows
    objects as a careful editor's selection does.
    """
    scale = min(1.0, SEGMENT_SIDE / max(shape))
    small = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    view = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)
    smallest = max(4, round(0.2 * area * small[0] * small[1]))
    labels = cv2.ximgproc.segmentation.createGraphSegmentation(
        0.8, float(rng.uniform(20, 200)), smallest
    ).processImage(np.ascontiguousarray(view))
    sizes = np.bincount(labels.ravel()).astype(float)
    colours = (
        np.stack([np.bincount(labels.ravel(), view[..., c].ravel()) for c in range(3)], axis=1)
        / sizes[:, None]
    )
    wanted = area * labels.size
    fitting = np.flatnonzero(sizes <= 1.3 * wanted)
    if fitting.size == 0:
        return blob(shape, area, rng, image)
    inside = np.zeros(len(sizes), bool)
    inside[rng.choice(fitting)] = True
    kernel = np.ones((3, 3), np.uint8)
    while sizes[inside].sum() < 0.8 * wanted:
        region = inside[labels].astype(np.uint8)
        around = np.unique(labels[(cv2.dilate(region, kernel) > 0) & (region == 0)])
        around = around[sizes[inside].sum() + sizes[around] <= 1.5 * wanted]
        if around.size == 0:
            break
        mean = np.average(colours[inside], axis=0, weights=sizes[inside])
        unlike = np.linalg.norm(colours[around] - mean, axis=1) + rng.uniform(0, 30, around.size)
        inside[around[np.argmin(unlike)]] = True
    return enlarge(inside[labels], shape)


def _is_sliver(mask: np.ndarray) -> bool:
    """Whether the region's bounding box is too thin for an edit (or for OpenCV's solvers)."""
    extent = np.count_nonzero(mask.any(axis=1)), np.count_nonzero(mask.any(axis=0))
    return extent[0] < min(THINNEST, mask.shape[0]) or extent[1] < min(THINNEST, mask.shape[1])


def _centre(shape: Shape, extent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random centre (x, y) that keeps a region of this extent (x, y) inside where it fits."""
    size = np.array(shape[::-1], float)
    margin = np.minimum(extent / 2, size * 0.45)
    return np.asarray(rng.uniform(margin, size - margin))


def _fill(shape: Shape, points: np.ndarray) -> np.ndarray:
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], 1)
    return canvas.astype(bool)


MASKS: dict[str, MaskMaker] = {
    "blob": blob,
    "polygon": polygon,
    "strokes": strokes,
    "box": box,
    "ellipse": ellipse,
    "segment": segment,
}
