"""lean.py: a model folder -> the torch model in bfloat16, in the memory that bfloat16 takes.

The usual way builds the network in float32, maps the file and copies: at its peak ViT-L holds its
weights two and a half times. Here parameters have no memory until they are read, layer by layer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import ModelError
from ..models.bare import build_bare
from ..models.checkpoint import CONFIG, WEIGHTS, load_model
from ..models.strict import describe_shapes, raise_misfits
from ..preprocess import Preprocess
from .packed import PackedLinear, can_pack, packable

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def load_lean(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """As `load_model` on the CPU; matrices and kernels are in bfloat16 and packed.

    Networks that are built with a trial run (backbone "transformers") are loaded the usual way.

    Raises:
        ModelError: as `load_model`.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        plain = config["model"].get("backbone") != "transformers"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        plain = False  # `load_model` says what is wrong
    if not plain or not can_pack():
        return load_model(folder)
    try:
        model: Any = build_bare(config["model"])
        model.preprocess = Preprocess.from_dict(config["preprocess"])
    except (ModelError, KeyError):
        return load_model(folder)
    path = folder / WEIGHTS
    try:
        _check(model, path)
        _fill(model, path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}).") from error
    return model.eval(), config


def _check(model: nn.Module, path: Path) -> None:
    expected = {name: value.shape for name, value in model.state_dict().items()}
    with safe_open(path, framework="pt") as file:
        found = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    raise_misfits(
        str(path),
        missing=expected.keys() - found.keys(),
        unexpected=found.keys() - expected.keys(),
        misshaped=[
            describe_shapes(name, found[name], shape)
            for name, shape in expected.items()
            if name in found and found[name] != shape
        ],
    )


def _fill(model: nn.Module, path: Path) -> None:
    """Give every module its own tensors, packing linear layers as soon as they are there.

    Before it is packed each matrix lies in the same scratch memory: the holes that matrices of
    their own leave behind fit no aligned successor, and a ViT took half as much again.
    """
    names = {id(module): name for name, module in model.named_modules()}
    layers = packable(model)
    most = max((linear.weight.numel() for _, _, linear in layers), default=0)
    scratch = torch.empty(most, dtype=torch.bfloat16)
    while layers:  # taken off the list, so that no matrix outlives its packed form
        parent, name, linear = layers.pop()
        _read(linear, names[id(linear)], path, torch.bfloat16, scratch)
        setattr(parent, name, PackedLinear(linear, torch.bfloat16))
        del linear
    for name, module in model.named_modules():
        _read(module, name, path, torch.bfloat16 if isinstance(module, CONVOLUTIONS) else None)


def _read(
    module: nn.Module,
    prefix: str,
    path: Path,
    dtype: torch.dtype | None,
    scratch: Tensor | None = None,
) -> None:
    """The module's own parameters and saved buffers, from the file, in `dtype` or their own.

    Matrices lie in `scratch`, where it is given, until the next call.

    The file is opened anew for each module: pages that were mapped count until it is closed.
    """
    own = {**module._parameters, **module._buffers}
    wanted = [
        name
        for name, value in own.items()
        if value is not None and name not in module._non_persistent_buffers_set
    ]
    if not wanted:
        return
    with safe_open(path, framework="pt") as file:
        for name in wanted:
            tensor: Tensor = file.get_tensor(f"{prefix}.{name}" if prefix else name)
            old = own[name]
            if scratch is not None and tensor.ndim == 2:
                tensor = scratch[: tensor.numel()].view(tensor.shape).copy_(tensor)
            else:
                tensor = tensor.to(dtype or (None if old is None else old.dtype), copy=True)
            if name in module._parameters:
                module._parameters[name] = nn.Parameter(tensor, requires_grad=False)
            else:
                module._buffers[name] = tensor
