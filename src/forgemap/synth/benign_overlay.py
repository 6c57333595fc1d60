"""benign_overlay.py: captions, watermarks, logos and frames, laid visibly over a picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFilter, ImageFont

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
    """An emblem (disc, ring, star, polygon or badge, plain or shaded, sometimes with letters, a rim
    or a shadow), 5-25 % of a side; mostly in a corner, one time in four anywhere."""
    height, width = mask.shape
    side = max(
        16, round(float(np.exp(rng.uniform(math.log(0.05), math.log(0.25)))) * min(mask.shape))
    )
    side = min(side, height, width)
    emblem, drawn = _emblem(side, rng)
    corner, margin = rng.integers(0, 2, 2), round(side * float(rng.uniform(0.02, 0.5)))
    place, anywhere = rng.random(2), bool(rng.random() < 0.25)
    room = (width - side, height - side)
    at = [round(float(p) * r) for p, r in zip(place, room, strict=True)]
    if not anywhere:
        ends = [(min(margin, r), max(0, r - margin)) for r in room]
        at = [end[int(c)] for end, c in zip(ends, corner, strict=True)]
    whole = Pillow.new("RGBA", (width, height), (0, 0, 0, 0))
    if drawn["shadow"]:
        shade = Pillow.new("RGBA", emblem.size, (0, 0, 0, 0))
        shade.putalpha(emblem.getchannel("A").point(lambda a: a // 2))
        whole.paste(shade, (at[0] + side // 16, at[1] + side // 16))
        whole = whole.filter(ImageFilter.GaussianBlur(max(1, side // 24)))
    cover = Pillow.new("RGBA", (width, height), (0, 0, 0, 0))
    cover.paste(emblem, (at[0], at[1]))
    whole.alpha_composite(cover)
    return Processed(_over(pixels, whole), mask, {"side": side, **drawn})


def watermark(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """A faint line of words over the whole picture, again and again, slanted; or once, large."""
    height, width = mask.shape
    words = WORDS[int(rng.integers(len(WORDS)))]
    size = max(12, round(float(rng.uniform(0.03, 0.12)) * min(height, width)))
    alpha, angle, once = int(rng.integers(30, 130)), float(rng.uniform(-45, 45)), rng.random() < 0.3
    ink = ((255, 255, 255), (0, 0, 0))[int(rng.random() < 0.2)]
    font = ImageFont.load_default(2 * size if once else size)
    reach = math.ceil(math.hypot(height, width))
    layer = Pillow.new("RGBA", (reach, reach), (*ink, 0))
    pen = ImageDraw.Draw(layer)
    if once:
        pen.text((reach / 2, reach / 2), words, (*ink, alpha), font, anchor="mm")
    else:
        across = max(1, round(font.getlength(words))) + 3 * size
        for row, y in enumerate(range(0, reach, 4 * size)):
            for x in range(-(row % 2) * across // 2, reach, across):
                pen.text((x, y), words, (*ink, alpha), font)
    layer = layer.rotate(angle, Pillow.Resampling.BICUBIC)
    left, top = (reach - width) // 2, (reach - height) // 2
    layer = layer.crop((left, top, left + width, top + height))
    drawn = {"words": words, "size": size, "alpha": alpha, "once": bool(once)}
    return Processed(_over(pixels, layer), mask, drawn)


def frame(pixels: Pixels, mask: Mask, rng: Rng) -> Processed:
    """A plain border of one colour, on all sides or above and below (or beside), 2-12 % wide; the
    picture keeps its size, so that the border hides its rim."""
    height, width = mask.shape
    share, sides = float(rng.uniform(0.02, 0.12)), int(rng.integers(3))
    ink = (*INKS, (255, 255, 255), (0, 0, 0))[int(rng.integers(len(INKS) + 2))]
    radius = round(float(rng.uniform(0, 0.1)) * min(height, width)) if rng.random() < 0.3 else 0
    wide = max(2, round(share * min(height, width)))
    x, y = (0 if sides == 1 else wide), (0 if sides == 2 else wide)
    layer = Pillow.new("RGBA", (width, height), (*ink, 255))
    hole = (x, y, width - 1 - x, height - 1 - y)
    ImageDraw.Draw(layer).rounded_rectangle(hole, radius, fill=(*ink, 0))
    return Processed(_over(pixels, layer), mask, {"width": wide, "sides": sides, "radius": radius})


def _emblem(side: int, rng: Rng) -> tuple[Pillow.Image, dict[str, Any]]:
    """An emblem of `side` pixels, and what was drawn. Drawn large and reduced: Pillow's shapes have
    no soft edges of their own."""
    shape = ("disc", "ring", "star", "badge", "polygon")[int(rng.integers(5))]
    few, any_ = rng.integers(0, len(INKS), 2), rng.integers(0, 256, (2, 3))
    bold = rng.random() < 0.5
    inks = [
        INKS[int(i)] if bold else (int(r), int(g), int(b))
        for i, (r, g, b) in zip(few, any_, strict=True)
    ]
    alpha = 255 if rng.random() < 0.5 else int(rng.integers(90, 256))
    shaded, rim, lettered = (bool(v) for v in rng.random(3) < (0.35, 0.3, 0.6))
    letters = "".join(chr(65 + int(i)) for i in rng.integers(0, 26, 3))
    shadow, corners = bool(rng.random() < 0.25), int(rng.integers(3, 9))
    turn = float(rng.uniform(0, 2 * math.pi))
    big = 4 * side
    stencil = Pillow.new("L", (big, big), 0)
    pen = ImageDraw.Draw(stencil)
    full = (0, 0, big - 1, big - 1)
    if shape in ("star", "polygon"):
        number = 10 if shape == "star" else corners
        pen.polygon(_points(big, number, 0.4 if shape == "star" else 1.0, turn), fill=alpha)
    elif shape == "ring":
        pen.ellipse(full, outline=alpha, width=max(1, big // 10))
    elif shape == "disc":
        pen.ellipse(full, fill=alpha)
    else:
        pen.rounded_rectangle(full, big // 6, fill=alpha)
    if shaded:
        ramp = np.linspace(0, 1, big)[:, None, None]
        colours = (1 - ramp) * np.array(inks[0]) + ramp * np.array(inks[1])
        face = Pillow.fromarray(np.broadcast_to(colours, (big, big, 3)).astype(np.uint8))
    else:
        face = Pillow.new("RGB", (big, big), inks[0])
    pen = ImageDraw.Draw(face)
    opposite = (0, 0, 0) if sum(inks[0]) > 380 else (255, 255, 255)
    if rim and shape in ("disc", "badge"):
        pen.ellipse(full, outline=opposite, width=max(1, big // 16))
    if lettered and shape != "ring":
        font = ImageFont.load_default(big // 3)
        pen.text((big / 2, big / 2), letters, opposite, font, anchor="mm")
    face.putalpha(stencil)
    drawn = {"shape": shape, "alpha": alpha, "shaded": shaded, "shadow": shadow}
    return face.resize((side, side), Pillow.Resampling.LANCZOS), drawn


def _points(big: int, number: int, inner: float, turn: float) -> list[tuple[float, float]]:
    """Corners on a circle, every second one drawn in to `inner` of its radius."""
    middle = big / 2
    points = []
    for i in range(number):
        reach = middle * (1 if i % 2 == 0 else inner)
        angle = turn + 2 * math.pi * i / number
        points.append((middle + reach * math.cos(angle), middle + reach * math.sin(angle)))
    return points


def _over(pixels: Pixels, layer: Pillow.Image) -> Pixels:
    """The layer composed over the picture; pixels that it does not cover stay as they are."""
    done = Pillow.fromarray(pixels).convert("RGBA")
    done.alpha_composite(layer)
    return np.asarray(done.convert("RGB"))
