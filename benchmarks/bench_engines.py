"""bench_engines.py: DeCLIP's published network by every engine, beside its literal original.

python -m benchmarks.bench_engines [speed] [memory] [start] [--quick] [--keep FOLDER] [--out FILE]

speed: all engines in turns in one process, CPU time on one thread, ratio to the literal network.
memory: peak resident memory of `forgemap analyze` by each engine, each in a process of its own.
start: wall and CPU time of `forgemap analyze` on one small picture with the bundled default.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.literal_declip import LiteralDeclip
from forgemap.engines.exported import Exported, open_export
from forgemap.engines.formats import write_files
from forgemap.engines.fronts import cut, traits_of
from forgemap.engines.graph import write_graph
from forgemap.engines.packed import accelerate, has_bf16
from forgemap.engines.record import Export, Parity
from forgemap.engines.samples import sample_photos
from forgemap.evaluate.facts import machine
from forgemap.image import load_image
from forgemap.models.checkpoint import load_model, save_model
from forgemap.models.ledger import sha256_of
from forgemap.models.published import read_published

QUICK = {"width": 128, "blocks": 4, "heads": 2, "layer": 2, "channels": (16, 16, 8, 8), "depth": 1}
EXPORTS = (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))
LIMITS = {"openvino bf16": 1.1, "openvino int8": 0.8}
"""Gigabytes that issue 5 promises."""
CPU = torch.device("cpu")
ORIGINAL = "the literal original, 24 blocks"


def original(quick: bool) -> LiteralDeclip:
    """The literal network, the same tensors at every call."""
    torch.manual_seed(0)
    return LiteralDeclip(**(QUICK if quick else {})).eval()


def prepare(folder: Path, quick: bool) -> None:
    """Ours of the literal network's tensors, and its exports, each in its folder; once."""
    if (folder / "int8" / "done").exists():
        return
    literal = original(quick)
    model = read_published(literal.checkpoint(), heads=literal.sizes["heads"]).eval()
    save_model(model, folder / "model")
    parts = cut(model)
    (folder / "graph").mkdir(exist_ok=True)
    graph = folder / "graph" / "model.onnx"
    write_graph(parts, torch.randn(2, 3, 224, 224), graph)
    photos = [model.preprocess(load_image(path).pixels).numpy() for path in sample_photos()]
    config = (folder / "model" / "config.json").read_text()
    for kind, precision in EXPORTS:
        target = folder / f"{kind}-{precision}"
        target.mkdir(exist_ok=True)
        feeds = ([photo] for photo in photos)
        write_files(graph, target, kind, precision, parts.front.inputs, feeds, "")
        files = {file.name: sha256_of(file) for file in target.iterdir()}
        # Random weights: what a record would prove of them means nothing, so none is claimed.
        unproved = Parity(0, "random weights", 0.0)
        made = Export(kind, precision, "", files, unproved, 1.0, traits=traits_of(model))
        (target / "export.json").write_text(made.to_json())
        (target / "config.json").write_text(config)
    (folder / "int8").mkdir()
    (folder / "int8" / "done").touch()


def engines_of(folder: Path) -> dict[str, Callable[[Tensor], Any]]:
    """Every engine's model by name."""
    models: dict[str, Callable[[Tensor], Any]] = {
        "21 blocks, SDPA, torch fp32": load_model(folder / "model")[0],
        "the same, packed linear layers": accelerate(load_model(folder / "model")[0], "fp32", CPU),
    }
    if has_bf16():
        models["torch bf16"] = accelerate(load_model(folder / "model")[0], "bf16", CPU)
    for kind, precision in EXPORTS:
        models[f"{kind} {precision}"] = opened(folder / f"{kind}-{precision}")
    return models


def opened(folder: Path) -> Exported:
    """An export without the check of its files, which is not what is measured."""
    from forgemap.engines.record import read_export
    from forgemap.preprocess import Preprocess

    config = json.loads((folder / "config.json").read_text())
    return open_export(folder, read_export(folder), Preprocess.from_dict(config["preprocess"]))


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
    rows: dict[str, Any] = {**machine(), "load": os.getloadavg()[0]}
    try:
        if "start" in chosen:
            rows["start"] = start(folder, arguments.rounds)
            print(json.dumps(rows["start"], indent=1))
        if "speed" in chosen:
            rows["speed"] = speed(folder, arguments.quick, arguments.rounds)
            for row in rows["speed"]:
                print(
                    "{engine:34} batch {batch}  {seconds:8.3f} s  {ratio:5.2f}x "
                    "({ratio_low:.2f} - {ratio_high:.2f})  {largest_difference:.1e}".format(**row)
                )
        if "memory" in chosen:
            rows["memory"] = memory(folder, arguments.quick)
            for row in rows["memory"]:
                print("{engine:20} {peak_gb:6.2f} GB  {cpu_seconds:6.1f} CPU s".format(**row))
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
