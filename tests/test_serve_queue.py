"""Under load and when things break, a picture is answered or refused in words, and never lost.

The worker is stopped and killed by real signals, so that what waits and for how long is certain.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

pytest.importorskip("fastapi")
if not sys.platform.startswith("linux"):
    pytest.skip("finds the workers in /proc", allow_module_level=True)

import httpx2

from forgemap import Client
from forgemap.serve.metrics import Metrics
from forgemap.serve.problems import ProblemError
from forgemap.serve.process import Task
from forgemap.serve.queue import Pool
from forgemap.serve.security import Rate
from forgemap.serve.settings import Settings
from forgemap.serve.uploads import Budget
from tests.serving import PATIENCE, Running, running, until
from tests.test_serve_api import is_problem, png

QUEUE = 3


@pytest.fixture(scope="module")
def model(model_folder, tmp_path_factory) -> Path:
    """A copy, which a test takes away."""
    return Path(shutil.copytree(model_folder, tmp_path_factory.mktemp("moving") / "tiny"))


@pytest.fixture(scope="module")
def shared(model, tmp_path_factory):
    limits = ("--queue", QUEUE, "--deadline", 2 * PATIENCE, "--batch", 2, "--jobs", 2)
    with running(tmp_path_factory.mktemp("queue"), "--model", model, *limits) as server:
        yield server


@pytest.fixture
def server(shared):
    """Idle and ready, whatever the test before has done to it."""
    until(lambda: shared.get("/readyz").status_code == 200)
    until(lambda: shared.metric("forgemap_upload_bytes") == 0)  # the jobs before have ended
    # A worker answers in order: it has nothing left of a picture that nobody waits for any more.
    until(lambda: post(shared).status_code == 200)
    yield shared
    if shared.process.poll() is None:
        shared.signal_workers(signal.SIGCONT)


def post(server: Running, **options) -> httpx2.Response:
    options = {"params": {"outputs": "none"}, "timeout": 2 * PATIENCE, "content": png()} | options
    return httpx2.post(f"{server.address}/v1/analyze", **options)


def waiting(server: Running) -> int:
    return int(server.get("/readyz").json()["waiting"])


def occupy(server: Running, pool: ThreadPoolExecutor, count: int) -> list:
    """Stops the worker with one picture in its hands and `count` in the queue."""
    server.signal_workers(signal.SIGSTOP)
    batches = server.metric("forgemap_batch_size_count")
    futures = [pool.submit(post, server)]
    until(lambda: server.metric("forgemap_batch_size_count") > batches)  # in the worker's hands
    for i in range(count):
        futures.append(pool.submit(post, server))
        until(lambda i=i: waiting(server) == i + 1)
    return futures


def test_a_full_queue_refuses_at_once_and_what_it_took_is_answered(server):
    with ThreadPoolExecutor(8) as pool:
        taken = occupy(server, pool, QUEUE)
        refused = post(server)  # by the server alone: the worker stands still
        is_problem(refused, "busy", 503)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        # A body that is still on its way does not keep the refusal from arriving.
        is_problem(post(server, content=os.urandom(2**23)), "busy", 503)
        assert not any(future.done() for future in taken)
        server.signal_workers(signal.SIGCONT)
        assert [future.result().status_code for future in taken] == [200] * (QUEUE + 1)
    assert server.metric('forgemap_refused_total{reason="queue-full"}') >= 2


def test_a_caller_that_goes_away_frees_its_place(server):
    with ThreadPoolExecutor(8) as pool:
        taken = occupy(server, pool, QUEUE - 1)
        body = png()
        head = (
            f"POST /v1/analyze HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port)) as caller:
            caller.sendall(head.encode() + body)
            until(lambda: waiting(server) == QUEUE)
            is_problem(post(server), "busy", 503)
        until(lambda: waiting(server) == QUEUE - 1)
        late = pool.submit(post, server)
        until(lambda: waiting(server) == QUEUE)
        server.signal_workers(signal.SIGCONT)
        assert [future.result().status_code for future in [*taken, late]] == [200] * (QUEUE + 1)


def test_a_caller_that_hangs_up_in_the_middle_of_an_answer_ends_nothing(server):
    """Writing to a socket that its peer has closed must be an error, not a deadly signal."""
    noise = io.BytesIO()
    random = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    PILImage.fromarray(random).save(noise, "png")  # 3 MB: more than the sockets hold
    link = post(server, content=noise.getvalue(), params={"outputs": "picture"}).json()["picture"]
    for _ in range(3):
        answered = server.metric("forgemap_requests_total")
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", server.port))
            caller.sendall(f"GET {link} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            caller.recv(1)  # the answer is on its way ...
            caller.shutdown(socket.SHUT_WR)
        until(lambda n=answered: server.metric("forgemap_requests_total") > n + 1)
    assert server.process.poll() is None
    assert post(server).status_code == 200


def test_a_killed_workers_picture_is_answered_by_the_next(server):
    restarts = server.metric("forgemap_worker_restarts_total")
    with ThreadPoolExecutor(8) as pool:
        taken = occupy(server, pool, 2)
        server.signal_workers(signal.SIGKILL)
        assert [future.result().status_code for future in taken] == [200] * 3
    assert server.metric("forgemap_worker_restarts_total") == restarts + 1


@pytest.mark.slow
def test_a_picture_that_ends_two_workers_is_refused(model):
    """In the queue's own loop, which sees a worker the moment that it has the picture."""

    async def check() -> None:
        pool = Pool(Settings(model=(str(model),)), Metrics())
        await pool.start()
        try:
            killed: set[int] = set()
            task = Task("a.png", png(0, 2000, 2000), str(model), None, (), False, PATIENCE)
            future = pool.submit(task)
            while not future.done():
                await asyncio.sleep(0.001)
                for worker in pool._workers.values():
                    if worker.process.pid not in killed and task not in pool._waiting:
                        killed.add(worker.process.pid)
                        worker.process.kill()
            with pytest.raises(ProblemError, match="ended two workers: do not resend it"):
                future.result()
            assert len(killed) == 2
        finally:
            await pool.abort()

    asyncio.run(asyncio.wait_for(check(), 2 * PATIENCE))


