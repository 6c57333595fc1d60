"""stream.py: samples of shards for a data loader, split over nodes and workers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from torch.utils.data import IterableDataset

from ...errors import DataError
from .layout import Sample, open_index
from .read import kept, samples_in


class ShardStream(IterableDataset[Sample]):
    """The samples of shards for a data loader, split over nodes and workers.

    Nodes are those of RANK and WORLD_SIZE, or of torch.distributed; workers those of the loader.
    Without `repeat` every sample comes once over all of them. Readers may get unequal numbers;
    training in step needs `repeat` and a number of steps, or `ShardPairs`.

    Args:
        path, split, exclude: as in `read_shards`.
        shuffle: samples held back to be mixed; 0 = in order. Shards are shuffled too.
        seed: of the order, which differs from epoch to epoch.
        epoch: of the first time round.
        repeat: begin again when all is read, without end.

    Raises:
        DataError: as `read_shards`; also if `repeat` and this reader has no shard to read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        split: str | None = None,
        exclude: frozenset[str] = frozenset(),
        shuffle: int = 0,
        seed: int = 0,
        epoch: int = 0,
        repeat: bool = False,
    ) -> None:
        self.index = open_index(path).of_split(split)
        self.exclude, self.shuffle, self.seed = exclude, shuffle, seed
        self.epoch, self.repeat = epoch, repeat

    def __iter__(self) -> Iterator[Sample]:
        import webdataset
        from webdataset.utils import pytorch_worker_info

        epoch = self.epoch
        while True:
            shards = [{"url": str(self.index.folder / s.file)} for s in self.index.shards]
            if self.shuffle:
                # All readers draw the same order, so that their shares do not overlap.
                random.Random(f"{self.seed} {epoch}").shuffle(shards)
            mine = webdataset.split_by_worker(webdataset.split_by_node(iter(shards)))
            samples = kept(samples_in(mine, self.index), self.exclude)
            if self.shuffle:
                rank, _, worker, _ = pytorch_worker_info()
                rng = random.Random(f"{self.seed} {epoch} {rank} {worker}")
                initial = min(self.shuffle, 100)
                samples = webdataset.shuffle(self.shuffle, initial=initial, rng=rng)(samples)
            number = 0
            for sample in samples:
                number += 1
                yield sample
            if not self.repeat:
                return
            if not number:
                _, nodes, _, workers = pytorch_worker_info()
                raise DataError(
                    f"{self.index.folder}: {len(shards)} shards cannot feed {nodes} nodes x "
                    f"{workers} workers: write smaller shards, or use fewer workers."
                )
            epoch += 1
