"""bodies.py: options and JSON that callers send -> the models of `schemas`, or a problem."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from .problems import ProblemError, invalid

_JSON_BYTES = 2**18

Model = TypeVar("Model", bound=BaseModel)


def merged(options: Model, fields: dict[str, str]) -> Model:
    """Options of the query and of the form, which goes before it."""
    if not fields:
        return options
    try:
        return type(options).model_validate({**options.model_dump(exclude_unset=True), **fields})
    except ValidationError as error:
        raise faults_of(error, "body") from None


async def read_json(request: Request, kind: type[Model]) -> Model:
    """The body of a request. Raises ProblemError."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != "application/json":
        raise ProblemError("unsupported-media-type", "Send application/json.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _JSON_BYTES:
            raise ProblemError("too-large", f"The limit is {_JSON_BYTES // 1024} KiB.")
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        if any(fault["type"] == "json_invalid" for fault in error.errors()):
            raise ProblemError("malformed-body", "The body is not JSON.") from None
        raise faults_of(error, "body") from None


def faults_of(error: ValidationError | RequestValidationError, where: str = "") -> ProblemError:
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
