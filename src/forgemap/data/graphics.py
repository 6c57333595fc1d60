"""graphics.py: logos, captions, boxes and lines of endless variety, drawn over a training crop."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from .graphics_parts import (
    colour,
    faded,
    figure,
    fill,
    lay_over,
    shadowed,
    through_jpeg,
    words,
)

Pixels = np.ndarray
Rng = np.random.Generator

LARGEST = 320
"""Longest side in pixels of what is drawn at one time; larger emblems are enlarged."""


def draw_graphics(pixels: Pixels, mask: np.ndarray, rng: Rng) -> tuple[Pixels, np.ndarray]:
    """One to three graphics over a picture; what they hide is no longer an edit.

    They are drawn otherwise than `synth.benign_overlay` draws: those set thresholds, which
    then also say whether a network knows graphics or a generator.

    Args:
        pixels: (H, W, 3) uint8.
        mask: (H, W) uint8, 0 or 255.
        rng: the only source of chance.
    """
    for _ in range(1 + int(rng.integers(3) == 2) + int(rng.random() < 0.2)):
        name = str(rng.choice(list(KINDS), p=[share for _, share in KINDS.values()]))
        layer, (left, top) = KINDS[name][0](mask.shape, rng)
        if rng.random() < 0.15:
            layer = through_jpeg(layer, rng)
        if rng.random() < 0.2:
            layer, (left, top) = shadowed(layer, (left, top), rng)
        pixels, mask = lay_over(pixels, mask, layer, left, top)
    return pixels, mask


def emblem(size: tuple[int, int], rng: Rng) -> tuple[Pillow.Image, tuple[int, int]]:
    """A logo: one to four shapes, perhaps with letters, reduced from a larger drawing."""
    wide = float(np.exp(rng.uniform(math.log(12), math.log(1.5 * max(size)))))
    high = min(wide * float(np.exp(rng.uniform(-0.7, 0.7))), 1.5 * max(size))
    shape = (max(8, round(wide)), max(8, round(high)))
    times = min(float(rng.choice([1.0, 2.0, 3.0])), 2 * LARGEST / max(shape))
    drawn = (max(8, round(shape[0] * times)), max(8, round(shape[1] * times)))
    canvas = Pillow.new("RGBA", drawn, (0, 0, 0, 0))
    number = int(rng.integers(1, 5))
    for n in range(number):
        scale = 1.0 if n == 0 else float(rng.uniform(0.2, 0.9))
        stencil = figure(drawn, scale, rng)
        if n and rng.random() < 0.25:  # cut out of what is there
            left = np.minimum(np.asarray(canvas.getchannel("A")), 255 - stencil)
            canvas.putalpha(Pillow.fromarray(left))
            continue
        canvas.paste(fill(drawn, rng), (0, 0), Pillow.fromarray(stencil))
    if rng.random() < 0.5:
        lettering(canvas, rng)
    if times != 1.0 or rng.random() < 0.3:
        canvas = canvas.resize(shape, Pillow.Resampling(int(rng.choice([1, 2, 3, 4, 5]))))
    if rng.random() < 0.45:
        canvas = faded(canvas, float(rng.uniform(0.15, 0.95)))
    return canvas, place(size, shape, rng)


def lettering(canvas: Pillow.Image, rng: Rng) -> None:
    """Up to eight signs into the middle of an emblem."""
    high = max(6, round(canvas.height * float(rng.uniform(0.2, 0.6))))
    middle = (canvas.width / 2, canvas.height / 2)
    font = ImageFont.load_default(high)
    ImageDraw.Draw(canvas).text(middle, words(rng, 8), (*colour(rng), 255), font, anchor="mm")


def caption(size: tuple[int, int], rng: Rng) -> tuple[Pillow.Image, tuple[int, int]]:
    """A line of signs by one of nine fonts: plain, outlined, on a box, faint, or slanted."""
    high = max(7, round(float(np.exp(rng.uniform(math.log(8), math.log(80))))))
    line, rim, ink = words(rng, 30), int(rng.integers(0, 1 + high // 2)), colour(rng)
    boxed, outlined = rng.random() < 0.3, rng.random() < 0.3
    stroke = max(1, high // 14)
    if rng.random() < 0.5:
        font = ImageFont.load_default(high)
        left, top, right, bottom = font.getbbox(line, stroke_width=stroke)
        shape = (max(1, round(right - left)) + 2 * rim, max(1, round(bottom - top)) + 2 * rim)
        layer = Pillow.new("RGBA", shape, (*colour(rng), 255 if boxed else 0))
        edge, width = (colour(rng), stroke) if outlined else (ink, 0)
        ImageDraw.Draw(layer).text(
            (rim - left, rim - top), line, (*ink, 255), font, stroke_width=width, stroke_fill=edge
        )
    else:
        face, thick = int(rng.integers(0, 8)), int(rng.integers(1, 2 + high // 12))
        scale = cv2.getFontScaleFromHeight(face, high, thick)
        (wide, tall), base = cv2.getTextSize(line, face, scale, thick)
        shape = (wide + 2 * rim + thick, tall + base + 2 * rim + thick)
        drawn = np.zeros((shape[1], shape[0], 4), np.uint8)
        drawn[:] = (*colour(rng), 255 if boxed else 0)
        kind = cv2.LINE_AA if rng.random() < 0.8 else cv2.LINE_8
        stencil = np.zeros(drawn.shape[:2], np.uint8)
        cv2.putText(stencil, line, (rim, rim + tall), face, scale, 255, thick, kind)
        layer = Pillow.fromarray(drawn)
        layer.paste((*ink, 255), (0, 0, *shape), Pillow.fromarray(stencil))
    if rng.random() < 0.2:
        layer = layer.rotate(float(rng.uniform(-90, 90)), Pillow.Resampling.BICUBIC, expand=True)
    if rng.random() < 0.35:
        layer = faded(layer, float(rng.uniform(0.12, 0.8)))
    return layer, place(size, layer.size, rng)


def band(size: tuple[int, int], rng: Rng) -> tuple[Pillow.Image, tuple[int, int]]:
    """A bar or border along one side, or a box drawn around something."""
    height, width = size
    if rng.random() < 0.4:
        shape = (int(rng.integers(16, width)), int(rng.integers(16, height)))
        layer = Pillow.new("RGBA", shape, (0, 0, 0, 0))
        box, line = (0, 0, shape[0] - 1, shape[1] - 1), int(rng.integers(1, 8))
        pen = ImageDraw.Draw(layer)
        draw = pen.rectangle if rng.random() < 0.7 else pen.ellipse
        draw(box, outline=(*colour(rng), 255), width=line)
        return layer, place(size, shape, rng)
    deep = int(rng.integers(3, max(4, min(size) // 3)))
    shape = (width, deep) if rng.random() < 0.6 else (deep, height)
    layer = fill(shape, rng).convert("RGBA")
    if rng.random() < 0.4:
        layer = faded(layer, float(rng.uniform(0.2, 0.9)))
    return layer, (
        int(rng.choice([0, width - shape[0]])),
        int(rng.choice([0, height - shape[1]])),
    )


def pattern(size: tuple[int, int], rng: Rng) -> tuple[Pillow.Image, tuple[int, int]]:
    """A watermark: the same faint signs again and again, slanted."""
    height, width = size
    reach = math.ceil(math.hypot(height, width))
    high, line, ink = int(rng.integers(8, 40)), words(rng, 10), colour(rng)
    font = ImageFont.load_default(high)
    layer = Pillow.new("RGBA", (reach, reach), (*ink, 0))
    pen = ImageDraw.Draw(layer)
    across = max(8, round(font.getlength(line) + high * float(rng.uniform(0.5, 4))))
    down = round(high * float(rng.uniform(1.5, 5)))
    for row, y in enumerate(range(0, reach, down)):
        for x in range(-(row % 2) * across // 2, reach, across):
            pen.text((x, y), line, (*ink, int(255 * 0.35)), font)
    layer = layer.rotate(float(rng.uniform(-60, 60)), Pillow.Resampling.BICUBIC)
    return faded(layer, float(rng.uniform(0.3, 1.5))), ((width - reach) // 2, (height - reach) // 2)


def place(size: tuple[int, int], shape: tuple[int, int], rng: Rng) -> tuple[int, int]:
    """(left, top) of something of `shape` (width, height): anywhere, up to half beyond the rim."""
    height, width = size
    room = ((-shape[0] / 2, width - shape[0] / 2), (-shape[1] / 2, height - shape[1] / 2))
    left, top = (round(float(rng.uniform(*ends))) for ends in room)
    return left, top


Kind = Callable[[tuple[int, int], Rng], tuple[Pillow.Image, tuple[int, int]]]
KINDS: dict[str, tuple[Kind, float]] = {
    "emblem": (emblem, 0.55),
    "caption": (caption, 0.25),
    "band": (band, 0.1),
    "pattern": (pattern, 0.1),
}
"""What is drawn, and how often."""
