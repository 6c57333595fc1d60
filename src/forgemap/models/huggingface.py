"""huggingface.py: the reader of published ViT encoders (`aimagelab/CoDE`): other names, same net.

A published folder holds config.json (``model_type: vit``) and model.safetensors or
pytorch_model.bin, with transformers' names of either of its generations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from .bare import parameters_on_meta
from .checkpoint import CONFIG, PICKLED, WEIGHTS, find_folder, load_model
from .embedder import ACTIVATIONS, CODE, Embedder
from .strict import load_strictly, raise_misfits, read_safetensors, read_torch

PREPROCESSOR = "preprocessor_config.json"

# transformers' entries -> ours, and its defaults where the file leaves them out.
_ENTRIES = {
    "hidden_size": ("width", 768),
    "num_hidden_layers": ("layers", 12),
    "num_attention_heads": ("heads", 12),
    "intermediate_size": ("mlp", 3072),
    "patch_size": ("patch", 16),
    "image_size": ("image_size", 224),
    "hidden_act": ("activation", "gelu"),
    "layer_norm_eps": ("eps", 1e-12),
    "hidden_dropout_prob": ("dropout", 0.0),
}
# Names below a block: those of transformers 5, after those of transformers 4 were made into them.
_OLD = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_BLOCK = {
    "attention.o_proj": "self_attn.out_proj",
    "mlp.fc1": "linear1",
    "mlp.fc2": "linear2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
_OUTSIDE = {
    "embeddings.cls_token": "class_token",
    "embeddings.position_embeddings": "positions",
    "embeddings.patch_embeddings.projection.weight": "patches.weight",
    "embeddings.patch_embeddings.projection.bias": "patches.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
# Parts of a ViT that do not reach the class token's embedding.
_IDLE = re.compile(r"pooler\.|classifier\.|embeddings\.mask_token$|embeddings\.position_ids$")


def load_embedder(
    folder: str | Path, device: str | torch.device = "cpu"
) -> tuple[Embedder, dict[str, Any]]:
    """Read an embedder's folder, ours or a published one (or its hub id, as `aimagelab/CoDE`).

    Returns:
        The embedder in eval mode, and its whole config.json.

    Raises:
        ModelError: no such folder, a corrupt one, another kind of model, or weights that do not
            fit (the tensors are named).
    """
    folder = find_folder(folder)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None  # `load_model` says it in one sentence
    if isinstance(config, dict) and "model_type" in config:
        return _read(folder, config).to(device).eval(), config
    model, config = load_model(folder, device)
    if not isinstance(model, Embedder):
        kind = config["model"].get("architecture")
        raise ModelError(
            f"{folder}: is a {kind}, which localizes edits; give an embedder's folder."
        )
    return model, config


def _read(folder: Path, config: Mapping[str, Any]) -> Embedder:
    path = folder / CONFIG
    if config["model_type"] != "vit":
        raise ModelError(f"{path}: is a {config['model_type']}, not a vit, as CoDE's encoder is.")
    if config.get("num_channels", 3) != 3:
        raise ModelError(f"{path}: takes {config['num_channels']} channels; pictures have 3.")
    if config.get("hidden_act", "gelu") not in ACTIVATIONS:
        valid = ", ".join(ACTIVATIONS)
        raise ModelError(f"{path}: unknown hidden_act {config['hidden_act']!r}; valid: {valid}.")
    arguments = {ours: config.get(name, usual) for name, (ours, usual) in _ENTRIES.items()}
    try:
        with parameters_on_meta():
            model = Embedder(**arguments)
    except (ModelError, TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError) as e:
        reason = str(e).splitlines()[0]
        raise ModelError(f"{path}: no network has these sizes ({reason}).") from e
    model.preprocess = _preprocess(folder)
    source, tensors = _tensors(folder)
    load_strictly(model, _renamed(tensors, model, source), source)
    return model


def _tensors(folder: Path) -> tuple[str, dict[str, Tensor]]:
    """The weights file's name and content; a task's prefix ("vit.") is taken off."""
    if (folder / WEIGHTS).is_file() or not (folder / PICKLED).is_file():
        source, content = folder / WEIGHTS, read_safetensors(folder / WEIGHTS)[0]
    else:
        source, content = folder / PICKLED, read_torch(folder / PICKLED)
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{source}: holds no state dict.")
    tensors = {str(k).removeprefix("vit."): v for k, v in content.items() if isinstance(v, Tensor)}
    return str(source), {k: v.float() for k, v in tensors.items() if not _IDLE.match(k)}


def _renamed(tensors: Mapping[str, Tensor], model: Embedder, source: str) -> dict[str, Tensor]:
    """Our names, with query, key and value in one tensor; an unknown or missing one is named."""
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name, tensor in tensors.items():
        inside = re.fullmatch(r"(?:encoder\.layer|layers)\.(\d+)\.(.+)\.(weight|bias)", name)
        if name in _OUTSIDE:
            found[_OUTSIDE[name]] = tensor
        elif inside is None:
            unknown.append(name)
        else:
            number, part, kind = inside.groups()
            part = _OLD.get(part, part)
            if part in _BLOCK:
                found[f"blocks.{number}.{_BLOCK[part]}.{kind}"] = tensor
            elif part in ("attention.q_proj", "attention.k_proj", "attention.v_proj"):
                joint = f"blocks.{number}.self_attn.in_proj_{kind}"
                parts.setdefault(joint, {})[part[10]] = tensor
            else:
                unknown.append(name)
    missing = []
    for joint, three in parts.items():
        if {*three} == {*"qkv"}:
            found[joint] = torch.cat([three["q"], three["k"], three["v"]])
        else:
            missing.append(f"{joint} (of {', '.join(sorted({*'qkv'} - {*three}))})")
    for name, tensor in model.state_dict().items():
        if name.endswith("in_proj_bias") and name not in parts:  # qkv_bias: false
            found[name] = torch.zeros(tensor.shape)
    raise_misfits(source, missing=missing, unexpected=unknown)
    return found


def _preprocess(folder: Path) -> Any:
    """ImageNet's mean and std, as published, unless the folder says otherwise."""
    path = folder / PREPROCESSOR
    if not path.is_file():
        return CODE
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        mean, std = given.get("image_mean", CODE.mean), given.get("image_std", CODE.std)
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error}).") from error
    return replace(CODE, mean=tuple(mean), std=tuple(std))
