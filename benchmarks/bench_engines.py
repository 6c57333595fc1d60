"""bench_engines.py: DeCLIP's published network by every engine, beside its literal original.

python -m benchmarks.bench_engines [speed] [memory] [start] [--quick] [--keep FOLDER] [--out FILE]

With --keep a run that was stopped goes on: what was exported or measured is not done again. The
published network's run takes minutes of tracing and calibration and then some ten of measuring.
`cases` has the short form for `python -m benchmarks`: a small network, without int8.

speed: all engines in turns in one process, CPU time on one thread, ratio to the literal network.
memory: peak resident memory of `forgemap analyze` by each engine, each in a process of its own.
start: wall and CPU time of `forgemap analyze` on one small picture with the bundled default.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.engine_sides import EXPORTS, engines_of, original, prepare
from benchmarks.literal_declip import LiteralDeclip
from benchmarks.timing import Case
from forgemap.engines.names import WRITERS, installed
from forgemap.engines.packed import has_bf16
from forgemap.evaluate.facts import machine

LIMITS = {"openvino bf16": 1.1, "openvino int8": 0.8}
"""Gigabytes that issue 5 promises."""
ORIGINAL = "the literal original, 24 blocks"


@torch.inference_mode()
def speed(folder: Path, quick: bool, rounds: int) -> list[dict[str, Any]]:
    """One row for each engine and batch: median CPU seconds, ratio with quartiles, difference."""
    prepare(folder, quick)
    literal = original(quick)
    models = {ORIGINAL: literal, **engines_of(folder)}
    rows = []
    for batch in (1, 4):
        images = torch.randn(batch, 3, 224, 224)
        expected = literal(images).reshape(batch, -1).sigmoid()
        apart = {
            name: 0.0 if model is literal else _apart(model(images).mask, expected)
            for name, model in models.items()
        }
        times: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(rounds):
            order = list(models)
            for name in order if turn % 2 else reversed(order):
                begin = time.process_time()
                models[name](images)
                times[name].append(time.process_time() - begin)
        for name, own in times.items():
            ratios = [a / b for a, b in zip(times[ORIGINAL], own, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            rows.append(
                {
                    "engine": name,
                    "batch": batch,
                    "seconds": statistics.median(own),
                    "ratio": middle,
                    "ratio_low": low,
                    "ratio_high": high,
                    "largest_difference": apart[name],
                    "rounds": rounds,
                }
            )
    return rows


def _apart(mask: Tensor, expected: Tensor) -> float:
    return float((mask.reshape(expected.shape).sigmoid() - expected).abs().max())


def memory(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Peak resident memory, in GB, of `forgemap analyze` on one picture, engine by engine."""
    prepare(folder, quick)
    photo = folder / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (375, 500, 3), np.uint8)).save(photo)
    cases = {
        f"{kind} {precision}": [str(folder / f"{kind}-{precision}")] for kind, precision in EXPORTS
    }
    for precision in ("fp32", "bf16") if has_bf16() else ("fp32",):
        model = [str(folder / "model"), "--engine", "torch", "--precision", precision]
        cases[f"torch {precision}"] = model
    rows = []
    for name, arguments in cases.items():
        used = run(
            ["analyze", str(photo), "--no-files", "--detector", "none", "--model", *arguments]
        )
        rows.append({"engine": name, "limit_gb": LIMITS.get(name), **used})
    return rows


