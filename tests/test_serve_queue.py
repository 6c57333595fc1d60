"""Under load and when things break, a picture is answered or refused in words, and never lost.

The worker is stopped and killed by real signals, so that what waits and for how long is certain.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
if not sys.platform.startswith("linux"):
    pytest.skip("finds the workers in /proc", allow_module_level=True)

import httpx2

from forgemap.serve.problems import ProblemError
from forgemap.serve.security import Rate
from forgemap.serve.uploads import Budget
from tests.serving import Running, running, until
from tests.test_serve_api import is_problem, png

QUEUE = 3


@pytest.fixture(scope="module")
def model(model_folder, tmp_path_factory) -> Path:
    """A copy, which a test takes away."""
    return Path(shutil.copytree(model_folder, tmp_path_factory.mktemp("moving") / "tiny"))


@pytest.fixture(scope="module")
def shared(model, tmp_path_factory):
    limits = ("--queue", QUEUE, "--deadline", 20, "--batch", 2, "--jobs", 2)
    with running(tmp_path_factory.mktemp("queue"), "--model", model, *limits) as server:
        yield server


@pytest.fixture
def server(shared):
    """Idle and ready, whatever the test before has done to it."""
    until(lambda: httpx2.get(f"{shared.address}/readyz").status_code == 200)
    yield shared
    if shared.process.poll() is None:
        shared.signal_workers(signal.SIGCONT)


def post(server: Running, **options) -> httpx2.Response:
    options = {"params": {"outputs": "none"}, "timeout": 60, "content": png()} | options
    return httpx2.post(f"{server.address}/v1/analyze", **options)


def waiting(server: Running) -> int:
    return int(httpx2.get(f"{server.address}/readyz").json()["waiting"])


def occupy(server: Running, pool: ThreadPoolExecutor, count: int) -> list:
    """Stops the worker with one picture in its hands and `count` in the queue."""
    server.signal_workers(signal.SIGSTOP)
    futures = [pool.submit(post, server)]
    time.sleep(0.3)  # into the worker's hands
    for i in range(count):
        futures.append(pool.submit(post, server))
        until(lambda i=i: waiting(server) == i + 1)
    return futures


def test_a_full_queue_refuses_at_once_and_what_it_took_is_answered(server):
    with ThreadPoolExecutor(8) as pool:
        taken = occupy(server, pool, QUEUE)
        began = time.monotonic()
        refused = post(server)
        assert time.monotonic() - began < 2
        is_problem(refused, "busy", 503)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        # A body that is still on its way does not keep the refusal from arriving.
        is_problem(post(server, content=os.urandom(2**23)), "busy", 503)
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


def test_a_killed_workers_picture_is_answered_by_the_next(server):
    restarts = server.metric("forgemap_worker_restarts_total")
    with ThreadPoolExecutor(8) as pool:
        taken = occupy(server, pool, 2)
        server.signal_workers(signal.SIGKILL)
        assert [future.result().status_code for future in taken] == [200] * 3
    assert server.metric("forgemap_worker_restarts_total") == restarts + 1


def test_a_picture_that_ends_two_workers_is_refused(server):
    with ThreadPoolExecutor(2) as pool:
        (future,) = occupy(server, pool, 0)
        (first,) = server.workers
        os.kill(first, signal.SIGKILL)
        # The next one loads its model, gets the picture at once, and is killed too.
        until(lambda: server.workers and server.workers != [first])
        (second,) = server.workers
        until(lambda: any(e["event"] == "worker restarted" for e in server.log()[-1:]))
        os.kill(second, signal.SIGKILL)
        response = future.result()
    assert response.status_code in (200, 503)  # a small picture may be quicker than the signal
    if response.status_code == 503:
        is_problem(response, "worker-lost", 503)


def test_a_model_that_disappears_is_said_and_its_return_is_noticed(server, model):
    away = model.with_name("away")
    model.rename(away)
    try:
        assert post(server).status_code == 200  # it is in memory
        server.signal_workers(signal.SIGKILL)
        until(lambda: httpx2.get(f"{server.address}/readyz").status_code == 503)
        until(lambda: post(server).status_code == 503)
        refused = post(server)
        is_problem(refused, "not-ready", 503)
        assert str(model) not in refused.text and refused.headers["retry-after"]
        assert httpx2.get(f"{server.address}/healthz").status_code == 200
        assert any(str(model) in str(entry.get("error")) for entry in server.log())
    finally:
        away.rename(model)
    until(lambda: httpx2.get(f"{server.address}/readyz").status_code == 200)
    assert post(server).status_code == 200


def test_jobs_are_bounded_and_leave_the_queue_to_callers(server):
    files = [("file", (f"{i}.png", png(i))) for i in range(6)]
    with httpx2.Client(base_url=server.address, timeout=60) as http:
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
    with httpx2.Client(base_url=server.address, timeout=60) as http:
        server.signal_workers(signal.SIGSTOP)
        job = http.post("/v1/jobs", files=files).json()
        assert server.metric("forgemap_upload_bytes") > 0
        assert http.delete(job["href"]).status_code == 204
        until(lambda: server.metric("forgemap_upload_bytes") == 0)
        server.signal_workers(signal.SIGCONT)


def test_sigterm_finishes_what_was_accepted_and_exits_with_0(server):
    """The last test with this server."""
    with ThreadPoolExecutor(8) as pool, httpx2.Client(base_url=server.address) as http:
        taken = occupy(server, pool, QUEUE)
        job = http.post("/v1/jobs", files=[("file", ("a.png", png()))]).json()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx2.get(f"{server.address}/readyz").status_code == 503)
        is_problem(post(server), "not-ready", 503)
        server.signal_workers(signal.SIGCONT)
        assert [future.result().status_code for future in taken] == [200] * (QUEUE + 1)
        until(lambda: http.get(job["href"]).json()["status"] == "done")
    assert server.process.wait(30) == 0
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
    with running(tmp_path, "--model", model_folder) as server, ThreadPoolExecutor(2) as pool:
        occupy(server, pool, 0)
        for _ in range(2):
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        server.process.wait(15)


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
