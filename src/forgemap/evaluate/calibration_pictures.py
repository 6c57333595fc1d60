"""calibration_pictures.py: the held-out pictures that thresholds are chosen on, one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from ..data.datasets import load_labelled
from ..data.records import Record, split_of
from ..encode import encode_jpeg
from ..errors import DataError
from ..image import Image, find_images, load_image
from .robustness import Variant

PLAIN = "untouched crops"
PROCESSED = "untouched, honestly processed"
WHOLE = "whole photos"


class Label(NamedTuple):
    """A kind of untouched picture, and what it is counted with where it has too few photos."""

    name: str
    pool: str
    processed: bool = False


class Task(NamedTuple):
    """One record, or one whole photo with everything that is made of it."""

    number: int
    record: Record | None = None
    photo: Path | None = None
    #: Names of `synth.benign.BENIGN` that the record, an untouched one, is processed by besides.
    processing: tuple[str, ...] = ()
    seed: int = 0


class View(NamedTuple):
    """A picture to look at."""

    group: str
    kinds: tuple[Label, ...]
    source: str
    image: Image
    mask: np.ndarray
    listed: bool


def photo_of(source: str) -> str:
    """What tells photos apart, however the path to their folder is spelled: folder and name."""
    return "/".join(Path(source).parts[-2:])


def views(task: Task) -> Iterator[View]:
    """A record's picture, and what honest processing makes of it; or a whole photo's forms."""
    if task.record is None:
        for group, source, image in _forms(task.photo) if task.photo else ():
            yield View(group, (Label(group, WHOLE),), source, image, nothing(image), False)
        return
    record = task.record
    image, mask = load_labelled(record)
    names = record.benign.split("+") if record.benign else []
    kinds = tuple(Label(name, PROCESSED, True) for name in dict.fromkeys(names))
    kinds = kinds or (Label(PLAIN, PLAIN),)
    plain = PROCESSED if record.benign else PLAIN
    group = record.method if record.manipulated else plain
    kinds = () if record.manipulated else kinds
    yield View(group, kinds, record.source, image, mask, True)
    for name in task.processing:
        shown = honestly(name, image.samples, task.seed, record.image.name)
        kinds = (Label(name, PROCESSED, True),)
        yield View(PROCESSED, kinds, record.source, shown, nothing(shown), False)


def nothing(image: Image) -> np.ndarray:
    """The mask (H, W) of an untouched picture."""
    return np.zeros(image.samples.shape[:2], np.uint8)


def honestly(name: str, pixels: np.ndarray, seed: int, picture: str) -> Image:
    """The pixels after the honest processing ``name``; seed and the picture's name draw it."""
    rng = np.random.default_rng([seed, crc32(f"{picture} {name}".encode())])
    return load_image(Variant(name, kind="benign").apply(pixels, rng))


def tasks(
    records: Sequence[Record], photos: Sequence[Path], processing: Sequence[str], seed: int
) -> list[Task]:
    """One task a record and a photo; one untouched record of each photo gets the processing too."""
    found: list[Task] = []
    processed: set[str] = set()
    for record in records:
        names: tuple[str, ...] = ()
        if not record.manipulated and not record.benign and record.source not in processed:
            processed.add(record.source)
            names = tuple(processing)
        found.append(Task(len(found), record, None, names, seed))
    return found + [Task(len(found) + i, None, photo) for i, photo in enumerate(photos)]


def photos_of(paths: Sequence[str], split: str | None) -> list[Path]:
    """The photos of one split (None: of all) in folders; DataError if there is none."""
    found, problems = find_images(paths)
    if problems:
        raise DataError(f"{problems[0][1]}.")
    photos = [p for p in found if split is None or _split(p) == split]
    if not photos:
        raise DataError(f"{', '.join(paths)}: no photo falls into the {split} split.")
    return photos


def _split(path: Path) -> str:
    try:
        return split_of(sha256(path.read_bytes()).hexdigest())
    except OSError:
        return split_of(load_image(path).sha256)  # which says in a sentence what is wrong


def untouched_photos(
    paths: Sequence[str], split: str | None
) -> Iterable[tuple[str, str, np.ndarray]]:
    """(group, source, pixels) of whole photos of one split (None: of all), as they are and as they
    are shared."""
    for path in track(photos_of(paths, split), "whole photos", console=Console(stderr=True)):
        for group, source, image in _forms(path):
            yield group, source, image.samples


def _forms(path: Path) -> Iterator[tuple[str, str, Image]]:
    """Group, source and picture."""
    image = load_image(path)
    pixels, folder = image.samples, path.parent.name
    yield f"{folder}, as it is", str(path), image
    for quality in (90, 75):
        yield f"{folder}, JPEG {quality}", str(path), load_image(encode_jpeg(pixels, quality))
    if max(pixels.shape[:2]) > 1600:
        scale = 1280 / max(pixels.shape[:2])
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        yield f"{folder}, for the web", str(path), load_image(encode_jpeg(small, 85))
