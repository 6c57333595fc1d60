"""A test for each threat of docs/security.md, by the names that it gives there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import socket
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

pytest.importorskip("fastapi")

import httpx2

from forgemap.cli import app as command
from forgemap.errors import ForgemapError
from forgemap.serve import frames
from forgemap.serve.app import create_app
from forgemap.serve.metrics import Metrics
from forgemap.serve.security import HEADERS, Guard
from forgemap.serve.settings import Settings
from forgemap.serve.uploads import clean_name
from tests.conftest import picture
from tests.serving import PATIENCE, running, until
from tests.test_serve_api import is_problem, png

TOKEN = "correct-horse-battery-staple"
AUTH = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(TOKEN + "\n")
    limits = ("--max-body", 4, "--max-pixels", 1_000_000, "--upload-seconds", PATIENCE)
    arguments = ("--model", model_folder, "--token-file", folder / "token", *limits)
    with running(folder, *arguments, env={"TMPDIR": str(folder)}) as server:
        yield server


@pytest.fixture(scope="module")
def http(server):
    with httpx2.Client(base_url=server.address, timeout=PATIENCE, headers=AUTH) as http:
        yield http


def raw(server, request: bytes, seconds: float = PATIENCE) -> bytes:
    """What the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
            if b"\r\n\r\n" in answer and b"chunked" not in answer:
                head, _, body = answer.partition(b"\r\n\r\n")
                length = [n for n in head.lower().split(b"\r\n") if n.startswith(b"content-length")]
                if length and len(body) >= int(length[0].split(b":")[1]):
                    break
        return answer


def test_every_threat_names_tests_that_exist():
    root = Path(__file__).parent
    table = (root.parent / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", table))
    there = {
        n for p in root.glob("test_serve_*.py") for n in re.findall(r"def (\w+)", p.read_text())
    }
    assert named <= there and len(named) > 25
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert all("test_" in row for row in rows)


# Who may ask


def test_other_machines_need_a_token_or_a_word():
    assert Settings().host == "127.0.0.1" and Settings().loopback
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ForgemapError, match="can be reached from other machines"):
            Settings(host=host)
        Settings(host=host, no_auth=True)
        Settings(host=host, token=TOKEN)
    with pytest.raises(ForgemapError, match="too short"):
        Settings(token="short")


def test_the_command_refuses_before_it_loads_anything(capsys):
    with pytest.raises(ForgemapError, match="set a token with --token-file or FORGEMAP_TOKEN"):
        command(["serve", "--host", "0.0.0.0"], standalone_mode=False)


def test_everything_of_value_asks_for_the_token(server):
    for path in ("/v1/models", "/v1/jobs/" + "0" * 32, "/metrics", "/openapi.json", "/v1/report"):
        for headers in (
            {},
            {"Authorization": TOKEN},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": f"Bearer {TOKEN[:-1]}"},
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": "Bearer"},
        ):
            refused = httpx2.get(server.address + path, headers=headers)
            is_problem(refused, "unauthorized", 401)
            assert refused.headers["www-authenticate"] == "Bearer"
    refused = httpx2.post(server.address + "/v1/analyze", content=png())
    is_problem(refused, "unauthorized", 401)
    assert httpx2.get(server.address + "/healthz").status_code == 200
    assert httpx2.get(server.address + "/readyz").status_code == 200


def test_the_right_token_opens(http):
    assert http.get("/v1/models").status_code == 200
    assert http.post("/v1/analyze?outputs=none", content=png()).status_code == 200


