"""analyze.py: one picture, answered at once."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response

from .. import openapi
from ..bodies import merged
from ..problems import UPLOAD, ProblemError, declared
from ..schemas import AnalyzeOptions, Result
from ..service import Service
from ..settings import MiB
from ..uploads import read_uploads


def add(app: FastAPI, service: Service) -> None:
    """`POST /v1/analyze`."""
    settings = service.settings

    @app.post(
        "/v1/analyze",
        tags=["analyze"],
        response_model=Result,
        responses=declared(
            *(*UPLOAD, "unreadable-picture", "deadline", "worker-lost", "no-space"),
            token=settings.token is not None,
        ),
        openapi_extra=openapi.upload(AnalyzeOptions, several=False),
    )
    async def analyze(request: Request, options: Annotated[AnalyzeOptions, Query()]) -> Response:
        """Judge one picture and wait for the answer.

        The picture is the field `file` of a form, or the whole body. A caller that hangs up gives
        its place in the queue back.
        """
        began = time.monotonic()
        service.model(options.model)
        service.pool.check()
        with service.budget.lease() as lease:
            limit = settings.max_body * MiB
            uploads, fields = await read_uploads(request, settings, lease, limit=limit, most=1)
            options = merged(options, fields)
            link = options.delivery == "link"
            (upload,) = uploads
            task = service.task(upload, options, link=link, limit=settings.deadline)
            future = service.pool.submit(task)
            left = settings.deadline - (time.monotonic() - began)
            if not await _answered(request, future, max(0.0, left)):
                service.metrics.gone.inc()
                return Response(status_code=499)  # nobody reads it
            answer = future.result()
            if "error" in answer.said:
                service.metrics.pictures.labels("unreadable").inc()
                raise ProblemError("unreadable-picture", answer.said["error"])
            result = await service.finish(answer, task, upload.data, link=link)
        return JSONResponse(result)


async def _answered(request: Request, future: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for an answer; False if the caller has gone. Raises ProblemError: out of time."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watcher = asyncio.create_task(gone())
    try:
        done, _ = await asyncio.wait(
            {future, watcher}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        watcher.cancel()
        if not future.done():
            future.cancel()
    if not done:
        raise ProblemError(
            "deadline",
            "The picture was not answered in time: send a smaller one, or make it a job.",
        )
    return future in done
