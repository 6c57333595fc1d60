"""onnx_engine.py: ONNX Runtime as an engine, and its int8 quantization."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ModelError
from .fronts import Arrays
from .names import require

MODEL = "model.onnx"


class OnnxRunner:
    """A graph that ONNX Runtime computes on the CPU, with as many threads as torch uses."""

    def __init__(self, folder: Path) -> None:
        require("onnx")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        try:
            self.session: Any = onnxruntime.InferenceSession(
                str(folder / MODEL), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its classes are not public
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"{folder / MODEL}: ONNX Runtime cannot read it ({reason})."
            ) from error
        self.names = [put.name for put in self.session.get_inputs()]

    def __call__(self, inputs: Arrays) -> Arrays:
        outputs: Arrays = self.session.run(None, dict(zip(self.names, inputs, strict=True)))
        return outputs


class _Reader:
    """Gives ONNX Runtime's calibration one picture's inputs after the other."""

    def __init__(self, names: Sequence[str], pictures: Iterable[Arrays]) -> None:
        self.names, self.pictures = names, iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        inputs = next(self.pictures, None)
        return None if inputs is None else dict(zip(self.names, inputs, strict=True))


def quantize(
    source: Path, target: Path, names: Sequence[str], pictures: Iterable[Arrays], skip: str
) -> None:
    """Write an int8 form of the graph `source` as `target`, calibrated on `pictures`.

    Args:
        names: of the graph's inputs.
        pictures: the graph's inputs, picture by picture.
        skip: what stays in float32, a key of `quantize.LADDER`.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as run
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(_Reader, CalibrationDataReader):  # type: ignore[misc]
        pass

    prepared = target.with_name("prepared.onnx")
    # Symbolic shapes are known from the export; onnxruntime's own inference of them is slower.
    quant_pre_process(
        str(source), str(prepared), skip_symbolic_shape=True, save_as_external_data=True
    )
    graph = onnx.load(str(prepared), load_external_data=False).graph
    layers = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    kept: list[str] = []
    if skip in ("ends", "all but linear"):
        kept = [node.name for node in (*layers[:1], *layers[-1:])]
    types = ["MatMul", "Gemm"] if skip == "all but linear" else ["MatMul", "Gemm", "Conv"]
    run(
        str(prepared),
        str(target),
        Reader(names, pictures),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=types,
        nodes_to_exclude=kept,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
        extra_options={"WeightSymmetric": True},
    )
    for left in target.parent.glob("prepared.onnx*"):
        left.unlink()
