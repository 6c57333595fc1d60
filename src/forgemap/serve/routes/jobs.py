"""jobs.py: many or large pictures: submitted, watched, cancelled."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from .. import openapi
from ..bodies import merged
from ..jobs import Jobs, follow
from ..problems import UPLOAD, declared
from ..schemas import ID, Options
from ..schemas_server import Job
from ..settings import MiB
from ..uploads import Lease, read_uploads

JobId = Annotated[str, Path(pattern=ID, description="Of a job, as in `id`.")]


def add(app: FastAPI, jobs: Jobs) -> None:
    """`/v1/jobs` and what is below it."""
    service, settings = jobs.service, jobs.service.settings

    def may(*names: str) -> dict[int | str, dict[str, Any]]:
        return declared(*names, "invalid-request", token=settings.token is not None)

    @app.post(
        "/v1/jobs",
        tags=["jobs"],
        status_code=202,
        response_model=Job,
        responses={
            202: {
                "headers": {
                    "Location": {"description": "Link to the job.", "schema": {"type": "string"}}
                }
            },
            **may(*UPLOAD),
        },
        openapi_extra=openapi.upload(Options, several=True),
    )
    async def submit(request: Request, options: Annotated[Options, Query()]) -> Response:
        """Accept many or large pictures, to be judged while the caller does something else.

        A picture that cannot be read does not stop the others: its result has `error`.
        """
        service.model(options.model)
        jobs.check()
        lease: Lease | None = service.budget.lease()
        assert lease is not None
        try:
            uploads, fields = await read_uploads(
                request,
                settings,
                lease,
                limit=settings.max_job_body * MiB,
                most=settings.pictures_per_request,
            )
            job = jobs.add(uploads, merged(options, fields), lease)
            lease = None  # the job's now
        finally:
            if lease is not None:
                lease.give()
        return JSONResponse(job.to_dict(), 202, {"Location": f"/v1/jobs/{job.id}"})

    @app.get("/v1/jobs/{id}", tags=["jobs"], response_model=Job, responses=may("not-found"))
    async def job(id: JobId) -> Response:
        """How far a job is, with the results so far."""
        return JSONResponse(jobs.get(id).to_dict())

    @app.delete("/v1/jobs/{id}", tags=["jobs"], status_code=204, responses=may("not-found"))
    async def forget_job(id: JobId) -> Response:
        """Cancel what is left of a job and forget it."""
        jobs.forget(id)
        return Response(status_code=204)

    @app.get(
        "/v1/jobs/{id}/events",
        tags=["jobs"],
        response_class=StreamingResponse,
        responses={200: openapi.EVENTS, **may("not-found")},
        openapi_extra=openapi.LAST_EVENT,
    )
    async def events(id: JobId, request: Request) -> Response:
        """A job's progress as server-sent events, until it ends."""
        found = jobs.get(id)
        last = request.headers.get("last-event-id", "0")
        after = int(last) if last.isdecimal() and len(last) < 9 else 0

        async def stream() -> AsyncIterator[str]:
            async for name, number, data in follow(found, min(after, len(found.order))):
                if not name:
                    yield ": still at work\n\n"  # or a proxy would hang up
                    continue
                yield f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")
