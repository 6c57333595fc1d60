"""pictures.py: every picture of a folder of shards as `Labelled`, read only when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import DataError
from ..generated import REAL, Labelled
from .layout import Shard, open_index
from .pairs import Place, members_of


class _Picture(NamedTuple):
    shard: Shard
    key: str
    member: str
    place: Place


class ShardPictures(Sequence[Labelled]):
    """All pictures of shards, in their order; the bytes of a picture are read with it.

    Where they lie takes some hundred bytes a picture: right for evaluating, not for training.

    Args:
        path, split, exclude: as in `read_shards`.

    Raises:
        DataError: no shards, or one that is gone, cut short or damaged.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        split: str | None = None,
        exclude: frozenset[str] = frozenset(),
    ) -> None:
        self.shards = open_index(path).of_split(split)
        self._pictures = [
            _Picture(shard, key, member, place)
            for shard in self.shards.shards
            for key, places in members_of(self.shards, shard).items()
            if key.split("__")[-1] not in exclude
            for member, place in places.items()
        ]

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, i: int) -> Labelled:  # type: ignore[override]  # no slices
        shard, key, _, place = self._pictures[i]
        with (self.shards.folder / shard.file).open("rb") as stream:
            stream.seek(place.offset)
            data = stream.read(place.size)
        if len(data) != place.size:
            raise DataError(
                f"{self.shards.folder / shard.file} is cut short: a picture of the sample {key} "
                "cannot be read; write it again."
            )
        return Labelled(data, self.generator(i), key, shard.split)

    def generator(self, i: int) -> str:
        """What made picture i, without reading it."""
        member = self._pictures[i].member
        return REAL if member == REAL else self.shards.generators.get(member, member)

    def name(self, i: int) -> str:
        """``<shard>/<key>.<member>``."""
        shard, key, member, _ = self._pictures[i]
        return f"{shard.file}/{key}.{member}"
