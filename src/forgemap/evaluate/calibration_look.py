"""calibration_look.py: what the network says of held-out pictures, once each, in processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from ..compression import palette
from ..copies import find_copies
from ..cores import available
from ..data.datasets import load_labelled
from ..data.records import Record, split_of
from ..detector import Detector
from ..encode import jpeg
from ..errors import DataError, ForgemapError
from ..familiarity import statistics
from ..image import Image, find_images, load_image
from ..pooling import features
from ..scoring import Decision
from ..tiling import localize
from .calibration_confidence import Seen, cells_of, seen_of
from .metrics import cuts
from .robustness import Variant

SHIFTS = np.arange(-6.0, 2.01, 0.25)
"""Candidates for what is added to the mask logits."""

PLAIN = "untouched crops"
PROCESSED = "untouched, honestly processed"
WHOLE = "whole photos"


class Label(NamedTuple):
    """A kind of untouched picture, and what it is counted with where it has too few photos."""

    name: str
    pool: str
    processed: bool = False


@dataclass
class Observation:
    """What one held-out picture says about the thresholds."""

    group: str  # where its marked area is counted: a method, or a kind of untouched picture
    source: str
    edited: bool
    overlap: np.ndarray  # (len(SHIFTS),) IoU with the mask for each shift; empty if untouched
    flagged: np.ndarray  # (len(SHIFTS),) share of the area that is marked
    maps: Path  # the logits, on disk: they are needed once more when the shift is known
    kinds: tuple[Label, ...] = ()  # where its false alarms are counted; empty if edited
    listed: bool = True  # in a manifest, with edited pictures beside it that were made alike
    statistics: dict[str, float] | None = None  # of its pixels alone; see `familiarity`
    colours: int | None = None  # see `palette`
    lossy: bool = False  # see `Image.lossy`
    copies: float = 0.0  # see `Copies.strength`

    def has_fewer(self, colours: int) -> bool:
        """Whether a palette left it fewer colours than that, as `Decision.judge` asks."""
        return self.colours is not None and self.colours < colours

    def features(self, decision: Decision) -> dict[str, float]:
        """The picture's statistics under a decision's mask calibration."""
        with np.load(self.maps) as maps:
            evidence = maps["evidence"] if maps["evidence"].size else None
            heat = decision.heat(maps["mask"].astype(np.float32))
            return features(heat, evidence, self.lossy, self.copies)


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
    pixels: np.ndarray
    mask: np.ndarray
    listed: bool
    lossy: bool


def observe(detector: Detector, view: View, maps: Path) -> Observation:
    """Run the network once, note what every candidate shift would mark, keep the logits."""
    logits = localize(detector.model, view.pixels, device=detector.device)
    edited = bool(view.mask.any())
    marked, overlap = cuts(logits.mask, view.mask > 0, -SHIFTS)
    evidence = np.zeros(0) if logits.evidence is None else logits.evidence
    cells = cells_of(view.pixels, view.mask)
    arrays = {"mask": logits.mask.astype(np.float16), "evidence": evidence, **cells}
    np.savez(maps, **arrays)  # type: ignore[arg-type]  # numpy's stub takes them for its options
    return Observation(
        view.group,
        photo_of(view.source),
        edited,
        overlap if edited else np.zeros(0),
        marked,
        maps,
        view.kinds,
        view.listed,
        statistics(view.pixels),
        palette(view.pixels),
        view.lossy,
        find_copies(view.pixels).strength,
    )


def photo_of(source: str) -> str:
    """What tells photos apart, however the path to their folder is spelled: folder and name."""
    return "/".join(Path(source).parts[-2:])


def look(detector: Detector, scratch: Path, task: Task) -> list[Observation]:
    """Everything that a task's pictures say."""
    return [
        observe(detector, view, scratch / f"{task.number}-{number}.npz")
        for number, view in enumerate(views(task))
    ]


