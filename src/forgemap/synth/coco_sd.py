"""coco_sd.py: sets made by inpainting: COCO-SD from COCO's objects, a Dolos-like one from faces.

What is drawn depends on the settings and the photos alone: pictures are put into batches before
any is drawn, each has a seed of its own, and a batch that was interrupted is drawn anew as a whole.
So the number of devices and of interruptions changes no pixel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import groupby
from pathlib import Path

from rich.console import Console

from forgemap.data.records import MANIFEST, SPLITS, UNTOUCHED, split_of
from forgemap.errors import DataError, ModelError
from forgemap.files import write_whole
from forgemap.synth.inpaint import PRECISIONS, VARIANTS, Inpainter
from forgemap.synth.journal import Row, finish_run, open_journal
from forgemap.synth.redraw import SMALLEST, Batch, Settings, Task, run
from forgemap.synth.regions import Region, coco_regions, face_regions, fitted_shape


def build(
    what: str,
    photos: str | Path,
    model: str,
    out: str | Path,
    *,
    masks: str | Path | None = None,
    variants: Sequence[str] = ("ldm",),
    untouched: bool = False,
    prompt: str = "{label}",
    limit: int | None = None,
    split: str | None = None,
    area: tuple[float, float] = (0.02, 0.5),
    size: int = 512,
    steps: int = 50,
    guidance: float = 7.5,
    batch: int = 4,
    seed: int = 0,
    devices: Sequence[str] = ("cpu",),
    precision: str = "auto",
    progress: bool = True,
) -> Path:
    """Build a data set by inpainting; interrupted, the same call goes on where it stopped.

    ``out`` then holds images/VARIANT/NAME.png, masks/NAME.png (shared by the variants) and
    manifest.jsonl, with VARIANT as the method. The split follows the bytes of the photo, as
    everywhere.

    Args:
        what: "coco-sd" (photos: COCO's folder) or "faces" (photos: any folder of aligned faces).
        photos: see `coco_regions` and `face_regions`.
        model: inpainting pipeline of diffusers, a folder or a hub id.
        out: a new or empty folder, or that of the same run.
        masks: faces only: given masks instead of parts of the face.
        variants: from VARIANTS. They cost nothing: each picture is drawn once. The mask is the
            region in all of them, as in the paper, also in ldm_real, where it is the real part.
        untouched: also write the photos as the model was given them (method "none").
        prompt: "{label}" becomes COCO's category, or the part of the face.
        limit: at most so many photos, a random choice by the seed.
        split: only photos of "train", "val" or "test".
        area: smallest and largest share of a picture that is redrawn.
        size: longer side of the pictures; larger photos are reduced, smaller ones stay.
        steps: of denoising.
        guidance: of the prompt.
        batch: pictures at a time.
        seed: 0 or more.
        devices: one process for each takes every k-th batch; one device needs no process.
        precision: "32", "16", "bf16", or "auto": 32 bits on a CPU, 16 on a GPU.
        progress: show a progress bar.

    Returns:
        The manifest. Photos that could not be used are named on the console.

    Raises:
        DataError: bad settings, no usable photo, or ``out`` holds a run with other settings.
        ModelError: the pipeline cannot be used.
    """
    console, out = Console(stderr=True, quiet=not progress), Path(out)
    if Path(model).exists():
        model = str(Path(model).resolve())
    if precision == "auto":
        precision = "32" if all(d.startswith("cpu") for d in devices) else "16"
    settings = Settings(
        out, model, tuple(dict.fromkeys(variants)), untouched, prompt, area, size, steps, guidance,
        batch, seed, precision,
    )  # fmt: skip
    _check(what, masks, settings, limit, split, devices)
    if what == "coco-sd":
        regions = coco_regions(Path(photos), area, seed)
    else:
        regions = face_regions(Path(photos), None if masks is None else Path(masks), seed)
    with console.status("Reading the photos"):
        tasks, problems = _tasks(regions, limit, split)
    if not tasks:
        reason = f": {problems[0]}" if problems else f" (split {split}, area {area[0]}-{area[1]})."
        raise DataError(f"{photos} has no picture with a region to redraw{reason}")
    first = Inpainter(model, devices[0], precision) if len(devices) == 1 else None
    digest = sha256("".join(sorted(t.sha256 for t in tasks)).encode()).hexdigest()
    described = settings.describe() | {"photos": f"{len(tasks)} with digest {digest[:16]}"}
    kinds = (*settings.variants, *([UNTOUCHED] if untouched else []))
    done = open_journal(out, described, ("masks", *(f"images/{kind}" for kind in kinds)))
    left = _unfinished(_batches(tasks, settings), done)
    finish_run(
        out,
        done,
        problems,
        run(settings, left, devices, first),
        size=lambda batch: len(batch.tasks),
        what="Redrawing",
        total=len(tasks),
        left=sum(len(batch.tasks) for batch in left),
        console=console,
        progress=progress,
    )
    rows = [{k: v for k, v in done[image].items() if k != "batch"} for image in sorted(done)]
    write_whole(out / MANIFEST, "".join(json.dumps(row) + "\n" for row in rows))
    return out / MANIFEST


def _check(
    what: str,
    masks: str | Path | None,
    settings: Settings,
    limit: int | None,
    split: str | None,
    devices: Sequence[str],
) -> None:
    low, high = settings.area
    if what not in ("coco-sd", "faces"):
        raise DataError(f"Unknown set {what!r}: use one of coco-sd, faces.")
    if masks is not None and what != "faces":
        raise DataError("COCO brings its own masks: --masks goes with faces.")
    if unknown := [name for name in settings.variants if name not in VARIANTS]:
        raise DataError(f"Unknown variant {unknown[0]!r}: use {', '.join(VARIANTS)}.")
    if not settings.variants or not devices:
        raise DataError("Name at least one variant and one device.")
    if split is not None and split not in SPLITS:
        raise DataError(f"Unknown split {split!r}: use one of {', '.join(SPLITS)}.")
    if not 0 < low <= high <= 1:
        raise DataError(f"The area must be two shares from 0 to 1, low first, not {low},{high}.")
    if min(settings.steps, settings.batch, limit or 1) < 1 or settings.seed < 0:
        raise DataError("Steps, batch and limit are at least 1, the seed at least 0.")
    if settings.size < SMALLEST:
        raise DataError(f"A size of {settings.size} pixels is too small: use {SMALLEST} or more.")
    if settings.precision not in PRECISIONS:
        raise ModelError(f"Unknown precision {settings.precision!r}: use {', '.join(PRECISIONS)}.")
    try:
        settings.prompt.format(label="dog")
    except (KeyError, IndexError, ValueError):
        raise DataError(
            f"The prompt {settings.prompt!r} may hold {{label}} and no other braces."
        ) from None


def _tasks(
    regions: Iterator[Region], limit: int | None, split: str | None
) -> tuple[list[Task], list[str]]:
    """The regions of the photos that are wanted, with hashes; each content once."""
    tasks: dict[str, Task] = {}
    names: set[str] = set()
    problems: list[str] = []
    for region in regions:
        try:
            digest = sha256(Path(region.path).read_bytes()).hexdigest()
        except OSError as error:
            problems.append(f"{region.path}: {error.strerror or error}")
            continue
        if split is not None and split_of(digest) != split:
            continue
        if region.name in names:  # x.jpg beside x.png
            region = replace(region, name=f"{region.name}-{digest[:8]}")
        if digest in tasks:
            problems.append(f"{region.path}: the same file as {tasks[digest].region.path}")
            continue
        tasks[digest] = Task(region, digest)
        names.add(region.name)
        if len(tasks) == limit:
            break
    return sorted(tasks.values(), key=lambda task: task.region.name), problems


def _batches(tasks: Sequence[Task], settings: Settings) -> list[Batch]:
    """Tasks of one shape together; the same for every number of devices and interruptions."""

    def shape(task: Task) -> tuple[int, int]:
        return fitted_shape(task.region.height, task.region.width, settings.size)

    batches: list[Batch] = []
    for _, group in groupby(sorted(tasks, key=shape), key=shape):
        these = tuple(group)
        for start in range(0, len(these), settings.batch):
            batches.append(Batch(len(batches), these[start : start + settings.batch]))
    return batches


def _unfinished(batches: Sequence[Batch], done: Mapping[str, Row]) -> list[Batch]:
    """The batches of which not every row was written down."""
    rows: dict[int, int] = {}
    wanted: dict[int, int] = {}
    for row in done.values():
        number, wanted[number] = row["batch"]
        rows[number] = rows.get(number, 0) + 1
    return [b for b in batches if rows.get(b.number, 0) != wanted.get(b.number, -1)]
