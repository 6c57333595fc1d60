"""python -m benchmarks.load [--model MODEL] [--side PIXELS] [--seconds S] [--out FILE]

The service under rising load on loopback, as ratios to calling the library in a loop. Three
processes: the loop, the server, and this one. Before and after every step of the load the loop runs
for half as long, so that a step is compared with what the machine gave at that time. Bounded: about
1.5 S seconds for each step. Exit code 1 if a request was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

# Analyses of one picture for as many seconds as each line on stdin says; answers with their times.
LOOP = """
import sys, time, json, forgemap
data = open(sys.argv[2], 'rb').read(); detector = forgemap.load(sys.argv[1])
for _ in range(3): detector.analyze(data)
print('ready', flush=True)
for line in sys.stdin:
    times = []; end = time.monotonic() + float(line)
    while time.monotonic() < end or len(times) < 5:
        began = time.perf_counter(); detector.analyze(data)
        times.append(time.perf_counter() - began)
    print(json.dumps(times), flush=True)
"""


def photo(side: int) -> bytes:
    """A JPEG of that many pixels to a side: smooth colours with noise."""
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(30, 225, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    noisy = (smooth + random.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "jpeg", quality=90)
    return buffer.getvalue()


@contextlib.contextmanager
def process(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has said its first line, which comes with it; ended afterwards."""
    running = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert running.stdout is not None
        line = running.stdout.readline().strip()
        if not line:
            raise SystemExit(f"It ended before it was ready: {' '.join(command[:4])} ...")
        yield running, line
    finally:
        running.terminate()
        try:
            running.wait(60)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def in_a_loop(loop: subprocess.Popen[str], seconds: float) -> list[float]:
    """Seconds of each analysis, one after the other, without a server."""
    assert loop.stdin is not None and loop.stdout is not None
    loop.stdin.write(f"{seconds}\n")
    times: list[float] = json.loads(loop.stdout.readline())
    return times


def step(address: str, body: bytes, callers: int, seconds: float) -> dict[str, Any]:
    """`callers` threads, each with one request at a time; what was answered, refused and lost."""
    counts: Counter[str] = Counter()
    times: list[float] = []
    refusals: list[float] = []
    lock = threading.Lock()
    end = time.monotonic() + seconds

    def call() -> None:
        params = {"outputs": "none", "delivery": "inline"}
        with httpx2.Client(base_url=address, timeout=600) as http:
            while time.monotonic() < end:
                began = time.perf_counter()
                try:
                    status = http.post("/v1/analyze", params=params, content=body).status_code
                except httpx2.HTTPError:
                    status = 0
                took = time.perf_counter() - began
                kind = {200: "answered", 503: "refused"}.get(status, "lost")
                with lock:
                    counts[kind] += 1
                    if kind == "answered":
                        times.append(took)
                    elif kind == "refused":
                        refusals.append(took)
                if kind == "refused":
                    time.sleep(0.2)  # sooner than Retry-After asks, so that the load stays on

    threads = [threading.Thread(target=call) for _ in range(callers)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    p50, p95, p99 = np.percentile(times or [np.nan], (50, 95, 99))
    return {
        "callers": callers,
        "per_second": len(times) / took,
        **{name: float(value) for name, value in (("p50", p50), ("p95", p95), ("p99", p99))},
        "refused_p50": float(np.median(refusals or [np.nan])),
        **{kind: counts[kind] for kind in ("answered", "refused", "lost")},
    }


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each number of callers, with what the loop took around it."""
    body = photo(arguments.side)
    serve = [sys.executable, "-m", "forgemap", "serve", "--port", "0", "--log-level", "error"]
    serve += ["--model", arguments.model, "--queue", str(arguments.queue)]
    serve += ["--requests-per-minute", "0", "--deadline", "500"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo.jpg")
        path.write_bytes(body)
        command = [sys.executable, "-c", LOOP, arguments.model, str(path)]
        with process(command) as (loop, _), process(serve) as (_, said):
            address = said.split()[-1]
            step(address, body, 1, 1)  # the first requests of all are slower
            rows, half = [], arguments.seconds / 2
            before = in_a_loop(loop, half)
            for callers in arguments.callers:
                row = step(address, body, callers, arguments.seconds)
                after = in_a_loop(loop, half)
                row["loop"] = float(np.mean([*before, *after]))
                rows.append(row)
                before = after
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--side", type=int, default=512, help="pixels to a side of the picture")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each step")
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    rows = measure(arguments)

    from forgemap.evaluate.facts import machine

    facts = {**machine(), "load": load, "side": arguments.side, "queue": arguments.queue}
    loops = sorted(1000 * row["loop"] for row in rows)
    table = Table(
        *("callers", "throughput", "p50", "p95", "p99", "a refusal"),
        *("answered", "refused", "lost"),
        title=f"ratios to the library in a loop, {loops[0]:.0f} to {loops[-1]:.0f} ms a picture "
        f"of {arguments.side}²",
        caption=f"{facts['date']}, {facts['processor']}; load before the start {load:.1f}",
    )
    for row in rows:
        table.add_row(
            str(row["callers"]),
            f"{row['per_second'] * row['loop']:.2f}",
            *(f"{row[name] / row['loop']:.1f}" for name in ("p50", "p95", "p99")),
            "" if np.isnan(row["refused_p50"]) else f"{row['refused_p50'] / row['loop']:.2f}",
            *(str(row[name]) for name in ("answered", "refused", "lost")),
        )
    Console(width=110).print(table)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    return int(any(row["lost"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
