"""results.py: outputs that are kept for a while, and reports of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Path, Request
from fastapi.responses import Response

from .. import openapi
from ..bodies import read_json
from ..problems import ProblemError, declared, invalid
from ..schemas import ID
from ..schemas_server import ReportRequest
from ..service import Service

ResultId = Annotated[str, Path(pattern=ID, description="Of a result, as in `result`.")]


def add(app: FastAPI, service: Service) -> None:
    """`/v1/results/...` and `/v1/report`."""
    settings = service.settings

    def may(*names: str) -> dict[int | str, dict[str, Any]]:
        return declared(*names, "invalid-request", token=settings.token is not None)

    @app.get(
        "/v1/results/{id}/{output}.png",
        tags=["results"],
        response_class=Response,
        responses={200: openapi.PNG, **may("not-found")},
    )
    async def output(
        id: ResultId,
        output: Annotated[str, Path(pattern="^[a-z_]{1,16}$", description="Its name.")],
    ) -> Response:
        """A heat map, mask, overlay, confidence map or decoded picture, as long as it is kept."""
        files = service.results.get(id).files
        if output not in files:
            names = ", ".join(files) or "none"
            raise ProblemError("not-found", f"The result has no such output; it has: {names}.")
        return Response(files[output], media_type="image/png")

    @app.delete("/v1/results/{id}", tags=["results"], status_code=204, responses=may("not-found"))
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
            **may(
                *("malformed-body", "not-found", "too-large", "unsupported-media-type", "no-space")
            ),
        },
        openapi_extra=openapi.json_body("ReportRequest"),
    )
    async def report(request: Request) -> Response:
        """One self-contained HTML file of results, the same that the command writes."""
        asked = await read_json(request, ReportRequest)
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
