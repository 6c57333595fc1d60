"""pixels.py: a picture of any mode, depth, profile, orientation -> (H, W, 3) uint8 sRGB, upright.

The one rule of colour and depth, chosen so that the pixels stay as near to the file as they can
(traces of editing live in the stored samples):

- EXIF orientation is applied; an ICC profile is converted to sRGB unless it already is sRGB. That
  is for people's eyes: where it changes RGB pixels, the samples as stored are kept beside them, and
  they are what networks see. A conversion wipes out much of what compression leaves.
- Unsigned samples of 10, 12, 16 or 32 bits keep their highest 8 bits; floats are read as [0, 1].
  Signed integers, and floats beyond [0, 1], are stretched from their own range.
- Grey is repeated in the three channels; palettes are looked up.
- Alpha and transparent colours are dropped, not blended: the colours below them are in the file.
- CMYK goes through its profile, or through the plain formula where it has none.

Everything but the plain case is told in ``notes``, a list of short texts that is appended to.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image as PILImage

_STRIP_PIXELS = 2_000_000  # pixels converted at a time: bounds what is held more than twice


def stored_view(displayed: np.ndarray, orientation: int) -> np.ndarray:
    """The displayed (H, W, ...) array as the file of that EXIF orientation lays it out: a view.

    EXIF 2.32, tag 0x0112: 2 and 4 mirror, 3 turns by half, 5..8 also exchange rows and columns.
    """
    if orientation in (3, 4, 7, 8):
        displayed = displayed[::-1]
    if orientation in (2, 3, 6, 7):
        displayed = displayed[:, ::-1]
    return displayed.swapaxes(0, 1) if orientation >= 5 else displayed


def displayed_view(stored: np.ndarray, orientation: int) -> np.ndarray:
    """The stored (H, W, ...) array of a file of that EXIF orientation as it is displayed: a view,
    and the inverse of `stored_view`."""
    displayed = stored.swapaxes(0, 1) if orientation >= 5 else stored
    if orientation in (2, 3, 6, 7):
        displayed = displayed[:, ::-1]
    return displayed[::-1] if orientation in (3, 4, 7, 8) else displayed


def srgb_pixels(
    im: PILImage.Image, orientation: int, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The (H, W, 3) uint8 sRGB pixels of a loaded PIL image, turned by its EXIF ``orientation``;
    and its samples before a colour profile changed them, None where none did or they are no RGB.

    Strip by strip into the result, so that a large picture is held twice and not five times:
    once as Pillow's, once as ours.
    """
    if im.mode in ("I", "F"):
        profile = im.info.get("icc_profile")
        im = PILImage.fromarray(array_pixels(np.asarray(im), notes))
        im.info["icc_profile"] = profile
    if im.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        notes.append("alpha channel dropped")
    elif "transparency" in im.info:
        notes.append("transparency dropped")
    transform = _srgb_transform(im, notes)
    width, height = im.size
    pixels = np.empty((width, height, 3) if orientation >= 5 else (height, width, 3), np.uint8)
    unchanged = None if transform is None or im.mode == "CMYK" else np.empty_like(pixels)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = _flatten(im.crop((0, top, width, min(top + rows, height))), im)
        part = slice(top, top + rows)
        if unchanged is not None:
            stored_view(unchanged, orientation)[part] = np.asarray(strip.convert("RGB"))
        if transform is not None:
            strip = transform.apply(strip)
        stored_view(pixels, orientation)[part] = np.asarray(strip.convert("RGB"))
    return pixels, unchanged


def array_pixels(array: np.ndarray, notes: list[str]) -> np.ndarray:
    """Numbers of any kind, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) -> (H, W, 3) uint8.

    What already is (H, W, 3) uint8 and contiguous is not copied.
    """
    if array.ndim == 3 and array.shape[2] == 4:
        notes.append("alpha channel dropped")
        array = array[..., :3]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "u" and array.dtype.itemsize > 1:
        bits = 8 * array.dtype.itemsize
        notes.append("more than 8 bits per sample reduced to 8")
        array = (array >> (bits - 8)).astype(np.uint8)
    elif array.dtype != np.uint8:
        array = _stretch(array, notes)
    if array.ndim == 2 or array.shape[2] == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(array)


