"""trainable.py: which part of a backbone learns: nothing, the last blocks, LoRA factors, or all."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from ..errors import ModelError

#: The schemes, and what of the backbone each one trains; the decoder learns under all of them.
SCHEMES = {
    "frozen": "nothing",
    "last-<blocks>": "the last blocks of each tower, as last-2",
    "lora-<rank>": "low-rank additions to the linear layers of all blocks, as lora-8",
    "all": "everything",
}


def read_scheme(scheme: str) -> tuple[str, int]:
    """ "last-2" -> ("last", 2), "all" -> ("all", 0), or a ModelError that lists the schemes."""
    match = re.fullmatch(r"(frozen|all)|(last|lora)-([1-9]\d*)", str(scheme))
    if match is None:
        raise ModelError(f"unknown trainable {scheme!r}; valid: {', '.join(SCHEMES)}.")
    return match[1] or match[2], int(match[3] or 0)


def set_trainable(backbone: nn.Module, scheme: str) -> None:
    """Let gradients reach just what the scheme names; LoRA factors of before are merged in.

    Raises:
        ModelError: an unknown scheme, fewer blocks than it names, or no layer that LoRA can add to.
    """
    name, number = read_scheme(scheme)
    merge_lora(backbone)
    backbone.requires_grad_(name == "all")
    if name == "last":
        for module in learning_modules(backbone, scheme):
            module.requires_grad_(True)
    elif name == "lora":
        _add_lora(backbone, number)


def learning_modules(backbone: nn.Module, scheme: str) -> list[nn.Module]:
    """The modules that follow `train()`: all others keep their statistics and drop nothing.

    With LoRA these are none: the backbone is looked at as in use, and only the factors move.
    """
    name, number = read_scheme(scheme)
    if name == "all":
        return [backbone]
    if name != "last":
        return []
    towers = _towers(backbone)
    if number > (fewest := min(map(len, towers))):
        raise ModelError(
            f"trainable {scheme!r}: up to its layer the backbone has {fewest} blocks only."
        )
    return [block for blocks in towers for block in blocks[-number:]]


def merged_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The state dict that the network would have had it learned without LoRA; leaves it as it is.

    A layer's LoRA factors are added to its weight, so that it answers the same without peft.
    """
    tensors = dict(network.state_dict())
    for name, layer in _lora_layers(network).items():
        weight = layer.get_base_layer().weight
        tensors[f"{name}.base_layer.weight"] = weight + layer.get_delta_weight("default")
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in tensors.items()
        if ".lora_" not in name
    }


def merge_lora(network: nn.Module) -> None:
    """Put plain layers back in the places of those with LoRA factors, the factors merged in."""
    for name, layer in _lora_layers(network).items():
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, layer.get_base_layer())
    if hasattr(network, "peft_config"):  # left there by peft, of adapters that are no more
        del network.peft_config


def _add_lora(backbone: nn.Module, rank: int) -> None:
    """LoRA (Hu et al., 2022) in every linear layer of the blocks; alpha = rank, so scale 1."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ModelError(
            f"trainable lora-{rank} needs peft: pip install 'forgemap[lora]' ({error})."
        ) from error
    inner = {id(m) for blocks in _towers(backbone) for block in blocks for m in block.modules()}
    linears = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inner
    ]
    if not linears:
        raise ModelError(
            f"trainable lora-{rank}: the backbone has no linear layers; use last-<blocks>."
        )
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=linears)
    inject_adapter_in_model(config, backbone)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def _lora_layers(network: nn.Module) -> dict[str, Any]:
    """peft's layers by name; told by their factors, so that nothing has to be imported."""
    return {name: m for name, m in network.named_modules() if hasattr(m, "lora_A")}


def _towers(backbone: nn.Module) -> list[list[nn.Module]]:
    """The blocks of each tower: a fusion has two, other backbones are one themselves."""
    found: list[Any] = [m for m in backbone.modules() if hasattr(m, "residual_blocks")]
    return [tower.residual_blocks() for tower in found]
