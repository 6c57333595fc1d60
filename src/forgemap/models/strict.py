"""strict.py: tensors from a file without running code, and into a model only if all of them fit."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import ModelError


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, on the CPU, and its metadata; a ModelError if missing or corrupt."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}).") from error


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, if it is tensors and plain values; otherwise a ModelError."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file.")
    try:
        with warnings.catch_warnings():  # about formats that are refused just below
            warnings.simplefilter("ignore")
            # Of a zip archive, only what is used is read.
            lazily = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except Exception as error:  # a corrupt pickle raises anything
        culprit = re.search(r"GLOBAL (\S+)|TorchScript", str(error))
        if culprit is None:
            raise ModelError(f"{path}: corrupt, or not written by torch.save.") from error
        raise ModelError(
            f"{path}: cannot be read without running code ({culprit[1] or culprit[0]}), which "
            "Forgemap never does; save its state dict as safetensors."
        ) from error


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy `tensors` into `model`; a missing, unexpected or mis-shaped one is a ModelError.

    A model whose parameters have no memory (see `bare`) gets them here.
    """
    expected = model.state_dict()
    raise_misfits(
        source,
        missing=expected.keys() - tensors.keys(),
        unexpected=tensors.keys() - expected.keys(),
        misshaped=[
            describe_shapes(name, tensors[name].shape, value.shape)
            for name, value in expected.items()
            if name in tensors and tensors[name].shape != value.shape
        ],
    )
    if not any(parameter.is_meta for parameter in model.parameters()):
        model.load_state_dict(dict(tensors))
        return
    # Copies, not views of a mapped file: it may be replaced while the model lives.
    own = {name: tensors[name].to(value.dtype, copy=True) for name, value in expected.items()}
    model.load_state_dict(own, assign=True)


def describe_shapes(name: str, found: torch.Size, expected: torch.Size) -> str:
    """For an error: the tensor's name, its shape and the one it should have."""
    return f"{name} is {tuple(found)}, not {tuple(expected)}"


def raise_misfits(
    source: str,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    misshaped: Iterable[str] = (),
    shown: int = 3,
) -> None:
    """Raise one ModelError that names the tensors that do not fit (the first of each kind)."""
    kinds = {"missing": missing, "unexpected": unexpected, "mis-shaped": misshaped}
    faults = []
    for kind, names in kinds.items():
        if ordered := sorted(names):
            more = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
            faults.append(f"{kind} {', '.join(ordered[:shown])}{more}")
    if faults:
        raise ModelError(f"{source}: the weights do not fit the model: {'; '.join(faults)}.")
