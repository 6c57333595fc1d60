"""bench_process.py: whole processes: what a start costs, and how much memory a large picture takes.

Children are started one by one. Their CPU time is what the kernel says of them; their peak memory
they say themselves: what the kernel says of a child is at least what its parent held.
"""

from __future__ import annotations

import atexit
import re
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import torch
from PIL import Image

from benchmarks.timing import Case
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model

#: Comes before a child's code: at its end it writes its peak memory, in kB, to stderr.
SAY_PEAK = """
import atexit, sys
def say_peak():
    lines = open("/proc/self/status").read().splitlines()
    sys.stderr.write(next(line for line in lines if line.startswith("VmHWM")) + chr(10))
if sys.platform == "linux":
    atexit.register(say_peak)
"""
LIBRARIES = "import torch, numpy, cv2, PIL.Image"
START = """
import runpy
sys.argv = ["forgemap", "analyze", {picture!r}, "--no-files"]
try:
    runpy.run_module("forgemap", run_name="__main__")
except SystemExit as end:  # 1: the picture is judged manipulated or generated
    assert end.code in (0, 1)
"""
LARGE = 10_000  # pixels of a side: 100 megapixels
#: The picture is made in the process itself: to decode a file of that size is another matter.
LOOK = """
import numpy as np
from forgemap.detector import Detector
detector = Detector.load({model!r}, windows={windows!r})
pixels = np.random.default_rng(0).integers(0, 255, ({side}, {side}, 3), dtype=np.uint8)
assert detector.analyze(pixels).heat.shape == ({side}, {side})
"""


class Child:
    """A Python process that is run again and again; remembers its longest and largest run."""

    def __init__(self, code: str) -> None:
        self.code = SAY_PEAK + code
        self.seconds = self.megabytes = 0.0

    def __call__(self) -> None:
        begin = time.perf_counter()
        arguments = [sys.executable, "-c", self.code]
        run = subprocess.run(arguments, check=False, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"exit code {run.returncode}: {run.stderr.strip()}")
        self.seconds = max(self.seconds, time.perf_counter() - begin)
        for kilobytes in re.findall(r"VmHWM:\s*(\d+)", run.stderr):
            self.megabytes = max(self.megabytes, int(kilobytes) * 1024 / 1e6)


def cases(quick: bool) -> list[Case]:
    """The start on a small picture; and 100 megapixels through windows of a small CLIP model."""
    return [_start(rounds=2)] if quick else [_start(rounds=3), _windows()]


def _start(rounds: int) -> Case:
    picture = _folder() / "small.png"
    Image.new("RGB", (256, 256), (90, 120, 60)).save(picture)
    ours = Child(START.format(picture=str(picture)))
    libraries = Child(LIBRARIES)
    return Case(
        "forgemap analyze, one small picture / importing its libraries",
        ours,
        libraries,
        libraries,  # reads what is on disk
        None,
        rounds=rounds,
        note=lambda: f"{ours.seconds:.1f} s at worst, {ours.megabytes:.0f} MB",
    )


def _windows() -> Case:
    def child(windows: str | None) -> Child:
        return Child(LOOK.format(model=str(_model()), windows=windows, side=LARGE))

    ours, whole = child("mean:4,8"), child(None)
    return Case(
        "100 MP, small CLIP, windows mean:4,8 / the whole picture alone",
        ours,
        whole,
        whole,
        None,
        rounds=1,  # it is the memory that is asked for
        note=lambda: f"{ours.megabytes:.0f} MB, alone {whole.megabytes:.0f}",
    )


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="forgemap-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _model() -> Path:
    """DeCLIP with a small ViT of random weights."""
    torch.manual_seed(0)
    sizes = {"width": 64, "heads": 1, "layers": 2, "layer": "layer1", "channels": [8, 8, 8, 8]}
    network = build({"architecture": "declip", "backbone": "vit", "decoder": "conv-4", **sizes})
    return save_model(network, _folder() / "model")
