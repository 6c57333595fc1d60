"""fetch.py: one file over HTTP: resumes, retries, and says in a sentence what went wrong.

The transport is httpx, which huggingface_hub brings along; it takes proxies from the environment.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError

Progress = Callable[[int, "int | None"], None]

#: Answers that may be another one a moment later.
PASSING = (408, 425, 429, 500, 502, 503, 504)
#: Answers, in words.
REASONS = {
    401: "asks for a login",
    403: "refuses access",
    404: "has no such file",
    407: "is behind a proxy that asks for a login; give it with --proxy",
    410: "no longer has this file",
    429: "has had too many requests",
    451: "may not give it out",
}


class FetchError(ModelError):
    """A download that failed; the sentence says why and what to do."""


@dataclass(frozen=True)
class Transfer:
    """How a download is done."""

    #: A proxy's address, with its login if it has one; None: as HTTPS_PROXY and its like say.
    proxy: str | None = None
    #: How often in a row to try again when nothing more arrives.
    retries: int = 4
    #: Seconds before the first retry; doubled each time.
    pause: float = 1.0
    #: Seconds of silence that count as a cut connection.
    timeout: float = 60.0
    #: Called with the bytes that are here and their whole number, if that is known.
    progress: Progress = lambda have, total: None


@dataclass
class _Note:
    """What is known of a part that is already here."""

    address: str
    #: The version: a strong ETag or a date; None: it cannot be resumed safely.
    version: str | None = None
    #: Bytes of the whole file.
    size: int | None = None
    #: In hex, as the server states it; transport errors show in it.
    md5: str | None = None


def fetch(address: str, part: Path, how: Transfer, *, remedy: str = "") -> str | None:
    """Download `address` into `part`, going on with what an earlier call left there.

    Args:
        part: the file to write; beside it, ``.json`` notes what it is a part of. Both are left
            for the next call if this one fails, unless the server's answer is not the file.
        remedy: a sentence for errors that trying again will not mend.

    Returns:
        The whole file's MD5 as the server states it, or None.

    Raises:
        FetchError: the server refuses, fails or answers with something else, the connection
            fails or is cut, or the disk is full.
    """
    import httpx2 as httpx

    try:
        client = httpx.Client(
            proxy=how.proxy, follow_redirects=True, timeout=how.timeout, trust_env=True
        )
        host = httpx.URL(address).host
    except ImportError as error:
        raise FetchError("A SOCKS proxy needs one more library: pip install socksio") from error
    except (ValueError, TypeError, httpx.InvalidURL) as error:
        # Not with the address: it may hold a password.
        raise FetchError(
            "The proxy's address (--proxy, or HTTPS_PROXY and its like) must be like "
            "http://host:port."
        ) from error
    where = f"{host} through a proxy" if _proxied(how.proxy, address, host) else host
    best, failures, connected = _size(part), 0, False
    with client:
        while True:
            try:
                return _attempt(client, address, part, how, remedy)
            except _Passing as error:
                problem, connected = f"{host} {error}", True
            except httpx.TransportError as error:
                problem = _describe(error, where)
                connected = connected or not isinstance(
                    error, (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol)
                )
                if not connected:
                    raise FetchError(f"{address}: {problem}.") from error
            except httpx.HTTPError as error:  # redirects without end, an undecodable body
                raise FetchError(
                    f"{address}: {_describe(error, where)}. {remedy}".strip()
                ) from error
            have = _size(part)
            failures = 0 if have > best else failures + 1
            best = max(best, have)
            if failures > how.retries:
                more = f"{have:,} bytes are kept: " if have else ""
                raise FetchError(f"{address}: {problem}; {more}run the same command again later.")
            time.sleep(how.pause * 2 ** max(failures - 1, 0))


class _Passing(Exception):
    """Something that may be gone a moment later; the text follows the host's name."""


