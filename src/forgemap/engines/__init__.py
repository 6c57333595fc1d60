"""engines: what computes a model: torch, ONNX Runtime or OpenVINO, behind one name.

`load` gives an object that stands in for the torch model: the same attributes, the same call.
"""

from __future__ import annotations

from .names import ENGINES, PRECISIONS, Computed
from .select import Loaded, load, load_embedder

__all__ = ["ENGINES", "PRECISIONS", "Computed", "Loaded", "load", "load_embedder"]
