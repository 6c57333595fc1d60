"""transforms.py: what happens to pictures on their way through the web: CoDE's nineteen transforms.

Each is a function (pixels, rng) -> pixels, (H, W, 3) uint8 of any size. It is never told what the
picture is: real and generated ones get the same.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..encode import decode, encode_jpeg

Pixels = np.ndarray
Rng = np.random.Generator

LARGEST = 4096  # side in pixels that no transform exceeds


def blur(pixels: Pixels, rng: Rng) -> Pixels:
    """Gaussian blur, sigma 0.1-2 px."""
    return cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.1, 2.0))


def brightness(pixels: Pixels, rng: Rng) -> Pixels:
    """All levels x 0.5-2."""
    return cv2.convertScaleAbs(pixels, alpha=rng.uniform(0.5, 2.0))


def aspect(pixels: Pixels, rng: Rng) -> Pixels:
    """Width / height becomes 0.75-2, the area stays."""
    height, width = pixels.shape[:2]
    ratio, area = rng.uniform(0.75, 2.0), height * width
    return resized(pixels, (area * ratio) ** 0.5, (area / ratio) ** 0.5)


def pixelate(pixels: Pixels, rng: Rng) -> Pixels:
    """Shrunk to 0.3-1 of its sides, enlarged again without smoothing."""
    height, width = pixels.shape[:2]
    ratio = rng.uniform(0.3, 1.0)
    small = resized(pixels, width * ratio, height * ratio, cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def rotate(pixels: Pixels, rng: Rng) -> Pixels:
    """Turned by 90-270 degrees; what is left is the largest upright rectangle without a border."""
    height, width = pixels.shape[:2]
    degrees = rng.uniform(90.0, 270.0)
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    inner_width, inner_height = inscribed(width, height, np.deg2rad(degrees))
    turn[:, 2] += (inner_width - width) / 2, (inner_height - height) / 2
    return cv2.warpAffine(pixels, turn, (inner_width, inner_height), flags=cv2.INTER_CUBIC)


def contrast(pixels: Pixels, rng: Rng) -> Pixels:
    """Distance to the mean grey x 0.5-1.5."""
    factor = rng.uniform(0.5, 1.5)
    mean = float(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean())
    return cv2.addWeighted(pixels, factor, pixels, 0, mean * (1 - factor))


def saturation(pixels: Pixels, rng: Rng) -> Pixels:
    """Distance to grey x 0.5-1.5."""
    factor = rng.uniform(0.5, 1.5)
    return cv2.addWeighted(pixels, factor, grey(pixels, rng), 1 - factor, 0)


def jpeg(pixels: Pixels, rng: Rng) -> Pixels:
    """JPEG of quality 40-100."""
    return decode(encode_jpeg(pixels, int(rng.integers(40, 101))))


def grey(pixels: Pixels, rng: Rng) -> Pixels:
    """Its luminosity alone."""
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def flip(pixels: Pixels, rng: Rng) -> Pixels:
    """Left and right change places."""
    return np.ascontiguousarray(pixels[:, ::-1])


def opacity(pixels: Pixels, rng: Rng) -> Pixels:
    """0.2-1 opaque on white."""
    level = rng.uniform(0.2, 1.0)
    return cv2.convertScaleAbs(pixels, alpha=level, beta=255 * (1 - level))


def stripes(pixels: Pixels, rng: Rng) -> Pixels:
    """White stripes over it at any angle, ten across the diagonal; they cover 0.05-0.35 of it."""
    height, width = pixels.shape[:2]
    share, angle = rng.uniform(0.05, 0.35), rng.uniform(0, np.pi)
    y, x = np.ogrid[:height, :width]
    along = (x * np.cos(angle) + y * np.sin(angle)) * (10 / np.hypot(height, width))
    return np.where(((along % 1) < share)[..., None], np.uint8(255), pixels)


def pad(pixels: Pixels, rng: Rng) -> Pixels:
    """A black border of 0.01-0.25 of each side."""
    height, width = pixels.shape[:2]
    share = rng.uniform(0.01, 0.25)
    down, right = round(height * share), round(width * share)
    return cv2.copyMakeBorder(pixels, down, down, right, right, cv2.BORDER_CONSTANT)


def resize(pixels: Pixels, rng: Rng) -> Pixels:
    """To a square of 64-512 px."""
    side = int(rng.integers(64, 513))
    return resized(pixels, side, side, cv2.INTER_CUBIC)


def crop(pixels: Pixels, rng: Rng) -> Pixels:
    """A random square of 64-512 px, padded with black where the picture is smaller."""
    return window(pixels, int(rng.integers(64, 513)), rng)


def scale(pixels: Pixels, rng: Rng) -> Pixels:
    """Both sides x 0.5-1.5."""
    height, width = pixels.shape[:2]
    factor = rng.uniform(0.5, 1.5)
    return resized(pixels, width * factor, height * factor)


def sharpen(pixels: Pixels, rng: Rng) -> Pixels:
    """Distance to a smoothed copy x 1.2-2."""
    factor = rng.uniform(1.2, 2.0)
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    return cv2.addWeighted(pixels, factor, cv2.filter2D(pixels, -1, kernel), 1 - factor, 0)


def shuffle(pixels: Pixels, rng: Rng) -> Pixels:
    """0-0.35 of the pixels change places with one another."""
    flat = pixels.reshape(-1, 3).copy()
    count = round(len(flat) * rng.uniform(0.0, 0.35))
    chosen = rng.choice(len(flat), count, replace=False)
    flat[chosen] = flat[rng.permutation(chosen)]
    return flat.reshape(pixels.shape)


def skew(pixels: Pixels, rng: Rng) -> Pixels:
    """Sheared along its rows by -1 to 1 of the height; black where nothing is."""
    height, width = pixels.shape[:2]
    factor = rng.uniform(-1.0, 1.0)
    shear = np.array([[1, factor, -factor * (height - 1) / 2], [0, 1, 0]])
    return cv2.warpAffine(pixels, shear, (width, height), flags=cv2.INTER_LINEAR)


#: In the order in which those that are drawn are applied, as published.
TRANSFORMS: dict[str, Callable[[Pixels, Rng], Pixels]] = {
    transform.__name__: transform
    for transform in (
        *(blur, brightness, aspect, pixelate, rotate, contrast, saturation, jpeg, grey, flip),
        *(opacity, stripes, pad, resize, crop, scale, sharpen, shuffle, skew),
    )
}


def some(pixels: Pixels, rng: Rng, most: int = 2) -> Pixels:
    """0 to ``most`` different transforms, every number and every choice equally likely."""
    number = int(rng.integers(0, most + 1))
    chosen = rng.choice(len(TRANSFORMS), number, replace=False)
    for transform in (list(TRANSFORMS.values())[i] for i in sorted(chosen)):
        pixels = transform(pixels, rng)
    return pixels


def resized(pixels: Pixels, width: float, height: float, how: int | None = None) -> Pixels:
    """To about so many pixels, at most `LARGEST`; without ``how``, averaged where it shrinks."""
    fits = min(1.0, LARGEST / max(width, height))
    size = [max(round(side * fits), 1) for side in (width, height)]
    if how is None:
        how = cv2.INTER_AREA if size[0] < pixels.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(pixels, size, interpolation=how)


def window(pixels: Pixels, side: int, rng: Rng, *, padded: bool = True) -> Pixels:
    """A random square of ``side``; what does not fill it is padded with black, or stays smaller."""
    height, width = pixels.shape[:2]
    top = int(rng.integers(0, max(0, height - side) + 1))
    left = int(rng.integers(0, max(0, width - side) + 1))
    pixels = pixels[top : top + side, left : left + side]
    down, right = side - pixels.shape[0], side - pixels.shape[1]
    if padded and (down or right):
        borders = (down // 2, down - down // 2, right // 2, right - right // 2)
        pixels = cv2.copyMakeBorder(pixels, *borders, cv2.BORDER_CONSTANT)
    return np.ascontiguousarray(pixels)


def inscribed(width: int, height: int, angle: float) -> tuple[int, int]:
    """Sides of the largest upright rectangle inside a rectangle that was turned by ``angle``."""
    sin, cos = abs(np.sin(angle)), abs(np.cos(angle))
    long, short = max(width, height), min(width, height)
    if short <= 2 * sin * cos * long or abs(sin - cos) < 1e-10:  # two corners touch the long sides
        half = short / 2
        sides = (half / sin, half / cos) if width >= height else (half / cos, half / sin)
    else:
        double = cos * cos - sin * sin
        sides = (
            (width * cos - height * sin) / double,
            (height * cos - width * sin) / double,
        )
    return max(1, int(sides[0])), max(1, int(sides[1]))
