"""shards: D3's kind of data as tar files, for millions of pictures: written, read and checked.

write_shards(open_source("photos"), "shards")  # or a manifest, or "hf:elsaEU/ELSA_D3"
for sample in read_shards("shards"): ...       # one pass, streaming
ShardStream("shards", shuffle=1000)            # for a data loader, split over nodes and workers
ShardPairs("shards", seed=0)                   # the same as pairs to learn from (data/generated.py)
check_shards("shards")                         # checksums, members, pictures
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .check import check_shards
from .layout import Sample, open_index, read_exclusions
from .pairs import ShardPairs
from .pictures import ShardPictures
from .read import read_shards
from .shard import Settings
from .sources import open_source
from .write import write_shards

if TYPE_CHECKING:
    from .stream import ShardStream

__all__ = [
    "Sample",
    "Settings",
    "ShardPairs",
    "ShardPictures",
    "ShardStream",
    "check_shards",
    "open_index",
    "open_source",
    "read_exclusions",
    "read_shards",
    "write_shards",
]


def __getattr__(name: str) -> Any:
    """`ShardStream` needs torch, which the workers that write do not."""
    if name != "ShardStream":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .stream import ShardStream

    return ShardStream