def test_a_model_that_disappears_is_said_and_its_return_is_noticed(server, model):
    away = model.with_name("away")
    model.rename(away)
    try:
        assert post(server).status_code == 200  # it is in memory
        server.signal_workers(signal.SIGKILL)
        until(lambda: server.get("/readyz").status_code == 503)
        until(lambda: post(server).status_code == 503)
        refused = post(server)
        is_problem(refused, "not-ready", 503)
        assert str(model) not in refused.text and refused.headers["retry-after"]
        assert server.get("/healthz").status_code == 200
        assert any(str(model) in str(entry.get("error")) for entry in server.log())
    finally:
        away.rename(model)
    until(lambda: server.get("/readyz").status_code == 200)
    assert post(server).status_code == 200


def test_jobs_are_bounded_and_leave_the_queue_to_callers(server):
    files = [("file", (f"{i}.png", png(i))) for i in range(6)]
    with httpx2.Client(base_url=server.address, timeout=PATIENCE) as http:
        server.signal_workers(signal.SIGSTOP)
        jobs = [http.post("/v1/jobs", files=files).json() for _ in range(2)]
        refused = http.post("/v1/jobs", files=files)
        is_problem(refused, "busy", 503)
        assert waiting(server) == 0  # of those that answer at once
        server.signal_workers(signal.SIGCONT)
        assert post(server).status_code == 200
        for job in jobs:
            until(lambda job=job: http.get(job["href"]).json()["status"] == "done")
        # What has ended makes room for another.
        assert http.post("/v1/jobs", files=files[:1]).status_code == 202


def test_a_cancelled_job_gives_its_memory_back(server):
    files = [("file", (f"{i}.png", png(i))) for i in range(6)]
    with httpx2.Client(base_url=server.address, timeout=PATIENCE) as http:
        server.signal_workers(signal.SIGSTOP)
        job = http.post("/v1/jobs", files=files).json()
        assert server.metric("forgemap_upload_bytes") > 0
        assert http.delete(job["href"]).status_code == 204
        until(lambda: server.metric("forgemap_upload_bytes") == 0)
        server.signal_workers(signal.SIGCONT)


def test_sigterm_finishes_what_was_accepted_and_exits_with_0(server):
    """The last test with this server."""
    with ThreadPoolExecutor(8) as pool, Client(server.address) as client:
        taken = occupy(server, pool, QUEUE)
        events = client.events(client.submit([png()]))
        assert next(events)[0] == "progress"
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.get("/readyz").status_code == 503)
        is_problem(post(server), "not-ready", 503)
        server.signal_workers(signal.SIGCONT)
        assert [future.result().status_code for future in taken] == [200] * (QUEUE + 1)
        name, job = list(events)[-1]
        assert name == "end" and [p["status"] for p in job["pictures"]] == ["done"]
    assert server.process.wait(PATIENCE) == 0
    assert "Traceback" not in server.raw_log()


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced_and_its_picture_refused(model_folder, tmp_path):
    limits = ("--deadline", 3, "--queue", 4)
    with running(tmp_path, "--model", model_folder, *limits) as server:
        (stuck,) = server.workers
        with ThreadPoolExecutor(2) as pool:
            (future,) = occupy(server, pool, 0)
            is_problem(future.result(), "deadline", 504)
        until(lambda: stuck not in server.workers)
        until(lambda: post(server).status_code == 200)


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once(model_folder, tmp_path):
    arguments = ("--model", model_folder, "--deadline", 100 * PATIENCE)  # how long once would take
    with running(tmp_path, *arguments) as server, ThreadPoolExecutor(2) as pool:
        occupy(server, pool, 0)
        server.process.send_signal(signal.SIGINT)
        until(lambda: server.count("stopping"))
        server.process.send_signal(signal.SIGINT)
        server.process.wait(PATIENCE)


def test_a_rate_is_a_bucket_that_fills_again_and_clients_are_forgotten():
    rate = Rate(60)
    assert [rate.wait("a", 0.0) for _ in range(60)] == [0] * 60
    assert rate.wait("a", 0.0) == 1 and rate.wait("b", 0.0) == 0
    assert rate.wait("a", 1.0) == 0 and rate.wait("a", 1.0) == 1
    for i in range(20_000):
        rate.wait(str(i), 2.0)
    assert len(rate._buckets) <= 10_000
    assert Rate(0).wait("a", 0.0) == 0


def test_upload_memory_is_one_budget_and_comes_back():
    budget = Budget(100)
    with budget.lease() as one, budget.lease() as two:
        one.take(60)
        two.take(40)
        with pytest.raises(ProblemError):
            two.take(1)
        one.give(10)
        two.take(10)
    assert budget.used == 0
