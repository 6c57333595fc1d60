"""benign_overlay.py: captions, watermarks and logos, laid visibly over a picture."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from forgemap.synth.benign_parts import Mask, Pixels, Processed, Rng

WORDS = (
    *("summer", "2024", "breaking news", "©", "photo:", "sale", "holiday", "www.example.org"),
    *("happy birthday", "exclusive", "live", "12:45", "home", "draft", "sample", "@someone"),
)
INKS = ((255, 255, 255), (0, 0, 0), (250, 220, 40), (220, 40, 40), (40, 90, 220))


def text(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """A line of one to four words, 3-10 % of the height: outlined, on a band, or see-through."""
    height, width = mask.shape
    words = " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), int(rng.integers(1, 5))))
    size = max(10, round(float(rng.uniform(0.03, 0.1)) * height))
    ink = INKS[int(rng.integers(len(INKS)))]
    style = ("outline", "band", "faint")[int(rng.integers(3))]
    across, down = rng.random(2)
    alpha = 255 if style != "faint" else int(rng.integers(60, 180))
    font = ImageFont.load_default(size)
    layer = Pillow.new("RGBA", (width, height), (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    left, top, right, bottom = pen.textbbox((0, 0), words, font)
    # A line too long for the picture runs out of it, as it does in a careless caption.
    x = round(across * max(0.0, width - (right - left)) - left)
    y = round(down * max(0.0, height - (bottom - top)) - top)
    opposite = (0, 0, 0) if sum(ink) > 380 else (255, 255, 255)
    if style == "band":
        rim = size // 3
        band = (0, y + top - rim, width, y + bottom + rim)
        pen.rectangle(band, fill=(*opposite, 200))
    stroke = max(1, size // 16) if style == "outline" else 0
    pen.text((x, y), words, (*ink, alpha), font, stroke_width=stroke, stroke_fill=opposite)
    return Processed(_over(pixels, layer), mask, {"words": words, "size": size, "style": style})


def logo(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """A small emblem in a corner (disc, ring, star or badge with letters), 6-20 % of a side."""
    height, width = mask.shape
    side = max(16, round(float(rng.uniform(0.06, 0.2)) * min(height, width)))
    shape = ("disc", "ring", "star", "badge")[int(rng.integers(4))]
    ink = INKS[int(rng.integers(len(INKS)))]
    alpha = int(rng.integers(90, 256))
    corner, margin = rng.integers(0, 2, 2), round(side * float(rng.uniform(0.1, 0.5)))
    letters = "".join(chr(65 + int(i)) for i in rng.integers(0, 26, 3))
    big = 4 * side  # drawn large and reduced: Pillow's shapes have no soft edges of their own
    layer = Pillow.new("RGBA", (big, big), (*ink, 0))
    pen = ImageDraw.Draw(layer)
    full = (0, 0, big - 1, big - 1)
    if shape == "star":
        angles = [math.pi * (i / 5 - 0.5) for i in range(10)]
        reach = [big / 2 * (1 if i % 2 == 0 else 0.4) for i in range(10)]
        points = [
            (big / 2 + r * math.cos(a), big / 2 + r * math.sin(a))
            for a, r in zip(angles, reach, strict=True)
        ]
        pen.polygon(points, fill=(*ink, alpha))
    elif shape == "ring":
        pen.ellipse(full, outline=(*ink, alpha), width=max(1, big // 10))
    else:
        fill = (*ink, alpha)
        if shape == "disc":
            pen.ellipse(full, fill=fill)
        else:
            pen.rounded_rectangle(full, big // 6, fill=fill)
        opposite = (0, 0, 0) if sum(ink) > 380 else (255, 255, 255)
        font = ImageFont.load_default(big // 3)
        pen.text((big / 2, big / 2), letters, (*opposite, alpha), font, anchor="mm")
    emblem = layer.resize((side, side), Pillow.Resampling.LANCZOS)
    whole = Pillow.new("RGBA", (width, height), (0, 0, 0, 0))
    x = (margin, width - side - margin)[int(corner[0])]
    y = (margin, height - side - margin)[int(corner[1])]
    whole.paste(emblem, (x, y))
    return Processed(_over(pixels, whole), mask, {"shape": shape, "side": side, "alpha": alpha})


def _over(pixels: Pixels, layer: Pillow.Image) -> Pixels:
    """The layer composed over the picture; pixels that it does not cover stay as they are."""
    done = Pillow.fromarray(pixels).convert("RGBA")
    done.alpha_composite(layer)
    return np.asarray(done.convert("RGB"))
