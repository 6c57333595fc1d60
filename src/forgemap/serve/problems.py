"""problems.py: every error as RFC 9457 problem details: one shape, declared in the OpenAPI.

Sentences here are for callers: they hold no path, environment or traceback of the server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .schemas_server import Problem

MEDIA_TYPE = "application/problem+json"

# Name -> status and title. The name ends the problem's `type`.
PROBLEMS: Mapping[str, tuple[int, str]] = {
    "malformed-body": (400, "The body cannot be parsed"),
    "unauthorized": (401, "A token is needed"),
    "foreign-origin": (403, "Requests from other sites are refused"),
    "not-found": (404, "There is nothing here"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "upload-too-slow": (408, "The body took too long"),
    "too-large": (413, "The request is too large"),
    "unsupported-media-type": (415, "The body is of a kind that is not taken"),
    "wrong-host": (421, "This server does not go by that name"),
    "invalid-request": (422, "The request is not valid"),
    "unreadable-picture": (422, "The picture cannot be read"),
    "too-many-requests": (429, "Too many requests from one client"),
    "internal-error": (500, "The server made a mistake"),
    "busy": (503, "The server is busy"),
    "not-ready": (503, "The server is not ready"),
    "worker-lost": (503, "The worker was lost"),
    "deadline": (504, "The picture took too long"),
    "no-space": (507, "The server's disk is full"),
}


class ProblemError(Exception):
    """A problem on its way to the caller.

    Args:
        name: a key of `PROBLEMS`.
        detail: what happened and what to do, in one sentence.
        headers: more headers of the answer.
        retry_after: seconds, for the header of that name.
        errors: of `invalid-request`, each as {"where", "detail"}.
    """

    def __init__(
        self,
        name: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        retry_after: int | None = None,
        errors: Sequence[Mapping[str, str]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.name, self.detail, self.errors = name, detail, errors
        self.status = PROBLEMS[name][0]
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def body(self, request_id: str) -> bytes:
        """The JSON document."""
        content: dict[str, Any] = {
            "type": f"urn:forgemap:problem:{self.name}",
            "title": PROBLEMS[self.name][1],
            "status": self.status,
            "detail": self.detail,
            "instance": f"urn:uuid:{request_id}",
        }
        if self.errors is not None:
            content["errors"] = [dict(error) for error in self.errors]
        return json.dumps(content).encode("ascii")


def invalid(errors: Sequence[Mapping[str, str]]) -> ProblemError:
    """The problem of a request that does not follow its schema."""
    first = errors[0]
    return ProblemError("invalid-request", f"{first['where']}: {first['detail']}.", errors=errors)


UPLOAD = (
    *("malformed-body", "upload-too-slow", "too-large", "unsupported-media-type"),
    *("invalid-request", "not-ready"),
)
"""What any route may answer that takes pictures."""

# What any route may answer: the middleware and the framework see to these.
_EVERYWHERE = ("foreign-origin", "wrong-host", "too-many-requests", "internal-error", "busy")


def declared(*names: str, token: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer these problems, for the OpenAPI document."""
    names = (*names, *_EVERYWHERE, *(["unauthorized"] if token else []))
    by_status: dict[int, list[str]] = {}
    for name in names:
        by_status.setdefault(PROBLEMS[name][0], []).append(name)
    return {
        status: {
            "description": "; ".join(f"{PROBLEMS[name][1]} (`{name}`)" for name in found),
            "content": {
                MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}
            },
            **({"headers": _RETRY} if status in (429, 503) else {}),
        }
        for status, found in sorted(by_status.items())
    }


_RETRY = {
    "Retry-After": {
        "description": "Seconds after which it is worth another try.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
