"""security.py: what every request passes through, and what every answer carries.

In this order: a limit on requests at one time, the Host and Origin checks, the client's rate, the
token. Each threat and its test: docs/security.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import logging
import math
import time
import uuid
from collections import OrderedDict
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .problems import MEDIA_TYPE, ProblemError
from .settings import Settings

log = logging.getLogger("forgemap.serve")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
"""Where an answer does not set one itself."""

_LINGER = 5.0  # seconds for which the rest of a refused body is read, so that the answer arrives
_CLIENTS = 10_000


def is_guarded(path: str) -> bool:
    """Does the path need the token? The page and the health checks do not."""
    return path.startswith("/v1") or path in ("/metrics", "/openapi.json")


class Rate:
    """A token bucket for each client address; the longest silent are forgotten."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, now: float) -> int:
        """Seconds that the client must wait; 0 = go on."""
        if self.per_minute == 0:
            return 0
        left, last = self._buckets.pop(client, (float(self.per_minute), now))
        left = min(self.per_minute, left + (now - last) * self.per_minute / 60)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1 - left) * 60 / self.per_minute))


class Guard:
    """The outermost ASGI layer."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.rate = Rate(settings.requests_per_minute)
        self.now = 0
        # Compared as digests: neither the length nor a common beginning shows in the time.
        self._token = None if settings.token is None else _digest(settings.token)
        metrics.watch("requests_now", lambda: self.now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
                return
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        self.now += 1
        try:
            self._check(scope)
            await self.app(scope, exchange.receive, exchange.send)
        except ProblemError as problem:
            await exchange.refuse(problem)
        except Exception:
            log.exception("fault", extra={"id": exchange.id})
            await exchange.refuse(
                ProblemError("internal-error", "This is a fault of the server; its log has more.")
            )
        finally:
            self.now -= 1
            self._account(scope, exchange)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if self.now > self.settings.max_requests:
            self.metrics.refused.labels("too-many-at-once").inc()
            raise ProblemError(
                "busy", "Too many requests at one time: try again later.", retry_after=1
            )
        self._check_host(headers)
        self._check_origin(headers, scope["method"], path)
        client = _client(scope)
        # The health checks must answer whoever asks how often.
        if path not in ("/healthz", "/readyz") and (
            wait := self.rate.wait(client, time.monotonic())
        ):
            self.metrics.refused.labels("rate").inc()
            raise ProblemError(
                "too-many-requests",
                f"More than {self.settings.requests_per_minute} requests in a minute: slow down.",
                retry_after=wait,
            )
        if self._token is not None and is_guarded(path):
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(_digest(given), self._token):
                self.metrics.refused.labels("token").inc()
                raise ProblemError(
                    "unauthorized",
                    "Send the server's token as `Authorization: Bearer TOKEN`.",
                    headers={"WWW-Authenticate": "Bearer"},
                )

    def _check_host(self, headers: Headers) -> None:
        """A page that has its own name point here (DNS rebinding) still sends that name."""
        if "host" not in headers:
            return
        name = _host_name(headers["host"])
        known = {
            "localhost",
            self.settings.host.lower(),
            *map(str.lower, self.settings.allowed_host),
        }
        if name in known or _is_address(name):
            return
        raise ProblemError(
            "wrong-host", "This name is not allowed here: start the server with --allowed-host."
        )

    def _check_origin(self, headers: Headers, method: str, path: str) -> None:
        """Other sites may link to the page, and nothing else."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        theirs = (origin or "").partition("://")[2].lower()
        own = origin is None or theirs == headers.get("host", "").lower()
        own = own or _host_name(theirs) in map(str.lower, self.settings.allowed_host)  # a proxy's
        followed = method == "GET" and not is_guarded(path)
        if not own or (site not in ("same-origin", "none") and not followed):
            raise ProblemError(
                "foreign-origin", "A page of another site may not use this server: open its own."
            )

    def _account(self, scope: Scope, exchange: _Exchange) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        seconds = time.monotonic() - exchange.began
        self.metrics.requests.labels(method, route, str(exchange.status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        log.info(
            "request",
            extra={
                "id": exchange.id,
                "client": _client(scope),
                "method": method,
                "route": route,
                "status": exchange.status,
                "ms": round(1000 * seconds, 1),
                "bytes_in": exchange.received,
                "bytes_out": exchange.sent,
            },
        )


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"}


class _Exchange:
    """One request and its answer: counts, headers, and an answer that outlives a refused body."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.id = str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = self.id
        self.began = time.monotonic()
        self.status, self.received, self.sent = 499, 0, 0  # 499: gone before an answer
        headers = Headers(scope=scope)
        self._receive, self._send = receive, send
        length = headers.get("content-length", "0")
        self._body_left = length != "0" or "transfer-encoding" in headers
        self._expects = "expect" in headers
        self._linger = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self._body_left = message.get("more_body", False)
        else:
            self._body_left = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers["X-Request-Id"] = self.id
            if self._body_left:
                headers["Connection"] = "close"
                self._linger = not self._expects and "content-length" in headers
            message["headers"] = headers.raw
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            if self._linger and not message.get("more_body", False):
                await self._send({**message, "more_body": True})
                await self._drain()
                message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _drain(self) -> None:
        """A connection that closes on unread bytes is reset, and the answer lost with it."""

        async def read() -> None:
            while self._body_left:
                await self.receive()

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(read(), _LINGER)

    async def refuse(self, problem: ProblemError) -> None:
        if self.status != 499:
            return  # the answer has begun: all that is left is to end it
        await send_problem(problem, self.id, self.send)


async def send_problem(problem: ProblemError, request_id: str, send: Send) -> None:
    """Answer with a problem."""
    body = problem.body(request_id)
    headers = {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        **problem.headers,
    }
    raw: Any = [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _client(scope: Scope) -> str:
    """The peer's address; of IPv6 the network, which one client has to itself."""
    address = (scope.get("client") or ("unknown",))[0]
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return str(address)
    if parsed.version == 6 and parsed.ipv4_mapped is None and not parsed.is_loopback:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _host_name(host: str) -> str:
    """Without the port; of `[::1]:80` what is in the brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
