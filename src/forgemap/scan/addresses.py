"""addresses.py: files wherever they lie: local paths, and addresses that fsspec knows."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from ..errors import DataError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")


def is_remote(address: str) -> bool:
    """Whether fsspec has to read it; file:// is local."""
    return _URL.match(address) is not None


def filesystem(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path in it.

    Raises:
        DataError: an unknown protocol, or one whose library is not installed.
    """
    import fsspec

    try:
        if address.startswith("s3://"):
            return _s3(address)
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise DataError(f"{address} needs a library that is not installed ({error}).") from None
    except ValueError as error:
        raise DataError(f"{address} cannot be understood ({error}): check the address.") from None


def _s3(address: str) -> tuple[Any, str]:
    """s3:// by s3fs where somebody has installed it, otherwise by what pyarrow brings.

    Both read the AWS variables and files; pyarrow's also AWS_ENDPOINT_URL for other servers.
    """
    if importlib.util.find_spec("s3fs") is not None:
        import fsspec

        found: tuple[Any, str] = fsspec.core.url_to_fs(address)
        return found
    path = address.removeprefix("s3://").rstrip("/")
    return _arrow_s3(path.split("/")[0]), path


@lru_cache(maxsize=8)
def _arrow_s3(bucket: str) -> Any:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import S3FileSystem, resolve_s3_region

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and "AWS_ENDPOINT_URL" not in os.environ:
        region = resolve_s3_region(bucket)
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    scheme, _, host = endpoint.rpartition("://")
    anonymous = os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "yes", "true")
    options = {"endpoint_override": host, "scheme": scheme or "https"} if host else {}
    return ArrowFSWrapper(S3FileSystem(region=region, anonymous=anonymous, **options))


@contextmanager
def opened(address: str) -> Iterator[Any]:
    """A local or remote file for reading."""
    if is_remote(address):
        fs, path = filesystem(address)
        with fs.open(path, "rb") as file:
            yield file
    else:
        with open(address, "rb") as file:
            yield file


def size_of(address: str) -> int | None:
    """In bytes; None where a server does not say. Raises what its file system raises."""
    if is_remote(address):
        fs, path = filesystem(address)
        size: int | None = fs.info(path).get("size")
        return size
    return os.stat(address).st_size


def sibling(address: str, place: str) -> str:
    """What a file at `address` calls `place`: an address, an absolute path, or one from there."""
    if is_remote(place):
        return place
    if is_remote(address):
        return f"{address.rpartition('/')[0]}/{place}"
    return os.path.join(os.path.dirname(address), place)
