"""benign_geometry.py: honest changes of geometry: size, crop, level, panoramas."""

from __future__ import annotations

import math

import cv2
import numpy as np

from forgemap.synth.benign_parts import (
    SMALLEST,
    Mask,
    Pixels,
    Processed,
    Rng,
    binary,
    drawn_kernel,
    scaled,
)


def resize(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Both sides times 0.4-1.6 (log-uniform), with one of Pillow's kernels, antialiased."""
    factor, kernel = math.exp(rng.uniform(math.log(0.4), math.log(1.6))), drawn_kernel(rng)
    pixels, mask, factor = scaled(pixels, mask, factor, kernel)
    return Processed(pixels, mask, {"factor": round(factor, 4), "kernel": kernel})


def crop(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """60-98 % of each side, from anywhere, so that the JPEG grid no longer starts at the corner."""
    height, width = mask.shape
    shares, places = rng.uniform(0.6, 0.98, 2), rng.random(2)
    rows, columns = (
        max(min(side, SMALLEST), round(side * share))
        for side, share in zip((height, width), shares, strict=True)
    )
    top, left = round(places[0] * (height - rows)), round(places[1] * (width - columns))
    window = (slice(top, top + rows), slice(left, left + columns))
    return Processed(
        pixels[window], mask[window], {"window": [left, top, left + columns, top + rows]}
    )


def rotate(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Turned by a quarter (a third of the time), or levelled by up to 8 degrees and cropped."""
    way, angle, quarters = rng.random(), float(rng.uniform(-8, 8)), int(rng.integers(1, 4))
    if way < 1 / 3:
        return Processed(
            np.rot90(pixels, quarters), np.ascontiguousarray(np.rot90(mask, quarters)),
            {"angle": 90 * quarters},
        )  # fmt: skip
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    turned = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_CUBIC)
    truth = binary(cv2.warpAffine(mask, matrix, (width, height), flags=cv2.INTER_LINEAR))
    rows, columns = _inner(height, width, math.radians(abs(angle)))
    top, left = (height - rows) // 2, (width - columns) // 2
    window = (slice(top, top + rows), slice(left, left + columns))
    return Processed(turned[window], truth[window], {"angle": round(angle, 3)})


def _inner(height: int, width: int, angle: float) -> tuple[int, int]:
    """The largest upright rectangle of the picture's shape inside the turned picture."""
    sine, cosine = math.sin(angle), math.cos(angle)
    factor = min(
        width / (width * cosine + height * sine), height / (width * sine + height * cosine)
    )
    return max(1, int(height * factor) - 2), max(1, int(width * factor) - 2)


def cylinder(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Projected on a cylinder, as one frame of a panorama is, and cropped to what it covers.

    The focal length is 0.9-2 times the width (Szeliski, Computer Vision, 2nd ed., section 8.2.4).
    """
    focal = float(rng.uniform(0.9, 2.0))
    height, width = mask.shape
    length = focal * width
    half = length * math.atan(0.5 * width / length)  # where the picture's border comes to lie
    columns = int(2 * half) - 2
    angle = ((np.arange(columns) - (columns - 1) / 2) / length).astype(np.float32)
    cosine = np.cos(angle)
    rows = int(height * float(cosine.min())) - 2
    down = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2)[:, None]
    x = np.broadcast_to(length * np.tan(angle) + (width - 1) / 2, (rows, columns))
    y = down / cosine + (height - 1) / 2
    maps = (np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.float32))
    return Processed(
        cv2.remap(pixels, *maps, cv2.INTER_CUBIC),
        binary(cv2.remap(mask, *maps, cv2.INTER_LINEAR)),
        {"focal": round(focal, 3)},
    )


def stitch(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """Two frames of one scene joined without a visible seam, as in a phone's panorama.

    The second frame is the picture moved by a fraction of a pixel, turned by up to 0.3 degrees and
    back (so it is interpolated) and up to 3 % brighter; a soft, slanted border of 4-16 % of the
    width joins them. The whole then goes on a cylinder.
    """
    shift, angle = rng.uniform(0.2, 0.8, 2), float(rng.uniform(-0.3, 0.3))
    gain, place = float(rng.uniform(0.97, 1.03)), float(rng.uniform(0.3, 0.7))
    slant, softness = float(rng.uniform(-0.15, 0.15)), float(rng.uniform(0.04, 0.16))
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    matrix[:, 2] = matrix[:, 2] + shift
    flags = cv2.INTER_LINEAR
    there = cv2.warpAffine(
        pixels, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    second = cv2.warpAffine(
        there, cv2.invertAffineTransform(matrix), (width, height), flags=flags,
        borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip
    second = cv2.convertScaleAbs(second, alpha=gain)
    across = np.linspace(0, 1, width, dtype=np.float32)[None]
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    weight = np.clip((across - place - slant * down) / softness + 0.5, 0, 1)
    joined = cv2.blendLinear(pixels, second, 1 - weight, weight)
    done = cylinder(joined, mask, rng)
    drawn = {"shift": [round(float(v), 3) for v in shift], "gain": round(gain, 4)}
    return done._replace(parameters={**done.parameters, **drawn, "place": round(place, 3)})
