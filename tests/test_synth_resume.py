"""synth/compose.py: an interrupted run goes on and ends like one that was never interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .test_synth_compose import camera, content, run

__all__ = ["camera"]  # a fixture


def test_an_interrupted_run_ends_like_an_uninterrupted_one(camera: Path, tmp_path: Path) -> None:
    run(camera, tmp_path / "whole", per_photo=10, untouched=True)
    out = tmp_path / "cut"
    run(camera, out, per_photo=10, untouched=True)
    # As a power cut leaves it: no manifest, half a journal line, a half-written and a lost file.
    (out / "manifest.jsonl").unlink()
    journal = (out / "journal.jsonl").read_text()
    lines = journal.splitlines()
    (out / "journal.jsonl").write_text("\n".join(lines[:25]) + "\n" + lines[25][:40])
    (out / json.loads(lines[3])["image"]).unlink()
    (out / "images" / "half.png.tmp").write_bytes(b"half")
    run(camera, out, per_photo=10, untouched=True)
    assert content(out) == content(tmp_path / "whole")


def test_a_finished_run_is_not_made_again(camera: Path, tmp_path: Path) -> None:
    run(camera, tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "images").iterdir()}
    run(camera, tmp_path / "out")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "images").iterdir()} == before


SCRIPT = """
import sys
from forgemap.synth import synthesize
if __name__ == "__main__":
    photos, out, workers = sys.argv[1:]
    synthesize(photos, out, methods=["splice", "blur"], per_photo=100, workers=int(workers))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stopped_process_leaves_a_run_that_goes_on(
    camera: Path, tmp_path: Path, how: signal.Signals, workers: str
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(camera), str(out), workers]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (out / "journal.jsonl").exists() or len(read_lines(out)) < 3:
        time.sleep(0.02)
    os.killpg(process.pid, how)  # as Ctrl-C in a terminal: the workers get it too
    said = process.communicate(timeout=20)[1]
    assert 3 <= len(read_lines(out)) < 501
    assert not (out / "manifest.jsonl").exists()
    if how is signal.SIGINT:
        assert "the same command goes on" in said
    options = {"methods": ["splice", "blur"], "per_photo": 100}
    run(str(camera), out, **options)
    run(str(camera), tmp_path / "whole", **options)
    assert content(out) == content(tmp_path / "whole")


def read_lines(out: Path) -> list[str]:
    return (out / "journal.jsonl").read_text().splitlines()
