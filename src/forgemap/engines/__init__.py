"""engines: what computes a model: torch, ONNX Runtime or OpenVINO, behind one name.

`load` gives an object that stands in for the torch model: the same attributes, the same call.
"""

from __future__ import annotations

from .names import ENGINES, PRECISIONS
from .select import Loaded, load

__all__ = ["ENGINES", "PRECISIONS", "Loaded", "load"]
