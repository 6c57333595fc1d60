"""ledger.py: what is remembered of each published file: its hash, and the licences accepted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files import write_whole
from .home import home
from .zoo import ZOO, Licence, Published, find


def read_record(entry: Published) -> dict[str, Any]:
    """What was noted of a file; empty before its first download. It outlives the file itself.

    ``sha256`` and ``size`` of the file, ``trusted``: "published" or "first download", ``address``,
    ``downloaded`` (when), ``weights_sha256`` of the model folder made of it.

    Raises:
        ModelError: the record is damaged.
    """
    record = _read(record_path(entry))
    if record and not isinstance(record.get("sha256"), str):
        raise ModelError(f"{record_path(entry)}: damaged, it holds no sha256; delete it.")
    return record


def write_record(entry: Published, record: Mapping[str, Any]) -> None:
    """Replace what is noted of a file, in one step."""
    _write(record_path(entry), record)


def record_path(entry: Published) -> Path:
    """The file that holds an entry's record."""
    return home() / "records" / f"{entry.name}.json"


def trusted_sha256(entry: Published) -> str | None:
    """The hash that the file must have: published, else recorded at its first download."""
    return entry.sha256 or read_record(entry).get("sha256")


def check_weights(name: str, sha256: str) -> None:
    """A published model's folder must hold the weights that were converted, not others.

    Args:
        name: as it was asked for; what is no published model's name is let pass.
        sha256: of the weights found.
    """
    if name not in ZOO:
        return
    recorded = read_record(find(name)).get("weights_sha256")
    if recorded not in (None, sha256):
        raise ModelError(
            f"{name}: its converted weights have changed (SHA-256 {sha256[:12]}…, not "
            f"{recorded[:12]}…); make them again: forgemap convert {name}"
        )


def accepted(licence: Licence) -> bool:
    """Was this licence accepted on this machine, by this user?"""
    return not licence.ask or licence.name in _read(home() / "licences.json")


def accept(licence: Licence) -> None:
    """Remember that it was accepted, and when."""
    path = home() / "licences.json"
    _write(path, {**_read(path), licence.name: {"accepted": now(), "address": licence.address}})


def now() -> str:
    """The time, for a record."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file, or a ModelError if it cannot be read."""
    return digests(path)["sha256"]


def digests(path: Path, *more: str) -> dict[str, str]:
    """A file's SHA-256 and `more` hashes by hashlib's names, in hex, in one pass."""
    hashes = {kind: hashlib.new(kind, usedforsecurity=False) for kind in ("sha256", *more)}
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                for one in hashes.values():
                    one.update(chunk)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    return {kind: one.hexdigest() for kind, one in hashes.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error}); delete it.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: damaged, it holds no JSON object; delete it.")
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror}).") from error