def test_pages_of_other_sites_are_turned_away(http):
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        is_problem(http.post("/v1/analyze", content=png(), headers=headers), "foreign-origin", 403)
        is_problem(http.get("/v1/models", headers=headers), "foreign-origin", 403)
    own = {"Origin": str(http.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert http.get("/v1/models", headers=own).status_code == 200
    # A link from elsewhere to the page, or its address typed in.
    assert http.get("/healthz", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_a_name_that_was_pointed_here_is_refused(http):
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example"):
        is_problem(http.get("/v1/models", headers={"Host": host}), "wrong-host", 421)
    for host in ("localhost", "127.0.0.1:1", "[::1]:8000"):
        assert http.get("/v1/models", headers={"Host": host}).status_code == 200


# What may be sent


def test_a_body_over_the_limit_is_refused_whether_declared_or_not(http, server):
    big = b"\x89PNG\r\n\x1a\n" + os.urandom(6 * 2**20)
    is_problem(http.post("/v1/analyze", content=big), "too-large", 413)
    is_problem(http.post("/v1/analyze", content=iter([big[:100], big])), "too-large", 413)
    is_problem(http.post("/v1/analyze", files={"file": ("a.png", big)}), "too-large", 413)
    head = f"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    answer = raw(server, head.encode() + b"Content-Length: 99999999999999\r\n\r\n")
    assert b" 413 " in answer.partition(b"\r\n")[0]
    until(lambda: server.metric("forgemap_upload_bytes", headers=AUTH) == 0)


def bomb(width: int, height: int) -> bytes:
    """A valid PNG of few bytes and very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9999))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def test_a_bomb_is_refused_before_it_is_decoded(http, server):
    before = peak(server)
    for width, height in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1)):
        refused = is_problem(
            http.post("/v1/analyze", content=bomb(width, height)), "unreadable-picture", 422
        )
        assert "limit" in refused["detail"] or "PNG" in refused["detail"]
    assert peak(server) < before + 2**29  # the smallest of them decodes to 2 GiB


def peak(server) -> int:
    """The most memory that a worker ever held, in bytes; 0 where that is not known."""
    if not sys.platform.startswith("linux"):
        return 0
    lines = [Path(f"/proc/{pid}/status").read_text() for pid in server.workers]
    return max(int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) for text in lines) * 1024


def test_a_body_that_dribbles_is_cut_off():
    async def dribble():
        yield b"abc"
        await asyncio.Event().wait()

    async def check():
        settings = Settings(upload_seconds=0.1)
        transport = httpx2.ASGITransport(app=create_app(settings))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            headers = {"content-length": "1000"}
            answer = await http.post("/v1/analyze", content=dribble(), headers=headers)
            is_problem(answer, "upload-too-slow", 408)

    asyncio.run(asyncio.wait_for(check(), PATIENCE))


def test_headers_over_the_limit_end_the_connection(server):
    endless = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000
    with contextlib.suppress(ConnectionError):
        answer = raw(server, endless)
        assert answer == b"" or b" 4" in answer.partition(b"\r\n")[0]


@pytest.mark.slow
def test_headers_that_dribble_end_the_connection(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        assert connection.recv(1000) == b""


def guarded(settings: Settings, inner) -> httpx2.AsyncClient:
    """A client of an application behind the guard, without a server."""
    transport = httpx2.ASGITransport(app=Guard(inner, settings, Metrics()))
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost")


async def fine(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


def test_a_client_that_asks_too_often_is_slowed_down():
    async def check():
        async with guarded(Settings(requests_per_minute=3), fine) as http:
            answers = [await http.get("/v1/models") for _ in range(5)]
            assert [a.status_code for a in answers] == [200] * 3 + [429] * 2
            is_problem(answers[-1], "too-many-requests", 429)
            assert int(answers[-1].headers["retry-after"]) >= 1
            assert (await http.get("/healthz")).status_code == 200
            # What a caller says of its address changes nothing.
            other = await http.get("/v1/models", headers={"X-Forwarded-For": "192.0.2.7"})
            assert other.status_code == 429

    asyncio.run(check())


def test_requests_at_one_time_are_bounded():
    async def check():
        gate, inside, entered = asyncio.Event(), asyncio.Event(), []

        async def slow(scope, receive, send):
            entered.append(scope)
            if len(entered) == 2:
                inside.set()
            await gate.wait()
            await fine(scope, receive, send)

        async with guarded(Settings(max_requests=2), slow) as http:
            held = [asyncio.create_task(http.get("/v1/models")) for _ in range(2)]
            await inside.wait()
            is_problem(await http.get("/v1/models"), "busy", 503)
            gate.set()
            assert [(await task).status_code for task in held] == [200, 200]

    asyncio.run(check())


# What a request may reach


def test_no_address_of_a_caller_is_fetched(http):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)  # whoever came waits in its backlog
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}"/></svg>'
        for body in (address, svg):
            is_problem(http.post("/v1/analyze", content=body.encode()), "unreadable-picture", 422)
        for name in ("url", "file", "model"):
            assert http.post(f"/v1/analyze?{name}={address}", content=png()).status_code == 422
            assert http.post("/v1/analyze", data={name: address}).status_code >= 400
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_names_never_become_paths(http, server):
    assert clean_name("../../etc/passwd") == "passwd"
    assert clean_name("C:\\Users\\x\\a.png") == "a.png"
    assert clean_name("a\0b\n\u202e.png") == "ab.png"
    assert clean_name("..") == ".." and clean_name("/") == clean_name("") == "upload"
    assert len(clean_name("x" * 10_000)) == 200
    before = sorted(Path(server._log).parent.rglob("*"))
    answer = http.post("/v1/analyze", files={"file": ("../../evil.png", png())}).json()
    assert answer["path"] == "evil.png"
    assert sorted(Path(server._log).parent.rglob("*")) == before
    for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/results/..%2f..%2fx/a.png"):
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        assert b" 4" in raw(server, request.encode()).partition(b"\r\n")[0]


def test_a_model_is_one_of_those_that_were_named(http, model_folder):
    for name in (str(model_folder), "../" + model_folder.name, "someone/model", "default"):
        problem = http.post("/v1/analyze", params={"model": name}, content=png())
        is_problem(problem, "invalid-request", 422)
        assert str(model_folder.parent) not in problem.text


# What stays, and what comes out


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs prlimit")
def test_nothing_uploaded_touches_the_disk_and_a_full_one_is_said(http, server):
    """With a limit on the size of files that lets no byte through."""
    import resource

    buffer = io.BytesIO()
    random = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    PILImage.fromarray(random).save(buffer, "png")
    noise = buffer.getvalue()
    assert len(noise) > 2**20  # which Starlette's own parser would put into a file
    pids = [server.process.pid, *server.workers]
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        answer = http.post("/v1/analyze", files={"file": ("a.png", noise)})
        assert answer.status_code == 200
        asked = {"results": [answer.json()["result"]]}
        refused = http.post("/v1/report", json=asked)
        is_problem(refused, "no-space", 507)
        assert "/" not in refused.json()["detail"]
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert http.post("/v1/report", json=asked).status_code == 200
    left = {path.name for path in Path(server._log).parent.rglob("*")}
    assert left == {"server.log", "token"}


def test_kept_uploads_are_named_by_their_hash(tmp_path):
    from forgemap.serve.results import Keeper

    keeper = Keeper(tmp_path / "kept")
    data = png()
    keeper.keep(data, {"format": "PNG", "verdict": "manipulated", "path": "../x", "result": "id"})
    name = hashlib.sha256(data).hexdigest()
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {f"{name}.png", f"{name}.json"}
    assert (tmp_path / "kept" / f"{name}.png").read_bytes() == data
    assert json.loads((tmp_path / "kept" / f"{name}.json").read_text())["verdict"] == "manipulated"


def test_answers_hold_no_path_traceback_or_environment(server):
    async def broken(scope, receive, send):
        raise RuntimeError(f"at {__file__} with {os.environ.get('HOME')}")

    async def check():
        async with guarded(Settings(), broken) as http:
            answer = await http.get("/v1/models")
            is_problem(answer, "internal-error", 500)
            for secret in (__file__, "RuntimeError", "Traceback", os.environ.get("HOME", "~~")):
                assert secret not in answer.text

    asyncio.run(check())
    answer = httpx2.get(server.address + "/healthz")
    assert "server" not in answer.headers


def test_every_answer_carries_the_headers(http):
    for response in (
        http.get("/healthz"),
        http.get("/nowhere"),
        http.post("/v1/analyze", content=b"x"),
        httpx2.get(str(http.base_url) + "/v1/models"),
    ):
        for name, value in HEADERS.items():
            assert response.headers[name] == value, (response.url, name)
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy and "*" not in policy and "http" not in policy


def test_a_file_name_cannot_become_code(http):
    name = '<img src=x onerror="alert(1)">.png'
    files = {"file": (name, png())}
    answer = http.post("/v1/analyze", files=files, params={"outputs": "none"}).json()
    asked = {"results": [answer["result"]], "title": "<script>alert(1)</script>"}
    report = http.post("/v1/report", json=asked)
    assert "<script" not in report.text and "<img src=x" not in report.text
    assert "sandbox" in report.headers["content-security-policy"]
    assert report.headers["content-disposition"].startswith("attachment")


def damaged_tiff() -> bytes:
    """One of which libtiff itself complains, on the standard error of its process."""
    buffer = io.BytesIO()
    PILImage.fromarray(picture(64, 64)).save(buffer, "tiff", compression="tiff_lzw")
    data = bytearray(buffer.getvalue())
    start = PILImage.open(buffer).tag_v2[273][0]  # of the first strip
    data[start + 40 : start + 200] = b"\xff" * 160
    return bytes(data)


def test_logs_hold_no_name_and_no_token(http, server):
    files = {"file": ("my-secret-holiday.png", png())}
    http.post("/v1/analyze", files=files, params={"outputs": "none"})
    http.post("/v1/analyze", content=damaged_tiff())
    until(lambda: any(entry.get("route") == "/v1/analyze" for entry in server.log()))
    log = server.raw_log()
    assert "holiday" not in log and TOKEN not in log
    for line in log.splitlines():
        assert {"time", "level", "event"} <= set(json.loads(line))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_token_is_in_no_command_line_and_in_no_workers_environment(model_folder, server):
    for pid in (server.process.pid, *server.workers):
        assert TOKEN.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    for pid in server.workers:
        assert b"FORGEMAP_TOKEN" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_worker_that_was_taken_over_can_only_answer_wrongly():
    async def read(data: bytes):
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        stream.feed_eof()
        return await frames.read_async(stream)

    sound = b"".join(frames.pack({"kind": "x"}, [b"ab"]))
    assert asyncio.run(read(sound)) == ({"kind": "x", "blobs": [2]}, [b"ab"])
    assert frames.read(io.BytesIO(sound)) == ({"kind": "x", "blobs": [2]}, [b"ab"])
    for text in (
        b"{}",
        b"[]",
        b'{"blobs": [-1]}',
        b'{"blobs": [1e99]}',
        b'{"blobs": ["a"]}',
        b"\x80",
    ):
        with pytest.raises(frames.FrameError):
            asyncio.run(read(struct.pack(">I", len(text)) + text))
    for cut in (sound[:2], sound[:-1], struct.pack(">I", 2**32 - 1)):
        with pytest.raises(frames.FrameError):
            asyncio.run(read(cut))


def test_ids_cannot_be_guessed(http):
    ids = {http.post("/v1/analyze?outputs=mask", content=png()).json()["result"] for _ in range(5)}
    assert len(ids) == 5 and all(len(id) == 32 for id in ids)
    assert len({id[:8] for id in ids}) == 5  # not a counter
