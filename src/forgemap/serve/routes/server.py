"""server.py: what runs here and how it is."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from ... import __version__
from ...decode import FORMATS
from .. import openapi
from ..metrics import MEDIA_TYPE as METRICS_TYPE
from ..problems import ProblemError, declared
from ..schemas_server import Health, Models, Ready
from ..service import Service
from ..settings import MiB


def add(app: FastAPI, service: Service) -> None:
    """`/v1/models`, `/healthz`, `/readyz` and `/metrics`."""
    settings = service.settings
    guarded = declared(token=settings.token is not None)

    @app.get("/v1/models", tags=["server"], response_model=Models, responses=guarded)
    async def models() -> Response:
        """The models that run here, and the limits of a request."""
        limits = {
            name: getattr(settings, name)
            for name in (
                *("max_pixels", "pictures_per_request", "requests_per_minute", "deadline"),
                "keep_seconds",
            )
        }
        limits |= {name: MiB * getattr(settings, name) for name in ("max_body", "max_job_body")}
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
        responses={200: openapi.METRICS, **guarded},
    )
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": METRICS_TYPE})
