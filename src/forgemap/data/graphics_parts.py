"""graphics_parts.py: shapes, fills, letters and shadows that `graphics` puts together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFilter

from ..encode import decode, encode_jpeg

Pixels = np.ndarray
Rng = np.random.Generator
Point = tuple[float, float]

SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;-_/#@&%?!+*"
HIDES = 128
"""Opacity from which what lies below is no longer to be seen."""
SHAPES = (
    "disc",
    "disc",
    "box",
    "box",
    "pie",
    "polygon",
    "star",
    "blob",
    "stripes",
    "code",
    "arrow",
)


def lay_over(
    pixels: Pixels, mask: np.ndarray, layer: Pillow.Image, left: int, top: int
) -> tuple[Pixels, np.ndarray]:
    """The layer (RGBA) composed over the picture with its corner at (left, top), also beyond it."""
    height, width = mask.shape
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(width, left + layer.width), min(height, top + layer.height)
    if x0 >= x1 or y0 >= y1:
        return pixels, mask
    part = np.asarray(layer.crop((x0 - left, y0 - top, x1 - left, y1 - top)))
    alpha = part[..., 3:].astype(np.float32) / 255
    area = np.s_[y0:y1, x0:x1]
    pixels, mask = pixels.copy(), mask.copy()
    mixed = pixels[area] * (1 - alpha) + part[..., :3] * alpha
    pixels[area] = np.rint(mixed).astype(np.uint8)
    mask[area][part[..., 3] >= HIDES] = 0
    return pixels, mask


def figure(size: tuple[int, int], scale: float, rng: Rng) -> np.ndarray:
    """The stencil of one shape, (height, width) uint8."""
    width, height = size
    stencil = Pillow.new("L", size, 0)
    pen = ImageDraw.Draw(stencil)
    w, h = max(6, round(width * scale)), max(6, round(height * scale))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    box = (x, y, x + w - 1, y + h - 1)
    line = max(1, round(min(w, h) * float(rng.uniform(0.03, 0.25))))
    outline = rng.random() < 0.25
    ink: dict[str, Any] = {"outline": 255, "width": line} if outline else {"fill": 255}
    kind = str(rng.choice(SHAPES))
    if kind == "disc":
        pen.ellipse(box, **ink)
    elif kind == "box":
        pen.rounded_rectangle(box, int(float(rng.choice([0, 0, 0.1, 0.3, 0.5])) * min(w, h)), **ink)
    elif kind == "pie":
        start = float(rng.uniform(0, 360))
        pen.pieslice(box, start, start + float(rng.uniform(40, 320)), **ink)
    elif kind in ("polygon", "star", "blob"):
        pen.polygon(corners(kind, (x + w / 2, y + h / 2), (w / 2, h / 2), rng), **ink)
    elif kind == "stripes":
        slant, step = float(rng.uniform(-1, 1)) * h, max(2 * line, 4)
        for at in np.arange(x - abs(slant), x + w + abs(slant), step):
            pen.line((float(at), y, float(at) + slant, y + h), 255, line)
    elif kind == "code":  # as a QR code or a bar code
        cells = rng.random((1 if rng.random() < 0.4 else 13, 17)) < 0.5
        code = Pillow.fromarray((255 * cells).astype(np.uint8))
        stencil.paste(code.resize((w, h), Pillow.Resampling.NEAREST), (x, y))
    else:  # arrow
        mid, tip = y + h / 2, x + w
        pen.line((x, mid, tip - h / 2, mid), 255, line)
        pen.polygon([(tip, mid), (tip - h / 2, y), (tip - h / 2, y + h)], fill=255)
    return np.array(stencil)


def corners(kind: str, middle: Point, reach: Point, rng: Rng) -> list[Point]:
    """Corners of a polygon, of a star, or of a blob with a smooth outline."""
    turn = float(rng.uniform(0, 2 * math.pi))
    number = 48 if kind == "blob" else int(rng.integers(3, 9)) * (2 if kind == "star" else 1)
    angles = turn + 2 * math.pi * np.arange(number) / number
    radii = np.ones(number)
    if kind == "star":
        radii[1::2] = rng.uniform(0.25, 0.8)
    if kind == "blob":
        for wave in range(2, 6):
            radii += rng.normal(0, 0.25 / wave) * np.cos(wave * angles + rng.uniform(0, 6.3))
        radii /= radii.max()
    return [
        (
            middle[0] + reach[0] * float(r * math.cos(a)),
            middle[1] + reach[1] * float(r * math.sin(a)),
        )
        for r, a in zip(radii, angles, strict=True)
    ]


def fill(size: tuple[int, int], rng: Rng) -> Pillow.Image:
    """What a shape is filled with: a colour, a straight or round ramp of two, or stripes."""
    first, second = colour(rng), colour(rng)
    draw = rng.random()
    if draw < 0.6:
        return Pillow.new("RGB", size, first)
    width, height = size
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    angle = float(rng.uniform(0, 2 * math.pi))
    ramp = math.cos(angle) * x[None] + math.sin(angle) * y[:, None]
    if draw > 0.85:
        ramp = np.hypot(x[None] - math.cos(angle) / 2, y[:, None] - math.sin(angle) / 2)
    if draw > 0.95:
        ramp = np.sign(np.sin(ramp * float(rng.uniform(5, 40))))
    ramp = (ramp - ramp.min()) / max(float(np.ptp(ramp)), 1e-6)
    mixed = ramp[..., None] * np.array(first, np.float32)
    mixed += (1 - ramp[..., None]) * np.array(second, np.float32)
    return Pillow.fromarray(np.rint(mixed).astype(np.uint8))


def colour(rng: Rng) -> tuple[int, int, int]:
    """White, black, a pure colour or any."""
    draw = rng.random()
    if draw < 0.3:
        level = int(rng.choice([0, 255]))
        return level, level, level
    values = rng.integers(0, 256, 3) if draw < 0.8 else 255 * rng.integers(0, 2, 3)
    return int(values[0]), int(values[1]), int(values[2])


def words(rng: Rng, most: int) -> str:
    """Signs at random, with spaces between some."""
    signs = [SIGNS[int(i)] for i in rng.integers(0, len(SIGNS), int(rng.integers(1, most + 1)))]
    return "".join(" " if i and rng.random() < 0.15 else sign for i, sign in enumerate(signs))


def faded(layer: Pillow.Image, strength: float) -> Pillow.Image:
    """The layer with its opacity multiplied by `strength`."""
    layer = layer.copy()
    layer.putalpha(layer.getchannel("A").point([min(255, round(a * strength)) for a in range(256)]))
    return layer


def through_jpeg(layer: Pillow.Image, rng: Rng) -> Pillow.Image:
    """The layer as taken from a JPEG of its own: its colours are compressed, its outline is not."""
    alpha = layer.getchannel("A")
    colours = Pillow.new("RGB", layer.size, colour(rng))
    colours.paste(layer, (0, 0), alpha)
    quality = int(rng.integers(50, 96))
    done = Pillow.fromarray(decode(encode_jpeg(np.asarray(colours), quality, "4:2:0")))
    done.putalpha(alpha)
    return done


def shadowed(
    layer: Pillow.Image, at: tuple[int, int], rng: Rng
) -> tuple[Pillow.Image, tuple[int, int]]:
    """The layer above a soft shadow (or glow) of its own, and where its new corner lies."""
    soft = float(rng.uniform(0.5, 6))
    pad = math.ceil(3 * soft) + 4
    shift = tuple(int(n) for n in rng.integers(-4, 5, 2))
    whole = Pillow.new("RGBA", (layer.width + 2 * pad, layer.height + 2 * pad), (0, 0, 0, 0))
    shade = Pillow.new("RGBA", layer.size, (*colour(rng), 255))
    shade.putalpha(faded(layer, float(rng.uniform(0.2, 0.9))).getchannel("A"))
    whole.paste(shade, (pad + shift[0], pad + shift[1]))
    whole = whole.filter(ImageFilter.GaussianBlur(soft))
    cover = Pillow.new("RGBA", whole.size, (0, 0, 0, 0))
    cover.paste(layer, (pad, pad))
    whole.alpha_composite(cover)
    return whole, (at[0] - pad, at[1] - pad)
