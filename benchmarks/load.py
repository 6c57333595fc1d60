"""python -m benchmarks.load [--model MODEL] [--side PIXELS] [--seconds S] [--out FILE]

The service under rising load on loopback, as ratios to calling the library in a loop: three
processes, the loop first, then the server and this one side by side. Bounded in time: about S
seconds for the loop and for each of the seven steps.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

STEPS = (1, 2, 4, 8, 16, 32, 64)
LOOP = """
import json, sys, time, forgemap
data = open(sys.argv[2], 'rb').read(); detector = forgemap.load(sys.argv[1])
for _ in range(3): detector.analyze(data)
times = []; end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end or len(times) < 5:
    began = time.perf_counter(); detector.analyze(data); times.append(time.perf_counter() - began)
print(json.dumps(times))
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


def step(address: str, body: bytes, callers: int, seconds: float) -> dict[str, object]:
    """`callers` threads, each with one request at a time; what was answered, refused and lost."""
    counts: Counter[str] = Counter()
    times: list[float] = []
    lock = threading.Lock()
    end = time.monotonic() + seconds

    def call() -> None:
        params = {"outputs": "none", "delivery": "inline"}
        with httpx2.Client(base_url=address, timeout=120) as http:
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
        **{kind: counts[kind] for kind in ("answered", "refused", "lost")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--side", type=int, default=512, help="pixels to a side of the picture")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each step")
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args()
    body = photo(arguments.side)

    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder, "photo.jpg")
        path.write_bytes(body)
        loop = subprocess.run(
            [sys.executable, "-c", LOOP, arguments.model, path, str(arguments.seconds)],
            check=True,
            capture_output=True,
            text=True,
        )
    alone = float(np.median(json.loads(loop.stdout)))

    command = [sys.executable, "-m", "forgemap", "serve", "--port", "0", "--log-level", "error"]
    command += ["--model", arguments.model, "--queue", str(arguments.queue)]
    command += ["--requests-per-minute", "0", "--deadline", "120"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        rows = [step(address, body, callers, arguments.seconds) for callers in STEPS]
    finally:
        server.terminate()
        server.wait(30)

    from forgemap.evaluate.facts import machine

    facts = {**machine(), "load": os.getloadavg()[0], "loop_seconds": alone, "side": arguments.side}
    title = f"library in a loop: {1000 * alone:.1f} ms a picture of {arguments.side}²"
    caption = f"{facts['date']}, {facts['processor']}; load of the machine {facts['load']:.1f}"
    table = Table(
        *("callers", "throughput / loop", "p50 / loop", "p95 / loop", "p99 / loop"),
        *("answered", "refused", "lost"),
        title=title,
        caption=caption,
    )
    for row in rows:
        table.add_row(
            str(row["callers"]),
            f"{row['per_second'] * alone:.2f}",  # type: ignore[operator]
            *(f"{row[name] / alone:.1f}" for name in ("p50", "p95", "p99")),  # type: ignore[operator]
            *(str(row[name]) for name in ("answered", "refused", "lost")),
        )
    Console(width=110).print(table)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    return int(any(row["lost"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
