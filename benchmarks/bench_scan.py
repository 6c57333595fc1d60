"""bench_scan.py: memory, decoding and speed of `forgemap scan` over very many pictures.

python -m benchmarks.bench_scan [--pictures 100000] [--cluster N] [--out FILE]

Memory: a scan of so many tiny pictures (in tar shards, a tiny random model), the resident memory
of the run and of its decoders, the most in each tenth; flat means that the last nine tenths need
no more than 5 % over the first. Decoding: the same photographs read by threads in one process and
by processes, in turns; ratios of wall time. With --cluster N: N photographs by one process and on
Ray with one and with two actors. A busy machine distorts what is per second of wall time.
`cases` has a short form for `python -m benchmarks`: a scan beside a plain loop over the pictures.
"""

from __future__ import annotations

import argparse
import atexit
import io
import json
import os
import shutil
import statistics
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from PIL import Image

from benchmarks.timing import Case

PER_SHARD = 1000
GROWTH = 1.05
TINY = {"architecture": "tracenet", "widths": [4, 4, 8, 8, 8], "blocks": [1, 1, 1, 1]}


def encoded(seed: int, height: int, width: int, kind: str, quality: int = 90) -> bytes:
    """A smooth picture with noise, as a PNG or JPEG."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(30, 225, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noisy = (smooth + random.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, kind, quality=quality)
    return stream.getvalue()


def write_shards(folder: Path, pictures: int, data: list[bytes], suffix: str) -> list[str]:
    """Tar shards of so many pictures, which repeat."""
    folder.mkdir()
    paths = []
    for first in range(0, pictures, PER_SHARD):
        path = folder / f"{first // PER_SHARD:05d}.tar"
        with tarfile.open(path, "w") as tar:
            for n in range(first, min(first + PER_SHARD, pictures)):
                one = data[n % len(data)]
                info = tarfile.TarInfo(f"{n:08d}.{suffix}")
                info.size = len(one)
                tar.addfile(info, io.BytesIO(one))
        paths.append(str(path))
    return paths


def tiny_model(folder: Path) -> Path:
    """A model folder of a few thousand random weights."""
    import torch

    from forgemap.models.build import build
    from forgemap.models.checkpoint import save_model

    torch.manual_seed(0)
    return save_model(build(TINY), folder)


def resident() -> int:
    """Bytes in memory of this process and its children."""
    import psutil

    own = psutil.Process()
    total = 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def spent() -> float:
    """CPU seconds of this process and its children so far."""
    import psutil

    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.Error:
            continue
    return total


def memory(scratch: Path, pictures: int, model: Path) -> dict[str, Any]:
    """The curve of a scan of so many tiny pictures."""
    from forgemap.scan import Settings, run

    data = [encoded(seed, 32, 32, "PNG") for seed in range(200)]
    shards = write_shards(scratch / "tiny", pictures, data, "png")
    rows = max(1, min(1000, pictures // 40))  # several parts in each tenth
    settings = Settings(str(model), options=(("detector", None),), workers=1, part_rows=rows)
    curve: list[tuple[int, int]] = []
    done = 0
    real = run.write_part

    def watched(out: Path, part: Any) -> Path:
        nonlocal done
        path = real(out, part)
        done += part.stop - part.start
        curve.append((done, resident()))
        return path

    run.write_part = watched
    before = spent()
    outcome = run.scan(shards, scratch / "out", settings, progress=False)
    run.write_part = real
    tenths = []
    for tenth in range(1, 11):
        inside = [m for n, m in curve if (tenth - 1) * pictures < 10 * n <= tenth * pictures]
        tenths.append(max(inside))
    return {
        "pictures": outcome.pictures,
        "seconds": outcome.seconds,
        "cpu_seconds": spent() - before,
        "memory": tenths,
        "flat": outcome.pictures == pictures and max(tenths[1:]) <= GROWTH * tenths[0],
    }


def decoding(rounds: int, number: int = 48) -> dict[str, Any]:
    """Threads in this process against processes, in turns: seconds for the same photographs."""
    from forgemap.image import load_image
    from forgemap.scan.decoders import Decoders
    from forgemap.scan.items import Item

    data = [encoded(seed, 750, 1000, "JPEG") for seed in range(8)]
    workers = max(2, (os.cpu_count() or 2) - 1)
    decoders = Decoders(workers, 10**8, 300, None)
    items = [Item(n, "", str(n), data=data[n % 8]) for n in range(number)]
    times: dict[str, list[float]] = {"threads": [], "processes": []}
    try:
        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(decoders.load, items))  # all have started
            for turn in range(rounds):
                order = ["threads", "processes"][:: 1 if turn % 2 else -1]
                for how in order:
                    began = time.perf_counter()
                    if how == "threads":
                        list(threads.map(lambda item: load_image(item.data), items))
                    else:
                        list(threads.map(decoders.load, items))
                    times[how].append((time.perf_counter() - began) / number)
    finally:
        decoders.close()
    ratios = [a / b for a, b in zip(times["threads"], times["processes"], strict=True)]
    return {
        "workers": workers,
        "milliseconds": {how: 1e3 * statistics.median(t) for how, t in times.items()},
        "threads_to_processes": statistics.quantiles(ratios, n=4),
    }


def cluster(scratch: Path, model: str, pictures: int) -> list[dict[str, Any]]:
    """The same photographs by one process, and on Ray with one and with two actors."""
    from forgemap.scan import Settings, scan

    data = [encoded(seed, 384, 512, "JPEG") for seed in range(50)]
    per = max(1, pictures // 8)
    folders = []
    for shard in range(8):
        folders += write_shards(scratch / f"set{shard}", per, data, "jpg")
    rows = []
    for name, on, actors in (
        ("one process", None, 1),
        ("Ray, one actor", "ray", 1),
        ("Ray, two actors", "ray", 2),
    ):
        settings = Settings(
            model, options=(("detector", None),), workers=1, actors=(actors, actors), batch=4
        )
        out = scratch / name.replace(" ", "-")
        before = spent()
        outcome = scan(folders, out, settings, cluster=on, progress=False)
        cpu = None if on else spent() - before  # Ray's processes are not all ours
        rows.append(
            {
                "how": name,
                "pictures": outcome.pictures,
                "seconds": outcome.seconds,
                "cpu_seconds": cpu,
            }
        )
    return rows


class Short:
    """Photographs in files and a tiny model; what a loop and a scan make of them."""

    number = 32

    @cached_property
    def folder(self) -> Path:
        folder = Path(mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        (folder / "photos").mkdir()
        for n in range(self.number):
            (folder / "photos" / f"{n:03d}.jpg").write_bytes(encoded(n, 256, 384, "JPEG"))
        tiny_model(folder / "model")
        return folder

    def scan(self) -> dict[str, float]:
        """Name -> score, from the rows that are written; decoders start and end with it."""
        from forgemap.scan import Settings, scan
        from forgemap.scan.parts import read_parts

        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        settings = Settings(str(self.folder / "model"), options=(("detector", None),), workers=1)
        scan([str(self.folder / "photos")], out, settings, progress=False)
        tables = [table for table, _ in read_parts(out, ["path", "score"])]
        rows = [row for table in tables for row in table.to_pylist()]
        return {Path(row["path"]).name: row["score"] for row in rows}

    def loop(self) -> dict[str, float]:
        """What a script of ten lines does: load, judge, keep the row."""
        from forgemap.detector import Detector

        detector = Detector.load(self.folder / "model", detector=None)
        files = sorted((self.folder / "photos").iterdir())
        return {file.name: float(detector.analyze(file).score or 0) for file in files}

    def check(self) -> None:
        ours, plain = self.scan(), self.loop()
        if ours.keys() != plain.keys() or any(abs(ours[k] - plain[k]) > 1e-4 for k in ours):
            raise AssertionError("a scan and a plain loop do not give the same scores")


def cases(quick: bool) -> list[Case]:
    """What a scan adds to a plain loop: a process of its own to decode in, pipes, parts."""
    short = Short()
    name = f"scan of {short.number} JPEGs of 384x256, tiny model / a plain loop"
    return [Case(name, short.scan, short.loop, short.check, None, rounds=3 if quick else 5)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_scan", description=__doc__)
    parser.add_argument("--pictures", type=int, default=100_000, help="of the memory curve")
    parser.add_argument("--rounds", type=int, default=9, help="of the decoding")
    parser.add_argument("--cluster", type=int, default=0, metavar="N", help="pictures, 0: not")
    parser.add_argument("--model", default="default", help="for --cluster")
    parser.add_argument("--out", type=Path, help="the JSON to write")
    arguments = parser.parse_args()
    from forgemap.evaluate.facts import machine

    rows: dict[str, Any] = {}
    code = 0
    with TemporaryDirectory(prefix="forgemap-") as folder:
        scratch = Path(folder)
        if arguments.rounds:
            rows["decoding"] = row = decoding(arguments.rounds)
            low, middle, high = row["threads_to_processes"]
            print(
                f"decoding a JPEG of 1000x750 with {row['workers']} workers: threads "
                f"{row['milliseconds']['threads']:.1f} ms, processes "
                f"{row['milliseconds']['processes']:.1f} ms a picture; "
                f"threads / processes {middle:.2f} ({low:.2f} - {high:.2f})"
            )
        if arguments.pictures:
            rows["memory"] = row = memory(scratch, arguments.pictures, tiny_model(scratch / "m"))
            code = int(not row["flat"])
            tenths = " ".join(f"{m / 2**20:.0f}" for m in row["memory"])
            print(
                f"{row['pictures']} pictures in {row['seconds']:.0f} s "
                f"({row['pictures'] / row['cpu_seconds']:.0f} per CPU second), MiB in each tenth: "
                f"{tenths}: {'flat' if row['flat'] else 'NOT FLAT'}"
            )
        if arguments.cluster:
            rows["cluster"] = cluster(scratch, arguments.model, arguments.cluster)
            for row in rows["cluster"]:
                cpu = row["cpu_seconds"]
                print(
                    f"{row['how']}: {row['pictures'] / row['seconds']:.2f} pictures/s"
                    + (f", {cpu / row['pictures']:.3f} CPU seconds a picture" if cpu else "")
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
