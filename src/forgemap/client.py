"""client.py: Client, a Forgemap server from Python: the same Report, judged elsewhere.

with Client("http://127.0.0.1:8000") as client:
    report = client.analyze("photo.jpg")
    client.save(report, "out")                     # out/photo.mask.png and the others
    reports = client.wait(client.submit(["a.jpg", "b.jpg"]))
    client.report(reports, "report.html")
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from .copies import Copy
from .errors import ForgemapError, ImageError
from .files import written
from .report import FILES, Region, Report

OUTPUTS = ("heatmap", "mask", "overlay")

_AGAIN = (429, 503)


@dataclass
class RemoteReport(Report):
    """What a server said of one picture. Its outputs (`mask`, `heatmap`, `overlay`,
    `confidence_map`) are links or data URIs."""

    picture: str | None = None
    """The decoded picture, where it was asked for; a link or a data URI."""
    format: str | None = None
    """ "JPEG", "PNG" ..."""
    jpeg_quality: int | None = None
    """1..100, estimated; None where that is not possible."""
    decision: Mapping[str, Any] = field(default_factory=dict)
    """The model's thresholds, what they were calibrated on, and what a score means."""
    seconds: float | None = None
    """What it took, without waiting."""
    result: str | None = None
    """Id under which the server keeps the outputs; None: it does not."""
    expires: str | None = None
    """Until when, by RFC 3339."""


class Client:
    """A connection to `forgemap serve`. Thread-safe; a context that closes it.

    Args:
        address: as the server prints it.
        token: what the server was started with; default: $FORGEMAP_TOKEN.
        timeout: seconds for one answer.
        patience: seconds to go on trying while the server says that it is busy.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout: float = 120.0,
        patience: float = 60.0,
    ) -> None:
        import httpx2

        self.address, self.patience = address.rstrip("/"), patience
        token = token or os.environ.get("FORGEMAP_TOKEN")
        try:
            self._http = httpx2.Client(
                base_url=self.address,
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=timeout,
                follow_redirects=False,  # the token is for this server alone
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise ForgemapError(f"{address!r} is not an address: give http://HOST:PORT.") from error

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def analyze(
        self,
        source: str | Path | bytes,
        *,
        model: str | None = None,
        threshold: float | None = None,
        outputs: Sequence[str] = OUTPUTS,
        inline: bool = False,
    ) -> RemoteReport:
        """Judge one picture.

        Args:
            source: a path, or the bytes of a picture file.
            model: one of `models()`; default: the server's.
            threshold: as in `Detector.analyze`.
            outputs: any of heatmap, mask, overlay, confidence_map, picture; they come as links.
            inline: let them come with the answer, and the server keep nothing.

        Raises:
            ImageError: the picture cannot be read.
            ForgemapError: the server refuses or does not answer.
        """
        params = _params(model, threshold, outputs)
        params["delivery"] = "inline" if inline else "link"
        files = {"file": _named(source)}
        return _report(self._ask("POST", "/v1/analyze", params=params, files=files).json())

    def submit(
        self,
        sources: Sequence[str | Path | bytes],
        *,
        model: str | None = None,
        threshold: float | None = None,
        outputs: Sequence[str] = OUTPUTS,
    ) -> str:
        """Send many pictures; returns the id of the job."""
        params = _params(model, threshold, outputs)
        files = [("file", _named(source)) for source in sources]
        if not files:
            raise ForgemapError("A job needs at least one picture.")
        return str(self._ask("POST", "/v1/jobs", params=params, files=files).json()["id"])

    def job(self, id: str) -> dict[str, Any]:
        """How far a job is, as in the server's OpenAPI document."""
        return dict(self._ask("GET", f"/v1/jobs/{id}").json())

    def cancel(self, id: str) -> None:
        """Stop a job and forget it."""
        self._ask("DELETE", f"/v1/jobs/{id}")

    def events(self, id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """A job's progress as it happens: (name, data); see the server's OpenAPI document."""
        import httpx2

        try:
            with self._http.stream("GET", f"/v1/jobs/{id}/events") as response:
                if response.status_code != 200:
                    response.read()
                    raise _refusal(response)
                name = ""
                for line in response.iter_lines():
                    key, _, value = line.partition(": ")
                    if key == "event":
                        name = value
                    elif key == "data":
                        yield name, json.loads(value)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error

    def wait(self, id: str, *, timeout: float | None = None) -> list[RemoteReport]:
        """The reports of a job when it has ended, in the order of its pictures; a picture that
        could not be judged has `error`.

        Raises:
            ForgemapError: not done after `timeout` seconds, cancelled, or unknown.
        """
        until = None if timeout is None else time.monotonic() + timeout
        pause = 0.05
        while (job := self.job(id))["status"] not in ("done", "cancelled"):
            if until is not None and time.monotonic() >= until:
                raise ForgemapError(
                    f"Job {id} has done {job['done']} of {job['total']} pictures in {timeout:g} "
                    "seconds: wait longer."
                )
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)
        if job["status"] == "cancelled":
            raise ForgemapError(f"Job {id} was cancelled: submit it again.")
        return [_report(picture["result"]) for picture in job["pictures"]]

    def fetch(self, output: str) -> bytes:
        """The bytes behind a report's `mask`, `heatmap` or another output."""
        if output.startswith("data:"):
            return base64.b64decode(output.partition(",")[2])
        if not output.startswith("/"):
            raise ForgemapError(f"{output!r} is not a link of this server.")
        return bytes(self._ask("GET", output).content)

    def save(self, report: RemoteReport, folder: str | Path) -> RemoteReport:
        """Write a report's outputs into a folder, as the command does, and set their paths."""
        folder = Path(folder)
        stem = Path(report.path).stem
        for name, ending in (FILES | {"picture": "picture"}).items():
            link = getattr(report, name)
            if link is not None:
                path = folder / f"{stem}.{ending}.png"
                data = self.fetch(link)
                with written(path) as file:
                    file.write(data)
                setattr(report, name, str(path))
        return report

    def report(
        self, reports: Sequence[RemoteReport], path: str | Path, *, title: str = "Forgemap report"
    ) -> Path:
        """Write one self-contained HTML file of reports whose results the server still keeps."""
        ids = [report.result for report in reports if report.result is not None]
        if not ids:
            raise ForgemapError("The server keeps none of these results: analyse without inline.")
        asked = {"results": ids, "title": title}
        page = self._ask("POST", "/v1/report", json=asked).content
        with written(Path(path)) as file:
            file.write(page)
        return Path(path)

    def models(self) -> list[dict[str, Any]]:
        """The models that the server runs, the default first."""
        return list(self._ask("GET", "/v1/models").json()["models"])

    def ready(self) -> bool:
        """Would the server take a picture now?"""
        import httpx2

        try:
            return bool(self._http.get("/readyz").status_code == 200)
        except httpx2.HTTPError:
            return False

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        """The answer; while the server is busy, another try when it says so."""
        import httpx2

        until = time.monotonic() + self.patience
        while True:
            try:
                response = self._http.request(method, path, **content)
            except httpx2.HTTPError as error:
                raise self._unreachable(error) from error
            if response.status_code < 300:
                return response
            pause = response.headers.get("retry-after", "")
            if response.status_code not in _AGAIN or not pause.isdecimal():
                raise _refusal(response)
            if time.monotonic() + int(pause) > until:
                raise _refusal(response)
            time.sleep(int(pause))

    def _unreachable(self, error: Exception) -> ForgemapError:
        import httpx2

        if isinstance(error, httpx2.TimeoutException):
            return ForgemapError(f"{self.address} did not answer in time: try again later.")
        return ForgemapError(
            f"No Forgemap server answers at {self.address}: start one with `forgemap serve`."
        )


