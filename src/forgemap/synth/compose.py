"""compose.py: edit many photos in parallel, resumably, and list the results in a manifest."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console

from forgemap.data.records import MANIFEST, SPLITS, UNTOUCHED, split_of
from forgemap.errors import DataError
from forgemap.files import write_whole
from forgemap.image import find_images
from forgemap.synth.benign import choose
from forgemap.synth.card import CARD, dataset_card
from forgemap.synth.journal import Answer, finish_run, open_journal
from forgemap.synth.methods import NEED_AUTOENCODER, choose_methods
from forgemap.synth.pool import Crew, in_processes
from forgemap.synth.settings import Photo, Settings, Task
from forgemap.synth.whole import REAL, label_of
from forgemap.synth.worker import run_task, set_up, single_thread

EDITS_PER_TASK = 8  # a photo is decoded once per task; an interruption loses at most this much


def synthesize(
    photos: Iterable[str | Path] | str | Path,
    out: str | Path,
    *,
    methods: Sequence[str] | None = None,
    per_photo: int = 1,
    seed: int = 0,
    workers: int = 1,
    autoencoder: str | Path | None = None,
    inpainter: str | Path = "",
    whole: bool = False,
    latent_noise: float = 0.0,
    weight_noise: float = 0.0,
    crop: int | None = None,
    vary: bool = False,
    untouched: bool = False,
    benign: float = 0.0,
    processing: Sequence[str] | None = None,
    split: str | None = None,
    area: tuple[float, float] = (0.005, 0.5),
    progress: bool = True,
) -> Path:
    """Make edited pictures with exact masks from real photos.

    Each picture depends only on the seed, the photo, its number and the set of photos: never on
    the order of the photos or on the number of workers. An interrupted run that is started again
    with the same settings continues and ends with the same files.

    Args:
        photos: files and folders.
        out: the folder for images/, masks/ and manifest.jsonl; a journal of the run stays there.
        methods: names from METHODS, in equal shares; by default all that are possible.
        per_photo: edits of each photo.
        seed: 0 or more.
        workers: processes. They are spawned, so a script that asks for several must call this
            under `if __name__ == "__main__":`.
        autoencoder: name, folder or hub id, for the methods that need one (see load_autoencoder);
            several with commas between, then each edit draws one of them.
        inpainter: folder of a network for inpaint_learned; "" = the one that ships.
        whole: instead of edits, write each picture as it is to real/, and as each autoencoder (by
            default those that ship) gives it back to a folder of the autoencoder's name.
        latent_noise: of half of those, at most so much noise on the latents, as a share of their
            spread (see `regenerate.noisy`); only with `whole`.
        weight_noise: at most so much noise on the weights of the decoders, as a share of their
            spread, other for each picture (see `Autoencoder.shaken`); only with `whole`.
        crop: edit crops of at most this many pixels a side, not whole photos.
        vary: process and compress the pictures before and after the edit in varied ways.
        untouched: also write the equally processed pictures without their edits (method "none").
        benign: probability of one benign processing (see `benign.BENIGN`) before the edit, and of
            one after it. The untouched twin gets the same two, so that edited and untouched
            pictures differ by nothing but the edit. Rows name them: "benign": "tone+messenger".
        processing: the names that are drawn from; by default all of BENIGN.
        split: "train", "val" or "test": use only the photos of that split.
        area: smallest and largest share of a picture that is edited.
        progress: show a progress bar.

    Returns:
        The manifest; a dataset card (README.md) lies beside it. Photos that could not be used are
        named on the console.

    Raises:
        DataError: bad settings, no usable photo, or `out` holds a run with other settings.
    """
    console = Console(stderr=True)
    out = Path(out)
    autoencoders = _autoencoders(autoencoder, whole)
    if whole and methods is not None:
        raise DataError("Whole pictures are made by autoencoders alone: leave out --methods.")
    if whole and benign:
        raise DataError("Benign processing goes with edits: leave out --benign or --whole.")
    for name, noise in (("latents", latent_noise), ("weights", weight_noise)):
        if noise and not whole:
            raise DataError(f"Noise on the {name} is for whole pictures: add --whole.")
        if not 0 <= noise <= 1:
            raise DataError(f"The noise on {name} is a share from 0 to 1, not {noise}.")
    if processing is not None and not benign:
        raise DataError("The kinds of processing go with --benign: give its share as well.")
    if not 0 <= benign <= 1:
        raise DataError(f"The share of benign processing is a number from 0 to 1, not {benign}.")
    chosen = choose(processing) if benign else ()
    names = [] if whole else choose_methods(methods, bool(autoencoders))
    _check(per_photo, seed, workers, crop, split, area)
    if inpainter:
        from forgemap.synth.learned import load_inpainter  # imports torch

        load_inpainter(inpainter)
        inpainter = Path(inpainter).resolve()
    photos = [photos] if isinstance(photos, (str, Path)) else photos
    sources, problems = _read_sources(photos, out)
    sources = [photo for photo in sources if split is None or split_of(photo.sha256) == split]
    if not sources:
        raise DataError(_nothing(split, problems))
    if methods is None and not autoencoders:
        console.print(
            f"Without --autoencoder there is no {' and no '.join(NEED_AUTOENCODER)} "
            "(--autoencoder nearest needs no download).",
            highlight=False,
        )
    settings = Settings(
        out=out,
        methods=tuple(names),
        per_photo=per_photo,
        seed=seed,
        autoencoders=autoencoders,
        crop=crop,
        vary=vary,
        untouched=untouched,
        area=area,
        photos=tuple(sources),
        inpainter=str(inpainter) if inpainter else "",
        whole=whole,
        latent_noise=latent_noise,
        weight_noise=weight_noise,
        benign=benign,
        processing=chosen,
    )
    folders = (REAL, *map(label_of, autoencoders)) if whole else ("images", "masks")
    described = settings.describe() | {"split": split}
    done = open_journal(out, described, folders)
    tasks = _tasks(settings, done)
    finish_run(
        out,
        done,
        problems,
        _run(settings, tasks, workers),
        size=lambda task: len(task.indices),
        what="Editing photos",
        total=len(sources) * per_photo,
        left=sum(len(task.indices) for task in tasks),
        console=console,
        progress=progress,
    )
    manifest = out / MANIFEST
    rows = [done[image] for image in sorted(done)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_whole(out / CARD, dataset_card(rows, described, text))
    write_whole(manifest, text)
    return manifest


def _autoencoders(given: str | Path | None, whole: bool) -> tuple[str, ...]:
    """The autoencoders by name, resolved folder or hub id; what is wrong with one is said here."""
    if given is None and not whole:
        return ()
    from forgemap.models.generators import UPSAMPLING  # imports torch
    from forgemap.synth.autoencoder import load_autoencoder

    if given is None:
        sources = list(UPSAMPLING)
    elif Path(given).exists() and str(given) not in UPSAMPLING:
        sources = [str(given)]
    else:
        sources = [name.strip() for name in str(given).split(",") if name.strip()]
    if not sources:
        raise DataError(f"No autoencoder given: use some of {', '.join(UPSAMPLING)}, or a folder.")
    for i, source in enumerate(sources):
        load_autoencoder(source)
        if source not in UPSAMPLING and Path(source).exists():
            sources[i] = str(Path(source).resolve())
    labels = [label_of(source) for source in sources]
    for label in labels:
        if labels.count(label) > 1 or label in (REAL, UNTOUCHED):
            raise DataError(
                f"Pictures of an autoencoder called {label!r} could not be told from others: "
                "give each folder a name of its own."
            )
    return tuple(sources)


def _check(
    per_photo: int,
    seed: int,
    workers: int,
    crop: int | None,
    split: str | None,
    area: tuple[float, float],
) -> None:
    if per_photo < 1 or workers < 1 or seed < 0:
        raise DataError("Edits per photo and workers are at least 1, the seed at least 0.")
    if crop is not None and crop < 64:
        raise DataError(f"A crop of {crop} pixels is too small for an edit: use 64 or more.")
    if split is not None and split not in SPLITS:
        raise DataError(f"Unknown split {split!r}: use one of {', '.join(SPLITS)}.")
    if not 0 < area[0] <= area[1] <= 1:
        raise DataError(f"The area must be two shares from 0 to 1, low first, not {area}.")


def _read_sources(photos: Iterable[str | Path], out: Path) -> tuple[list[Photo], list[str]]:
    """The photos with their hashes, sorted by hash, each content once; and what went wrong.

    Pictures of an earlier run in `out` are no photos.
    """
    found: dict[str, Photo] = {}
    files, troubles = find_images(photos)
    problems = [sentence for _, sentence in troubles]
    for path in files:
        if out.resolve() in path.resolve().parents:
            continue
        try:
            digest = sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
            continue
        if digest in found:
            problems.append(f"{path}: the same file as {found[digest].path}")
        else:
            found[digest] = Photo(str(path), digest)
    return [found[digest] for digest in sorted(found)], problems


def _nothing(split: str | None, problems: list[str]) -> str:
    where = f" in the split {split!r}" if split else ""
    reason = f" ({problems[0]})" if problems else ""
    return f"No photos{where}: give files or folders of pictures{reason}."


def _tasks(settings: Settings, done: dict[str, dict[str, Any]]) -> list[Task]:
    finished: dict[tuple[str, int], int] = {}
    for row in done.values():
        key = (row["source_sha256"], row["parameters"]["index"])
        finished[key] = finished.get(key, 0) + 1
    tasks = []
    for photo in settings.photos:
        missing = [
            index
            for index in range(settings.per_photo)
            if finished.get((photo.sha256, index), 0) < settings.pictures(index)
        ]
        for start in range(0, len(missing), EDITS_PER_TASK):
            tasks.append(Task(photo, tuple(missing[start : start + EDITS_PER_TASK])))
    return tasks


def _run(
    settings: Settings, tasks: list[Task], workers: int
) -> Generator[tuple[Task, Answer], None, None]:
    """Each task with its answer, in the order in which they finish."""
    if workers == 1 or len(tasks) <= 1:
        with single_thread(with_torch=settings.with_torch):
            set_up(settings)
            for task in tasks:
                yield task, run_task(task)
        return
    crew = Crew(min(workers, len(tasks)), set_up, (settings,))
    yield from in_processes(run_task, tasks, [crew], "use fewer workers")
