"""A real server for tests: the command in a process of its own, on a free port of loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

PATIENCE = 120
"""Seconds that anything may take on a machine that is busy with other things."""


class Running:
    """A server that is ready, its address and its log."""

    def __init__(self, process: subprocess.Popen, address: str, log: Path) -> None:
        self.process, self.address, self._log = process, address, log

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers (Linux)."""
        pid = self.process.pid
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def log(self) -> list[dict]:
        return [json.loads(line) for line in self.raw_log().splitlines() if line[:1] == "{"]

    def raw_log(self) -> str:
        """The lines that are complete: the server may be writing another."""
        lines, newline, _ = self._log.read_text().rpartition("\n")
        return lines + newline

    def count(self, event: str) -> int:
        """How often an event is in the log."""
        return sum(entry["event"] == event for entry in self.log())

    def signal_workers(self, number: int) -> None:
        for pid in self.workers:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, number)

    def memory(self) -> int:
        """Bytes that the server and its workers hold (Linux)."""
        pages = 0
        for pid in (self.process.pid, *self.workers):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def get(self, path: str, **options: object) -> httpx2.Response:
        import httpx2

        return httpx2.get(self.address + path, **{"timeout": PATIENCE} | options)

    def metric(self, name: str, **options: object) -> float:
        text = self.get("/metrics", **options).text
        return sum(float(n.rpartition(" ")[2]) for n in text.splitlines() if n.startswith(name))


@contextmanager
def running(folder: Path, *arguments: object, env: dict | None = None) -> Iterator[Running]:
    """`forgemap serve --port 0 ...`, its log in `folder`; stopped at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "forgemap", "serve", "--port", "0", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env={**os.environ, **(env or {})},
            text=True,
        )
    try:
        line = process.stdout.readline()
        assert line.startswith("Forgemap is ready at http://"), log.read_text()
        yield Running(process, line.split()[-1], log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def until(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
