"""published.py: the reader of DeCLIP's published checkpoints: other names, the same network.

A published file is what `torch.save` made of {"model": state dict, "optimizer": …,
"feature_layer": "layer20", "decoder_type": "conv-20"}. Every size is read off the tensors, and
every tensor has to find its place, save those that are known to be of no use here: CLIP's text
tower, and what follows the layer that the features are taken from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ModelError
from .build import build
from .localizer import Localizer
from .spellings import Decoder, State, Tower
from .strict import raise_misfits, read_safetensors, read_torch
from .torchscript import is_torchscript, read_torchscript

Source = str | Path | Mapping[str, Any]


class BackboneMissing(ModelError):
    """A file that holds the decoder alone, and no backbone was given."""

    def __init__(self, name: str, channels: int, layer: str) -> None:
        super().__init__(f"{name}: holds the decoder alone; give its backbone's weights as well.")
        #: How many the decoder takes, and the layer that the file states: a hint at what fits.
        self.channels = channels
        self.layer = layer


def read_published(
    source: Source,
    *,
    backbones: Sequence[Source] = (),
    layer: str | None = None,
    heads: int | None = None,
) -> Localizer:
    """A Localizer with the weights of a published checkpoint, in eval mode.

    Args:
        source: a .pth or .safetensors file, or what such a file holds: the checkpoint's dict or
            a bare state dict. It may hold the decoder alone, or the whole network with CLIP's text
            tower.
        backbones: CLIP's weights for a file that holds none (every ViT + RN50 fusion): the ViT,
            the ResNet or both; files (also OpenAI's TorchScript archives) or state dicts with
            OpenAI's names, or for the ViT those of transformers.
        layer: where the features are taken, as in `declip`; None: as the file says.
        heads: attention heads of the ViT, which no tensor tells; None: as the file says, else
            CLIP's width / 64.

    Raises:
        ModelError: a file that is missing, corrupt or readable only by running code; a backbone
            neither in the file nor given; a missing, unexpected or mis-shaped tensor (named as
            in the file).
    """
    file = _read(source)
    head = {name: t for name, t in file.state.items() if re.match(r"(fc|att\d)\.", name)}
    decoder = Decoder(head, file.name)
    inside = {name: t for name, t in file.state.items() if name not in head}
    towers = [Tower(state, file.name) for state in [inside, *file.backbones] if state]
    if towers and backbones:
        raise ModelError(f"{file.name}: holds its own backbone; give no other.")
    if not towers and not backbones:
        stated = str(layer or file.facts.get("feature_layer") or "")
        raise BackboneMissing(file.name, decoder.inputs(), stated)
    towers += [Tower(other.state, other.name) for other in map(_read, backbones)]
    towers.sort(key=lambda tower: tower.kind != "vit")  # in a fusion, the ViT's channels come first

    config: dict[str, Any] = {"backbone": "+".join(tower.kind for tower in towers)}
    for tower in towers:
        config |= tower.arguments()
    if "vit" in config["backbone"]:
        config["heads"] = heads or _heads(file, config["width"])
    config["layer"] = layer or _layer(file, config)
    config |= decoder.arguments(file.facts, config.get("heads"))
    try:
        model = build({"architecture": "declip", **config})
    except ModelError as error:
        raise ModelError(f"{file.name}: {error}") from error

    assert isinstance(model, Localizer)
    modules = [model.backbone] if len(towers) == 1 else list(model.backbone.children())
    layers = [int(name.removeprefix("layer")) for name in config["layer"].split("+")]
    for tower, module, number in zip(towers, modules, layers, strict=True):
        tower.fill(module, number)
    decoder.fill(model.decoder)
    return model.eval()


def fill_backbone(model: Localizer, sources: Sequence[Source]) -> None:
    """CLIP's weights into the backbone of a network that `declip` made; its decoder stays as it is.

    Args:
        model: with a ViT, a ResNet or both.
        sources: the weights of each, in any order, as for `read_published`.

    Raises:
        ModelError: a file that cannot be read; too few or too many for this backbone; a missing,
            unexpected or mis-shaped tensor.
    """
    files = [_read(source) for source in sources]
    towers = {tower.kind: tower for tower in (Tower(file.state, file.name) for file in files)}
    wanted = str(model.config["backbone"])
    if sorted(towers) != sorted(wanted.split("+")) or len(towers) < len(files):
        held = ", ".join(f"{tower.source} ({kind})" for kind, tower in towers.items())
        raise ModelError(f"the backbone {wanted} cannot be filled from {held}.")
    modules: Any = model.backbone.children() if "+" in wanted else [model.backbone]
    for kind, module in zip(wanted.split("+"), modules, strict=True):
        towers[kind].fill(module, max(module.numbers))


def check_decoder(path: Path, name: str) -> None:
    """A ModelError if `path` (called `name` there) cannot be read, or holds no DeCLIP decoder."""
    try:
        file = _read(path)
        Decoder({key: t for key, t in file.state.items() if key.startswith("fc.")}, file.name)
    except ModelError as error:
        raise ModelError(str(error).replace(str(path), name)) from error


@dataclass
class _File:
    """A checkpoint's tensors, and what it says about them (feature_layer, decoder_type, …)."""

    name: str
    state: State
    backbones: list[State]
    facts: Mapping[str, Any]


def _read(source: Source) -> _File:
    name = "checkpoint"
    content: Any = source
    facts: Mapping[str, Any] = {}
    if not isinstance(source, Mapping):
        name, path = str(source), Path(source)
        if path.suffix == ".safetensors":
            content, facts = read_safetensors(path)
        elif is_torchscript(path):
            content = read_torchscript(path)
        else:
            content = read_torch(path)
    if not isinstance(content, Mapping):
        raise ModelError(f"{name}: holds no state dict, but a {type(content).__name__}.")
    if isinstance(content.get("model"), Mapping):
        content, facts = content["model"], content
    state = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not any(key.startswith("model_state.") for key in state):
        return _File(name, state, [], facts)
    # A reference file: the network, its separate backbones and its answers side by side.
    parts: dict[str, State] = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = value
    network = parts.pop("model_state")
    separate = [parts.pop(part) for part in ("backbone0", "backbone1") if part in parts]
    raise_misfits(name, unexpected=parts.keys() - {"features", "output_logits"})
    return _File(name, network, separate, facts)


def _heads(file: _File, width: int) -> int:
    """The ViT's attention heads, from what the file says."""
    stated = str(file.facts.get("vit_heads", width // 64))
    if not stated.isdigit() or stated == "0":
        raise ModelError(
            f"{file.name}: does not say how many attention heads its ViT has; give the heads."
        )
    return int(stated)


def _layer(file: _File, config: Mapping[str, Any]) -> str:
    """Where the features are taken, from what the file says."""
    if config["backbone"] == "xception":
        return "layer2"  # the published network ends there, whatever the file says
    if "feature_layer" not in file.facts:
        raise ModelError(f"{file.name}: does not say where its features are taken; give the layer.")
    last = "layer4" if config["backbone"] == "rn50" else f"layer{config.get('layers', 0) - 1}"
    stated = str(file.facts["feature_layer"] or last)  # the published code's default: the last one
    return f"{stated}+layer3" if config["backbone"] == "vit+rn50" and "+" not in stated else stated
