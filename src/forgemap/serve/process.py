"""process.py: a worker process as the server sees it: started, given pictures, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import ModelError
from . import frames
from .settings import Settings


@dataclass(eq=False)
class Task:
    """A picture on its way to a worker."""

    name: str
    data: bytes
    model: str
    threshold: float | None
    outputs: tuple[str, ...]
    row: bool
    """Is the picture's row of an HTML report wanted?"""
    limit: float
    """Seconds that a worker may take."""
    future: asyncio.Future[Answer] = field(init=False)
    attempts: int = 0

    def __post_init__(self) -> None:
        self.future = asyncio.get_running_loop().create_future()


@dataclass(frozen=True)
class Answer:
    """What a worker said of a picture."""

    said: dict[str, Any]
    """`error`, or `report` and its facts; see worker.py."""
    files: dict[str, bytes]
    """PNGs by the names of the outputs."""


class Worker:
    """A worker process whose models are loaded."""

    def __init__(self, process: asyncio.subprocess.Process, device: str, settings: Settings):
        self.process, self.device, self.settings = process, device, settings
        self.models: list[dict[str, Any]] = []

    @property
    def dead(self) -> bool:
        return self.process.returncode is not None

    @classmethod
    async def start(cls, settings: Settings, device: str) -> Worker:
        """Raises ModelError (with the worker's sentence) and FrameError (it ended)."""
        environment = {k: v for k, v in os.environ.items() if k != "FORGEMAP_TOKEN"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "forgemap.serve.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            limit=2**20,
        )
        worker = cls(process, device, settings)
        try:
            start: dict[str, Any] = {"models": list(settings.model), "device": device}
            start |= {"detector": settings.detector, "classifier": settings.classifier}
            start |= {"engine": settings.engine, "precision": settings.precision}
            start["copies"] = settings.copies
            await worker._send(start, [])
            assert process.stdout is not None
            said, _ = await frames.read_async(process.stdout)
        except (frames.FrameError, OSError) as error:
            await worker.kill()
            raise ModelError("A worker ended before its models were loaded.") from error
        except BaseException:
            await worker.kill()
            raise
        if said["kind"] == "failed":
            await worker.kill()
            raise ModelError(said["error"])
        worker.models = said["models"]
        return worker

    async def judge(self, batch: list[Task]) -> AsyncIterator[tuple[int, Answer]]:
        """Yields (place in the batch, Answer). Raises TimeoutError, FrameError or OSError."""
        limit = max(task.limit for task in batch)
        items = [
            {
                "name": task.name,
                "threshold": task.threshold,
                "outputs": list(task.outputs),
                "row": task.row,
            }
            for task in batch
        ]
        header = {"model": batch[0].model, "items": items, "max_pixels": self.settings.max_pixels}
        bodies = [task.data for task in batch]
        await asyncio.wait_for(self._send(header, bodies), limit)
        assert self.process.stdout is not None
        for _ in batch:
            said, blobs = await asyncio.wait_for(frames.read_async(self.process.stdout), limit)
            files = dict(zip(said.get("outputs", ()), blobs, strict=False))
            yield said["index"], Answer(said, files)

    async def _send(self, header: dict[str, Any], bodies: list[bytes]) -> None:
        stream = self.process.stdin
        assert stream is not None
        for piece in frames.pack(header, bodies):
            stream.write(piece)
            await stream.drain()

    async def end(self) -> None:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 5)
        except asyncio.TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