def _refusal(response: Any) -> ForgemapError:
    """The sentence of a problem document."""
    try:
        problem = response.json()
        sentence, kind = str(problem["detail"]), str(problem["type"])
    except (ValueError, KeyError, TypeError):
        return ForgemapError(
            f"{response.url} answered {response.status_code} and is no Forgemap server: "
            "check the address."
        )
    if kind.endswith(":unreadable-picture"):
        return ImageError(sentence)
    return ForgemapError(sentence)


def _params(model: str | None, threshold: float | None, outputs: Sequence[str]) -> dict[str, Any]:
    params: dict[str, Any] = {"outputs": ",".join(outputs) or "none"}
    if model is not None:
        params["model"] = model
    if threshold is not None:
        params["threshold"] = threshold
    return params


def _named(source: str | Path | bytes) -> tuple[str, bytes]:
    """(file name, bytes) of a picture."""
    if isinstance(source, bytes):
        return "upload", source
    try:
        return os.path.basename(source), Path(source).read_bytes()
    except OSError as error:
        raise ImageError(f"{source} cannot be read ({error.strerror}): check the path") from error


_FIELDS = {f.name for f in fields(RemoteReport)}


def _report(said: Mapping[str, Any]) -> RemoteReport:
    """The server's JSON as a Report; entries of a newer server are left out."""
    values = {k: v for k, v in said.items() if k in _FIELDS and v is not None}
    values["regions"] = [
        Region(
            tuple(r["box"]),
            [list(point) for point in r["polygon"]],
            r["score"],
            r["area"],
            r.get("confidence"),
        )
        for r in said["regions"]
    ]
    values["copies"] = [_copy(c) for c in said.get("copies", ())]
    return RemoteReport(**values)


def _copy(said: Mapping[str, Any]) -> Copy:
    values = {f.name: said[f.name] for f in fields(Copy)}
    return Copy(**values | {name: tuple(said[name]) for name in ("box", "origin_box")})
