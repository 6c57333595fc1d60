"""pictures.py: what is evaluated: the records of a manifest or folder, checked before the work."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

from ..data import masks
from ..data.catalog import digest_of, open_data
from ..data.catalog.sets import parse
from ..data.masks import check_masks, misfit
from ..data.records import MANIFEST, SPLITS, Record
from ..errors import DataError
from ..image import find_images

__all__ = ["check_masks", "draw", "misfit", "read", "read_mask"]


def read(data: Path, split: str | None) -> tuple[list[Record], str]:
    """The records and a hash of what lists them: the manifest, or names and sizes of the photos.

    Args:
        data: a manifest, a folder that holds one, ``NAME:ROOT`` (see `open_data`), or a folder of
            photos, all taken as untouched.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"Unknown split {split!r}: use one of {', '.join(SPLITS)}.")
    manifest = data / MANIFEST if data.is_dir() else data
    if manifest.is_file() and manifest.suffix == ".jsonl":
        records = open_data(manifest, split)
        if not records:
            raise DataError(f"{manifest} lists no picture of the split {split!r}.")
        return records, digest_of(manifest, records)
    if parse(str(data)) is not None:
        records = open_data(data, split)
        return records, digest_of(data, records)
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


def read_mask(record: Record) -> np.ndarray | None:
    """(H, W) uint8, 1 = manipulated; None for an untouched picture."""
    if not record.manipulated or record.mask is None:
        return None
    mask = masks.read_mask(record.mask, record.marks)
    if not mask.any():
        raise DataError(f"{record.mask} marks nothing: manipulated pixels must be white (255).")
    return mask // 255
