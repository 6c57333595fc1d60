"""pipeline.py: units -> parts: reading and decoding ahead, passes of the network, judging behind.

One thread reads what is listed, several wait for decoders and addresses, this one runs the network,
one judges its maps. Pictures are grouped in their order, by the same rule from any part's start, so
that a run that was stopped and went on makes the same passes as one that was not.
"""

from __future__ import annotations

import io
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ..decode import shown
from ..detector import Detector, Prediction
from ..errors import ForgemapError
from ..image import Image
from ..report import write_output
from .decoders import Decoders, Known, Loaded
from .items import Item, items_of
from .listing import Unit
from .parts import MASKS, Part, Row, report_row
from .settings import Settings

IN_FLIGHT = 256 * 2**20  # bytes of pictures that wait decoded, or are expected to
FETCHERS = 16  # threads that wait for decoders and addresses
JUDGES = 2
_END = "end"


@dataclass(eq=False)
class _Group:
    """Pictures that went through the network together, and bad ones between them."""

    loaded: list[Loaded]
    answers: dict[int, Future[tuple[Row, bytes | None]]]
    busy: float


class Pipeline:
    """Turns units into parts with one model.

    Args:
        detector: the model.
        settings: see `Settings`.
        known: whether a SHA-256 in hex needs no new judgement.
        timed: also end a part after `settings.part_seconds`; without, parts depend on nothing but
            the pictures.
    """

    def __init__(
        self,
        detector: Detector,
        settings: Settings,
        *,
        known: Known | None = None,
        timed: bool = True,
    ) -> None:
        self.detector, self.settings, self.known, self.timed = detector, settings, known, timed
        self.workers = settings.workers or default_workers(settings.device)
        self.decoders = Decoders(self.workers, settings.max_pixels, settings.timeout, known)
        self._weights = detector.basis.get("weights_sha256")
        self._budget = _Budget(IN_FLIGHT, 3 * settings.batch_pixels)
        self._part = Part(0, 0, 0)
        self._clock = time.monotonic()

    def close(self) -> None:
        """End the decoding processes."""
        self.decoders.close()

    def run(self, units: Iterator[tuple[Unit, int]]) -> Iterator[Part]:
        """The parts of units, each from an item on; in order.

        After an interruption `rest` has what was finished since the last part.
        """
        window = max(2 * self.settings.batch, 2 * self.workers)
        loaded: queue.Queue[Any] = queue.Queue(window)
        stopping = threading.Event()
        fetchers = ThreadPoolExecutor(FETCHERS, "fetch")
        judges = ThreadPoolExecutor(JUDGES, "judge")
        arguments = units, loaded, fetchers, stopping
        reader = threading.Thread(target=self._read, args=arguments, daemon=True)
        reader.start()
        self._clock = time.monotonic()
        ended = False
        try:
            yield from self._parts(loaded, judges)
            ended = True
        finally:
            stopping.set()
            self._budget.open()
            while reader.is_alive():  # it may be waiting for room
                _drain(loaded)
                reader.join(0.05)
            if not ended:
                self.decoders.close()
            fetchers.shutdown(cancel_futures=True)
            judges.shutdown(cancel_futures=True)

    def rest(self) -> Part:
        """The part that was being filled; it may be empty."""
        return self._part

    def _read(
        self,
        units: Iterator[tuple[Unit, int]],
        loaded: queue.Queue[Any],
        fetchers: ThreadPoolExecutor,
        stopping: threading.Event,
    ) -> None:
        """In its own thread: hands items to the fetchers and their answers on, in order."""
        try:
            for unit, start in units:
                loaded.put((unit.number, start))
                for item in items_of(unit, start, self.settings.max_pixels):
                    guess = self._budget.wait()
                    if stopping.is_set():
                        return
                    loaded.put(fetchers.submit(self._load, item, guess))
                loaded.put(_END)
            loaded.put(None)
        except BaseException as error:
            loaded.put(error)

    def _load(self, item: Item, guess: int) -> Loaded:
        loaded = self.decoders.load(item)
        size = 0 if loaded.image is None else loaded.image.pixels.nbytes
        self._budget.took(guess, size)
        return loaded

    def _parts(self, loaded: queue.Queue[Any], judges: ThreadPoolExecutor) -> Iterator[Part]:
        limits = self.settings
        group: list[Loaded] = []
        waiting: deque[_Group] = deque()  # through the network, not yet judged
        pixels = good = 0
        while (got := loaded.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            if isinstance(got, tuple):
                self._part = Part(got[0], got[1], got[1])
                continue
            if got == _END:
                if group:
                    waiting.append(self._through(group, judges))
                while waiting:
                    self._commit(waiting.popleft())
                group, pixels, good = [], 0, 0
                yield self._finished(end=True)
                continue
            one: Loaded = got.result()
            size = 0 if one.image is None else one.image.pixels.size // 3
            if pixels and size and pixels + size > limits.batch_pixels:
                waiting.append(self._through(group, judges))
                group, pixels, good = [], 0, 0
            group.append(one)
            pixels += size
            good += size > 0
            # Bad pictures do not wait for good ones; a very large one goes alone.
            full = good == limits.batch or pixels >= limits.batch_pixels
            if full or not good or len(group) == 64 + limits.batch:
                waiting.append(self._through(group, judges))
                group, pixels, good = [], 0, 0
            while len(waiting) > 1 or (waiting and not waiting[0].answers):
                self._commit(waiting.popleft())
                part = self._part
                late = time.monotonic() - self._clock >= limits.part_seconds
                if part.stop - part.start >= limits.part_rows or (self.timed and late):
                    yield self._finished()

    def _finished(self, end: bool = False) -> Part:
        """The part as it is; the next begins where it stops."""
        now = time.monotonic()
        done = replace(self._part, end=end, wall=now - self._clock)
        self._part, self._clock = Part(done.unit, done.stop, done.stop), now
        return done

    def _through(self, group: list[Loaded], judges: ThreadPoolExecutor) -> _Group:
        """Run the network on a group of pictures; others judge what it sees."""
        answers: dict[int, Future[tuple[Row, bytes | None]]] = {}
        busy = 0.0
        for one, prediction, seconds in self._predict([g for g in group if g.image is not None]):
            busy += seconds
            one.seconds += seconds
            if isinstance(prediction, str):
                one.error = prediction
            else:
                answers[one.item.index] = judges.submit(self._judge, one, prediction)
        return _Group(group, answers, busy)

    def _commit(self, group: _Group) -> None:
        """Add the rows of a group to the part, all at once, whenever an interruption comes."""
        rows: list[Row] = []
        masks: dict[str, bytes] = {}
        for one in group.loaded:
            if one.known:
                continue
            row: Row = {}
            if one.item.index in group.answers:
                row, mask = group.answers[one.item.index].result()
                if mask is not None:
                    row["mask"] = f"{MASKS}/{row['sha256'][:2]}/{row['sha256']}.png"
                    masks[row["mask"]] = mask
            rows.append(self._about(one) | row)
        part = self._part
        self._part = replace(
            part,
            stop=group.loaded[-1].item.index + 1,
            rows=part.rows + rows,
            masks=part.masks | masks,
            known=part.known + sum(one.known for one in group.loaded),
            busy=part.busy + group.busy,
        )
        for one in group.loaded:
            if one.image is not None:
                self._budget.give(one.image.pixels.nbytes)

    def _about(self, one: Loaded) -> Row:
        """The columns that a picture has whether or not it could be judged."""
        return {
            "source": _text(one.item.source),
            "path": _text(one.item.path),
            "key": None if one.item.key is None else _text(one.item.key),
            "sha256": one.sha256,
            "model": self.detector.name,
            "weights_sha256": self._weights,
            "error": None if one.error is None else _text(one.error),
            "seconds": one.seconds,
        }

    def _predict(self, group: Sequence[Loaded]) -> Iterator[tuple[Loaded, Prediction | str, float]]:
        """What the network sees in each picture, or a sentence, and its seconds for it."""
        left = list(group)
        try:
            began = time.perf_counter()
            predictions = iter(self.detector.predict_many([_pixels(one) for one in group]))
            while left:
                prediction = next(predictions)
                seconds = time.perf_counter() - began
                yield left.pop(0), prediction, seconds
                began = time.perf_counter()
        except (MemoryError, RuntimeError) as error:
            if not _is_memory(error):
                raise ForgemapError(
                    f"The model failed on {self.settings.device} ({_first(error)}): what has been "
                    "written is whole; the same command goes on from there."
                ) from error
            if len(group) > 1:
                for one in left:
                    yield from self._predict([one])
            else:
                name = shown(left[0].item.name)
                yield left[0], f"{name} needs more memory than there is: shrink it", 0.0

    def _judge(self, one: Loaded, prediction: Prediction) -> tuple[Row, bytes | None]:
        began = time.perf_counter()
        image = one.image
        assert isinstance(image, Image)
        report = self.detector.judge(image, prediction, self.settings.threshold)
        mask = None
        if self.settings.masks:
            buffer = io.BytesIO()
            write_output("mask", report, image.pixels, buffer)
            mask = buffer.getvalue()
        row = report_row(report)
        return row | {"seconds": one.seconds + time.perf_counter() - began}, mask


class _Budget:
    """Bytes of decoded pictures; a picture that is being decoded counts as the largest of late.

    `wait` holds the reader back while there are too many, but never while there are fewer than
    `always`: a group that is being filled may hold so many.
    """

    def __init__(self, limit: int, always: int) -> None:
        self._limit, self._always, self._held = max(limit, 2 * always), always, 0
        self._late = deque([36_000_000], maxlen=64)
        self._room = threading.Condition()
        self._open = False

    def wait(self) -> int:
        """Waits for room for one more; the bytes that were reserved for it."""
        with self._room:
            self._room.wait_for(self._has_room)
            guess = max(self._late)
            self._held += guess
            return guess

    def _has_room(self) -> bool:
        few = self._held < self._always
        return few or self._held + max(self._late) <= self._limit or self._open

    def took(self, guess: int, size: int) -> None:
        """What was reserved turned out to be `size`."""
        with self._room:
            self._held += size - guess
            if size:
                self._late.append(size)
            self._room.notify_all()

    def give(self, size: int) -> None:
        with self._room:
            self._held -= size
            self._room.notify_all()

    def open(self) -> None:
        """No more waiting."""
        with self._room:
            self._open = True
            self._room.notify_all()


def default_workers(device: str) -> int:
    """Decoding processes: a network on the CPU leaves them little to do, one on a GPU asks for all
    that the machine has. See docs/scale.md for the measurement."""
    import os

    cores = os.cpu_count() or 1
    return 1 if device == "cpu" else max(1, min(cores - 1, 32))


def _drain(loaded: queue.Queue[Any]) -> None:
    try:
        while True:
            loaded.get_nowait()
    except queue.Empty:
        return


def _pixels(one: Loaded) -> Any:
    assert one.image is not None
    return one.image.pixels


def _is_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "not enough memory" in text


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def _text(name: str) -> str:
    """Bytes of a file name that are no UTF-8 (Python keeps them as lone surrogates) as \\udcXX."""
    return name.encode("utf-8", "backslashreplace").decode()
