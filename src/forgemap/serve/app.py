"""app.py: the HTTP side of the service: every route, what it takes and what it may answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.staticfiles import StaticFiles

from .. import __version__
from ..decode import FORMATS
from . import openapi
from .jobs import Jobs, follow
from .metrics import MEDIA_TYPE as METRICS_TYPE
from .problems import MEDIA_TYPE, ProblemError, declared
from .schemas import ID, AnalyzeOptions, Health, Job, Models, Options, Ready, ReportRequest, Result
from .security import Guard
from .service import Service
from .settings import Settings
from .uploads import Lease, invalid, read_uploads

PAGE = Path(__file__).parent / "page"
"""The page at /: static files."""

_REPORT_BODY = 2**18

ResultId = Annotated[str, InPath(pattern=ID, description="Of a result, as in `result`.")]
JobId = Annotated[str, InPath(pattern=ID, description="Of a job, as in `id`.")]


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application; its workers start and end with its lifespan."""
    service = Service(settings)
    jobs = Jobs(service)
    token = settings.token is not None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.pool.start()
        clock = asyncio.create_task(_tidy(service, jobs))
        try:
            yield
        finally:
            clock.cancel()
            if service.keeper is None:
                jobs.cancel_all()  # nobody could ask for their results any more
            await service.pool.stop()

    app = FastAPI(
        title="Forgemap",
        version=__version__,
        summary="Was this picture edited, and where?",
        description=openapi.DESCRIPTION,
        docs_url=None,
        redoc_url=None,  # both would load scripts from elsewhere
        redirect_slashes=False,
        lifespan=lifespan,
        openapi_tags=openapi.TAGS,
    )
    app.state.service, app.state.jobs = service, jobs
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http_exception)
    openapi.install(
        app, token=token, most=settings.pictures_per_request, models=list(service.aliases)
    )

    def may(*names: str) -> dict[int | str, dict[str, Any]]:
        return declared(*names, token=token)

    @app.post(
        "/v1/analyze",
        tags=["analyze"],
        response_model=Result,
        responses=may(*_UPLOAD, "unreadable-picture", "deadline", "worker-lost", "no-space"),
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
            limit = settings.max_body
            uploads, fields = await read_uploads(request, settings, lease, limit=limit, most=1)
            options = _merged(options, fields)
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
            **may(*_UPLOAD),
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
                limit=settings.max_job_body,
                most=settings.pictures_per_request,
            )
            job = jobs.add(uploads, _merged(options, fields), lease)
            lease = None  # the job's now
        finally:
            if lease is not None:
                lease.give()
        return JSONResponse(job.to_dict(), 202, {"Location": f"/v1/jobs/{job.id}"})

    @app.get(
        "/v1/jobs/{id}", tags=["jobs"], response_model=Job, responses=may("not-found", *_CHECKED)
    )
    async def job(id: JobId) -> Response:
        """How far a job is, with the results so far."""
        return JSONResponse(jobs.get(id).to_dict())

    @app.delete(
        "/v1/jobs/{id}", tags=["jobs"], status_code=204, responses=may("not-found", *_CHECKED)
    )
    async def forget_job(id: JobId) -> Response:
        """Cancel what is left of a job and forget it."""
        jobs.forget(id)
        return Response(status_code=204)

    @app.get(
        "/v1/jobs/{id}/events",
        tags=["jobs"],
        response_class=StreamingResponse,
        responses={200: openapi.EVENTS, **may("not-found", *_CHECKED)},
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

    @app.get(
        "/v1/results/{id}/{output}.png",
        tags=["results"],
        response_class=Response,
        responses={200: openapi.PNG, **may("not-found", *_CHECKED)},
    )
    async def output(
        id: ResultId,
        output: Annotated[str, InPath(pattern="^[a-z]{1,16}$", description="Its name.")],
    ) -> Response:
        """A heat map, mask, overlay or decoded picture, as long as it is kept."""
        files = service.results.get(id).files
        if output not in files:
            names = ", ".join(files) or "none"
            raise ProblemError("not-found", f"The result has no such output; it has: {names}.")
        return Response(files[output], media_type="image/png")

    @app.delete(
        "/v1/results/{id}", tags=["results"], status_code=204, responses=may("not-found", *_CHECKED)
    )
    async def forget_result(id: ResultId) -> Response:
        """Forget a result's outputs before their time."""
        service.results.forget(id)
        return Response(status_code=204)

    @app.post(
        "/v1/report",
        tags=["results"],
        response_class=Response,
        responses={
            200: openapi.HTML,
            **may("malformed-body", "not-found", "too-large", "unsupported-media-type", "no-space",
                  *_CHECKED),
        },
        openapi_extra=openapi.json_body("ReportRequest"),
    )  # fmt: skip
    async def report(request: Request) -> Response:
        """One self-contained HTML file of results, the same that the command writes."""
        asked = await _read_json(request, ReportRequest)
        if len(asked.results) > settings.pictures_per_request:
            most = f"a report takes at most {settings.pictures_per_request}"
            raise invalid([{"where": "body/results", "detail": most}])
        page = await service.report(asked.results, asked.title)
        return Response(
            page,
            media_type="text/html",
            headers={
                "Content-Disposition": 'attachment; filename="forgemap-report.html"',
                "Content-Security-Policy": "default-src 'none'; img-src data:; "
                "style-src 'unsafe-inline'; sandbox",
            },
        )

    @app.get("/v1/models", tags=["server"], response_model=Models, responses=may())
    async def models() -> Response:
        """The models that run here, and the limits of a request."""
        limits = {
            name: getattr(settings, name)
            for name in (
                *("max_body", "max_job_body", "max_pixels", "pictures_per_request"),
                *("requests_per_minute", "deadline", "keep_seconds"),
            )
        }
        limits |= {"keeps_uploads": settings.keep is not None, "formats": list(FORMATS)}
        return JSONResponse({"models": service.facts(), "limits": limits, "version": __version__})

    @app.get("/healthz", tags=["server"], response_model=Health, responses=declared())
    async def health() -> Response:
        """Does the server answer? Needs no token."""
        return JSONResponse({"status": "ok", "version": __version__})

    @app.get("/readyz", tags=["server"], response_model=Ready, responses=declared("not-ready"))
    async def ready() -> Response:
        """Would a picture be taken now? Needs no token."""
        pool = service.pool
        if pool.closing or not pool.ready:
            why = "is shutting down" if pool.closing else "has no worker at the moment"
            raise ProblemError("not-ready", f"The server {why}: try again later.", retry_after=5)
        return JSONResponse(
            {
                "status": "ready",
                "waiting": pool.waiting,
                "capacity": settings.queue,
                "workers": pool.ready,
            }
        )

    @app.get(
        "/metrics",
        tags=["server"],
        response_class=Response,
        responses={200: openapi.METRICS, **may()},
    )
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": METRICS_TYPE})

    if PAGE.is_dir():
        # As what is left when no route fits: as a mount it would hide the 405 of a wrong method.
        app.router.default = StaticFiles(directory=PAGE, html=True)
    return app


_CHECKED = ("invalid-request",)
_UPLOAD = (
    *("malformed-body", "upload-too-slow", "too-large", "unsupported-media-type"),
    *("invalid-request", "not-ready"),
)


async def _tidy(service: Service, jobs: Jobs) -> None:
    while True:
        await asyncio.sleep(2)
        service.results.tidy()
        jobs.tidy()


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


def _merged(options: Any, fields: dict[str, str]) -> Any:
    """Options of the query and of the form, which goes before it."""
    if not fields:
        return options
    try:
        return type(options).model_validate({**options.model_dump(exclude_unset=True), **fields})
    except ValidationError as error:
        raise _faults(error, "body") from None


async def _read_json(request: Request, kind: type[BaseModel]) -> Any:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != "application/json":
        raise ProblemError("unsupported-media-type", "Send application/json.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _REPORT_BODY:
            raise ProblemError("too-large", f"The limit is {_REPORT_BODY // 1024} KiB.")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        if any(fault["type"] == "json_invalid" for fault in error.errors()):
            raise ProblemError("malformed-body", "The body is not JSON.") from None
        raise _faults(error, "body") from None


def _faults(error: ValidationError | RequestValidationError, where: str = "") -> ProblemError:
    """What pydantic found, without the values: they may be anything."""
    prefix = [where] if where else []
    return invalid(
        [
            {
                "where": "/".join([*prefix, *(str(part) for part in fault["loc"])])[:200],
                "detail": str(fault["msg"])[:300],
            }
            for fault in list(error.errors())[:20]
        ]
    )


def _answer(request: Request, problem: ProblemError) -> Response:
    body = problem.body(request.state.request_id)
    return Response(body, problem.status, {**problem.headers, "Content-Type": MEDIA_TYPE})


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _answer(request, error)


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(request, _faults(error))


async def _http_exception(request: Request, error: Exception) -> Response:
    """What the framework itself refuses."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        # The framework names the methods of the first route alone that has the path.
        methods = {
            method
            for route in request.app.routes
            if route.matches(request.scope)[0] is not Match.NONE
            for method in getattr(route, "methods", None) or ()
        }
        allowed = ", ".join(sorted(methods)) or "GET, HEAD"
        detail = f"The method is not allowed here; these are: {allowed}."
        problem = ProblemError("method-not-allowed", detail, headers={"Allow": allowed})
    elif error.status_code == 404:
        problem = ProblemError("not-found", "There is nothing at this address; see /openapi.json.")
    elif error.status_code < 500:
        problem = ProblemError("malformed-body", "The request cannot be understood.")
    else:
        problem = ProblemError("internal-error", "This is a fault of the server.")
    return _answer(request, problem)
