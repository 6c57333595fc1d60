"""Whatever is sent: an answer in its declared shape, in time, and a server that goes on.

FORGEMAP_HOSTILE and FORGEMAP_EXAMPLES set how many bodies and how many examples of each operation:
10,000 and 100 for a thorough run, which takes a quarter of an hour.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

pytest.importorskip("fastapi")

import httpx2

from forgemap.serve.schemas import Result
from forgemap.serve.schemas_server import Problem
from tests.conftest import picture
from tests.serving import PATIENCE, running, until
from tests.test_serve_api import png
from tests.test_serve_security import bomb

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

BODIES = int(os.environ.get("FORGEMAP_HOSTILE", "1000"))
EXAMPLES = int(os.environ.get("FORGEMAP_EXAMPLES", "50"))
DEADLINE = PATIENCE


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    limits = ("--deadline", DEADLINE, "--requests-per-minute", 0, "--max-pixels", 4_000_000)
    limits += ("--max-body", 8, "--result-memory", 64, "--keep-seconds", 20, "--queue", 16)
    limits += ("--jobs", 10_000)  # on a busy machine more than the usual 32 are still at work
    with running(tmp_path_factory.mktemp("hostile"), "--model", model_folder, *limits) as server:
        yield server


def test_every_operation_answers_in_its_declared_shape(server):
    """Schemathesis over the whole document: valid and invalid requests, and sequences of them."""
    pytest.importorskip("schemathesis")
    folder = Path(server._log).parent
    # Which bytes are a picture no schema says: of this operation, 422 is a fair answer to any.
    (folder / "schemathesis.toml").write_text(
        '[[operations]]\ninclude-path = "/v1/analyze"\n[operations.checks]\n'
        'positive_data_acceptance.expected-statuses = ["2xx", 422, 503]\n'
    )
    code = "from schemathesis.cli import schemathesis; schemathesis()"
    arguments = ("run", f"{server.address}/openapi.json", "--no-color", "--continue-on-failure")
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--max-examples", str(EXAMPLES)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=2400,
    )
    assert run.returncode == 0, run.stdout[-6000:]
    assert "Traceback" not in server.raw_log()


def seeds() -> list[bytes]:
    """Sound pictures of every format, depth and colour that can be written here."""
    pixels = picture(48, 64, 0)
    rgb = PILImage.fromarray(pixels)
    found = []
    for kind, options in (
        *(("jpeg", {"quality": 70}), ("jpeg", {"progressive": True}), ("png", {}), ("gif", {})),
        *(("webp", {}), ("webp", {"lossless": True}), ("bmp", {}), ("avif", {})),
        *(("tiff", {}), ("tiff", {"compression": "tiff_lzw"}), ("tiff", {"compression": "jpeg"})),
    ):
        buffer = io.BytesIO()
        rgb.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"):
        buffer = io.BytesIO()
        odd = (
            PILImage.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64))
            if mode == "I;16"
            else rgb.convert("L").convert(mode) if mode == "F" else rgb.convert(mode)
        )  # fmt: skip
        odd.save(buffer, "tiff" if mode in ("CMYK", "F") else "png")
        found.append(buffer.getvalue())
    return found


def hostile(number: int, sound: list[bytes]) -> bytes:
    """The `number`-th body: a sound picture damaged in one of many ways, or no picture at all."""
    dice = random.Random(number)
    body = bytearray(dice.choice(sound))
    way = number % 12
    if way == 0:
        return b""
    if way == 1:
        return bytes(body[: dice.randrange(len(body))])
    if way == 2:  # bits flipped anywhere
        for _ in range(dice.randrange(1, 40)):
            body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    elif way == 3:  # in the header, where sizes and offsets are
        for _ in range(dice.randrange(1, 8)):
            body[dice.randrange(min(64, len(body)))] = dice.choice((0, 0xFF, 0x7F, 0x80))
    elif way == 4:
        return dice.randbytes(dice.randrange(1, 5000))
    elif way == 5:
        return bomb(*(dice.choice((1, 9, 1999, 60_000, 2**31 - 1)) for _ in range(2)))
    elif way == 6:  # polyglots: one format's beginning, another's end
        other = dice.choice(sound)
        return bytes(body[: dice.randrange(4, 40)]) + other + b"PK\x05\x06" + b"\0" * 18
    elif way == 7:
        return dice.choice((b"%PDF-1.7", b"<svg/>", b"#!/bin/sh\nid", b"\x80\x04.", b"PK\x03\x04"))
    elif way == 8:  # a part repeated, lengths no longer fit
        start = dice.randrange(len(body))
        body[start:start] = body[start : start + dice.randrange(1, 500)] * dice.randrange(1, 9)
    elif way == 9:
        del body[dice.randrange(len(body)) :: dice.randrange(2, 50)]
    elif way == 10:
        body += dice.randbytes(dice.randrange(2**18))
    return bytes(body)


def test_hostile_bodies_are_each_answered_and_memory_does_not_grow(server):
    sound, counts, slowest = seeds(), Counter(), 0.0
    limits = httpx2.Limits(max_connections=8)
    with httpx2.Client(base_url=server.address, timeout=2 * DEADLINE, limits=limits) as http:

        def send(number: int) -> tuple[int, float]:
            body, began = hostile(number, sound), time.monotonic()
            params = {"outputs": "mask" if number % 5 == 0 else "none"}
            if number % 2:
                answer = http.post("/v1/analyze", params=params, content=body)
            else:
                answer = http.post("/v1/analyze", params=params, files={"file": ("x.jpg", body)})
            if answer.status_code == 200:
                Result.model_validate(answer.json())
            else:
                Problem.model_validate(answer.json())
            return answer.status_code, time.monotonic() - began

        memory = []
        with ThreadPoolExecutor(8) as pool:
            quarter = max(1, BODIES // 4)
            for start in range(0, BODIES, quarter):
                for status, took in pool.map(send, range(start, min(BODIES, start + quarter))):
                    counts[status] += 1
                    slowest = max(slowest, took)
                memory.append(server.memory() / 2**20)
    print(f"{dict(counts)}, slowest {slowest:.2f} s, MiB {[round(m) for m in memory]}")
    assert set(counts) <= {200, 422} and counts[200] and counts[422]
    assert slowest < DEADLINE
    assert server.metric("forgemap_worker_restarts_total") == 0
    assert memory[-1] < 1.1 * memory[0] + 64
    alive = httpx2.post(f"{server.address}/v1/analyze", content=png(), timeout=2 * DEADLINE)
    assert alive.status_code == 200


def test_two_hundred_at_one_time_are_each_answered_or_refused(server):
    def send(number: int) -> tuple[int, float]:
        began = time.monotonic()
        answer = httpx2.post(
            f"{server.address}/v1/analyze?outputs=none",
            content=png(number % 7),
            timeout=2 * DEADLINE,
        )
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            Problem.model_validate(answer.json())
        return answer.status_code, time.monotonic() - began

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(send, range(200)))
    counts = Counter(status for status, _ in answers)
    print(dict(counts), f"slowest {max(took for _, took in answers):.2f} s")
    assert set(counts) <= {200, 503} and counts[200] >= 16
    assert max(took for _, took in answers) < DEADLINE
    until(lambda: server.metric("forgemap_upload_bytes") == 0)
    assert server.get("/readyz").json()["waiting"] == 0