def start(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """`forgemap analyze` of one small picture, from shell to shell, the first run left out."""
    photo = folder / "small.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)).save(photo)
    runs = [run(["analyze", str(photo), "--no-files"]) for _ in range(rounds + 1)][1:]
    walls = [used["wall_seconds"] for used in runs]
    return [
        {
            "wall_seconds": statistics.median(walls),
            "fastest_wall": min(walls),
            "cpu_seconds": statistics.median(used["cpu_seconds"] for used in runs),
            "peak_gb": max(used["peak_gb"] for used in runs),
            "limit_seconds": 3.0,
        }
    ]


class Short:
    """The small network's sides, made when the first of them is asked for."""

    @cached_property
    def folder(self) -> Path:
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        prepare(folder, quick=True, exports=short_exports())
        return folder

    @cached_property
    def images(self) -> Tensor:
        torch.manual_seed(1)
        return torch.randn(4, 3, 224, 224)

    @cached_property
    def literal(self) -> LiteralDeclip:
        return original(quick=True)

    @cached_property
    def models(self) -> dict[str, Callable[[Tensor], Any]]:
        return engines_of(self.folder, short_exports())

    @torch.inference_mode()
    def ours(self, name: str) -> Any:
        return self.models[name](self.images).mask

    @torch.inference_mode()
    def theirs(self) -> Tensor:
        answer: Tensor = self.literal(self.images)
        return answer

    def check(self, name: str) -> None:
        """In float32 the probabilities are equal; a lower precision of random weights is near."""
        expected = self.theirs()
        apart = _apart(self.ours(name), expected.reshape(len(expected), -1).sigmoid())
        limit = 1e-3 if "bf16" not in name else 0.1
        if not apart <= limit:
            raise AssertionError(f"{name}: probabilities differ by up to {apart:.2g}")


def short_exports() -> list[tuple[str, str]]:
    """Float32 by the engines that can be written here; bf16 where the processor has it."""
    kinds = [(kind, "fp32") for kind in WRITERS if installed(kind) and find_spec("onnxscript")]
    if has_bf16() and ("openvino", "fp32") in kinds:
        kinds.append(("openvino", "bf16"))
    return kinds


def cases(quick: bool) -> list[Case]:
    """A small network by each engine beside its literal form; the same with and without --quick."""
    short = Short()
    names = ["the same, packed linear layers", *(["torch bf16"] if has_bf16() else [])]
    names += [f"{kind} {precision}" for kind, precision in short_exports()]

    def case(name: str) -> Case:
        title = name.replace("the same, packed linear layers", "torch fp32, packed")
        return Case(
            f"DeCLIP, 4 pictures, small ViT conv-20, {title}",
            lambda: short.ours(name),
            short.theirs,
            lambda: short.check(name),
            None,
        )

    return [case(name) for name in names]


# The process itself says how much memory it had at most: what the kernel tells its parent
# (ru_maxrss) is at least what the parent held when it started it.
CHILD = """
import atexit, sys
def peak():
    lines = open("/proc/self/status").read().splitlines()
    sys.stderr.write(next(line for line in lines if line.startswith("VmHWM")) + chr(10))
atexit.register(peak)
from forgemap.cli import main
sys.argv = ["forgemap", *sys.argv[1:]]
main()
"""


def run(arguments: list[str]) -> dict[str, float]:
    """`forgemap` in a process of its own: peak GB, wall and CPU seconds; its error is an error."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        raise SystemExit(f"forgemap {' '.join(arguments)}: {done.stderr}")
    return {
        "peak_gb": int(re.findall(r"VmHWM:\s+(\d+) kB", done.stderr)[-1]) * 1024 / 1e9,
        "wall_seconds": wall,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help="speed, memory, start; all if none is named")
    parser.add_argument("--quick", action="store_true", help="a small network")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="folder for the network and its exports")
    parser.add_argument("--out", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = arguments.what or ["speed", "memory", "start"]
    folder = arguments.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    size = "quick" if arguments.quick else "published"
    journal = folder / f"measured-{size}.json"
    rows: dict[str, Any] = json.loads(journal.read_text()) if journal.is_file() else {}
    rows = {**machine(), "load": os.getloadavg()[0], **rows}
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "start": lambda: start(folder, arguments.rounds),
        "speed": lambda: speed(folder, arguments.quick, arguments.rounds),
        "memory": lambda: memory(folder, arguments.quick),
    }
    try:
        for name in [name for name in parts if name in chosen]:
            if name not in rows:
                rows[name] = parts[name]()
                written(journal, rows)
            for row in rows[name]:
                print(LINES[name].format(**row), flush=True)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)
    if arguments.out:
        written(arguments.out, rows)


LINES = {
    "start": "start: {cpu_seconds:.2f} CPU s, {wall_seconds:.2f} s wall (fastest "
    "{fastest_wall:.2f}), {peak_gb:.2f} GB",
    "speed": "{engine:34} batch {batch}  {seconds:8.3f} s  {ratio:5.2f}x "
    "({ratio_low:.2f} - {ratio_high:.2f})  {largest_difference:.1e}",
    "memory": "{engine:20} {peak_gb:6.2f} GB  {cpu_seconds:6.1f} CPU s",
}


def written(path: Path, rows: dict[str, Any]) -> None:
    """As JSON, whole or not at all."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(rows, indent=1) + "\n")
    os.replace(beside, path)


if __name__ == "__main__":
    main()
