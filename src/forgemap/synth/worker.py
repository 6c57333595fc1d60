"""worker.py: one process's share of a synthesis run: decode a photo, edit it, write the files."""

from __future__ import annotations

import multiprocessing
import signal
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from forgemap.data.records import UNTOUCHED, split_of
from forgemap.encode import encode_png
from forgemap.errors import DataError, ForgemapError
from forgemap.files import write_whole
from forgemap.image import load_image
from forgemap.synth.benign import BENIGN, Processed, draw, process
from forgemap.synth.edit import Context, Edit
from forgemap.synth.methods import METHODS, NEED_AUTOENCODER, NEED_DONOR
from forgemap.synth.prepare import finish, prepare
from forgemap.synth.settings import Photo, Settings, Task, chance
from forgemap.synth.whole import label_of, make_whole

if TYPE_CHECKING:
    from forgemap.synth.autoencoder import Autoencoder

SMALLEST = 64  # pixels a side
DONORS_PER_PHOTO = 8
CACHE_BYTES = 400_000_000
TRIES = 5
LEAST_CHANGED = 0.1  # share of the masked pixels that an edit must change to count as one
LEAST_LEFT = 0.5  # share of the smallest area that feathering may leave


class _Worker:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._pixels: OrderedDict[str, np.ndarray] = OrderedDict()
        self._autoencoders: dict[str, Autoencoder] = {}
        self._splits: dict[str, list[Photo]] = {}
        for photo in settings.photos:
            self._splits.setdefault(split_of(photo.sha256), []).append(photo)

    def load(self, photo: Photo) -> np.ndarray:
        """The photo's pixels; recently used photos are kept."""
        if photo.sha256 in self._pixels:
            self._pixels.move_to_end(photo.sha256)
            return self._pixels[photo.sha256]
        pixels = load_image(photo.path).pixels
        height, width = pixels.shape[:2]
        if min(height, width) < SMALLEST:
            raise DataError(
                f"{photo.path} is too small to edit: {width} x {height} pixels, "
                f"at least {SMALLEST} a side are needed."
            )
        self._pixels[photo.sha256] = pixels
        while len(self._pixels) > 1 and sum(p.nbytes for p in self._pixels.values()) > CACHE_BYTES:
            self._pixels.popitem(last=False)
        return pixels

    def autoencoder(self, source: str) -> Autoencoder:
        """One of the run's autoencoders, loaded when it is first asked for."""
        if source not in self._autoencoders:
            from forgemap.synth.autoencoder import load_autoencoder  # imports torch

            self._autoencoders[source] = load_autoencoder(source)
        return self._autoencoders[source]

    def autoencoder_of(self, photo: Photo, index: int) -> str:
        """The autoencoder that edit `index` of a photo uses, where there are several."""
        drawn = chance(self.settings.seed, photo, index, "autoencoder")
        return str(drawn.choice(self.settings.autoencoders))

    def donors_of(self, photo: Photo) -> list[Photo]:
        """A shortlist of other photos of the same split, so that few have to be decoded."""
        others = self._splits[split_of(photo.sha256)]
        rng = chance(self.settings.seed, photo, "donors")
        chosen = rng.choice(len(others), min(DONORS_PER_PHOTO + 1, len(others)), replace=False)
        return [others[i] for i in chosen if others[i] != photo][:DONORS_PER_PHOTO]

    def method_of(self, photo: Photo, index: int, donors: bool) -> str:
        """Every method in turn, in an order of the photo's own."""
        names = [name for name in self.settings.methods if donors or name not in NEED_DONOR]
        if not names:
            raise DataError(
                f"{' and '.join(self.settings.methods)} can only be made with a second photo "
                f"of the split {split_of(photo.sha256)!r}; give more photos or other methods."
            )
        order = chance(self.settings.seed, photo, "methods").permutation(len(names))
        return names[order[index % len(names)]]

    def run(self, task: Task) -> tuple[list[dict[str, Any]], list[str]]:
        rows: list[dict[str, Any]] = []
        problems: list[str] = []
        try:
            pixels = self.load(task.photo)
        except ForgemapError as error:
            # Counted once per photo, not once per task.
            return [], [str(error)] if 0 in task.indices else []
        for index in task.indices:
            try:
                if self.settings.whole:
                    rows += make_whole(self.settings, task.photo, pixels, index, self.autoencoder)
                else:
                    rows += self.make(task.photo, pixels, index)
            except ForgemapError as error:
                problems.append(f"edit {index} of {task.photo.path}: {error}")
        return rows, problems

    def make(self, photo: Photo, pixels: np.ndarray, index: int) -> list[dict[str, Any]]:
        """Write edit `index` of a photo, and its twin; their rows."""
        settings = self.settings
        shortlist = self.donors_of(photo)
        method = self.method_of(photo, index, bool(shortlist))

        first = self.processing_of(photo, index, "before")

        def donor(rng: np.random.Generator) -> tuple[str, np.ndarray]:
            for i in rng.permutation(len(shortlist)):
                try:
                    taken = self.load(shortlist[i])
                except ForgemapError:
                    continue  # reported where it is a source itself
                if first is not None and BENIGN[first].family == "origin":
                    # Of another origin, what is pasted in could be told by that alone.
                    taken = process(first, taken, rng).pixels
                return shortlist[i].sha256[:16], taken
            raise DataError("none of the photos to take a region from can be read")

        source = self.autoencoder_of(photo, index) if method in NEED_AUTOENCODER else None
        context = Context(
            donor=donor if shortlist else None,
            autoencoder=None if source is None else self.autoencoder(source),
            inpainter=settings.inpainter,
            area=settings.area,
        )
        ready, before = prepare(
            pixels, chance(settings.seed, photo, index, "prepare"),
            crop=settings.crop, vary=settings.vary,
        )  # fmt: skip
        if first is not None:
            done = process(first, ready, chance(settings.seed, photo, index, "process before"))
            ready, before["benign_before"] = done.pixels, {"name": first, **done.parameters}
        edit = _apply(method, ready, chance(settings.seed, photo, index, "edit"), context)
        if source is not None:
            edit.parameters["autoencoder"] = label_of(source)
        variants = [(method, edit)]
        if settings.has_twin(index):
            variants.append((UNTOUCHED, Edit(ready, np.zeros(ready.shape[:2], np.uint8))))
        second = self.processing_of(photo, index, "after")
        files = None
        if second is not None:
            files = self.processed(photo, index, second, [variant for _, variant in variants])
        if files is None:
            second, files = None, [Processed(v.pixels, v.mask, {}) for _, v in variants]
        benign = "+".join(kind for kind in (first, second) if kind is not None)
        rows = []
        for (name, variant), done in zip(variants, files, strict=True):
            after = {} if second is None else {"benign_after": {"name": second, **done.parameters}}
            if done.data is not None:  # saved by the processing
                data, suffix, mask = done.data, done.suffix, done.mask
            else:
                data, suffix, mask, drawn = finish(
                    Edit(done.pixels, done.mask),
                    chance(settings.seed, photo, index, "finish"),
                    vary=settings.vary,
                )
                after |= drawn
            stem = f"{photo.sha256[:16]}-{index:04d}-{name}"
            image_file = f"images/{stem}{suffix}"
            mask_file = None if name == UNTOUCHED else f"masks/{stem}.png"
            if mask_file is not None:
                write_whole(settings.out / mask_file, encode_png(mask))
            write_whole(settings.out / image_file, data)
            rows.append(
                {
                    "image": image_file,
                    "mask": mask_file,
                    "source": photo.path,
                    "source_sha256": photo.sha256,
                    "split": split_of(photo.sha256),
                    "method": name,
                    "parameters": {
                        "index": index,
                        "area": round(float((mask > 0).mean()), 5),
                        **before, **variant.parameters, **after,
                    },
                    "seed": settings.seed,
                    **({"benign": benign} if benign else {}),
                }
            )  # fmt: skip
        return rows

    def processing_of(self, photo: Photo, index: int, when: str) -> str | None:
        """The benign processing of a picture and its twin "before" or "after" the edit, if any."""
        rng = chance(self.settings.seed, photo, index, f"benign {when}")
        kinds = self.settings.processing
        if when == "after":
            kinds = tuple(kind for kind in kinds if BENIGN[kind].family != "origin")
        return draw(rng, self.settings.benign, kinds)

    def processed(
        self, photo: Photo, index: int, name: str, edits: list[Edit]
    ) -> list[Processed] | None:
        """All after the same processing, drawn anew while it cuts most of the first's edit away.

        None where every draw does.
        """
        first = edits[0]
        least = LEAST_LEFT * min(self.settings.area[0], float((first.mask > 0).mean()))
        for turn in range(TRIES):
            purpose = (photo, index, "process after", turn)
            done = process(name, first.pixels, chance(self.settings.seed, *purpose), first.mask)
            if (done.mask > 0).mean() >= least:
                twins = (
                    process(name, twin.pixels, chance(self.settings.seed, *purpose), twin.mask)
                    for twin in edits[1:]
                )
                return [done, *twins]
        return None