def views(task: Task) -> Iterator[View]:
    """A record's picture, and what honest processing makes of it; or a whole photo's forms."""
    if task.record is None:
        for group, source, pixels, lossy in _forms(task.photo) if task.photo else ():
            nothing = np.zeros(pixels.shape[:2], np.uint8)
            yield View(group, (Label(group, WHOLE),), source, pixels, nothing, False, lossy)
        return
    record = task.record
    image, mask = load_labelled(record)
    pixels = image.samples
    names = record.benign.split("+") if record.benign else []
    kinds = tuple(Label(name, PROCESSED, True) for name in dict.fromkeys(names))
    kinds = kinds or (Label(PLAIN, PLAIN),)
    plain = PROCESSED if record.benign else PLAIN
    group = record.method if record.manipulated else plain
    kinds = () if record.manipulated else kinds
    yield View(group, kinds, record.source, pixels, mask, True, image.lossy)
    for name in task.processing:
        shown = honestly(name, pixels, task.seed, record.image.name)
        nothing = np.zeros(shown.samples.shape[:2], np.uint8)
        kinds = (Label(name, PROCESSED, True),)
        yield View(PROCESSED, kinds, record.source, shown.samples, nothing, False, shown.lossy)


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
        for group, source, pixels, _ in _forms(path):
            yield group, source, pixels


def _forms(path: Path) -> Iterator[tuple[str, str, np.ndarray, bool]]:
    """Group, source, pixels, and whether the form's format is lossy."""
    image = load_image(path)
    pixels, folder = image.samples, path.parent.name
    yield f"{folder}, as it is", str(path), pixels, image.lossy
    for quality in (90, 75):
        yield f"{folder}, JPEG {quality}", str(path), jpeg(pixels, quality), True
    if max(pixels.shape[:2]) > 1600:
        scale = 1280 / max(pixels.shape[:2])
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        yield f"{folder}, for the web", str(path), jpeg(small, 85), True


class Crew:
    """Runs a function over many items, in their order, with a bar; see `crew`."""

    def __init__(self, detector: Detector | None, pool: ProcessPoolExecutor | None) -> None:
        self._detector, self._pool = detector, pool

    def look(self, work: Sequence[Task], scratch: Path) -> list[Observation]:
        """`look` for each task."""
        function = (
            partial(_look, scratch)
            if self._detector is None
            else partial(look, self._detector, scratch)
        )
        return [o for some in self._run(function, work, "held-out pictures") for o in some]

    def features(self, seen: Sequence[Observation], decision: Decision) -> list[dict[str, float]]:
        """`Observation.features` of each."""
        return list(self._run(partial(_features, decision), seen, "statistics"))

    def cells(self, seen: Sequence[Observation], decision: Decision) -> Iterator[Seen]:
        """Of each, what a confidence map is counted on."""
        yield from self._run(partial(_cells, decision), seen, "confidence")

    def _run(self, function: Callable[[Any], Any], items: Sequence[Any], what: str) -> Any:
        console = Console(stderr=True)
        several = map if self._pool is None else self._pool.map
        try:
            yield from track(several(function, items), what, len(items), console=console)
        except BrokenProcessPool as error:
            raise ForgemapError(
                "A worker process died, perhaps for lack of memory: run again with fewer workers."
            ) from error


@contextmanager
def crew(folder: Path, workers: int) -> Iterator[Crew]:
    """The model of a folder, in this process or in several, with the maps as it gives them."""
    if workers == 1:
        yield Crew(_load(folder), None)
        return
    spawn = multiprocessing.get_context("spawn")  # a forked torch may hang
    pool = ProcessPoolExecutor(workers, spawn, _set_up, (folder, workers))
    try:
        yield Crew(None, pool)
    finally:
        pool.shutdown(cancel_futures=True)


_detector: Detector  # of a worker process


def _load(folder: Path) -> Detector:
    detector = Detector.load(folder, detector=None)
    detector.decision = Decision()
    return detector


def _set_up(folder: Path, workers: int) -> None:
    import torch

    global _detector
    torch.set_num_threads(max(1, available() // workers))
    _detector = _load(folder)


def _look(scratch: Path, task: Task) -> list[Observation]:
    return look(_detector, scratch, task)


def _features(decision: Decision, seen: Observation) -> dict[str, float]:
    return seen.features(decision)


def _cells(decision: Decision, seen: Observation) -> Seen:
    return seen_of(seen.source, seen.maps, decision)
