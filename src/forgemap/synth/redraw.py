"""redraw.py: batches of regions -> drawn pictures on disk, on one device or on several."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from forgemap.data.records import UNTOUCHED, split_of
from forgemap.encode import encode_png
from forgemap.errors import DataError, ForgemapError
from forgemap.files import write_whole
from forgemap.image import load_image
from forgemap.synth.inpaint import VARIANTS, Inpainter
from forgemap.synth.journal import Answer, Row
from forgemap.synth.pool import Crew, in_processes
from forgemap.synth.regions import Region, fitted

SMALLEST = 32  # pixels a side, after reducing


@dataclass(frozen=True)
class Settings:
    """What is the same for every picture of a run; see `build`."""

    out: Path
    model: str
    variants: tuple[str, ...]
    untouched: bool
    prompt: str
    area: tuple[float, float]
    size: int
    steps: int
    guidance: float
    batch: int
    seed: int
    precision: str

    def describe(self) -> Row:
        """JSON-able; equal for two runs exactly when they make the same pictures."""
        kept = {key: value for key, value in vars(self).items() if key != "out"}
        return {**kept, "variants": list(self.variants), "area": list(self.area)}


@dataclass(frozen=True)
class Task:
    """A region to redraw, and the SHA-256 of its photo's bytes."""

    region: Region
    sha256: str

    @property
    def seed(self) -> int:
        """Of the picture, without the run's: from the photo and the region."""
        text = f"{self.sha256} {self.region.label} {self.region.shape}"
        return int(sha256(text.encode()).hexdigest()[:12], 16)


class Batch(NamedTuple):
    """Tasks of one shape that are drawn together, and their place among the run's batches."""

    number: int
    tasks: tuple[Task, ...]


def run(
    settings: Settings, batches: list[Batch], devices: Sequence[str], first: Inpainter | None
) -> Generator[tuple[Batch, Answer], None, None]:
    """Each batch with its answer, in the order in which they finish."""
    if first is not None:
        for batch in batches:
            yield batch, redraw(first, settings, batch)
        return
    crews = [Crew(1, _set_up, (settings, device, len(devices))) for device in devices]
    yield from in_processes(_work, batches, crews, "use a smaller batch or fewer devices")


_inpainter: Inpainter | ForgemapError  # of this process
_settings: Settings


def _set_up(settings: Settings, device: str, processes: int) -> None:
    import signal

    import torch

    global _inpainter, _settings
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its processes itself
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    _settings = settings
    try:
        _inpainter = Inpainter(settings.model, device, settings.precision)
    except ForgemapError as error:  # an initializer may not fail: the first batch says it
        _inpainter = error


def _work(batch: Batch) -> Answer:
    if isinstance(_inpainter, ForgemapError):
        raise _inpainter
    return redraw(_inpainter, _settings, batch)


def redraw(inpainter: Inpainter, settings: Settings, batch: Batch) -> Answer:
    """Draw a batch and write its files; its rows, and a sentence for each photo left out.

    Each row says its batch and how many rows that has: one that lacks some is drawn anew.
    """
    ready: list[tuple[Task, np.ndarray, np.ndarray]] = []
    problems: list[str] = []
    for task in batch.tasks:
        try:
            ready.append((task, *_prepare(task, settings)))
        except ForgemapError as error:
            problems.append(str(error))
    if not ready:
        return [], problems
    tasks, pictures, masks = zip(*ready, strict=True)
    drawn = inpainter.draw(
        pictures,
        masks,
        [settings.prompt.format(label=task.region.label) for task in tasks],
        [_seed(settings, task) for task in tasks],
        steps=settings.steps,
        guidance=settings.guidance,
    )
    rows: list[Row] = []
    for (task, picture, mask), new in zip(ready, drawn, strict=True):
        rows += _write(settings, task, picture, mask, new)
    return [row | {"batch": [batch.number, len(rows)]} for row in rows], problems


def _prepare(task: Task, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The photo (H, W, 3) uint8 and its region (H, W) bool as the model is to have them."""
    region = task.region
    pixels = load_image(region.path).pixels
    if pixels.shape[:2] != (region.height, region.width):
        raise DataError(
            f"{region.path} is {pixels.shape[1]}x{pixels.shape[0]} pixels, its annotation says "
            f"{region.width}x{region.height}: they do not belong together."
        )
    picture, mask = fitted(pixels, region.mask(), settings.size)
    if min(mask.shape) < SMALLEST:
        raise DataError(f"{region.path} is too small: at least {SMALLEST} pixels a side.")
    share, (low, high) = float(mask.mean()), settings.area
    if not low <= share <= high:
        raise DataError(
            f"{region.path}: its {region.label} covers {share:.1%} of the picture, outside of "
            f"{low:.1%} to {high:.1%}."
        )
    return picture, mask


def _seed(settings: Settings, task: Task) -> int:
    return int(np.random.SeedSequence([settings.seed, task.seed]).generate_state(1, np.uint64)[0])


def _write(
    settings: Settings, task: Task, picture: np.ndarray, mask: np.ndarray, drawn: np.ndarray
) -> list[Row]:
    """The files of one photo; their rows."""
    region, out = task.region, settings.out
    mask_file = f"masks/{region.name}.png"
    write_whole(out / mask_file, encode_png(mask.astype(np.uint8) * 255))
    made = {name: VARIANTS[name](picture, drawn, mask) for name in settings.variants}
    if settings.untouched:
        made[UNTOUCHED] = picture
    rows: list[Row] = []
    for kind, pixels in made.items():
        image_file = f"images/{kind}/{region.name}.png"
        write_whole(out / image_file, encode_png(pixels))
        parameters: dict[str, Any] = {"size": [mask.shape[1], mask.shape[0]]}
        if kind != UNTOUCHED:
            parameters |= {
                "label": region.label,
                "area": round(float(mask.mean()), 5),
                "marked": "real" if kind == "ldm_real" else "redrawn",
                "model": os.path.basename(settings.model)
                if os.path.isabs(settings.model)
                else settings.model,
                "prompt": settings.prompt.format(label=region.label),
                "picture_seed": _seed(settings, task),
            }
        rows.append(
            {
                "image": image_file,
                "mask": None if kind == UNTOUCHED else mask_file,
                "source": region.path,
                "source_sha256": task.sha256,
                "split": split_of(task.sha256),
                "method": kind,
                "parameters": parameters,
                "seed": settings.seed,
            }
        )
    return rows
