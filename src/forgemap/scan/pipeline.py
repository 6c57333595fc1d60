"""pipeline.py: units -> parts: passes of the network, and judging behind them.

A `Reader` decodes ahead, this thread runs the network, others judge its maps. Pictures are grouped
in their order, by the same rule from any part's start, so that a run that was stopped and went on
makes the same passes as one that was not.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ..cores import available
from ..decode import shown
from ..detector import Detector, Prediction
from ..errors import ForgemapError
from ..image import Image
from ..report import write_output
from .decoders import Decoders, Known, Loaded
from .listing import Unit
from .parts import MASKS, Part, Row, report_row
from .reader import Reader, Start
from .settings import Settings

JUDGES = 2  # threads


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
        self.detector, self.settings, self.timed = detector, settings, timed
        self.workers = settings.workers or default_workers(settings.device)
        self.decoders = Decoders(self.workers, settings.max_pixels, settings.timeout, known)
        self._weights = detector.basis.get("weights_sha256")
        self._part = Part(0, 0, 0)
        self._clock = time.monotonic()

    def close(self) -> None:
        """End the decoding processes."""
        self.decoders.close()

    def run(self, units: Iterator[tuple[Unit, int]]) -> Iterator[Part]:
        """The parts of units, each from an item on; in order.

        After an interruption `rest` has what was finished since the last part.
        """
        judges = ThreadPoolExecutor(JUDGES, "judge")
        reader = Reader(units, self.decoders, self.settings, self.workers)
        self._clock = time.monotonic()
        ended = False
        try:
            yield from self._parts(reader, judges)
            ended = True
        finally:
            if not ended:
                reader.stop()
            judges.shutdown(cancel_futures=True)

    def rest(self) -> Part:
        """The part that was being filled; it may be empty."""
        return self._part

    def _parts(self, reader: Reader, judges: ThreadPoolExecutor) -> Iterator[Part]:
        limits = self.settings
        group: list[Loaded] = []
        waiting: deque[_Group] = deque()  # through the network, not yet judged
        pixels = good = 0
        for one in reader:
            if isinstance(one, Start):
                self._part = Part(one.unit, one.item, one.item)
                continue
            if one is None:
                if group:
                    waiting.append(self._through(group, judges))
                while waiting:
                    self._commit(waiting.popleft(), reader)
                group, pixels, good = [], 0, 0
                yield self._finished(end=True)
                continue
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
                self._commit(waiting.popleft(), reader)
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

    def _commit(self, group: _Group, reader: Reader) -> None:
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
            reader.release(one)

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


def default_workers(device: str) -> int:
    """Decoding processes: a network on the CPU leaves them little to do, one on a GPU asks for all
    that there are. See docs/scale.md for the measurement."""
    return 1 if device == "cpu" else max(1, min(available() - 1, 32))


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
