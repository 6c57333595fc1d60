"""graph.py: a torch model -> an ONNX file with a dynamic batch and, if native, dynamic sizes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from .fronts import Cut

OPSET = 18
"""The oldest that has antialias-free `Resize` as torch's bilinear and bicubic need it."""


@contextmanager
def quiet() -> Iterator[None]:
    """The exporter speaks of libraries that are not needed (torchvision) and of its own changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def write_graph(cut: Cut, example: Tensor, path: Path) -> None:
    """Trace the core of a model and write it; weights lie beside it in `path`.data.

    Args:
        cut: see `fronts.cut`.
        example: (B, 3, H, W), B at least 2; native models: odd sizes that are not all alike.

    Raises:
        ModelError: the model cannot be traced, or its batch would be fixed.
    """
    dynamic: Any = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        inputs = tuple(cut.front.before(example))
    shapes = tuple(dict.fromkeys((0, *cut.front.free), dynamic) for _ in inputs)
    try:
        with quiet():
            traced = torch.export.export(cut.core, inputs, dynamic_shapes=shapes, strict=False)
            program: Any = torch.onnx.export(
                traced,
                (),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(cut.front.inputs),
                output_names=list(cut.front.outputs),
            )
            fixed = [i.name for i in program.model.graph.inputs if isinstance(i.shape[0], int)]
            program.save(str(path), external_data=True)
    except Exception as error:  # the exporter fails in its own ways
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[0].strip().rstrip(".:") if lines else type(error).__name__
        raise ModelError(f"the model cannot be exported to ONNX ({reason}).") from error
    if fixed:
        raise ModelError("the model cannot be exported to ONNX: its batch would be fixed.")
