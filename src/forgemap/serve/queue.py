"""queue.py: a bounded queue of pictures before one worker process for each device.

Whatever waits when a worker is free goes to it as one batch, without waiting for more. A place is
given back the moment its future is cancelled. Two lines are served: callers who wait for their
answer go before jobs, which get every fourth batch so that they move on under any load.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from typing import Any

from ..errors import ModelError
from . import frames
from .metrics import Metrics
from .problems import ProblemError
from .process import Answer, Task, Worker
from .settings import MiB, Settings

log = logging.getLogger("forgemap.serve")

_ATTEMPTS = 2  # a picture that was in two workers when they died is not given to a third
_JOBS_TURN = 4


class Pool:
    """The queue and its workers; lives in one event loop."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.models: list[dict[str, Any]] = []
        self.failure: str | None = None
        self.closing = False  # nothing more is accepted
        self.stopping = False  # and the workers end when nothing waits
        self._waiting: deque[Task] = deque()
        self._jobs: deque[Task] = deque()
        self._something = asyncio.Event()
        self._turn = 0
        self._pace = 0.2
        self._runners: list[asyncio.Task[None]] = []
        self._workers: dict[int, Worker] = {}
        metrics.watch("queue_waiting", lambda: len(self._waiting))
        metrics.watch("queue_waiting_jobs", lambda: len(self._jobs))
        metrics.watch("workers_ready", lambda: self.ready)

    @property
    def ready(self) -> int:
        """Workers whose models are loaded."""
        return len(self._workers)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def retry_after(self) -> int:
        """Seconds after which a place is likely to be free, from the pace so far."""
        seconds = self._pace * (1 + len(self._waiting)) / max(1, len(self.settings.device))
        return min(60, max(1, math.ceil(seconds)))

    async def start(self) -> None:
        """Start the workers and wait until their models are loaded. Raises ModelError."""
        if self._runners:
            return
        started = await asyncio.gather(
            *(Worker.start(self.settings, device) for device in self.settings.device),
            return_exceptions=True,
        )
        for worker in started:
            if isinstance(worker, BaseException):
                for other in started:
                    if isinstance(other, Worker):
                        await other.kill()
                raise worker
        for i, worker in enumerate(started):
            assert isinstance(worker, Worker)
            self.models = worker.models
            self._runners.append(asyncio.create_task(self._run(i, worker)))

    async def stop(self) -> None:
        """Finish what waits, then end the workers."""
        self.closing = self.stopping = True
        self._something.set()
        if self._runners:
            await asyncio.wait(self._runners, timeout=self.settings.job_deadline)
        await self.abort()

    async def abort(self) -> None:
        """End the workers now; whoever waits is refused."""
        self.closing = self.stopping = True
        self._refuse_all("worker-lost", "The server was stopped: ask again.")
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        for worker in list(self._workers.values()):
            await worker.kill()
        self._workers.clear()

    def check(self) -> None:
        """Refuse at once what has no chance; before a body is read. Raises ProblemError."""
        if self.closing:
            raise ProblemError("not-ready", "The server is shutting down: ask another.")
        if self.failure is not None and not self.ready:
            raise ProblemError(
                "not-ready",
                "The server cannot load its model at the moment; its log says why: try again later "
                "or tell who runs it.",
                retry_after=5,
            )
        if len(self._waiting) >= self.settings.queue:
            self.metrics.refused.labels("queue-full").inc()
            raise ProblemError(
                "busy",
                f"The queue is full ({self.settings.queue} pictures wait): try again later.",
                retry_after=self.retry_after,
            )

    def submit(self, task: Task, *, job: bool = False) -> asyncio.Future[Answer]:
        """Queue a picture. Jobs see to it themselves that they do not queue many.

        Raises:
            ProblemError: the queue is full or the server cannot work.
        """
        if not job:
            self.check()
        line = self._jobs if job else self._waiting
        line.append(task)
        task.future.add_done_callback(lambda _: self._drop(task))
        self._something.set()
        return task.future

    async def _run(self, i: int, worker: Worker | None) -> None:
        """Keep one device busy; start its worker anew when it is lost."""
        device, pause = self.settings.device[i], 0.5
        while True:
            if worker is None:
                try:
                    worker = await Worker.start(self.settings, device)
                except (ModelError, frames.FrameError, OSError) as error:
                    self.failure = str(error)
                    log.error("worker cannot start", extra={"device": device, "error": str(error)})
                    if self.stopping:
                        self._refuse_all()
                        return
                    await asyncio.sleep(pause)
                    pause = min(30.0, 2 * pause)
                    self._expire()
                    continue
                log.info("worker restarted", extra={"device": device})
                self.models = worker.models
            self.failure, pause = None, 0.5
            self._workers[i] = worker
            batch = await self._next_batch(worker)
            if batch is None:  # stopping, and nothing waits
                await worker.end()
                self._workers.pop(i, None)
                return
            if batch and await self._hand_over(worker, batch):
                continue
            if not batch:  # it died while it had nothing to do
                log.error("worker lost", extra={"device": device})
            self._workers.pop(i, None)
            self.metrics.restarts.inc()
            await worker.kill()
            log.info("worker ended", extra={"device": device, "exit": worker.process.returncode})
            worker = None

    async def _next_batch(self, worker: Worker) -> list[Task] | None:
        """Pictures for one model; [] if the worker died meanwhile, None at the end."""
        while True:
            if worker.dead:
                return []
            self._turn += 1
            lines = [self._waiting, self._jobs]
            if self._turn % _JOBS_TURN == 0:
                lines.reverse()
            for line in lines:
                if batch := self._take(line):
                    return batch
            if self.stopping:
                return None
            self._something.clear()
            ended = asyncio.ensure_future(worker.process.wait())
            something = asyncio.ensure_future(self._something.wait())
            try:
                await asyncio.wait({ended, something}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
                something.cancel()

    def _take(self, line: deque[Task]) -> list[Task]:
        batch: list[Task] = []
        size, most = 0, self.settings.max_body * MiB
        while line and len(batch) < self.settings.batch:
            task = line[0]
            alone = task.attempts > 0  # it, or one beside it, cost a worker
            size += len(task.data)
            if batch and (alone or task.model != batch[0].model or size > most):
                break
            line.popleft()
            if not task.future.done():
                batch.append(task)
                if alone:
                    break
        return batch

    async def _hand_over(self, worker: Worker, batch: list[Task]) -> bool:
        """Give a batch to the worker and its answers to the callers; False if it was lost."""
        self.metrics.batches.observe(len(batch))
        left = dict(enumerate(batch))
        began = time.monotonic()
        try:
            async for i, answer in worker.judge(batch):
                task = left.pop(i)
                if not task.future.done():
                    task.future.set_result(answer)
            took = (time.monotonic() - began) / len(batch)
            self._pace += 0.2 * (took - self._pace)
            return True
        except asyncio.CancelledError:
            self._fail(list(left.values()), "worker-lost", "The server was stopped: ask again.")
            raise
        except asyncio.TimeoutError:
            log.error("worker took too long", extra={"device": worker.device})
            stuck = left.pop(min(left))  # answers come in order, so it is this one or one beside it
            self._fail([stuck], "deadline", "The picture takes too long: send a smaller one.")
        except (frames.FrameError, KeyError, OSError):
            log.error("worker lost", extra={"device": worker.device, "pictures": len(left)})
        again = []
        for task in left.values():
            task.attempts += 1
            if task.attempts >= _ATTEMPTS:
                self._fail(
                    [task], "worker-lost", "The picture ended two workers: do not resend it."
                )
            elif not task.future.done():
                again.append(task)
        self._waiting.extendleft(reversed(again))
        return False

    def _drop(self, task: Task) -> None:
        """Give the place of a task back that is answered, or that nobody waits for any more."""
        task.data = b""
        for line in (self._waiting, self._jobs):
            if task in line:  # else a worker has it
                line.remove(task)

    def _expire(self) -> None:
        """While no worker starts, let nobody wait for what will not come."""
        if not self.ready:
            self._refuse_all()

    def _refuse_all(
        self,
        name: str = "not-ready",
        detail: str = "The server cannot load its model: try again later.",
    ) -> None:
        self._fail([*self._waiting, *self._jobs], name, detail)

    @staticmethod
    def _fail(tasks: list[Task], name: str, detail: str) -> None:
        for task in tasks:
            if not task.future.done():
                retry = 5 if name in ("not-ready", "worker-lost") else None
                task.future.set_exception(ProblemError(name, detail, retry_after=retry))
