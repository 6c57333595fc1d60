"""drawing.py: probabilities as colour over a picture, small copies, and pictures as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

_ROWS = 256  # rows blended at a time, so that memory does not grow with the picture


def _heat_colours() -> np.ndarray:
    """(256, 4) uint8 RGBA for probability 0..1: nothing, then violet, orange and yellow.

    Matplotlib's "inferno" without its black end: it rises in lightness all the way, so it reads
    the same with any colour vision and in a grey print. Below 0.1 the picture shows unchanged.
    """
    steps = np.linspace(90, 245, 256).astype(np.uint8)
    colours = cv2.applyColorMap(steps[None], cv2.COLORMAP_INFERNO)[0, :, ::-1]
    alpha = np.clip((np.linspace(0, 1, 256) - 0.1) / 0.4, 0, 1) * 0.65 * 255
    return np.concatenate([colours, alpha[:, None].astype(np.uint8)], 1)


HEAT_COLOURS = _heat_colours()
FOG_COLOUR = (93, 116, 150)
"""What covers the places where the mask is not sure: a grey blue that no heat has."""
FOG = 0.9
"""How much of a place shows the fog where nothing is known."""
CSS_FOG = ", ".join(f"rgb({' '.join(map(str, FOG_COLOUR))} / {a})" for a in (0, FOG))
CSS_SCALE = ", ".join(f"rgb({r} {g} {b} / {a / 255:.2f})" for r, g, b, a in HEAT_COLOURS[::17])


def to_levels(heat: np.ndarray) -> np.ndarray:
    """(H, W) probabilities in [0, 1] -> uint8, round(255 p)."""
    levels = np.empty(heat.shape, np.uint8)
    for top in range(0, len(heat), _ROWS):
        part = slice(top, top + _ROWS)
        levels[part] = np.rint(np.clip(heat[part], 0, 1) * 255)
    return levels


def overlay(pixels: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The heat map (H, W) uint8 over the picture (H, W, 3) uint8 in grey; a new array.

    Grey, so that every colour in it is the heat map's.
    """
    blended = np.empty_like(pixels)
    for top in range(0, len(pixels), _ROWS):
        part = slice(top, top + _ROWS)
        colour = HEAT_COLOURS[levels[part]].astype(np.uint16)
        alpha = colour[..., 3:]
        grey = cv2.cvtColor(pixels[part], cv2.COLOR_RGB2GRAY)[..., None]
        blended[part] = (grey * (255 - alpha) + colour[..., :3] * alpha + 127) // 255
    return blended


def label_size(width: int, height: int) -> float:
    """Height in pixels of the regions' numbers in a picture of that size."""
    return max(10.0, max(width, height) / 24)


def label_place(box: Sequence[int], width: int, height: int) -> tuple[float, float]:
    """Where the middle of a region's number goes: inside, or beside a region that it would hide.

    ``box``: (x0, y0, x1, y1) of the region in a picture of ``width`` x ``height`` pixels.
    """
    size = label_size(width, height)
    x0, y0, x1, y1 = box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    if min(x1 - x0, y1 - y0) < 2 * size:
        y = y0 - 0.7 * size if y0 > 1.5 * size else y1 + 0.7 * size
    return min(max(x, size / 2), width - size / 2), min(max(y, size / 2), height - size / 2)


def draw_outlines(
    pixels: np.ndarray,
    polygons: Sequence[Sequence[Sequence[int]]],
    boxes: Sequence[Sequence[int]],
) -> None:
    """Draw numbered outlines into the picture, white on black so that they show on any ground."""
    height, width = pixels.shape[:2]
    unit = max(1, round(max(height, width) / 800))
    for polygon in polygons:
        points = [np.array(polygon, np.int32).reshape(-1, 1, 2)]
        cv2.polylines(pixels, points, True, (0, 0, 0), 4 * unit, cv2.LINE_AA)
        cv2.polylines(pixels, points, True, (255, 255, 255), 2 * unit, cv2.LINE_AA)
    size = label_size(width, height)
    font = ImageFont.load_default(size)
    for number, box in enumerate(boxes, 1):
        x, y = label_place(box, width, height)
        left, top = max(0, int(x - 2 * size)), max(0, int(y - 2 * size))
        part = np.s_[top : int(y + 2 * size), left : int(x + 2 * size)]
        patch = PILImage.fromarray(np.ascontiguousarray(pixels[part]))
        ImageDraw.Draw(patch).text(
            (x - left, y - top),
            str(number),
            fill="white",
            stroke_fill="black",
            stroke_width=max(1, size / 9),
            font=font,
            anchor="mm",
        )
        pixels[part] = np.asarray(patch)


def draw_link(
    pixels: np.ndarray, polygon: Sequence[Sequence[int]], start: Sequence[int], end: Sequence[int]
) -> None:
    """Draw a thin outline and a line from the middle of one box to that of another."""
    unit = max(1, round(max(pixels.shape[:2]) / 800))
    points = [np.array(polygon, np.int32).reshape(-1, 1, 2)]
    ends = [((box[0] + box[2]) // 2, (box[1] + box[3]) // 2) for box in (start, end)]
    for colour, width in (((0, 0, 0), 3 * unit), ((255, 255, 255), unit)):
        cv2.polylines(pixels, points, True, colour, width, cv2.LINE_AA)
        cv2.line(pixels, ends[0], ends[1], colour, width, cv2.LINE_AA)


def shrink(picture: np.ndarray, max_side: int) -> np.ndarray:
    """A copy of (H, W[, C]) whose longer side is at most ``max_side``; smaller ones stay as is."""
    height, width = picture.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def jpeg_uri(pixels: np.ndarray, quality: int = 85) -> str:
    """(H, W, 3) uint8 -> ``data:image/jpeg;base64,...``"""
    return _uri(pixels, "jpeg", quality=quality)


def heat_uri(levels: np.ndarray) -> str:
    """(H, W) uint8 -> a transparent PNG in the heat map's colours, as a data URI."""
    picture = PILImage.fromarray(levels)
    picture.putpalette(HEAT_COLOURS[:, :3].tobytes())
    return _uri(picture, "png", transparency=HEAT_COLOURS[:, 3].tobytes())


def fog_uri(confidence: np.ndarray) -> str:
    """(h, w) in [0.5, 1] -> a transparent PNG as a data URI: fog where the mask is not sure."""
    alpha = to_levels((1 - confidence) * 2 * FOG)
    colour = np.broadcast_to(np.array(FOG_COLOUR, np.uint8), (*alpha.shape, 3))
    return _uri(np.dstack([colour, alpha]), "png")


def _uri(picture: np.ndarray | PILImage.Image, format: str, **options: object) -> str:
    if isinstance(picture, np.ndarray):
        picture = PILImage.fromarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return f"data:image/{format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
