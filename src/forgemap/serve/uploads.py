"""uploads.py: the body of a request -> pictures and options, in memory, within every limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from .problems import ProblemError, invalid
from .settings import MiB, Settings

_ENVELOPE = MiB  # what a form may weigh beside its pictures


class Upload(NamedTuple):
    """A picture as it came."""

    name: str
    """Its file name without folders; for people, never for a disk."""
    data: bytes


class Budget:
    """Bytes of bodies that are held at one time, over all requests."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def lease(self) -> Lease:
        return Lease(self)


class Lease:
    """One request's part of the budget; a context that gives it back."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self.bytes = budget, 0

    def take(self, count: int) -> None:
        """Raises ProblemError: too many bytes are held already."""
        if self._budget.used + count > self._budget.limit:
            raise ProblemError(
                "busy", "Too many uploads at one time: try again later.", retry_after=2
            )
        self._budget.used += count
        self.bytes += count

    def give(self, count: int | None = None) -> None:
        count = self.bytes if count is None else min(count, self.bytes)
        self._budget.used -= count
        self.bytes -= count

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.give()


class _InMemory(MultiPartParser):
    """Starlette's parser, which would put what is larger than this on the disk."""

    spool_max_size = 2**62


async def read_uploads(
    request: Request, settings: Settings, lease: Lease, *, limit: int, most: int
) -> tuple[list[Upload], dict[str, str]]:
    """The pictures and the form's other fields.

    Args:
        request: its body is multipart/form-data with `file`, or one raw picture.
        settings: the limits.
        lease: what the body weighs is taken from it.
        limit: bytes of the whole body.
        most: pictures.

    Raises:
        ProblemError: too large, too slow, of another kind, malformed, or the server is busy.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    multipart = kind == "multipart/form-data"
    if not (multipart or kind in ("", "application/octet-stream") or kind.startswith("image/")):
        raise ProblemError(
            "unsupported-media-type",
            "Send multipart/form-data with a field `file`, or the picture itself as "
            "application/octet-stream.",
        )
    if multipart:
        limit += _ENVELOPE
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    reading = _read_form if multipart else _read_raw
    try:
        found, fields = await asyncio.wait_for(
            reading(request, _counted(request, lease, limit), most), settings.upload_seconds
        )
    except asyncio.TimeoutError:
        raise ProblemError(
            "upload-too-slow",
            f"The body did not arrive within {settings.upload_seconds:g} seconds.",
        ) from None
    for upload in found:
        if len(upload.data) > settings.max_body * MiB:
            raise _too_large(settings.max_body * MiB)
    return found, fields


async def _counted(request: Request, lease: Lease, limit: int) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        lease.take(len(chunk))
        if lease.bytes > limit:
            raise _too_large(limit)
        yield chunk


async def _read_raw(
    request: Request, stream: AsyncGenerator[bytes, None], most: int
) -> tuple[list[Upload], dict[str, str]]:
    data = b"".join([chunk async for chunk in stream])
    if not data:
        raise _invalid("body", "there is none; it must be a picture")
    return [Upload("upload", data)], {}


async def _read_form(
    request: Request, stream: AsyncGenerator[bytes, None], most: int
) -> tuple[list[Upload], dict[str, str]]:
    parser = _InMemory(
        request.headers, stream, max_files=most + 1, max_fields=16, max_part_size=4096
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise _too_many(most) from None
        raise ProblemError("malformed-body", f"The form is malformed: {error.message}") from None
    except (ClientDisconnect, ProblemError, HTTPException):
        raise
    except Exception as error:  # the parser lets odd headers through to the codecs
        raise ProblemError("malformed-body", "The form cannot be parsed.") from error
    uploads, fields = [], {}
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name != "file":
                    raise _invalid(f"body/{name}", "pictures belong into the field `file`")
                uploads.append(Upload(clean_name(value.filename or ""), await value.read()))
            elif name == "file":
                raise _invalid("body/file", "this must be a file, with a file name")
            else:
                fields[name] = value
    finally:
        await form.close()
    if not uploads:
        raise _invalid("body/file", "the form has no field `file` with a picture")
    if len(uploads) > most:
        raise _too_many(most)
    return uploads, fields


def clean_name(name: str) -> str:
    """A file name from anywhere -> its last part, printable, of bearable length."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[:200] or "upload"


def _invalid(where: str, detail: str) -> ProblemError:
    return invalid([{"where": where, "detail": detail}])


def _too_large(limit: int) -> ProblemError:
    return ProblemError("too-large", f"The limit is {limit / MiB:.3g} MiB: send less.")


def _too_many(most: int) -> ProblemError:
    several = f"at most {most} pictures" if most > 1 else "one picture; several are a job"
    return _invalid("body/file", f"this takes {several}")
