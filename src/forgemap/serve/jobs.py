"""jobs.py: many pictures at a caller's leisure: accepted, watched, forgotten after a while."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .problems import ProblemError
from .results import in_time
from .schemas import Options
from .service import Service
from .uploads import Lease, Upload

log = logging.getLogger("forgemap.serve")

_ENDED = ("done", "cancelled")


class Job:
    """Pictures and what is known of them so far."""

    def __init__(self, uploads: Sequence[Upload], options: Options, lease: Lease) -> None:
        self.id = uuid.uuid4().hex
        self.status = "waiting"
        self.created = in_time()
        self.expires: str | None = None
        self.until = float("inf")
        self.pictures: list[dict[str, Any]] = [
            {"name": upload.name, "status": "waiting", "result": None} for upload in uploads
        ]
        self.order: list[int] = []  # in which pictures were finished
        self.uploads: list[Upload | None] = list(uploads)
        self.options, self.lease = options, lease
        self.runner: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self.status in _ENDED

    def changed(self) -> None:
        """Wake whoever watches."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Until something changes; False if nothing did in that time."""
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    def to_dict(self) -> dict[str, Any]:
        """As `schemas.Job`."""
        return {
            "id": self.id,
            "status": self.status,
            "total": len(self.pictures),
            "done": len(self.order),
            "created": self.created,
            "expires": self.expires,
            "href": f"/v1/jobs/{self.id}",
            "events": f"/v1/jobs/{self.id}/events",
            "pictures": self.pictures,
        }


class Jobs:
    """The jobs of a server, bounded in number."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._jobs: dict[str, Job] = {}
        service.metrics.watch("jobs", lambda: len(self._jobs))

    def check(self) -> None:
        """Is there room for another? Raises ProblemError."""
        self.tidy()
        if self.service.pool.closing:
            raise ProblemError("not-ready", "The server is shutting down: ask another.")
        if len(self._jobs) < self.service.settings.jobs:
            return
        ended = [job for job in self._jobs.values() if job.ended]
        if not ended:
            self.service.metrics.refused.labels("jobs-full").inc()
            raise ProblemError(
                "busy",
                f"{len(self._jobs)} jobs are at work already: try again later.",
                retry_after=30,
            )
        del self._jobs[min(ended, key=lambda job: job.until).id]

    def add(self, uploads: Sequence[Upload], options: Options, lease: Lease) -> Job:
        """Accept a job; `lease`, what its pictures weigh, is its own from here on.

        Raises ProblemError: no room, or an option that is not valid.
        """
        self.check()
        self.service.model(options.model)
        job = Job(uploads, options, lease)
        self._jobs[job.id] = job
        job.runner = asyncio.create_task(self._run(job))
        return job

    def get(self, name: str) -> Job:
        """Raises ProblemError: there is none, or no more."""
        self.tidy()
        if name not in self._jobs:
            raise ProblemError(
                "not-found", "No such job, or it has expired: send its pictures again."
            )
        return self._jobs[name]

    def forget(self, name: str) -> None:
        """Cancel what is left of a job and forget it. Raises ProblemError."""
        job = self.get(name)
        if job.runner is not None:
            job.runner.cancel()
        self._end(job, "cancelled")
        del self._jobs[name]

    def tidy(self) -> None:
        """Forget what has expired; also called by the clock."""
        now = time.monotonic()
        for name in [name for name, job in self._jobs.items() if job.until <= now]:
            del self._jobs[name]

    @property
    def at_work(self) -> int:
        return sum(not job.ended for job in self._jobs.values())

    def cancel_all(self) -> None:
        for job in self._jobs.values():
            if job.runner is not None and not job.ended:
                job.runner.cancel()
                self._end(job, "cancelled")

    async def _run(self, job: Job) -> None:
        """A batch's worth of pictures in the queue at a time, so that jobs share it."""
        free = asyncio.Semaphore(self.service.settings.batch)

        async def one(i: int) -> None:
            try:
                await self._judge(job, i)
            finally:
                free.release()

        running: set[asyncio.Task[None]] = set()
        try:
            job.status = "working"
            for i in range(len(job.pictures)):
                await free.acquire()
                running = {task for task in running if not task.done()}
                running.add(asyncio.create_task(one(i)))
            await asyncio.gather(*running)
            self._end(job, "done")
        except asyncio.CancelledError:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            raise

    async def _judge(self, job: Job, i: int) -> None:
        picture, upload = job.pictures[i], job.uploads[i]
        assert upload is not None
        service, limit = self.service, self.service.settings.job_deadline
        picture["status"] = "working"
        job.changed()
        task = service.task(upload, job.options, link=True, limit=limit)
        try:
            answer = await service.pool.submit(task, job=True)
            result = await service.finish(answer, task, upload.data, link=True)
        except ProblemError as problem:
            result = service.result({"error": problem.detail}, task)
        except asyncio.CancelledError:
            task.future.cancel()
            raise
        except Exception:
            log.exception("fault", extra={"job": job.id})
            result = service.result({"error": "This met a fault of the server."}, task)
        picture["result"] = result
        picture["status"] = "done" if result["error"] is None else "failed"
        job.order.append(i)
        job.uploads[i] = None
        job.lease.give(len(upload.data))
        job.changed()

    def _end(self, job: Job, status: str) -> None:
        seconds = self.service.settings.keep_seconds
        job.status, job.expires = status, in_time(seconds)
        job.until = time.monotonic() + seconds
        job.uploads = []
        job.lease.give()
        job.changed()


async def follow(job: Job, after: int = 0) -> AsyncIterator[tuple[str, int, Any]]:
    """Events (name, id, data) until the job ends: `picture` for each one that is finished, then
    `progress`; at last `end`, with the job. An id is the number of pictures finished so far; what
    comes `after` one is told again. ("", 0, None) where nothing has happened for a while.
    """
    told = after
    yield "progress", told, _progress(job)
    while True:
        news = told < len(job.order)
        while told < len(job.order):
            i = job.order[told]
            told += 1
            yield "picture", told, {"index": i, **job.pictures[i]}
        if news:
            yield "progress", told, _progress(job)
        if job.ended:
            yield "end", told, job.to_dict()
            return
        if told == len(job.order) and not job.ended and not await job.wait(15):
            yield "", 0, None


def _progress(job: Job) -> dict[str, Any]:
    return {"status": job.status, "done": len(job.order), "total": len(job.pictures)}
