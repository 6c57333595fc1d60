"""settings.py: everything that a server can be told, with its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ForgemapError

MiB = 2**20


@dataclass(frozen=True)
class Settings:
    """How the service runs. Each field is a flag of `forgemap serve`."""

    #: Address to listen on.
    host: str = "127.0.0.1"
    #: Port to listen on; 0 = any free one.
    port: int = 8000
    #: Models to run: "default", folders, or published ones that were downloaded; the first is the
    #: default of requests.
    models: tuple[str, ...] = ("default",)
    #: One worker on each: cpu, cuda, cuda:1 ...
    devices: tuple[str, ...] = ("cpu",)
    #: What callers must send as `Authorization: Bearer TOKEN`; None = nothing is asked for.
    token: str | None = field(default=None, repr=False)
    #: Listen beyond this machine without a token.
    no_auth: bool = False
    #: More names under which browsers may reach this server, as in `forensics.example.org`.
    allowed_hosts: tuple[str, ...] = ()
    #: Folder in which every uploaded picture and its result are kept; None = nothing is kept.
    keep: Path | None = None
    #: Pictures that wait; when there are as many, more are refused at once.
    queue: int = 32
    #: Most pictures in one pass of the network.
    batch: int = 8
    #: Seconds within which a picture is answered or refused.
    deadline: float = 60.0
    #: Seconds that one picture of a job may take.
    job_deadline: float = 600.0
    #: Seconds within which a body must have arrived.
    upload_seconds: float = 60.0
    #: Bytes of one picture.
    max_body: int = 64 * MiB
    #: Bytes of all the pictures of a job together.
    max_job_body: int = 256 * MiB
    #: Bytes of all bodies that are held at one time.
    upload_memory: int = 1024 * MiB
    #: Larger pictures are refused before they are decoded.
    max_pixels: int = 100_000_000
    #: Pictures of one job, or of one report.
    pictures_per_request: int = 100
    #: Requests of one client address in a minute; 0 = not limited.
    requests_per_minute: int = 6000
    #: Requests that are answered at one time, of all clients together.
    max_requests: int = 512
    #: Jobs that run or are remembered.
    jobs: int = 32
    #: Seconds that outputs, results and finished jobs are kept in memory.
    keep_seconds: float = 600.0
    #: Bytes of all outputs that are kept in memory; the oldest go first.
    result_memory: int = 512 * MiB

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ForgemapError(f"The port {self.port} does not exist: choose 0 to 65535.")
        if not self.models or not self.devices:
            raise ForgemapError("A server needs at least one model and one device.")
        if len(set(self.models)) < len(self.models):
            raise ForgemapError("A model is named twice: name each once.")
        if self.token is not None and (len(self.token) < 16 or not self.token.isascii()):
            raise ForgemapError("The token is too short: use at least 16 ASCII characters.")
        if not self.loopback and self.token is None and not self.no_auth:
            raise ForgemapError(
                f"{self.host} can be reached from other machines: set a token with --token-file or "
                "FORGEMAP_TOKEN, or say --no-auth to let everyone in."
            )
        positive = (
            *("queue", "batch", "deadline", "job_deadline", "upload_seconds", "max_body"),
            *("max_job_body", "upload_memory", "max_pixels", "pictures_per_request"),
            *("max_requests", "jobs", "keep_seconds", "result_memory"),
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise ForgemapError(f"{name} is {getattr(self, name)}: it must be above 0.")
        if self.requests_per_minute < 0:
            raise ForgemapError("requests_per_minute must be 0 (not limited) or more.")

    @property
    def loopback(self) -> bool:
        """Can only this machine reach the server?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
