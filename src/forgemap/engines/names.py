"""names.py: the engines and precisions by name, and what each needs to be installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from ..errors import ModelError

#: What computes a model, and what that is.
ENGINES = {
    "auto": "the fastest that is installed and was proved equal for this model",
    "torch": "PyTorch, with linear layers packed for oneDNN on a CPU",
    "onnx": "ONNX Runtime, from an export",
    "openvino": "OpenVINO, from an export",
}
#: In which numbers it computes.
PRECISIONS = {
    "auto": "the fastest that was proved for this model",
    "fp32": "float32",
    "bf16": "bfloat16 products, float32 sums",
    "int8": "8-bit linear layers and convolutions, calibrated on pictures",
}
#: The package that an engine runs on, and the extra of Forgemap that brings it.
RUNTIMES = {"onnx": ("onnxruntime", "onnx"), "openvino": ("openvino", "openvino")}
#: What writing an export needs: every format is made of an ONNX graph.
WRITERS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}


@dataclass(frozen=True)
class Computed:
    """How a model is computed, for reports and for who goes on with another's results."""

    #: "torch", "onnx" or "openvino".
    engine: str = "torch"
    #: "fp32", "bf16" or "int8".
    precision: str = "fp32"
    #: What else is to be known, such as that linear layers could not be packed; mostly empty.
    note: str = ""

    def __str__(self) -> str:
        return f"{self.engine} in {self.precision}" + (f" ({self.note})" if self.note else "")


def check_names(engine: str, precision: str) -> None:
    """Raises a ModelError that lists the valid names if one of the two is unknown."""
    for kind, name, valid in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
        if name not in valid:
            raise ModelError(f"unknown {kind} {name!r}; valid: {', '.join(valid)}.")


def installed(engine: str) -> bool:
    """Whether the library of an engine is there; nothing is imported."""
    return engine == "torch" or find_spec(RUNTIMES[engine][0]) is not None


def require(engine: str, *modules: str) -> None:
    """A ModelError that names the extra if a module that `engine` needs is not installed."""
    for module in modules or (RUNTIMES[engine][0],):
        if find_spec(module) is None:
            extra = RUNTIMES[engine][1]
            raise ModelError(
                f"the engine {engine} needs {module}, which is not installed: "
                f'pip install "forgemap[{extra}]"'
            )
