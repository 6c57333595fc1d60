"""formats.py: an ONNX graph -> the files of an export, in each format and precision."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import ModelError
from . import onnx_engine, openvino_engine
from .fronts import Arrays
from .names import WRITERS, require

#: int8 is tried in these steps, each of which leaves more in float32; the first one whose
#: pictures pass is kept.
LADDER = {
    "": "nothing",
    "ends": "the first and the last layer",
    "all but linear": "every convolution: linear layers alone are in int8",
}


def check_format(kind: str, precision: str) -> None:
    """Raises a ModelError for a format or precision that cannot be written here."""
    if kind not in WRITERS:
        raise ModelError(f"unknown format {kind!r}; valid: {', '.join(WRITERS)}, torch.")
    if precision not in ("fp32", "bf16", "int8"):
        raise ModelError(f"unknown precision {precision!r} of an export; valid: fp32, bf16, int8.")
    require(kind, *WRITERS[kind])
    if precision == "bf16":
        if kind == "onnx":
            raise ModelError(
                "ONNX Runtime computes no bfloat16 on a CPU: use --format openvino for it."
            )
        if not openvino_engine.has_bf16():
            raise ModelError(
                "this processor has no bfloat16 (avx512_bf16 or amx), so that a bf16 export "
                "cannot be checked here; use fp32 or int8."
            )


def steps(precision: str) -> Iterator[str]:
    """What is left out of a reduced precision, attempt by attempt."""
    yield from LADDER if precision == "int8" else [""]


def write_files(
    graph: Path,
    folder: Path,
    kind: str,
    precision: str,
    names: Sequence[str],
    pictures: Iterable[Arrays],
    skip: str,
) -> None:
    """Fill `folder` with the files of an export.

    Args:
        graph: the float32 ONNX graph, with its weights beside it.
        kind, precision: see `names`.
        names: of the graph's inputs.
        pictures: the graph's inputs for calibration; used for int8 alone.
        skip: a key of `LADDER`.
    """
    if kind == "onnx":
        target = folder / onnx_engine.MODEL
        if precision == "int8":
            onnx_engine.quantize(graph, target, names, pictures, skip)
        else:
            for file in graph.parent.glob(f"{graph.name}*"):
                shutil.copyfile(file, folder / file.name)
        return
    target = folder / openvino_engine.MODEL
    if precision == "int8":
        openvino_engine.quantize(graph, target, names, pictures, skip)
    else:
        openvino_engine.convert(graph, target, half=precision == "bf16")
