"""scan: ended by SIGKILL at random moments and started again, it ends with the same rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.scan import run
from forgemap.scan.parts import Part

from .scanning import leftovers, rows, write_mix, write_pictures

# All is imported before the first fork, so that a run costs no start of an interpreter.
KILLER = """
import json, os, random, signal, sys, time
import cv2, torch, numpy, filelock, fsspec, pyarrow.parquet
import forgemap.detector, forgemap.models.tracenet, forgemap.models.build, forgemap.scan.pipeline
from forgemap.scan import scan
from tests.scanning import settings
from pathlib import Path

def run(out):
    "One scan in a child; its id."
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            scan(sources, out, settings(Path(model), part_seconds=0.2), progress=False)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return child

if __name__ == "__main__":
    model, outs, moments, *sources = sys.argv[1:]
    draw, killed, finished = random.Random(0), 0, 0
    began = time.monotonic()
    assert os.waitpid(run(f"{outs}/first"), 0)[1] == 0
    lasts = time.monotonic() - began
    ended = 0
    while killed < int(moments) or ended == 0:
        out = f"{outs}/{finished}"
        child, end = run(out), None
        until = time.monotonic() + draw.uniform(0, 0.7 * lasts)
        while killed < int(moments) and time.monotonic() < until:
            time.sleep(0.001)
        ended = 0
        if killed < int(moments):
            ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                os.kill(child, signal.SIGKILL)
                killed += 1
        if not ended:
            ended, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                ended = 0
                continue
        assert status == 0, status
        finished += 1
    print(json.dumps({"killed": killed, "finished": finished}))
"""


def kill_and_compare(model: Path, tmp_path: Path, moments: int) -> None:
    sources = write_mix(tmp_path / "in", 20)
    script = tmp_path / "killer.py"
    script.write_text(KILLER)
    command = [sys.executable, str(script), str(model), str(tmp_path), str(moments), *sources]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["killed"] == moments and said["finished"] >= 1
    expected = rows(tmp_path / "first")  # the one that nothing disturbed
    assert len(expected) == 60
    for number in range(said["finished"]):
        out = tmp_path / str(number)
        assert rows(out) == expected
        assert leftovers(out) == []


@pytest.mark.slow
def test_killed_at_two_moments(model_folder: Path, tmp_path: Path) -> None:
    kill_and_compare(model_folder, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_twenty_moments(model_folder: Path, tmp_path: Path) -> None:
    kill_and_compare(model_folder, tmp_path, 20)


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = write_pictures(tmp_path / "in", 40), tmp_path / "out"
    real = run.write_part
    written = 0

    def then_ctrl_c(results: Path, part: Part) -> Path:
        nonlocal written
        written += 1
        if written == 2:
            signal.raise_signal(signal.SIGTERM)  # here the command takes it for Ctrl-C
        return real(results, part)

    command = ["scan", str(folder), "--out", str(out), "--part-rows", "5", "--workers", "1"]
    command += ["--model", str(model_folder), "--detector", "none", "--batch", "2"]
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_part", then_ctrl_c)
        stopped = CliRunner().invoke(app, command)
    signal.signal(signal.SIGTERM, before)
    assert stopped.exit_code == 130, stopped.output
    # No bar in a pipe: one sentence and nothing else.
    assert stopped.output == (
        f"Stopped: what is finished is in {out}; the same command goes on from there.\n"
    )
    kept = rows(out)
    assert 10 <= len(kept) < 40 and leftovers(out) == []  # the part at hand was not lost
    # As the command has it, with other sizes of what does not decide.
    assert CliRunner().invoke(app, [*command, "--part-rows", "50"]).exit_code == 0
    signal.signal(signal.SIGTERM, before)
    found = rows(out)
    assert len({row["path"] for row in found}) == len(found) == 40
