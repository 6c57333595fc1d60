"""check.py: is this copy of a data set whole and sound? Every fault as one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ...errors import DataError, ForgemapError
from ...image import load_image
from ..masks import RULES, misfit
from ..records import SPLITS, UNTOUCHED, Record
from .found import Found
from .sets import SETS, read_set

SHOWN = 40  # of a mask group, how many are looked at for their polarity
BORDER = 0.02  # width of a picture's rim, as a share of its side
CLEAR = 1.2  # how much more one side of a mask must differ from the original to decide


@dataclass
class Check:
    """What a check found; the copy is sound when there are no problems."""

    name: str
    root: Path
    records: list[Record]
    counts: dict[tuple[str, str], int]
    """(method, split) -> pictures."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faulty: set[Path] = field(default_factory=set)
    """Pictures to be left out: unreadable, or with a mask that is of no use."""


@dataclass(frozen=True)
class Seen:
    """What one picture and its mask look like."""

    record: Record
    problem: str | None = None
    area: float = 0.0
    """Share of the picture that the mask marks."""
    rim: float = 0.0
    """Share of the picture's rim that it marks."""
    inside: float | None = None
    """Mean difference from the original where the mask marks, and where not; None = unknown."""
    outside: float | None = None


def check(
    name: str,
    root: str | Path,
    *,
    sample: int | None = None,
    complete: bool = False,
    workers: int = 4,
) -> Check:
    """Verify a copy: layout, pairing, splits, counts, sizes, readability, polarity of the masks.

    Args:
        name: from `SETS`.
        root: the copy.
        sample: decode at most this many pictures of each method, spread evenly; None = all.
        complete: whether fewer pictures than were published are a fault rather than a note.
        workers: threads that decode.

    Raises:
        DataError: an unknown name, or a root that is not such a set at all.
    """
    if workers < 1 or (sample is not None and sample < 1):
        raise DataError("The sample and the number of workers are at least 1.")
    found = read_set(name, root)
    counts = Counter((record.method, record.split) for record in found.records)
    problems = [*found.problems, *found.gaps]
    result = Check(name, Path(root), found.records, dict(counts), problems, found.notes)
    if not found.records and not result.problems:
        result.problems.append(f"{root} holds no picture whose truth is known.")
    _repeated(result)
    _counts(result, complete)
    groups: dict[str, list[Record]] = {}
    for record in found.records:
        groups.setdefault(record.method, []).append(record)
    for method, records in groups.items():
        picks = np.linspace(0, len(records) - 1, min(sample or len(records), len(records)))
        chosen = [records[int(i)] for i in picks.round()]
        seen = list(_look_at(chosen, found, workers))
        for one in seen:
            if one.problem is not None:
                result.problems.append(one.problem)
                result.faulty.add(one.record.image)
        if method != UNTOUCHED:
            _polarity(result, method, [one for one in seen if one.problem is None])
    return result


def _repeated(result: Check) -> None:
    files = Counter(record.image for record in result.records)
    for file, times in files.items():
        if times > 1:
            result.problems.append(f"{file} is listed {times} times.")
    of_source: dict[str, set[str]] = {}
    for record in result.records:
        of_source.setdefault(record.source, set()).add(record.split)
    # A published split may well divide a source by name; it is worth knowing, not a fault.
    across = sum(1 for source, splits in of_source.items() if source and len(splits) > 1)
    if across:
        result.notes.append(f"{across} sources have pictures in more than one split.")


def _counts(result: Check, complete: bool) -> None:
    methods = Counter(record.method for record in result.records)
    methods["edited"] = sum(n for method, n in methods.items() if method != UNTOUCHED)
    for method, published in SETS[result.name].counts.items():
        if methods[method] != published:
            what = "untouched" if method == UNTOUCHED else method
            sentence = (
                f"{result.root} has {methods[method]} {what} pictures, the published set "
                f"{published}."
            )
            (result.problems if complete else result.notes).append(sentence)
    empty = [s for s in SPLITS if not any(r.split == s for r in result.records)]
    if empty and result.records:
        result.notes.append(f"No picture is in the split {' or '.join(empty)}.")


def _look_at(records: Sequence[Record], found: Found, workers: int) -> Iterator[Seen]:
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda record: _look(record, found.originals), records)


