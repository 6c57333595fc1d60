"""download.py: published files, fetched once, checked against their hash ever after."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import ModelError
from .fetch import Transfer, discard, fetch
from .home import offline
from .ledger import (
    accept,
    accepted,
    digests,
    now,
    read_record,
    record_path,
    sha256_of,
    trusted_sha256,
    write_record,
)
from .zoo import LICENCES, ZOO, Licence, Published, address_of, file_of, find, folder_of


class LicenceError(ModelError):
    """A licence that has to be accepted before the first download, and was not."""


def download(
    name: str,
    *,
    agree: Callable[[Licence, Published], bool] = lambda licence, entry: False,
    file: Path | None = None,
    forbid: bool = False,
    how: Transfer | None = None,
    waiting: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """A published file on this machine, downloaded if it is not there, checked in any case.

    Args:
        name: a key of `ZOO`.
        agree: asked once for each licence that needs it: does the user accept it?
        file: a copy fetched by other means (a browser), taken instead of a download.
        forbid: use no network, as FORGEMAP_OFFLINE does for all calls.
        how: proxy, retries, progress.
        waiting: told when another process is downloading the same file.

    Returns:
        The file, as published, in `home()`. It appears in one step, and only if it is right.

    Raises:
        LicenceError: the licence was not accepted.
        ModelError: no network, the server fails, or the file is not the published one.
    """
    entry = find(name)
    target = file_of(entry)
    with _alone(target, waiting):
        if target.is_file():
            _adopt_if_new(entry, target, agree)
            return target
        if file is None and (forbid or offline()):
            raise ModelError(
                f"{name}: not on this machine, and the network is switched off "
                "(--offline or FORGEMAP_OFFLINE)."
            )
        _licence(entry, agree)
        part = target.with_name(f"{target.name}.part")
        md5 = None
        if file is not None:
            _copy(file, part)
        else:
            remedy = (
                f"Fetch it with a browser from {entry.page} and run: "
                f"forgemap models download {name} --file FILE"
            )
            md5 = fetch(address_of(entry), part, how or Transfer(), remedy=remedy)
        origin = str(file) if file is not None else address_of(entry)
        try:
            record = _checked(entry, part, origin, md5)
        except ModelError:
            discard(part)
            raise
        write_record(entry, record)
        try:
            os.replace(part, target)
        except OSError as error:
            raise ModelError(f"{target}: cannot be written ({error.strerror}).") from error
        discard(part)
    return target


def trusted_file(name: str) -> Path:
    """A published file that was downloaded before, after checking its hash.

    Raises:
        ModelError: it is not there (the sentence says what to run), or is not what it was.
    """
    entry = find(name)
    target = file_of(entry)
    if not target.is_file():
        raise ModelError(
            f"{name}: not on this machine (it would be {target}); "
            f"run: forgemap models download {name}"
        )
    _unchanged(entry, target)
    return target


class Checked(NamedTuple):
    """What `verify` found."""

    name: str
    #: "file", as published, or "model", the folder made of it.
    what: str
    path: Path
    #: Empty if it is what it was; else what is wrong.
    fault: str


def verify(names: list[str]) -> Iterator[Checked]:
    """Check what was downloaded, and the models made of it, against the hashes on record.

    Args:
        names: of published models; empty: all that were downloaded.

    Raises:
        ModelError: an unknown name, or one of which nothing is here.
    """
    entries = [find(name) for name in names] or list(ZOO.values())
    for entry in entries:
        target, weights = file_of(entry), folder_of(entry) / "model.safetensors"
        record = read_record(entry)
        if names and not record and not target.is_file():
            raise ModelError(
                f"{entry.name}: nothing of it is on this machine; "
                f"run: forgemap models download {entry.name}"
            )
        if target.is_file():
            expected, found = trusted_sha256(entry), sha256_of(target)
            fault = "no hash is on record" if expected is None else ""
            if expected not in (None, found):
                fault = f"SHA-256 is {found}, not {expected}"
            yield Checked(entry.name, "file", target, fault)
        if weights.is_file():
            expected, found = record.get("weights_sha256"), sha256_of(weights)
            fault = "" if expected == found else f"SHA-256 is {found}, not {expected}"
            yield Checked(entry.name, "model", weights.parent, fault)


def state(entry: Published) -> str:
    """In a word or two: what of it is on this machine."""
    if (folder_of(entry) / "config.json").is_file():
        return "ready"
    if file_of(entry).is_file():
        return "downloaded"
    part = file_of(entry).with_name(f"{entry.file}.part")
    return "cut off" if part.is_file() else "-"


def _licence(entry: Published, agree: Callable[[Licence, Published], bool]) -> None:
    licence = LICENCES[entry.licence]
    if accepted(licence):
        return
    if not agree(licence, entry):
        raise LicenceError(
            f"{entry.name}: published under {licence.name} ({licence.summary}; "
            f"{licence.address}), which has to be accepted first: --accept-licence"
        )
    accept(licence)


def _adopt_if_new(
    entry: Published, target: Path, agree: Callable[[Licence, Published], bool]
) -> None:
    """A file that is there already: right as recorded, or put there by hand and right."""
    if read_record(entry):
        _unchanged(entry, target)
        return
    _licence(entry, agree)
    write_record(entry, _checked(entry, target, str(target), None))


def _checked(entry: Published, path: Path, origin: str, md5: str | None) -> dict[str, object]:
    """The record of a file just got, once it is sure that it is the published one."""
    size = path.stat().st_size
    if entry.size not in (None, size):
        raise ModelError(f"{origin}: has {size:,} bytes, not {entry.size:,} as published.")
    _look_inside(entry, path, origin)
    found = digests(path, *(["md5"] if md5 else []))
    if md5 and found["md5"] != md5:
        raise ModelError(f"{origin}: was damaged on its way (its MD5 is not the server's).")
    _as_expected(entry, found["sha256"], origin)
    trusted = "published" if entry.sha256 else "first download"
    facts = {"sha256": found["sha256"], "size": size, "trusted": trusted}
    return {"name": entry.name, **facts, "address": origin, "downloaded": now()} | {
        key: value for key, value in read_record(entry).items() if key == "weights_sha256"
    }


def _unchanged(entry: Published, path: Path) -> None:
    """A file that was got before is still what it was."""
    expected, found = trusted_sha256(entry), sha256_of(path)
    if expected not in (None, found):
        raise ModelError(
            f"{path}: has changed since it was downloaded (SHA-256 {found}, not {expected}); "
            "delete it and download it again."
        )


def _as_expected(entry: Published, found: str, origin: str) -> None:
    """A file just got has the published hash, or the one that an earlier download had."""
    expected = trusted_sha256(entry)
    if expected in (None, found):
        return
    if entry.sha256:
        raise ModelError(f"{origin}: is not the published {entry.file} (SHA-256 {found}).")
    raise ModelError(
        f"{origin}: is another file than the one first downloaded (SHA-256 {found}, not "
        f"{expected}); if its authors replaced it, delete {record_path(entry)}."
    )


def _look_inside(entry: Published, path: Path, origin: str) -> None:
    """Is it such a file at all? Before its hash is trusted, or a plain sentence if it is not."""
    with path.open("rb") as file:
        beginning = file.read(512).lstrip()
    if beginning[:1] == b"<":
        raise ModelError(f"{origin}: is a web page (a login, or a notice), not {entry.file}.")
    if not zipfile.is_zipfile(path):
        # torch.save has written zip archives since 2020, and so does TorchScript.
        raise ModelError(f"{origin}: is not {entry.file}, or only a part of it: no zip archive.")
    if entry.kind == "localizer":
        from .published import check_decoder

        check_decoder(path, origin)


def _copy(file: Path, part: Path) -> None:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        discard(part)
        shutil.copyfile(file, part)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ModelError(f"{file}: cannot be copied to {part} ({error.strerror}).") from error


@contextmanager
def _alone(target: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """No other process downloads this file meanwhile."""
    from filelock import FileLock, Timeout

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f"{target.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting(f"Another process is downloading {target.name}; waiting for it.")
            lock.acquire()
    except OSError as error:
        raise ModelError(
            f"{target.parent}: cannot be written ({error.strerror}); set FORGEMAP_HOME to another "
            "folder."
        ) from error
    try:
        yield
    finally:
        lock.release()
