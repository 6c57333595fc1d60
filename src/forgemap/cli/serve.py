"""forgemap serve: the service, on this machine alone unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ForgemapError
from .extras import needs

MiB = 2**20


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.")] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option(help="As in `forgemap analyze`; may be repeated, the first is the default."),
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, cuda:1 ...; one worker for each.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that callers must send; else $FORGEMAP_TOKEN."),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let everyone in who can reach the address.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A name, besides addresses, under which browsers may come."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep every upload and its result in this folder; default: nothing."),
    ] = None,
    queue: Annotated[int, typer.Option(help="Pictures that may wait; more are refused.")] = 32,
    batch: Annotated[int, typer.Option(help="Most pictures in one pass of the network.")] = 8,
    deadline: Annotated[
        float, typer.Option(help="Seconds within which a picture is answered or refused.")
    ] = 60.0,
    job_deadline: Annotated[
        float, typer.Option(help="Seconds that a picture of a job may take, and a stop may wait.")
    ] = 600.0,
    upload_seconds: Annotated[
        float, typer.Option(help="Seconds within which a body must have arrived.")
    ] = 60.0,
    max_body: Annotated[int, typer.Option(help="MiB of one picture.")] = 64,
    max_job_body: Annotated[int, typer.Option(help="MiB of all pictures of a job.")] = 256,
    upload_memory: Annotated[int, typer.Option(help="MiB of all bodies held at a time.")] = 1024,
    max_pixels: Annotated[
        int, typer.Option(help="Larger pictures are refused before they are decoded.")
    ] = 100_000_000,
    pictures_per_request: Annotated[
        int, typer.Option(help="Pictures of one job, or of one report.")
    ] = 100,
    requests_per_minute: Annotated[int, typer.Option(help="Of one client; 0: not limited.")] = 6000,
    max_requests: Annotated[int, typer.Option(help="Requests at one time, of all clients.")] = 512,
    jobs: Annotated[int, typer.Option(help="Jobs that run or are remembered.")] = 32,
    keep_seconds: Annotated[
        float, typer.Option(help="How long outputs and jobs stay in memory.")
    ] = 600.0,
    result_memory: Annotated[int, typer.Option(help="MiB of outputs kept in memory.")] = 512,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Answer pictures over HTTP, with a page for people at the address that is printed.

    Prints one line when it is ready. Its log goes to stderr, a JSON object per line. SIGTERM or
    Ctrl-C: it finishes what it has accepted and exits with 0.
    """
    with needs("serve"):
        from ..serve.logs import set_up
        from ..serve.run import serve as run
        from ..serve.settings import Settings

    if log_level not in ("debug", "info", "warning", "error"):
        raise ForgemapError(f"No log level {log_level!r}; valid: debug, info, warning, error.")
    settings = Settings(
        host=host,
        port=port,
        models=tuple(model or ["default"]),
        devices=tuple(device or ["cpu"]),
        token=read_token(token_file),
        no_auth=no_auth,
        allowed_hosts=tuple(allowed_host or []),
        keep=keep,
        queue=queue,
        batch=batch,
        deadline=deadline,
        job_deadline=job_deadline,
        upload_seconds=upload_seconds,
        max_body=max_body * MiB,
        max_job_body=max_job_body * MiB,
        upload_memory=upload_memory * MiB,
        max_pixels=max_pixels,
        pictures_per_request=pictures_per_request,
        requests_per_minute=requests_per_minute,
        max_requests=max_requests,
        jobs=jobs,
        keep_seconds=keep_seconds,
        result_memory=result_memory * MiB,
    )
    set_up(log_level)
    run(settings, lambda address: print(f"Forgemap is ready at {address}", flush=True))


def read_token(file: Path | None) -> str | None:
    """From the file, else from the environment: a flag would show in the list of processes."""
    if file is None:
        return os.environ.get("FORGEMAP_TOKEN") or None
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ForgemapError(f"{file}: the token cannot be read; check the file.") from error
    if not token:
        raise ForgemapError(f"{file} is empty: write a token of 16 characters or more into it.")
    return token
