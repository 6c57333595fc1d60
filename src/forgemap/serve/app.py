"""app.py: the HTTP side of the service put together: routes, guard, errors, page, lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.staticfiles import StaticFiles

from .. import __version__
from . import openapi
from .bodies import faults_of
from .jobs import Jobs
from .problems import MEDIA_TYPE, ProblemError
from .routes import analyze, results, server
from .routes import jobs as jobs_routes
from .security import Guard
from .service import Service
from .settings import Settings

PAGE = Path(__file__).parent / "page"
"""The page at /: static files."""


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application; its workers start and end with its lifespan."""
    service = Service(settings)
    jobs = Jobs(service)

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
    openapi.install(app, settings, models=list(service.aliases))
    analyze.add(app, service)
    jobs_routes.add(app, jobs)
    results.add(app, service)
    server.add(app, service)
    if PAGE.is_dir():
        # As what is left when no route fits: as a mount it would hide the 405 of a wrong method.
        app.router.default = StaticFiles(directory=PAGE, html=True)
    return app


async def _tidy(service: Service, jobs: Jobs) -> None:
    while True:
        await asyncio.sleep(2)
        service.results.tidy()
        jobs.tidy()


def _answer(request: Request, problem: ProblemError) -> Response:
    body = problem.body(request.state.request_id)
    return Response(body, problem.status, {**problem.headers, "Content-Type": MEDIA_TYPE})


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _answer(request, error)


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(request, faults_of(error))


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
