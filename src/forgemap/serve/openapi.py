"""openapi.py: what the OpenAPI document says beyond the routes' own types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from .schemas_server import Problem, ReportRequest
from .settings import Settings

DESCRIPTION = """Forgemap tells whether and where a picture was edited.

Every error is a problem document (RFC 9457). The server fetches no address that a caller gives,
and keeps nothing on its disk unless it was started to. Outputs that are delivered as links stay in
its memory for a short time, under ids that cannot be guessed."""

TAGS = [
    {"name": "analyze", "description": "One picture, answered at once."},
    {"name": "jobs", "description": "Many or large pictures, with progress."},
    {"name": "results", "description": "Outputs that are kept for a short time, and reports."},
    {"name": "server", "description": "What runs here and how it is."},
]

PNG: dict[str, Any] = {
    "description": "The picture, of the displayed size.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
}
HTML: dict[str, Any] = {
    "description": "The report: no script, no requests, pictures inside.",
    "content": {"text/html": {"schema": {"type": "string"}}},
}
METRICS: dict[str, Any] = {
    "description": "Prometheus' text format.",
    "content": {"text/plain": {"schema": {"type": "string"}}},
}
EVENTS: dict[str, Any] = {
    "description": "`progress` with `status`, `done` and `total`; `picture` with `index` and the "
    "entries of `JobPicture`, once for each; `end` with the `Job`. An event's id is the number of "
    "pictures finished so far.",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "description": "Pictures finished so far."},
                    "event": {
                        "type": "string",
                        "enum": ["progress", "picture", "end"],
                        "description": "Which of the three.",
                    },
                    "data": {"type": "string", "description": "JSON."},
                },
                "required": ["id", "event", "data"],
            }
        }
    },
}
LAST_EVENT: dict[str, Any] = {
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "description": "Id of the last event that was received; what came after is sent. "
            "Without one, or with one that no event had, all is sent.",
            "schema": {"type": "string"},
        }
    ]
}

_FILE = {"type": "string", "format": "binary", "description": "The bytes of a picture file."}


def upload(options: type[BaseModel], *, several: bool) -> dict[str, Any]:
    """The request body of a route that takes pictures."""
    fields = {k: _present(v) for k, v in options.model_json_schema()["properties"].items()}
    file: dict[str, Any] = dict(_FILE)
    if several:
        file = {
            "type": "array",
            "items": _FILE,
            "minItems": 1,
            "description": "The pictures: the field, repeated.",
        }
    form = {
        "type": "object",
        "description": "The same options as in the query; here they go before it.",
        "properties": {"file": file, **fields},
        "required": ["file"],
        "additionalProperties": False,
    }
    return {
        "requestBody": {
            "required": True,
            "description": "A form, or one picture as it is.",
            "content": {
                "multipart/form-data": {"schema": form},
                "application/octet-stream": {"schema": {**_FILE, "minLength": 1}},
                "image/*": {"schema": {**_FILE, "minLength": 1}},
            },
        }
    }


def _present(field: dict[str, Any]) -> dict[str, Any]:
    """Of a field that may be null: a form has no null, it leaves the field out."""
    if "anyOf" not in field:
        return field
    (kind,) = (k for k in field["anyOf"] if k != {"type": "null"})
    return {k: v for k, v in field.items() if k not in ("anyOf", "default")} | kind


def json_body(name: str) -> dict[str, Any]:
    """The request body of a route that takes JSON."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def install(app: FastAPI, settings: Settings, *, models: Sequence[str]) -> None:
    """Complete the document when it is first asked for; `models`: what requests may call them."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    summary=app.summary,
                    description=app.description,
                    routes=app.routes,
                    tags=app.openapi_tags,
                ),
                settings.token is not None,
                settings.pictures_per_request,
                list(models),
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(
    document: dict[str, Any], token: bool, most: int, models: list[str]
) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    template = "#/components/schemas/{model}"
    for model in (Problem, ReportRequest):
        schema = model.model_json_schema(ref_template=template)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    schemas["ReportRequest"]["properties"]["results"]["maxItems"] = most
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    body["multipart/form-data"]["schema"]["properties"]["file"]["maxItems"] = most
    for path in ("/v1/analyze", "/v1/jobs"):
        operation = document["paths"][path]["post"]
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        form["properties"]["model"]["enum"] = models
        for parameter in operation["parameters"]:
            if parameter["name"] == "model":
                parameter["schema"] = {"type": "string", "enum": models}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            standard = answers.get("422", {}).get("content", {}).get("application/json")
            if standard is not None:  # the framework's own, which no route here gives
                del answers["422"]["content"]["application/json"]
            if token and (path.startswith("/v1") or path == "/metrics"):
                operation["security"] = [{"token": []}]
    if token:
        document["components"]["securitySchemes"] = {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "What the server was started with.",
            }
        }
    return document
