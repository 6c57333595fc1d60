"""exported.py: an export that stands in for the torch model: same attributes, same call."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from ..models.embedder import Embedder
from ..preprocess import Preprocess
from .fronts import Arrays, front_of
from .record import Export


class Runner(Protocol):
    """A compiled graph: its inputs in their order -> its outputs in theirs."""

    def __call__(self, inputs: Arrays) -> Arrays: ...


class Exported:
    """Called as the torch model is: images (B, 3, H, W) float32 -> its outputs, on the CPU."""

    def __init__(self, runner: Runner, export: Export, preprocess: Preprocess) -> None:
        self.runner = runner
        self.export = export
        self.preprocess = preprocess
        self.front = front_of(export.traits)
        self.native = bool(export.traits["native"])
        #: As the torch model's; at least its architecture.
        self.config: dict[str, Any] = {"architecture": export.traits["architecture"]}
        for name in ("stride", "reach", "width", "image_size"):
            if name in export.traits:
                setattr(self, name, export.traits[name])

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Any:
        tensors = self.front.before(images.float().cpu())
        arrays = [np.ascontiguousarray(tensor.numpy()) for tensor in tensors]
        return self.front.after(self.runner(arrays), images)

    def to(self, *_: Any, **__: Any) -> Exported:
        """An export stays where it is, in its own layout."""
        return self

    def eval(self) -> Exported:
        """It knows no other mode."""
        return self


class ExportedEmbedder(Exported):
    """Stands in for `Embedder`: `embed`, `width`, `image_size` and `fingerprint` as there."""

    class_token = torch.zeros(0)  # says which device it is on
    embed = Embedder.embed

    def fingerprint(self) -> str:
        """Of the torch model that it was made of."""
        return str(self.export.traits["fingerprint"])


def open_export(folder: Path, export: Export, preprocess: Preprocess) -> Exported:
    """The compiled export of a folder whose files were checked.

    Raises:
        ModelError: its engine is not installed or cannot read it.
    """
    runner: Runner
    if export.format == "onnx":
        from .onnx_engine import OnnxRunner

        runner = OnnxRunner(folder)
    elif export.format == "openvino":
        from .openvino_engine import OpenVinoRunner

        runner = OpenVinoRunner(folder, export.precision)
    else:
        raise ModelError(f"{folder}: unknown format {export.format!r} of an export.")
    kind = ExportedEmbedder if export.traits["architecture"] == "embedder" else Exported
    return kind(runner, export, preprocess)
