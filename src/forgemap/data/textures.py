"""textures.py: things in a scene with stripes, spots, grain or no texture at all."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from .graphics_parts import corners

Pixels = np.ndarray
Rng = np.random.Generator


def draw_textures(
    pixels: Pixels, mask: np.ndarray, rng: Rng, edit: bool = False
) -> tuple[Pixels, np.ndarray]:
    """One or two things of a strong texture or none; what they hide is no longer an edit.

    A zebra on a lawn or a balloon before a wall is unlike its surroundings in sharpness, contrast
    and grain, as a splice is, and is none. Few photographs have such things, so they are drawn. To
    stand for a photograph the result has to be shrunk and compressed as a whole, which leaves no
    trace of the drawing but its looks; `augment` does so. Drawn into the finished picture the same
    thing is an edit, so that what tells the two apart is the traces.

    Args:
        pixels: (H, W, 3) uint8.
        mask: (H, W) uint8, 0 or 255.
        rng: the only source of chance.
        edit: the things are marked.
    """
    scene = cv2.GaussianBlur(pixels, (0, 0), 0.06 * min(mask.shape)).astype(np.float32)
    light = scene.mean(axis=2, keepdims=True)
    light /= max(float(light.max()), 1.0)
    drawn = pixels.astype(np.float32)
    for _ in range(1 + int(rng.random() < 0.3)):
        shape = outline(mask.shape, rng, everywhere=0 if edit else 0.1)[..., None]
        thing = painted(PATTERNS[str(rng.choice(list(PATTERNS)))](mask.shape, rng), rng)
        if rng.random() < 0.7:  # in the light of the scene
            thing *= light ** float(rng.uniform(0.3, 1))
        thing += rng.standard_normal(thing.shape, dtype=np.float32) * float(rng.uniform(0, 4))
        drawn += shape * float(rng.uniform(0.6, 1)) * (thing - drawn)
        mask = np.where(shape[..., 0] > 0.5, np.uint8(255 if edit else 0), mask)
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8), mask


def outline(size: tuple[int, int], rng: Rng, everywhere: float) -> np.ndarray:
    """The opacity of one thing, (H, W) float32 in 0-1: a blob of any size, or now and then all."""
    height, width = size
    if rng.random() < everywhere:
        return np.ones(size, np.float32)
    reach = min(size) * np.exp(rng.uniform(math.log(0.08), math.log(0.5), 2))
    middle = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
    canvas = Pillow.new("L", (width, height), 0)
    points = corners("blob", middle, (float(reach[0]), float(reach[1])), rng)
    ImageDraw.Draw(canvas).polygon(points, fill=255)
    soft = float(rng.choice([0.7, 1.0, 2.0, 4.0]))
    return cv2.GaussianBlur(np.asarray(canvas, np.float32) / 255, (0, 0), soft)


def painted(pattern: np.ndarray, rng: Rng) -> np.ndarray:
    """A pattern in 0-1 between a dark and a bright colour, (H, W, 3) float32 in 0-255."""
    dark = float(rng.uniform(0, 90)) * rng.uniform(0.7, 1.3, 3)
    bright = float(rng.uniform(110, 255)) * rng.uniform(0.75, 1.1, 3)
    mixed = pattern[..., None] * (bright - dark).astype(np.float32) + dark.astype(np.float32)
    return cv2.GaussianBlur(mixed, (0, 0), float(rng.uniform(0.4, 1.3)))


def stripes(size: tuple[int, int], rng: Rng) -> np.ndarray:
    """Bent stripes with a period of 4 to 40 pixels."""
    return edged(wave(size, rng, float(rng.uniform(0, math.pi))), rng)


def checks(size: tuple[int, int], rng: Rng) -> np.ndarray:
    """Two sets of stripes across each other: cloth, tiles, windows."""
    angle = float(rng.uniform(0, math.pi))
    across = wave(size, rng, angle + math.pi / 2 + float(rng.normal(0, 0.1)))
    return edged(wave(size, rng, angle) * across, rng)


def spots(size: tuple[int, int], rng: Rng) -> np.ndarray:
    """Noise of one scale, cut at a level: spots or a labyrinth, as on many an animal's coat."""
    fine = np.exp(rng.uniform(math.log(1), math.log(7), 2))
    noise = rng.standard_normal(size, dtype=np.float32)
    band = cv2.GaussianBlur(noise, (0, 0), float(fine[0]), sigmaY=float(fine[1]))
    wide = cv2.GaussianBlur(noise, (0, 0), 2 * float(fine[0]), sigmaY=2 * float(fine[1]))
    band = np.subtract(band, wide, dtype=np.float32)
    return edged(band / max(float(band.std()), 1e-6) + float(rng.uniform(-0.7, 0.7)), rng)


def grain(size: tuple[int, int], rng: Rng) -> np.ndarray:
    """Leaves, gravel, cloth: noise of several scales."""
    total = np.zeros(size, np.float32)
    for scale in (0.7, 1.5, 3.0, 6.0):
        noise = rng.standard_normal(size, dtype=np.float32)
        total += float(rng.uniform(0, 1)) * scale * cv2.GaussianBlur(noise, (0, 0), scale)
    return np.clip(0.5 + 0.25 * total / max(float(total.std()), 1e-6), 0, 1)


def shading(size: tuple[int, int], rng: Rng) -> np.ndarray:
    """Light that falls off on a smooth thing: a balloon, a screen, a painted wall."""
    height, width = size
    coarse = rng.uniform(0, 1, (3, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def wave(size: tuple[int, int], rng: Rng, angle: float) -> np.ndarray:
    """A bent plane wave, (H, W) float32 in -1 ... 1."""
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    period = float(np.exp(rng.uniform(math.log(4), math.log(40))))
    bends = rng.standard_normal((5, 5)).astype(np.float32)
    bend = cv2.resize(bends, (width, height), interpolation=cv2.INTER_CUBIC)
    strength = float(rng.uniform(0, 0.04)) * min(size)
    along = x * math.cos(angle) + y * math.sin(angle) + strength * bend
    phase = float(rng.uniform(0, 2 * math.pi))
    return np.sin(2 * math.pi * along / period + phase).astype(np.float32)


def edged(level: np.ndarray, rng: Rng) -> np.ndarray:
    """Of about -1 ... 1 to 0 ... 1, with soft to hard edges between."""
    hard = float(np.exp(rng.uniform(0, math.log(12))))
    return (0.5 + 0.5 * np.tanh(hard * level)).astype(np.float32)


Pattern = Callable[[tuple[int, int], Rng], np.ndarray]
PATTERNS: dict[str, Pattern] = {
    "stripes": stripes,
    "checks": checks,
    "spots": spots,
    "grain": grain,
    "shading": shading,
}
"""What is drawn, each as often."""