def _apply(method: str, pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """The edit; tried elsewhere where it changed next to nothing (a blur of a clear sky)."""
    for _ in range(TRIES):
        try:
            edit = METHODS[method](pixels, rng, context)
        except cv2.error:  # OpenCV's solvers refuse some odd shapes
            continue
        inside = edit.mask > 0
        if inside.mean() >= LEAST_LEFT * context.area[0]:
            changed = (edit.pixels[inside] != pixels[inside]).any(axis=-1)
            if changed.mean() >= LEAST_CHANGED:
                return edit
    raise DataError(f"{method} found no region that it would change")


_worker: _Worker | None = None


def set_up(settings: Settings) -> None:
    """Prepare this process to run tasks."""
    global _worker
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers itself
    cv2.setNumThreads(1)
    _worker = _Worker(settings)


def run_task(task: Task) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of the files that were written, and a sentence for each that could not be."""
    assert _worker is not None
    if _worker.settings.with_torch:
        import torch

        torch.set_num_threads(1)
    return _worker.run(task)


@contextmanager
def single_thread(with_torch: bool) -> Iterator[None]:
    """One thread for OpenCV and torch, so that results do not depend on the machine's cores."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    torch_threads = 0
    if with_torch:
        import torch

        torch_threads = torch.get_num_threads()
        torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        if torch_threads:
            torch.set_num_threads(torch_threads)
