"""settings.py: everything that a server can be told, with its limits; also its flags."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import ForgemapError

MiB = 2**20


def described(default: Any, help: str) -> Any:
    """A field with the sentence that `forgemap serve --help` has for it."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Settings:
    """How the service runs. Each field is a flag of `forgemap serve`, but for the token."""

    host: str = described("127.0.0.1", "Address to listen on; others than loopback need a token.")
    port: int = described(8000, "Port to listen on; 0: any free one.")
    model: tuple[str, ...] = described(
        ("default",),
        "As in `forgemap analyze`; may be repeated, the first is what requests get by default.",
    )
    detector: str = described(
        "default",
        'Which embedder answers "generated as a whole?", as in `forgemap analyze`; "none": not '
        "asked.",
    )
    classifier: str | None = described(None, "Its classifier, as in `forgemap analyze`.")
    device: tuple[str, ...] = described(
        ("cpu",), "cpu, cuda, cuda:1 ...; may be repeated: one worker for each."
    )
    engine: Literal["auto", "torch", "onnx", "openvino"] = described(
        "auto", "What computes the models, as in `forgemap analyze`."
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = described(
        "auto", "In which numbers, as in `forgemap analyze`."
    )
    copies: bool = described(
        True, "Look for regions that occur twice, if the model's score counts them."
    )
    token_file: Path | None = described(
        None, "File with the token that callers must send; else $FORGEMAP_TOKEN, if it is set."
    )
    no_auth: bool = described(False, "Let everyone in who can reach the address.")
    allowed_host: tuple[str, ...] = described(
        (), "A name, besides addresses, under which browsers may come; may be repeated."
    )
    keep: Path | None = described(
        None, "Keep every upload and its result in this folder; without it nothing is kept."
    )
    queue: int = described(32, "Pictures that may wait; when there are as many, more are refused.")
    batch: int = described(8, "Most pictures in one pass of the network.")
    deadline: float = described(60.0, "Seconds within which a picture is answered or refused.")
    job_deadline: float = described(
        600.0, "Seconds that a picture of a job may take, and that a stop may wait."
    )
    upload_seconds: float = described(60.0, "Seconds within which a body must have arrived.")
    max_body: int = described(64, "MiB of one picture.")
    max_job_body: int = described(256, "MiB of all the pictures of a job together.")
    upload_memory: int = described(1024, "MiB of all bodies that are held at one time.")
    max_pixels: int = described(100_000_000, "Larger pictures are refused before they are decoded.")
    pictures_per_request: int = described(100, "Pictures of one job, or of one report.")
    requests_per_minute: int = described(
        6000, "Requests of one client address in a minute; 0: not limited."
    )
    max_requests: int = described(512, "Requests that are answered at one time, of all clients.")
    jobs: int = described(32, "Jobs that run or are remembered.")
    keep_seconds: float = described(
        600.0, "How long outputs, results and finished jobs stay in memory, in seconds."
    )
    result_memory: int = described(512, "MiB of outputs kept in memory; the oldest go first.")
    log_level: Literal["debug", "info", "warning", "error"] = described(
        "info", "What goes to the log on stderr."
    )
    #: What callers must send as `Authorization: Bearer TOKEN`; None = nothing is asked for. Not a
    #: flag: it would show in the list of processes.
    token: str | None = field(default=None, repr=False, metadata={"flag": False})

    @classmethod
    def of(cls, **values: Any) -> Settings:
        """With the token of its file, or of the environment. Raises ForgemapError."""
        return cls(**values, token=read_token(values.get("token_file")))

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ForgemapError(f"The port {self.port} does not exist: choose 0 to 65535.")
        if not self.model or not self.device:
            raise ForgemapError("A server needs at least one model and one device.")
        if len(set(self.model)) < len(self.model):
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
                flag = name.replace("_", "-")
                raise ForgemapError(f"--{flag} is {getattr(self, name)}: it must be above 0.")
        if self.requests_per_minute < 0:
            raise ForgemapError("--requests-per-minute must be 0 (not limited) or more.")

    @property
    def loopback(self) -> bool:
        """Can only this machine reach the server?"""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def read_token(file: Path | None) -> str | None:
    """From the file, else from the environment. Raises ForgemapError."""
    if file is None:
        return os.environ.get("FORGEMAP_TOKEN") or None
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ForgemapError(f"{file}: the token cannot be read; check the file.") from error
    if not token:
        raise ForgemapError(f"{file} is empty: write a token of 16 characters or more into it.")
    return token
