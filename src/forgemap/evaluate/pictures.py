"""pictures.py: what is evaluated: the records of a manifest or folder, checked before the work."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import ExifTags
from PIL import Image as PILImage

from ..data.records import MANIFEST, SPLITS, Record, read_manifest
from ..errors import DataError
from ..image import find_images


def read(data: Path, split: str | None) -> tuple[list[Record], str]:
    """The records and a hash of what lists them: the manifest, or names and sizes of the photos."""
    if split is not None and split not in SPLITS:
        raise DataError(f"Unknown split {split!r}: use one of {', '.join(SPLITS)}.")
    manifest = data / MANIFEST if data.is_dir() else data
    if manifest.is_file() and manifest.suffix == ".jsonl":
        records = [r for r in read_manifest(manifest) if split in (None, r.split)]
        if not records:
            raise DataError(f"{manifest} lists no picture of the split {split!r}.")
        return records, sha256(manifest.read_bytes()).hexdigest()
    if not data.is_dir():
        raise DataError(f"{data} is neither a folder nor a {MANIFEST}: name one that exists.")
    if split is not None:
        raise DataError(f"{data} has no {MANIFEST}, so its photos have no split: leave it out.")
    files = find_images([data]).files
    if not files:
        raise DataError(f"{data} holds neither a {MANIFEST} nor pictures.")
    listing = "".join(f"{f.relative_to(data)}\0{f.stat().st_size}\n" for f in files)
    records = [Record(f, None, str(f), "none", "test", {}, 0) for f in files]
    return records, sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()


def draw(records: list[Record], limit: int | None, seed: int) -> list[Record]:
    """At most `limit` records, one from each method in turn, in their first order."""
    if limit is None or limit >= len(records):
        return records
    rng = np.random.default_rng(seed)
    by_method: dict[str, list[int]] = {}
    for index in rng.permutation(len(records)):
        by_method.setdefault(records[index].method, []).append(int(index))
    turns = [(place, m, i) for m, found in by_method.items() for place, i in enumerate(found)]
    return [records[i] for i in sorted(i for _, _, i in sorted(turns)[:limit])]


def check_masks(records: list[Record]) -> None:
    """Before the long work: every mask is there and has its picture's size, by the files' heads."""
    for record in records:
        if record.mask is None:
            continue
        mask = _size(record.mask)
        if mask is None:
            raise DataError(f"{record.mask} cannot be read as a mask: write it again as a PNG.")
        picture = _size(record.image)  # None: a picture that fails later, as a row of its own
        if picture is not None and picture != mask:
            raise DataError(misfit(record, mask, picture))


def _size(file: Path) -> tuple[int, int] | None:
    """(width, height) as displayed, without decoding; None where Pillow cannot tell."""
    try:
        with PILImage.open(file) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except Exception:  # Pillow's readers raise all sorts of errors on broken files
        return None


def misfit(record: Record, mask: tuple[int, int], picture: tuple[int, int]) -> str:
    return (
        f"{record.mask}: the mask is {mask[0]}x{mask[1]} pixels, but its picture "
        f"{record.image.name} is {picture[0]}x{picture[1]}: make them the same size."
    )


def read_mask(record: Record) -> np.ndarray | None:
    """(H, W) uint8, 1 = manipulated; None for an untouched picture."""
    if not record.manipulated or record.mask is None:
        return None
    with PILImage.open(record.mask) as image:
        mask = (np.asarray(image.convert("L")) > 127).astype(np.uint8)
    if not mask.any():
        raise DataError(f"{record.mask} marks nothing: manipulated pixels must be white (255).")
    return mask
