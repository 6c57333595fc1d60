"""Loading a transformer in bfloat16 takes the memory of its bfloat16 weights, and little more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from forgemap.engines.packed import can_pack, has_bf16
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model

VIT = {"architecture": "declip", "backbone": "vit", "width": 512, "layers": 12, "heads": 8}
VIT |= {"layer": "layer11", "decoder": "conv-4", "channels": [8, 8, 8, 8]}
# What is imported anyway is imported first: it is another matter than the weights.
CHILD = """
import sys
import torch
from transformers import CLIPVisionModel
from forgemap.engines.lean import load_lean
from forgemap.engines.packed import PackedLinear, can_pack

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

assert can_pack()
before = peak()
model, _ = load_lean(sys.argv[1])
packed = sum(type(module) is PackedLinear for module in model.modules())
print(packed, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not has_bf16() or not can_pack(), reason="no packed bfloat16 here")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_second_copy_of_the_weights_is_ever_held(tmp_path: Path):
    torch.manual_seed(0)
    folder = save_model(build(VIT), tmp_path / "vit")
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    child = CHILD.replace("sys.argv[1]", f"__import__('pathlib').Path({str(folder)!r})")
    run = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
    weights.unlink()  # it is large
    assert run.returncode == 0, run.stderr
    packed, growth = map(int, run.stdout.split())
    assert packed == 6 * 12
    # Half of the float32 file. A matrix of its own for each layer, unpacked, made it .71.
    assert growth < 0.65 * size
