"""packed.py: the torch engine: linear layers packed for oneDNN, bfloat16 where the machine has it.

On AMD, MKL's float32 product, which torch's linear layers call, is slower than oneDNN's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..models.embedder import Embedder
from ..models.gradcam import GradCamDecoder
from ..models.stems import SpectrumStem
from .folded import fold


class PackedLinear(nn.Module):
    """`nn.Linear` whose matrix lies as oneDNN wants it: the same product, inference only."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        # Not buffers: the layout is this machine's, and nothing can save or cast it.
        weight = linear.weight.detach().to(dtype).contiguous()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.bias = None if linear.bias is None else linear.bias.detach().to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features) in the layer's own number format."""
        with torch.no_grad():
            product: Tensor = torch.ops.mkldnn._linear_pointwise(
                x.to(self.dtype), self.packed, self.bias, "none", [], ""
            )
        return product


def can_pack() -> bool:
    """Whether this torch and this processor multiply packed matrices; tried, not guessed."""
    mkldnn: Any = torch.backends.mkldnn
    if not mkldnn.is_available():
        return False
    layer = nn.Linear(4, 3)
    try:
        with torch.inference_mode():
            return torch.allclose(PackedLinear(layer)(torch.ones(2, 4)), layer(torch.ones(2, 4)))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware."""
    cpu: Any = torch.cpu
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(cpu, name, bool)() for name in names)


def packable(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """The linear layers that can be replaced, each with its parent and its name there.

    What reads its layers' matrices itself stays as it is: torch's own attention and encoder
    layers, and Grad-CAM's classifier. A stem of spectra has one layer, which gains nothing.
    """
    readers = (nn.MultiheadAttention, nn.TransformerEncoderLayer, GradCamDecoder, SpectrumStem)
    return [
        (module, name, child)
        for module in model.modules()
        if not isinstance(module, readers)
        for name, child in module.named_children()
        # Heads of one output gain nothing.
        if type(child) is nn.Linear and child.out_features >= 16
    ]


def pack(model: nn.Module, dtype: torch.dtype = torch.float32) -> int:
    """Replace the `packable` layers of `model` in place; how many there were."""
    layers = packable(model)
    count = len(layers)
    while layers:  # taken off the list, so that no matrix outlives its packed form
        module, name, linear = layers.pop()
        setattr(module, name, PackedLinear(linear, dtype))
        del linear
    return count


def unpacked(model: nn.Module, device: torch.device) -> str:
    """A clause on linear layers that stay in torch's plain layout on a CPU; empty if none does."""
    count = len(packable(model)) if device.type == "cpu" else 0
    return f"{count} linear layers not packed: this torch or processor cannot" if count else ""


class LowPrecision(nn.Module):
    """A torch model that multiplies in bfloat16; its attributes are the model's own."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        if device.type == "cpu":
            if not has_bf16():
                raise ModelError(
                    "precision bf16: this processor has no bfloat16 (avx512_bf16 or amx)."
                )
            if can_pack():
                pack(model, torch.bfloat16)
        self.model = model
        self.kind = device.type

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def embed(self, pixels: np.ndarray, crops: str = "centre") -> Tensor:
        """As `Embedder.embed`, where the model is one."""
        return Embedder.embed(self, pixels, crops)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Any:
        """As the model, with its outputs in float32."""
        with torch.autocast(self.kind, torch.bfloat16):
            output = self.model(images)
        if isinstance(output, Tensor):
            return output.float()
        return type(output)(*(None if part is None else part.float() for part in output))


def accelerate(model: nn.Module, precision: str, device: torch.device) -> nn.Module:
    """The torch engine's form of a model in eval mode, changed in place.

    Raises:
        ModelError: a precision that torch, or this machine, does not offer.
    """
    if precision == "int8":
        raise ModelError(
            "precision int8 needs an export: forgemap export MODEL --format openvino "
            "--precision int8 --calibrate FOLDER"
        )
    if device.type == "cuda" and not getattr(model, "native", False):
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fold(model)
    if precision == "bf16":
        return LowPrecision(model, device)
    if device.type == "cpu" and can_pack():
        pack(model)
    return model
