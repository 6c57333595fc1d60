"""encode.py: a record's picture files as members of a shard: .jpg or .png, and sure to decode."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image as PILImage

from ...errors import ImageError
from ...image import load_image

CHOICES = {
    "keep": "JPEG and PNG as they are, anything else as PNG: no trace is lost",
    "published": "as D3's authors: JPEG 100 if all pictures of the record are JPEG, else PNG",
}


class Undecodable(Exception):
    """A picture that cannot be read, in one sentence."""


def encoded(
    files: dict[str, bytes], how: str
) -> tuple[dict[str, tuple[str, bytes]], dict[str, Undecodable]]:
    """Member -> (suffix, bytes) of those that decode; member -> what is wrong with the others.

    files: member -> the file's bytes, in any format that `load_image` reads.
    how: a key of `CHOICES`.
    """
    pixels: dict[str, np.ndarray] = {}
    bad: dict[str, Undecodable] = {}
    for member, data in files.items():
        try:
            pixels[member] = load_image(data).samples
        except ImageError as error:
            bad[member] = Undecodable(str(error).replace("<bytes>", "the file"))
    if how == "published":
        jpeg = all(_suffix(files[member]) == "jpg" for member in pixels)
        made = {m: ("jpg", _jpeg(p)) if jpeg else ("png", _png(p)) for m, p in pixels.items()}
        return made, bad
    kept: dict[str, tuple[str, bytes]] = {}
    for member, array in pixels.items():
        suffix = _suffix(files[member])
        kept[member] = (suffix, files[member]) if suffix else ("png", _png(array))
    return kept, bad


def _suffix(data: bytes) -> str:
    """ "jpg" or "png" by the first bytes, else ""."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    return "png" if data.startswith(b"\x89PNG\r\n\x1a\n") else ""


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()


def _jpeg(pixels: np.ndarray) -> bytes:
    # Pillow at 100, with its default chroma subsampling: what webdataset's encoder does.
    stream = io.BytesIO()
    PILImage.fromarray(pixels).save(stream, "JPEG", quality=100)
    return stream.getvalue()
