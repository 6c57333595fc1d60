"""calibration_look.py: what the network says of held-out pictures, once each, in processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from ..compression import palette
from ..copies import find_copies
from ..cores import available
from ..detector import Detector
from ..errors import ForgemapError
from ..familiarity import statistics
from ..pooling import features
from ..recompression import find_later
from ..scoring import Decision
from ..tiling import localize
from .calibration_confidence import Seen, cells_of, seen_of
from .calibration_pictures import Label, Task, View, photo_of, views
from .metrics import cuts

SHIFTS = np.arange(-6.0, 2.01, 0.25)
"""Candidates for what is added to the mask logits."""


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


def observe(detector: Detector, view: View, maps: Path) -> Observation:
    """Run the network once, note what every candidate shift would mark, keep the logits."""
    pixels = view.image.samples
    mask, evidence = localize(detector.model, pixels, device=detector.device)
    later = find_later(view.image)
    if later is not None:
        mask += later.of_pixels()
        evidence = None if evidence is None else evidence + later.of_cells(evidence.shape)
    edited = bool(view.mask.any())
    marked, overlap = cuts(mask, view.mask > 0, -SHIFTS)
    arrays = {
        "mask": mask.astype(np.float16),
        "evidence": np.zeros(0) if evidence is None else evidence,
        **cells_of(pixels, view.mask),
    }
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
        statistics(pixels),
        palette(pixels),
        view.image.lossy,
        find_copies(pixels).strength,
    )


def look(detector: Detector, scratch: Path, task: Task) -> list[Observation]:
    """Everything that a task's pictures say."""
    return [
        observe(detector, view, scratch / f"{task.number}-{number}.npz")
        for number, view in enumerate(views(task))
    ]


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
