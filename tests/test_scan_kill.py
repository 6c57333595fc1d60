"""scan: ended by SIGKILL at random moments and started again, it ends with the same rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forgemap.scan import scan
from forgemap.scan.parts import part_files

from .scanning import leftovers, rows, settings, write_mix, write_pictures

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


def test_killed_at_two_moments(model_folder: Path, tmp_path: Path) -> None:
    kill_and_compare(model_folder, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_twenty_moments(model_folder: Path, tmp_path: Path) -> None:
    kill_and_compare(model_folder, tmp_path, 20)


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(
    model_folder: Path, tmp_path: Path
) -> None:
    folder, out = write_pictures(tmp_path / "in", 400), tmp_path / "out"
    command = [sys.executable, "-m", "forgemap", "scan", str(folder), "--out", str(out)]
    command += ["--model", str(model_folder), "--detector", "none", "--part-rows", "10"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not part_files(out):
        assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130, said
    assert said.count("\n") == 1 and "the same command goes on from there" in said
    kept = rows(out)
    assert 10 <= len(kept) < 400 and leftovers(out) == []
    outcome = scan([str(folder)], out, settings(model_folder, part_rows=50), progress=False)
    assert outcome.before == len(kept) and outcome.pictures == 400 - len(kept)
    assert len({row["path"] for row in rows(out)}) == len(rows(out)) == 400