def _attempt(client: Any, address: str, part: Path, how: Transfer, remedy: str) -> str | None:
    note = _read_note(part, address)
    have = _size(part)
    if note.size is not None and have == note.size:
        how.progress(have, have)
        return note.md5
    if have and (note.version is None or (note.size is not None and have > note.size)):
        have = 0  # not known to belong to the same file
    headers = {"Accept-Encoding": "identity"}  # the bytes as they are, or they could not be resumed
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": note.version or ""}
    with client.stream("GET", address, headers=headers) as response:
        if address.startswith("https:") and response.url.scheme != "https":
            raise FetchError(
                f"{address}: leads to {response.url}, which is not encrypted; refused."
            )
        if response.status_code == 416:  # what is here is not a beginning of that file
            discard(part)
            raise _Passing("could not go on with the part that was here")
        if response.status_code not in (200, 206):
            _refuse(address, response, remedy)
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml"):
            discard(part)
            raise FetchError(
                f"{address}: answers with a web page (a login, or a notice) instead of the file. "
                f"{remedy}".strip()
            )
        if response.headers.get("content-encoding", "identity") != "identity":
            raise FetchError(f"{address}: sends the file compressed although asked not to.")
        total = _length(response)
        if response.status_code == 206:
            start, total = _range(response)
            if start != have or (note.size is not None and total != note.size):
                discard(part)
                raise _Passing("sent another part of the file than was asked for")
        else:
            have = 0
            note = _Note(address, _version(response), total, _md5(response))
        _write(response, part, note, have, total, how.progress)
    return note.md5


def _write(
    response: Any, part: Path, note: _Note, have: int, total: int | None, progress: Progress
) -> None:
    """The body into `part`, from byte `have` on."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - have > free:
            raise FetchError(
                f"{part.parent}: {total - have:,} bytes are to come, but only {free:,} are free; "
                "make room, or set FORGEMAP_HOME to a folder on another disk."
            )
        if not have:
            part.unlink(missing_ok=True)  # never an old part under a new note
            _note_path(part).write_text(json.dumps(vars(note)), encoding="utf-8")
        with part.open("ab") as file:
            progress(have, total)
            for chunk in response.iter_raw():
                file.write(chunk)
                have += len(chunk)
                progress(have, total)
    except OSError as error:
        raise FetchError(
            f"{part}: cannot be written ({error.strerror}); make room, or set FORGEMAP_HOME to "
            "another folder."
        ) from error
    if total is not None and have != total:
        raise _Passing(f"sent {have:,} bytes of {total:,}")


def _refuse(address: str, response: Any, remedy: str) -> None:
    status = response.status_code
    reason = REASONS.get(status) or ("has an error of its own" if status >= 500 else "answers")
    if status in PASSING:
        raise _Passing(f"{reason} ({status} {response.reason_phrase})")
    sentence = f"{address}: the server {reason} ({status} {response.reason_phrase}). {remedy}"
    raise FetchError(sentence.strip())


def _describe(error: Exception, where: str) -> str:
    """An error of the transport, in words; never a proxy's address, which may hold a password."""
    kind = type(error).__name__
    words = {
        "ConnectError": f"no connection to {where}",
        "ProxyError": "the proxy gives no connection",
        "ConnectTimeout": f"{where} does not answer",
        "ReadTimeout": f"{where} went silent",
        "TooManyRedirects": f"{where} redirects without end",
    }.get(kind, f"the connection to {where} was cut")
    detail = re.sub(r"://[^@/\s]*@", "://…@", str(error).split("\n")[0])
    return f"{words} ({detail})" if detail else words


def _proxied(proxy: str | None, address: str, host: str) -> bool:
    """Does a proxy stand in between, by our settings or the environment's?"""
    from urllib.request import getproxies, proxy_bypass

    by_environment = {address.split(":")[0], "all"} & getproxies().keys()
    return proxy is not None or bool(by_environment and not proxy_bypass(host))


def _read_note(part: Path, address: str) -> _Note:
    """What `part` is a part of; an empty note if it is not of `address`."""
    try:
        note = _Note(**json.loads(_note_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _Note(address)
    return note if note.address == address and part.is_file() else _Note(address)


def discard(part: Path) -> None:
    """Remove a part and its note."""
    part.unlink(missing_ok=True)
    _note_path(part).unlink(missing_ok=True)


def _note_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _version(response: Any) -> str | None:
    """What If-Range compares: a strong ETag, else the date."""
    tag = response.headers.get("etag", "")
    return tag if tag.startswith('"') else response.headers.get("last-modified")


def _length(response: Any) -> int | None:
    length = response.headers.get("content-length", "")
    return int(length) if length.isdigit() else None


def _range(response: Any) -> tuple[int, int | None]:
    """First byte and whole size that a 206 states; (-1, None) if it states none."""
    stated = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", "").strip()
    )
    if stated is None:
        return -1, None
    return int(stated[1]), int(stated[2]) if stated[2] != "*" else None


def _md5(response: Any) -> str | None:
    """Google's storage states a whole file's MD5 in x-goog-hash, in base64."""
    stated = re.search(r"md5=([A-Za-z0-9+/=]+)", response.headers.get("x-goog-hash", ""))
    try:
        return base64.b64decode(stated[1], validate=True).hex() if stated else None
    except ValueError:
        return None
