"""run.py: the service on a socket, from the first line to a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from ..errors import ForgemapError
from .app import create_app
from .settings import Settings

log = logging.getLogger("forgemap.serve")

_HEADERS_WITHIN = 20.0  # seconds that a connection may be open without a whole request
_POLL_GRACE = 3.0  # after the last job, for callers that come back for its result


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Run until a signal says stop. `ready` gets the address when pictures are taken.

    SIGTERM and Ctrl-C: nothing more is accepted; what is in the queue and the jobs at work are
    finished, for at most `settings.job_deadline` seconds; a second signal ends it at once.

    Raises:
        ForgemapError: the address or a model cannot be used.
    """
    if hasattr(signal, "SIGPIPE"):
        # The command ends with its reader. A server must not: not with a caller who hangs up in
        # the middle of an answer, and not with a worker.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    asyncio.run(Server.make(settings, ready).run())


class Server(uvicorn.Server):
    """uvicorn, which also drains jobs, drops slow headers, and says when it is ready."""

    @classmethod
    def make(cls, settings: Settings, ready: Callable[[str], None]) -> Server:
        app = create_app(settings)
        config = uvicorn.Config(
            app,
            lifespan="on",
            http="h11",
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,  # whoever connects would choose the address that is logged
            timeout_keep_alive=15,
            timeout_graceful_shutdown=int(settings.deadline) + 5,
            h11_max_incomplete_event_size=32 * 1024,
            backlog=1024,
        )
        server = cls(config)
        server.settings, server.ready = settings, ready
        server.pool, server.jobs = app.state.service.pool, app.state.jobs
        return server

    settings: Settings
    ready: Callable[[str], None]
    pool: Any
    jobs: Any
    address = ""
    _draining: asyncio.Task[None] | None = None
    _aborting: asyncio.Task[None] | None = None
    _idle_since: dict[int, float]

    async def run(self) -> None:  # type: ignore[override]
        """Bind, load the models, serve."""
        self._idle_since = {}
        listener = _bind(self.settings)
        try:
            await self.pool.start()
            await self.serve(sockets=[listener])
        finally:
            listener.close()
            await (self.pool.abort() if self.force_exit else self.pool.stop())

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        port = sockets[0].getsockname()[1]
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        self.address = f"http://{host}:{port}"
        self.ready(self.address)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals stop the server and are not raised again: a graceful stop is exit code 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        asyncio.get_running_loop().call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Stop gracefully; the second time at once."""
        if self._draining is not None:
            self.should_exit = self.force_exit = True
            self.jobs.cancel_all()
            self._aborting = asyncio.get_running_loop().create_task(self.pool.abort())
            return
        log.info("stopping", extra={"waiting": self.pool.waiting, "jobs": self.jobs.at_work})
        self.pool.closing = True
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        until = time.monotonic() + self.settings.job_deadline
        if self.jobs.at_work:
            while self.jobs.at_work and time.monotonic() < until:
                await asyncio.sleep(0.1)
            await asyncio.sleep(_POLL_GRACE)
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        if counter % 20 == 0:  # every two seconds
            self._drop_slow_headers()
        return await super().on_tick(counter)

    def _drop_slow_headers(self) -> None:
        """Close connections on which no whole request has come for long (slow loris)."""
        now, idle = time.monotonic(), {}
        for connection in list(self.server_state.connections):
            protocol: Any = connection
            cycle = getattr(protocol, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                continue
            since = self._idle_since.get(id(protocol), now)
            if now - since > _HEADERS_WITHIN:
                protocol.transport.close()
            else:
                idle[id(protocol)] = since
        self._idle_since = idle


def _bind(settings: Settings) -> socket.socket:
    """A socket that does not listen yet, so that nobody waits while models load."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, place = found[0]
        if settings.loopback and not ipaddress.ip_address(str(place[0])).is_loopback:
            raise ForgemapError(f"{settings.host} is not this machine alone: use 127.0.0.1.")
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except OSError as error:
        raise ForgemapError(
            f"{settings.host}:{settings.port} cannot be used ({error.strerror}): choose another "
            "with --host and --port, or port 0 for any free one."
        ) from error
    return listener
