"""frames.py: messages between the server and a worker: a JSON header, then blobs, by length.

Not pickle: a worker that a hostile picture has taken over can send wrong answers and no more.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">I")
_MAX_HEADER = 2**28
_MAX_BLOB = 2**31


class FrameError(Exception):
    """What arrived is no message."""


def pack(header: dict[str, Any], blobs: Sequence[bytes] = ()) -> list[bytes]:
    """The pieces to write one after the other."""
    text = json.dumps({**header, "blobs": [len(blob) for blob in blobs]}).encode("ascii")
    return [_LENGTH.pack(len(text)), text, *blobs]


def write(stream: BinaryIO, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    for piece in pack(header, blobs):
        stream.write(piece)
    stream.flush()


def read(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """The next message; None at the end of the stream."""
    start = stream.read(_LENGTH.size)
    if not start:
        return None
    header = _header(_exactly(stream, _header_length(start)))
    return header, [_exactly(stream, length) for length in header["blobs"]]


async def read_async(stream: asyncio.StreamReader) -> tuple[dict[str, Any], list[bytes]]:
    """The next message.

    Raises:
        FrameError: no message, or the stream has ended.
    """
    try:
        start = await stream.readexactly(_LENGTH.size)
        header = _header(await stream.readexactly(_header_length(start)))
        return header, [await stream.readexactly(length) for length in header["blobs"]]
    except (asyncio.IncompleteReadError, OSError) as error:
        raise FrameError("the stream has ended") from error


def _exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise FrameError("the stream has ended")
    return data


def _header_length(start: bytes) -> int:
    if len(start) != _LENGTH.size:
        raise FrameError("the stream has ended")
    length: int = _LENGTH.unpack(start)[0]
    if length > _MAX_HEADER:
        raise FrameError("the header is too long")
    return length


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
        lengths = header["blobs"]
        if not all(type(n) is int and 0 <= n <= _MAX_BLOB for n in lengths):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise FrameError("the header is not what it should be") from error
    return header
