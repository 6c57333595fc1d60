"""photos.py: the real photos that a data set names only by address, fetched within limits.

img2dataset, the usual tool, wants versions of OpenCV, pandas and webdataset that cannot be
installed beside ours. Its rules are kept: a host that asks not to be used is not, and a failure is
noted and passed over. What it downloaded in an environment of its own is read too: `Downloaded`.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from ...errors import DataError, ImageError
from ...image import EXTENSIONS, load_image

_REFUSALS = {"noai", "noimageai", "noindex", "noimageindex"}
_AGAIN = {408, 429, 500, 502, 503, 504}


class Unavailable(Exception):
    """A photo that cannot be had, in a few words."""


class Photos(Protocol):
    """Where real photos come from."""

    def get(self, url: str) -> bytes:
        """The photo of that address; `Unavailable` if there is none."""


@dataclass(frozen=True)
class Fetch:
    """How photos are fetched from the network.

    Attributes:
        timeout: seconds to connect, and between two pieces of the answer.
        seconds: at most so long for one photo.
        max_bytes: larger files are not read to the end.
        retries: after a timeout or a server's error.
        at_once: requests that one worker has under way.
        private: also from this machine and the local network. Addresses come from strangers, so
            that they may not make us ask there unless it is said.
    """

    timeout: float = 10.0
    seconds: float = 30.0
    max_bytes: int = 20_000_000
    retries: int = 1
    at_once: int = 16
    private: bool = False

    @cached_property
    def _client(self) -> Any:
        import httpx2

        return httpx2.Client(
            timeout=self.timeout,
            follow_redirects=True,
            max_redirects=5,
            headers={"User-Agent": f"forgemap/{version('forgemap')}"},
            event_hooks={"request": [self._allow]},
        )

    def get(self, url: str) -> bytes:
        import httpx2

        why = ""
        for turn in range(self.retries + 1):
            if turn:
                time.sleep(0.5 * turn)
            try:
                return self._once(url)
            except _Passing as error:
                why = str(error)
            except httpx2.TimeoutException:
                why = "timed out"
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
                raise Unavailable(str(error) or type(error).__name__) from None
        raise Unavailable(why)

    def _once(self, url: str) -> bytes:
        end = time.monotonic() + self.seconds
        data = bytearray()
        with self._client.stream("GET", url) as answer:
            if answer.status_code in _AGAIN:
                raise _Passing(f"HTTP {answer.status_code}")
            if answer.status_code != 200:
                raise Unavailable(f"HTTP {answer.status_code}")
            asked = answer.headers.get("X-Robots-Tag", "").lower().replace(":", ",").split(",")
            if refused := _REFUSALS & {word.strip() for word in asked}:
                raise Unavailable(f"its host asks not to be used ({min(refused)})")
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > self.max_bytes:
                    raise Unavailable(f"larger than {self.max_bytes} bytes")
                if time.monotonic() > end:
                    raise _Passing(f"took more than {self.seconds:g} s")
        return _picture(bytes(data))

    def _allow(self, request: Any) -> None:
        """Called before each request, redirects included."""
        if request.url.scheme not in ("http", "https"):
            raise Unavailable(f"not a web address ({request.url.scheme})")
        if self.private:
            return
        for found in socket.getaddrinfo(request.url.host, None):
            if not ipaddress.ip_address(str(found[4][0]).split("%")[0]).is_global:
                raise Unavailable("an address of the local network")


class _Passing(Exception):
    """A failure that may pass."""


@dataclass(frozen=True)
class Downloaded:
    """Photos that img2dataset has downloaded (``--output_format files``), found by address.

    Attributes:
        folder: of its output: for each photo a picture and, of the same name, a ``.json`` with
            the ``url``.
    """

    folder: Path
    at_once: int = 1

    @cached_property
    def _files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for note in sorted(self.folder.rglob("*.json")):
            try:
                row = json.loads(note.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                raise DataError(f"{note} cannot be read: it must be JSON by img2dataset.") from None
            if not isinstance(row, dict) or "url" not in row:
                continue  # statistics of a shard
            for suffix in EXTENSIONS:
                if (file := note.with_suffix(suffix)).is_file():
                    found[str(row["url"])] = file
        if not found:
            raise DataError(
                f"{self.folder} holds no photos of img2dataset: run it with --output_format files."
            )
        return found

    def get(self, url: str) -> bytes:
        if url not in self._files:
            raise Unavailable(f"not in {self.folder}")
        return _picture(self._files[url].read_bytes())


def _picture(data: bytes) -> bytes:
    try:
        load_image(data)
    except ImageError as error:
        raise Unavailable(str(error).replace("<bytes>", "the answer")) from None
    return data
