"""reader.py: the pictures of units, read and decoded ahead of the network, in bounded memory.

One thread reads what is listed, several wait for decoders and addresses; what comes out is in the
order of the units, whoever was faster.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from .decoders import Decoders, Loaded
from .items import Item, items_of
from .listing import Unit
from .settings import Settings

IN_FLIGHT = 256 * 2**20  # bytes of pictures that wait decoded, or are expected to
FETCHERS = 16  # threads


class Start(NamedTuple):
    """A unit begins."""

    unit: int
    """Its number."""
    item: int
    """The first of its items that is read."""


class _Over(NamedTuple):
    """No more units, or what ended them."""

    error: BaseException | None = None


class Reader:
    """Iterates over the units: the `Start` of each, its pictures, and None at its end.

    Begins at once and stays ahead; every picture is to be given back by `release`, or reading stops
    when its memory is used up.

    Args:
        units: each with the item to begin from.
        decoders: stay open after the last unit.
        settings: `max_pixels`, `batch` and `batch_pixels`.
        workers: of the decoders.

    Raises:
        BaseException: while iterating, what iterating over `units` raised.
    """

    def __init__(
        self,
        units: Iterator[tuple[Unit, int]],
        decoders: Decoders,
        settings: Settings,
        workers: int,
    ) -> None:
        self._decoders, self._max_pixels = decoders, settings.max_pixels
        self._budget = _Budget(IN_FLIGHT, 3 * settings.batch_pixels)
        self._ahead: queue.Queue[Start | Future[Loaded] | _Over | None] = queue.Queue(
            max(2 * settings.batch, 2 * workers)
        )
        self._stopping = threading.Event()
        self._fetchers = ThreadPoolExecutor(FETCHERS, "fetch")
        self._thread = threading.Thread(target=self._read, args=(units,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Start | Loaded | None]:
        while not isinstance(got := self._ahead.get(), _Over):
            yield got.result() if isinstance(got, Future) else got
        if got.error is not None:
            raise got.error
        self._thread.join()
        self._fetchers.shutdown()

    def release(self, one: Loaded) -> None:
        """The picture is no longer needed."""
        if one.image is not None:
            self._budget.give(one.image.pixels.nbytes)

    def stop(self) -> None:
        """Before the end: gives up what is being read, and closes the decoders."""
        self._stopping.set()
        self._budget.open()
        while self._thread.is_alive():  # it may be waiting for room
            self._drain()
            self._thread.join(0.05)
        self._decoders.close()
        self._fetchers.shutdown(cancel_futures=True)

    def _read(self, units: Iterator[tuple[Unit, int]]) -> None:
        """In its own thread: hands items to the fetchers and their answers on, in order."""
        try:
            for unit, start in units:
                self._ahead.put(Start(unit.number, start))
                for item in items_of(unit, start, self._max_pixels):
                    guess = self._budget.wait()
                    if self._stopping.is_set():
                        return
                    self._ahead.put(self._fetchers.submit(self._load, item, guess))
                self._ahead.put(None)
            self._ahead.put(_Over())
        except BaseException as error:
            self._ahead.put(_Over(error))

    def _load(self, item: Item, guess: int) -> Loaded:
        loaded = self._decoders.load(item)
        size = 0 if loaded.image is None else loaded.image.pixels.nbytes
        self._budget.took(guess, size)
        return loaded

    def _drain(self) -> None:
        try:
            while True:
                self._ahead.get_nowait()
        except queue.Empty:
            return


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