def _look(record: Record, originals: dict[Path, Path]) -> Seen:
    """Decode a picture, its mask, and its original where there is one."""
    try:
        pixels = load_image(record.image).pixels
    except ForgemapError as error:
        return Seen(record, f"{str(error).rstrip('.')}.")
    if record.mask is None:
        return Seen(record)
    raw = cv2.imread(str(record.mask), cv2.IMREAD_COLOR)
    if raw is None:
        return Seen(record, f"{record.mask} cannot be read as a mask: write it again as a PNG.")
    if raw.shape != pixels.shape:
        return Seen(record, misfit(record, raw.shape[1::-1], pixels.shape[1::-1]))
    if sentence := _no_mask(record, raw):
        return Seen(record, sentence)
    mask = RULES[record.marks](raw)
    area, rim = float(mask.mean()), float(mask[_rim(mask.shape)].mean())
    if area in (0, 1):
        what = "nothing" if area == 0 else "all of the picture"
        return Seen(record, f"{record.mask} marks {what}: it says nothing about where the edit is.")
    inside, outside = _differences(record, pixels, mask, originals)
    return Seen(record, None, area, rim, inside, outside)


def _no_mask(record: Record, raw: np.ndarray) -> str | None:
    """Why a picture (H, W, 3) BGR cannot be a mask of its kind; None = it can."""
    if raw.max() <= 1 and raw.any():
        return f"{record.mask} holds 0 and 1 instead of 0 and 255: multiply it by 255."
    if record.marks == "green":
        colours = np.abs(raw[..., 1].astype(int) - raw[..., 2])
        if (colours > 64).mean() < 0.8:
            return f"{record.mask} is not a mask of red and green areas."
        return None
    spread = int(np.ptp(raw.astype(int), axis=2).max())
    grey = raw.mean(axis=2)
    middle = float(((grey > 32) & (grey < 223)).mean())
    if spread > 64:
        return f"{record.mask} is coloured: a mask must be black and white."
    if middle > 0.2:
        return f"{record.mask} is mostly grey: a mask must be black and white."
    return None


def _rim(shape: tuple[int, ...]) -> np.ndarray:
    height, width = shape[:2]
    rim = np.ones((height, width), bool)
    y, x = max(1, round(height * BORDER)), max(1, round(width * BORDER))
    rim[y : height - y, x : width - x] = False
    return rim


def _differences(
    record: Record, pixels: np.ndarray, mask: np.ndarray, originals: dict[Path, Path]
) -> tuple[float | None, float | None]:
    """Mean difference from the original, inside and outside of the mask."""
    original = originals.get(record.image)
    if original is None:
        return None, None
    try:
        before = load_image(original).pixels
    except ForgemapError:  # reported as a picture of its own
        return None, None
    if before.shape != pixels.shape:
        return None, None
    change = np.abs(pixels.astype(np.int16) - before).mean(axis=2)
    return float(change[mask].mean()), float(change[~mask].mean())


def _polarity(result: Check, method: str, seen: Sequence[Seen]) -> None:
    """Whether the masks of a method could be inverted.

    Where originals are there: a picture must differ from its original more inside of the mask.
    Otherwise: a region that was edited seldom covers most of the picture and most of its rim.
    """
    seen = [one for one in seen if one.record.mask is not None][:: max(1, len(seen) // SHOWN)]
    compared = [
        (o.inside, o.outside) for o in seen if o.inside is not None and o.outside is not None
    ]
    against = sum(1 for inside, outside in compared if outside > CLEAR * inside)
    support = sum(1 for inside, outside in compared if inside > CLEAR * outside)
    decided = against + support
    if decided >= max(1, len(seen) // 4):
        if against > decided / 2 and method != "ldm_real":  # there the outside is what changed
            result.problems.append(
                f"The masks of {method} look inverted: {against} of {decided} pictures differ from "
                "their originals outside of what is marked."
            )
        return
    if seen and _median(o.area for o in seen) > 0.5 and _median(o.rim for o in seen) > 0.5:
        result.problems.append(
            f"The masks of {method} look inverted: they mark {_median(o.area for o in seen):.0%} "
            f"of the picture and {_median(o.rim for o in seen):.0%} of its rim in the median; "
            f"manipulated must be {_spelled(seen[0].record)}."
        )


def _spelled(record: Record) -> str:
    """How this record's set says "manipulated"."""
    return {"white": "white (255)", "black": "black (0)"}.get(record.marks, record.marks)


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))
