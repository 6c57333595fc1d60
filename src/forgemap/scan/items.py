"""items.py: the pictures of one unit, one after the other, always in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..decode import shown
from ..errors import ImageError
from .addresses import filesystem, is_remote, size_of
from .containers import parquet_members, tar_members
from .listing import Unit
from .sources import Entry


@dataclass(frozen=True, eq=False)
class Item:
    """One picture to be judged, or one row that says why there is none.

    Attributes:
        index: its place in the unit, from 0.
        source: as it was given on the command line.
        path: the file or address that holds it: the picture, the tar shard, the Parquet file.
        key: of a picture in a tar shard the member's name, in a Parquet file the row; else None.
        address: where its bytes lie, if they are not here: a local path or an address.
        data: its bytes, if they have been read already.
        size: of what lies at a remote address, if that is known.
        error: why it cannot be read.
    """

    index: int
    source: str
    path: str
    key: str | None = None
    address: str | None = None
    data: bytes | None = None
    size: int | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        """For sentences."""
        return self.path if self.key is None else f"{self.path}/{self.key}"


def max_bytes(max_pixels: int) -> int:
    """What a file with so many pixels may weigh, as `image.read_file` has it."""
    return 16 * max_pixels + 2**26


def items_of(unit: Unit, start: int, max_pixels: int) -> Iterator[Item]:
    """The items of a unit from `start` on. Never raises for what a source does: that is an item."""
    first = unit.entries[0]
    if first.kind in ("tar", "parquet"):
        yield from _container(first, start, max_pixels)
        return
    for index, entry in enumerate(unit.entries[start:], start=start):
        place = entry.address if entry.error is None else None
        yield Item(
            index, entry.source, entry.address, None, place, size=entry.size, error=entry.error
        )


def _container(entry: Entry, start: int, max_pixels: int) -> Iterator[Item]:
    if start and (changed := _changed(entry)):
        yield Item(start, entry.source, entry.address, error=changed)
        return
    if entry.kind == "tar":
        members = tar_members(entry.address, start, max_bytes(max_pixels))
    else:
        members = parquet_members(entry.address, entry.column or "", start)
    for index, member in enumerate(members, start=start):
        yield Item(
            index,
            entry.source,
            entry.address,
            member.key,
            member.address,
            member.data,
            error=member.error,
        )


def _changed(entry: Entry) -> str | None:
    """A shard that is not what it was when the first of its pictures were judged."""
    try:
        size = size_of(entry.address)
    except Exception:  # each remote file system raises classes of its own
        return None  # gone or out of reach: reading it says so
    if size == entry.size:
        return None
    return (
        f"{shown(entry.address)} has changed since the scan began: the rest of it was left out; "
        "scan it into a new folder"
    )


def fetch(item: Item, max_pixels: int, tries: int = 3) -> bytes:
    """The bytes of a remote item. Raises ImageError: one sentence."""
    import time

    assert item.address is not None
    limit = max_bytes(max_pixels)
    if item.size is not None and item.size > limit:
        raise ImageError(
            f"{shown(item.name)} is {item.size / 2**20:.0f} MiB, more than {max_pixels:,} pixels "
            "can need: raise the pixel limit (max_pixels) or shrink the picture"
        )
    for turn in range(tries):
        try:
            fs, path = filesystem(item.address)
            return bytes(fs.cat_file(path))
        except FileNotFoundError:
            raise ImageError(f"{shown(item.name)} does not exist: check the address") from None
        except PermissionError:
            raise ImageError(f"{shown(item.name)} may not be read: check your access") from None
        except Exception as error:
            if turn + 1 == tries:
                why = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
                raise ImageError(
                    f"{shown(item.name)} cannot be read ({why}): check the address"
                ) from None
            time.sleep(0.5 * 2**turn)  # a server that is busy
    raise AssertionError("unreachable")


def is_local(item: Item) -> bool:
    """Whether a decoding process can open it by itself."""
    return item.address is not None and not is_remote(item.address)
