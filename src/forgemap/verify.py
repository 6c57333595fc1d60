"""verify.py: are these the files that a report speaks of? Compares hashes, judges nothing.

for checked in verify("out/report.html", ["photos"]):
    print(checked.path, checked.state, checked.file)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from .decode import shown
from .errors import ForgemapError
from .image import find_images

STATES = ("same", "changed", "missing")


@dataclass(frozen=True)
class Checked:
    """One picture of a report, and what was found of it."""

    path: str
    """As the report names it."""
    sha256: str
    """Of the file that was judged, as the report has it."""
    state: str
    """``same``: a file with these bytes is there, under whatever name; ``changed``: only one of the
    same name with other bytes; ``missing``: neither."""
    file: str | None
    """The file that this was said of; None if missing."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def verify(report: str | Path, files: Iterable[str | Path] = ()) -> list[Checked]:
    """Look for each picture of a report among files.

    Args:
        report: ``report.html`` or ``report.json``, from the command, the page or the service.
        files: files, folders and globs; none: where the report says that the pictures were, seen
            from here and from beside the report.

    Raises:
        ForgemapError: the report cannot be read or holds no hashes, or a file is not there.
    """
    named = read_hashes(Path(report))
    given = list(files)
    found = find_images(given)
    if found.problems:
        raise ForgemapError(found.problems[0][1])
    hashes = {path: _sha256(path) for path in found.files}
    by_hash = {sha256: path for path, sha256 in reversed(hashes.items())}
    checked = []
    for path, sha256 in named:
        if not given:
            places = [Path(path), Path(report).parent / path]
            here = {p: _sha256(p) for p in places if p.is_file()}
        else:
            here = {p: h for p, h in hashes.items() if p.name == os.path.basename(path)}
        same = by_hash.get(sha256) or next((p for p, h in here.items() if h == sha256), None)
        file = same or next(iter(here), None)
        state = "same" if same else "changed" if file else "missing"
        checked.append(Checked(path, sha256, state, None if file is None else str(file)))
    return checked


def read_hashes(report: Path) -> list[tuple[str, str]]:
    """(path, SHA-256) of every picture that the report judges.

    Raises:
        ForgemapError: it cannot be read, or is no report with hashes.
    """
    try:
        text = report.read_text("utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ForgemapError(f"{report} cannot be read ({reason}): name a report") from error
    except UnicodeDecodeError as error:
        raise ForgemapError(f"{report} is no report: name report.html or report.json") from error
    pairs = _from_json(text) if text.lstrip()[:1] in ("[", "{") else _from_html(text)
    if pairs is None:
        raise ForgemapError(f"{report} is no report: name report.html or report.json")
    if not pairs:
        raise ForgemapError(f"{report} holds no hashes: none of its pictures could be read")
    return pairs


def _from_json(text: str) -> list[tuple[str, str]] | None:
    try:
        entries = json.loads(text)
    except ValueError:
        return None
    entries = entries if isinstance(entries, list) else [entries]
    if not all(isinstance(e, dict) and {"path", "sha256"} <= set(e) for e in entries):
        return None
    return [(str(e["path"]), str(e["sha256"])) for e in entries if e["sha256"]]


class _Sections(HTMLParser):
    """The hashes that templates/report.html puts at its sections."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[str, str]] = []
        self.sections = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "section" and str(values.get("id")).startswith("picture-"):
            self.sections += 1
            if sha256 := values.get("data-sha256"):
                self.pairs.append((values.get("data-path") or "", sha256))


def _from_html(text: str) -> list[tuple[str, str]] | None:
    parser = _Sections()
    parser.feed(text)
    return parser.pairs if parser.sections else None


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(2**20):
                digest.update(chunk)
            return digest.hexdigest()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ForgemapError(f"{shown(str(path))} cannot be read ({reason})") from error
