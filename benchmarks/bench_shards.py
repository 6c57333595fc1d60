"""bench_shards.py: memory and speed of shards over 100,000 samples of tiny pictures.

python -m benchmarks.bench_shards [--samples 100000] [--out FILE]

Writes the samples with two workers, then reads them in fresh processes, once as a stream and once
as pairs, and notes the resident memory after every tenth. Flat means that the last tenth needs no
more than the first. Speeds are per second of processor time, so that a busy machine counts as an
idle one. Runs in a few minutes; needs 1 GB of disk.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from PIL import Image

from forgemap.data.shards import Settings, ShardPairs, write_shards
from forgemap.data.shards.layout import D3_GENERATORS, REAL
from forgemap.data.shards.sources import Item, Source
from forgemap.evaluate.facts import machine

PER_PART = 5_000
GROWTH = 1.05  # of the memory of the last nine tenths: more is not flat


@dataclass(frozen=True)
class Made:
    """A part of a source that makes its records as they are read: nothing is kept."""

    number: int
    size: int
    split: str = "train"
    streamed: bool = True

    def read(self, skip: int) -> Iterator[Item]:
        base = _picture(self.number)
        for n in range(skip, self.size):
            id = f"{self.number:05d}{n:07d}"
            yield Item(id, self.split, dict.fromkeys((*D3_GENERATORS, REAL), base), f"no {n}", "")


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def read(how: str, folder: Path, samples: int) -> dict[str, Any]:
    """In a process of its own: seconds and memory after each tenth."""
    begin = time.process_time()
    memory = []
    number = 0
    for number, _ in enumerate(_stream(folder) if how == "stream" else _pairs(folder), start=1):
        if number % (samples // 10) == 0:
            memory.append(resident())
    return {"read": number, "seconds": time.process_time() - begin, "memory": memory}


def _stream(folder: Path) -> Iterator[Any]:
    from forgemap.data.shards import ShardStream

    yield from ShardStream(folder, shuffle=1000)


def _pairs(folder: Path) -> Iterator[Any]:
    pairs = ShardPairs(folder, seed=0)
    for n in range(len(pairs)):
        yield pairs[n]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_shards", description=__doc__)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="the JSON to write")
    parser.add_argument("--read", nargs=2, metavar=("HOW", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        how, folder = arguments.read
        print(json.dumps(read(how, Path(folder), arguments.samples)))
        return 0
    rows: dict[str, Any] = {}
    with TemporaryDirectory(prefix="forgemap-") as scratch:
        folder = Path(scratch) / "shards"
        parts = tuple(Made(n, PER_PART) for n in range(arguments.samples // PER_PART))
        source = Source(
            "made", dict(D3_GENERATORS), (*D3_GENERATORS, REAL), "made", {}, streams=parts
        )
        index = write_shards(source, folder, Settings(per_shard=1000), workers=2)
        spent = os.times()
        rows["write"] = {"seconds": spent.children_user + spent.children_system}
        assert index is not None and index.facts["samples"] == arguments.samples
        size = sum(shard.bytes for shard in index.shards)
        for how in ("stream", "pairs"):
            command = [sys.executable, "-m", "benchmarks.bench_shards", "--read", how, str(folder)]
            command += ["--samples", str(arguments.samples)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            rows[how] = json.loads(run.stdout)
    print(f"{arguments.samples} samples, {len(index.shards)} shards, {size / 2**20:.0f} MiB")
    print(f"write: {arguments.samples / rows['write']['seconds']:.0f} samples per CPU second")
    code = 0
    for how in ("stream", "pairs"):
        row = rows[how]
        later = row["memory"][1:]  # buffers fill in the first tenth
        flat = row["read"] == arguments.samples and max(later) <= GROWTH * row["memory"][0]
        code |= not flat
        tenths = " ".join(f"{m / 2**20:.0f}" for m in row["memory"])
        print(
            f"read as {how}: {row['read'] / row['seconds']:.0f} samples per CPU second, "
            f"MiB after each tenth: "
            f"{tenths} (median {statistics.median(row['memory']) / 2**20:.0f}): "
            f"{'flat' if flat else 'NOT FLAT'}"
        )
    facts = {**machine(), "load": os.getloadavg()[0]}
    print(
        f"{facts['date']}, {facts['processor']}, {facts['cores']} cores, load {facts['load']:.1f}"
    )
    if arguments.out:
        arguments.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
