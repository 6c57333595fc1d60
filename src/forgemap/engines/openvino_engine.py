"""openvino_engine.py: OpenVINO as an engine, and NNCF's int8 quantization.

Intel's packages report their use over the network when they are imported, unless told otherwise.
Here they never do: the module that would is kept from being loaded, which they allow for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ModelError
from .fronts import Arrays
from .names import require
from .resident import MappedFile

MODEL, WEIGHTS = "model.xml", "model.bin"


def silent() -> Any:
    """The module openvino, imported without telemetry."""
    require("openvino")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def has_bf16() -> bool:
    """Whether OpenVINO multiplies bfloat16 in hardware here."""
    return "BF16" in silent().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoRunner:
    """A graph that OpenVINO computes on the CPU, with as many threads as torch uses.

    Args:
        folder: holds model.xml and model.bin, which is mapped, not read.
        precision: "bf16" and "int8" let what is not int8 be computed in bfloat16 where the
            processor has it.
    """

    def __init__(self, folder: Path, precision: str) -> None:
        openvino = silent()
        core = openvino.Core()
        low = precision != "fp32" and "BF16" in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        )
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            # Constants of the graph share the mapping, which lives as long as the compiled graph.
            self.weights = MappedFile(folder / WEIGHTS)
            graph = core.read_model(
                (folder / MODEL).read_text(encoding="utf-8"),
                openvino.Tensor(self.weights.bytes, shared_memory=True),
            )
            with self.weights.released():
                self.compiled: Any = core.compile_model(graph, "CPU", hints)
        except (OSError, ValueError, RuntimeError) as error:
            reason = _reason(error)
            raise ModelError(f"{folder / MODEL}: OpenVINO cannot read it ({reason}).") from error
        self.packed = False
        self.request = self.compiled.create_infer_request()

    def __call__(self, inputs: Arrays) -> Arrays:
        if not self.packed:  # of dynamic graphs, many layers only pack when they first run
            with self.weights.released():
                outputs = self.request.infer(inputs)
            self.packed = True
        else:
            outputs = self.request.infer(inputs)
        return [np.array(outputs[port]) for port in self.compiled.outputs]


def convert(source: Path, target: Path, *, half: bool) -> None:
    """An ONNX file -> OpenVINO's IR; `half` stores weights in 16 bits."""
    openvino = silent()
    model = openvino.Core().read_model(str(source))
    openvino.save_model(model, str(target), compress_to_fp16=half)


def quantize(
    source: Path, target: Path, names: Sequence[str], pictures: Iterable[Arrays], skip: str
) -> None:
    """Write an int8 form of the ONNX graph `source` as `target`, calibrated on `pictures`.

    Args:
        names: of the graph's inputs.
        pictures: the graph's inputs, picture by picture.
        skip: what stays in float32, a key of `quantize.LADDER`.
    """
    openvino = silent()
    require("openvino", "nncf")
    import nncf

    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(str(source))
    layers = [
        op for op in model.get_ordered_ops() if op.get_type_name() in ("Convolution", "MatMul")
    ]
    names_of = [op.get_friendly_name() for op in layers]
    ignored = None
    if skip == "ends":
        ignored = nncf.IgnoredScope(names=[names_of[0], names_of[-1]])
    elif skip == "all but linear":
        ends = names_of[-1:] if layers[-1].get_type_name() == "MatMul" else []
        ignored = nncf.IgnoredScope(names=ends, types=["Convolution"], validate=False)
    feeds = [dict(zip(names, inputs, strict=True)) for inputs in pictures]
    transformer = any(
        op.get_type_name() in ("Softmax", "ScaledDotProductAttention")
        for op in model.get_ordered_ops()
    )
    quantized = nncf.quantize(
        model,
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        ignored_scope=ignored,
    )
    openvino.save_model(quantized, str(target), compress_to_fp16=True)


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message that says something: the first ones name its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