def _flatten(strip: PILImage.Image, source: PILImage.Image) -> PILImage.Image:
    """To mode L, RGB or CMYK, 8 bits, without alpha. ``source`` is what the strip was cut from."""
    strip.info.pop("transparency", None)  # else Pillow tries to translate it, and warns
    if strip.mode.startswith("I;16"):
        tags = getattr(source, "tag_v2", {})
        bits = tags.get(258, (16,))[0]
        grey = (np.asarray(strip) >> (bits - 8)).astype(np.uint8)
        # TIFF's "white is zero", which Pillow heeds for 8 bits only.
        return PILImage.fromarray(255 - grey if tags.get(262) == 0 else grey)
    if strip.mode in ("LA", "La"):
        return strip.getchannel("L")
    if strip.mode == "RGBa":
        strip = strip.convert("RGBA")
    if strip.mode in ("1", "L"):
        return strip.convert("L")
    return strip if strip.mode == "CMYK" else strip.convert("RGB")


def _srgb_transform(im: PILImage.Image, notes: list[str]) -> Any:
    """The ImageCms transform from the picture's ICC profile to sRGB; None where none is needed."""
    grey = im.mode in ("1", "L", "LA", "La") or im.mode.startswith("I;16")
    mode = "L" if grey else "CMYK" if im.mode == "CMYK" else "RGB"
    profile = im.info.get("icc_profile")
    if not profile:
        if mode == "CMYK":
            notes.append("CMYK without a profile: colours are approximate")
        return None
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != ("GRAY" if grey else mode):
            notes.append("ICC profile of another colour space ignored")
            return None
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except Exception:  # littlecms on damaged bytes; the picture is still worth a look
        notes.append("broken ICC profile ignored")
        return None
    if mode != "CMYK" and _changes_nothing(transform, grey):
        return None
    notes.append("ICC profile converted to sRGB")
    return transform


def _changes_nothing(transform: Any, grey: bool) -> bool:
    """Whether a profile is sRGB under one of its many names: then it must not touch the pixels.

    Judged on a card of all greys, or of 17 levels of each channel.
    """
    levels = np.linspace(0, 255, 17).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(17, -1, 3)
    card = PILImage.fromarray(np.arange(256, dtype=np.uint8)[None] if grey else colours)
    after = np.asarray(transform.apply(card)).astype(int)
    return bool(np.abs(after - np.asarray(card.convert("RGB"))).max() <= 1)


def _stretch(array: np.ndarray, notes: list[str]) -> np.ndarray:
    """Floats and signed integers -> uint8, strip by strip."""
    finite = np.abs(array.astype(np.float32)) < 1e30  # False for NaN too
    if not finite.all():
        notes.append("values that are not numbers shown as black")
    numbers = array[finite] if not finite.all() else array
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)
    kind = f"{8 * array.dtype.itemsize}-bit {'float' if array.dtype.kind == 'f' else 'signed'}"
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
        notes.append(f"{kind} samples reduced to 8 bits")
    elif array.dtype.kind == "i" and low >= 0 and high <= 65535:
        # Python integers, and Pillow's mode "I", which is how it may hold 16 bits.
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
        if high > 255:
            notes.append(f"{kind} samples reduced to 8 bits")
    else:
        notes.append(f"{kind} samples stretched from {low:g}..{high:g} to 8 bits")
    scale = 255.0 / (high - low) if high > low else 0.0
    result = np.empty(array.shape, np.uint8)
    rows = max(1, _STRIP_PIXELS // (array[0].size or 1))
    for top in range(0, len(array), rows):
        part = slice(top, top + rows)
        values = np.where(finite[part], array[part], low).astype(np.float64)
        result[part] = np.clip((values - low) * scale + 0.5, 0, 255).astype(np.uint8)
    return result
