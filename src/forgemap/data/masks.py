"""masks.py: masks of any set -> ours: (H, W) uint8, 255 = manipulated; and their sizes, unread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags
from PIL import Image as PILImage

from ..errors import DataError
from .records import Record


def _grey(mask: np.ndarray) -> np.ndarray:
    return mask if mask.ndim == 2 else cv2.cvtColor(mask, cv2.COLOR_BGR2GRAY)


# Record.marks -> (H, W) bool from a mask as OpenCV reads it, (H, W) or (H, W, 3) BGR.
RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "white": lambda mask: _grey(mask) > 127,
    # DeCLIP and the older Dolos code agree on it for masks of 0 and 255 alone.
    "black": lambda mask: _grey(mask) <= 127,
    # Columbia: one camera red, the other green, both brighter along the seam, saved as JPEG.
    "green": lambda mask: mask[..., 1].astype(int) - mask[..., 2] > 64,
}


def read_mask(path: Path, marks: str = "white") -> np.ndarray:
    """The mask in a file, (H, W) uint8: 255 = manipulated, else 0.

    Raises:
        DataError: the file is missing or no picture.
    """
    colour = cv2.IMREAD_COLOR if marks == "green" else cv2.IMREAD_GRAYSCALE
    mask = cv2.imread(str(path), colour)
    if mask is None:
        raise DataError(f"{path}: cannot be read as a mask; write it again as a PNG.")
    return np.where(RULES[marks](mask), 255, 0).astype(np.uint8)


def load_mask(record: Record, shape: tuple[int, int]) -> np.ndarray:
    """The mask of a record, (H, W) uint8, 0 or 255, for a picture of ``shape`` (H, W).

    Raises:
        DataError: the mask is unreadable or of another size than the picture.
    """
    if record.mask is None:
        return np.full(shape, 255 if record.marks == "whole" else 0, np.uint8)
    mask = read_mask(record.mask, record.marks)
    if mask.shape != shape:
        raise DataError(misfit(record, mask.shape[::-1], shape[::-1]))
    return mask


def misfit(record: Record, mask: tuple[int, ...], picture: tuple[int, ...]) -> str:
    """The sentence for a mask (width, height) that does not fit its picture (width, height)."""
    return (
        f"{record.mask}: the mask is {mask[0]}x{mask[1]} pixels, but its picture "
        f"{record.image.name} is {picture[0]}x{picture[1]}; make them the same size."
    )


def size(file: Path) -> tuple[int, int] | None:
    """(width, height) as displayed, without decoding; None where Pillow cannot tell."""
    try:
        with PILImage.open(file) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except Exception:  # Pillow's readers raise all sorts of errors on broken files
        return None


def fault(record: Record) -> str | None:
    """What is wrong with a record's mask by the files' heads, as a sentence; None = nothing."""
    if record.mask is None:
        return None
    mask = size(record.mask)
    if mask is None:
        return f"{record.mask} cannot be read as a mask: write it again as a PNG."
    picture = size(record.image)  # None: a picture that fails later, with a reason of its own
    return misfit(record, mask, picture) if picture not in (None, mask) else None


def check_masks(records: Iterable[Record]) -> None:
    """Before long work: every mask is there and has its picture's size, by the files' heads."""
    for record in records:
        if sentence := fault(record):
            raise DataError(sentence)
