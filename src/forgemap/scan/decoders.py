"""decoders.py: processes that decode pictures, apart from the run that they may not end.

A picture that brings its decoder down (a fault in a C library, too little memory) or keeps it busy
without end costs that process, which is replaced, and becomes a row with its error. Answers are
JSON and raw pixels, never pickles: what decodes strangers' files is not trusted either.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ..decode import shown
from ..errors import ForgemapError, ImageError
from ..image import Image, load_image, read_file
from .items import Item, fetch, is_local

Known = Callable[[str], bool]


@dataclass(eq=False)
class Loaded:
    """An item that was decoded, or why it was not.

    Attributes:
        item: without its bytes.
        image: None if there is an error, or it is known.
        sha256: of the bytes, where they could be read.
        error: one sentence.
        known: an earlier scan has judged these bytes.
        seconds: reading and decoding.
    """

    item: Item
    image: Image | None = None
    sha256: str | None = None
    error: str | None = None
    known: bool = False
    seconds: float = 0.0


class Decoders:
    """A pool of decoding processes; `load` is called from many threads."""

    def __init__(self, workers: int, max_pixels: int, timeout: float, known: Known | None) -> None:
        self.max_pixels, self.timeout, self.known = max_pixels, timeout, known
        self._idle: queue.Queue[_Decoder] = queue.Queue()
        self._closing = False
        self._all = [_Decoder() for _ in range(workers)]
        for decoder in self._all:
            self._idle.put(decoder)

    def load(self, item: Item) -> Loaded:
        """Read and decode one item. Raises nothing that a picture could cause."""
        began = time.perf_counter()
        bare = Item(item.index, item.source, item.path, item.key)
        if item.error is not None:
            return Loaded(bare, error=item.error)
        data = item.data
        try:
            if data is None and not is_local(item):
                data = fetch(item, self.max_pixels)
        except ForgemapError as error:
            return Loaded(bare, error=str(error), seconds=time.perf_counter() - began)
        task = {
            "name": item.name,
            "path": None if data is not None else item.address,
            "max_pixels": self.max_pixels,
            "ask": self.known is not None,
        }
        decoder = self._idle.get()
        if self._closing:
            self._idle.put(decoder)
            return Loaded(bare, error="the scan was stopped")
        try:
            for turn in range(2):
                try:
                    answer, pixels = decoder.run(task, data, self.timeout, self.known)
                    break
                except _Died as error:
                    decoder.stop()
                    # Once more, alone in a fresh process: want of memory may have been another's.
                    if turn or error.slow or self._closing:
                        answer, pixels = {"error": f"{shown(item.name)} {error}"}, None
                        break
        finally:
            self._idle.put(decoder)
        loaded = Loaded(bare, None, answer.get("sha256"), answer.get("error"))
        loaded.known = bool(answer.get("known"))
        loaded.seconds = time.perf_counter() - began
        if pixels is not None:
            loaded.image = Image(
                pixels,
                item.name,
                answer["sha256"],
                answer["format"],
                answer["orientation"],
                tuple(answer["notes"]),
                answer["jpeg_quality"],
                table=answer["table"],
            )
        return loaded

    def close(self) -> None:
        """End the processes; what is being decoded is given up."""
        self._closing = True
        for decoder in self._all:
            decoder.kill()
        stopped = [self._idle.get() for _ in self._all]  # each comes back when its thread is done
        for decoder in stopped:
            decoder.stop()
            self._idle.put(decoder)  # for threads that wait for one, to hear that it is over


class _Died(Exception):
    """A decoder that ended, or had to be ended, on a picture."""

    slow = False


class _Decoder:
    """One process and the pipe to it, started when it is first needed."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Connection | None = None

    def run(
        self, task: dict[str, Any], data: bytes | None, timeout: float, known: Known | None
    ) -> tuple[dict[str, Any], np.ndarray | None]:
        if self._pipe is None:
            self._start()
        assert self._pipe is not None
        pipe = self._pipe
        try:
            pipe.send_bytes(json.dumps({**task, "bytes": data is not None}).encode())
            if data is not None:
                pipe.send_bytes(data)
            answer = self._answer(timeout)
            if "ask" in answer:
                skip = known is not None and known(answer["ask"])
                pipe.send_bytes(b"skip" if skip else b"go")
                if skip:
                    return {"sha256": answer["ask"], "known": True}, None
                answer = self._answer(timeout)
            if answer.get("error") is not None:
                return answer, None
            pixels = np.empty((answer["height"], answer["width"], 3), np.uint8)
            pipe.recv_bytes_into(pixels.data.cast("B"))
            return answer, pixels
        except (EOFError, OSError) as error:
            if self._process is not None:
                self._process.join(10)
            code = getattr(self._process, "exitcode", None)
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            raise _Died(f"brought its decoder down ({how}): get an intact copy") from error

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self._pipe is not None
        if not self._pipe.poll(timeout):
            died = _Died(f"was still being decoded after {timeout:g} s: get an intact copy")
            died.slow = True
            raise died
        answer = json.loads(self._pipe.recv_bytes())
        assert isinstance(answer, dict)
        return answer

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_decode_all, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def kill(self) -> None:
        """From another thread than the one that waits for an answer, which then sees the end."""
        process = self._process
        if process is not None:
            with contextlib.suppress(ValueError):  # closed in between
                process.kill()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


class _Named(io.BytesIO):
    """Bytes with the name that sentences and notes give them."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def _decode_all(pipe: Connection) -> None:
    """In a process of its own: answers until the other end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which stops us
    try:
        while True:
            task = json.loads(pipe.recv_bytes())
            data = pipe.recv_bytes() if task["bytes"] else None
            _decode_one(pipe, task, data)
    except (EOFError, OSError):  # the run has ended
        os._exit(0)


def _decode_one(pipe: Connection, task: dict[str, Any], data: bytes | None) -> None:
    def say(answer: dict[str, Any]) -> None:
        pipe.send_bytes(json.dumps(answer).encode())

    sha256 = None
    try:
        if data is None:
            data = read_file(task["path"], task["max_pixels"])
        sha256 = hashlib.sha256(data).hexdigest()
        if task["ask"]:
            say({"ask": sha256})
            if pipe.recv_bytes() == b"skip":
                return
        image = load_image(_Named(data, task["name"]), max_pixels=task["max_pixels"])
    except ImageError as error:
        say({"sha256": sha256, "error": str(error)})
        return
    except MemoryError:
        why = f"{shown(task['name'])} does not fit into memory: shrink it"
        say({"sha256": sha256, "error": why})
        return
    height, width = image.pixels.shape[:2]
    say(
        {
            "sha256": sha256,
            "format": image.format,
            "orientation": image.orientation,
            "notes": image.notes,
            "jpeg_quality": image.jpeg_quality,
            "table": image.table,
            "height": height,
            "width": width,
        }
    )
    pipe.send_bytes(np.ascontiguousarray(image.samples).data.cast("B"))
