"""transformer.py: any vision transformer of transformers as a backbone, cut off after a layer.

DINOv2 (with or without registers), DINOv3, SigLIP and SigLIP 2, ViT, DeiT, CLIP and whatever else
gives one vector per patch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .clip import layer_numbers
from .output import Features, combine
from .pretrained import (
    describe,
    fields_of,
    native_size,
    patch_size,
    pretrained_model,
    random_model,
)


class TransformerViT(nn.Module):
    """A vision transformer up to and including one block, or the last of several.

    images (B, 3, H, W), both multiples of the patch -> grid (B, C, H / patch, W / patch) and class
    token (B, C), None where the family has none (SigLIP). C is the width of a token, times the
    number of layers. Register tokens take part and are left out of the result. As with `ClipViT`,
    features are the blocks' own outputs: the last norm and all after it are not built.

    Args:
        fields: the network as transformers describes it: ``model_type`` and what differs from its
            defaults (``hidden_size``, ``patch_size``, ...).
        layer: "layer0" to "layer<num_hidden_layers - 1>", or several as "layer6+layer12", whose
            features are concatenated.
        image_size: side of the input in pixels; the position embeddings are interpolated to it.
        weights: folder or hub id (``owner/name``, ``owner/name@revision``) of pretrained weights;
            random ones if None.

    Raises:
        ModelError: the fields describe no vision transformer with one vector per patch, or the
            weights cannot be had or do not fit it.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        layer: str,
        image_size: int,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        config = describe(fields)
        fields = fields_of(config)
        self.numbers = layer_numbers(layer, range(config.num_hidden_layers))
        self.patch = patch_size(config)
        self.native_size = native_size(config)
        if image_size % self.patch:
            raise ModelError(
                f"image_size {image_size} is no multiple of the patch, {self.patch} pixels; "
                f"the nearest below is {image_size - image_size % self.patch}."
            )
        config = describe({**fields, "num_hidden_layers": max(self.numbers) + 1})
        self.packed = config.model_type.startswith("siglip2")
        self.channels = config.hidden_size * len(self.numbers)
        self.size = image_size // self.patch
        dead = self._probe(describe({**fields, "num_hidden_layers": 1}), image_size)
        missing: set[str] = set()
        if weights is None:
            self.model = random_model(config)
        else:
            self.model, missing = pretrained_model(config, weights)
        _cut(self.model, dead)
        if lacking := sorted(missing & self.model.state_dict().keys()):
            raise ModelError(f"{weights}: its weights lack {', '.join(lacking[:3])}.")

    def forward(self, images: Tensor) -> Features:
        height, width = images.shape[-2] // self.patch, images.shape[-1] // self.patch
        arguments = self._arguments(images)
        if len(self.numbers) == 1:
            layers = [self.model(**arguments).last_hidden_state]
        else:
            states = self.model(**arguments, output_hidden_states=True).hidden_states
            layers = [states[number + 1] for number in self.numbers]  # the first are embeddings
        return combine(_features(tokens, height, width) for tokens in layers)

    def residual_blocks(self) -> list[nn.Module]:
        """The blocks in their order."""
        return list(_blocks(self.model)[1])

    def _arguments(self, images: Any) -> dict[str, Any]:
        """What the model is called with; SigLIP 2 reads patches (B, h * w, patch * patch * 3)."""
        batch, side = len(images), self.patch
        if not self.packed:
            native = images.shape[-2:] == (self.native_size, self.native_size)
            resizes = {"interpolate_pos_encoding": True} if self.resizes and not native else {}
            return {"pixel_values": images, **resizes}
        height, width = images.shape[-2] // side, images.shape[-1] // side
        patches = images.unflatten(3, (width, side)).unflatten(2, (height, side))
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, height * width, -1)
        return {
            "pixel_values": patches,
            "pixel_attention_mask": images.new_ones((batch, height * width), dtype=torch.long),
            "spatial_shapes": torch.tensor([[height, width]] * batch, device="cpu"),
        }

    @torch.no_grad()
    def _probe(self, config: Any, image_size: int) -> list[str]:
        """Make sure, before any work, that the tokens end with one for each patch, row by row.

        A picture whose first (last) patch differs must differ in that token alone, before the
        blocks mix them. One block suffices for that. Returns the model's parts that come after it.
        """
        fault = "its tokens are not one for each patch, row by row"
        try:
            with torch.device("cpu"), torch.random.fork_rng(devices=[]):
                model = random_model(config).eval()
                signature = inspect.signature(model.forward)
                self.resizes = "interpolate_pos_encoding" in signature.parameters
                order = _order_of_calls(model)
                images = torch.zeros(3, 3, image_size, image_size)
                images[1, :, : self.patch, : self.patch] = torch.rand(self.patch)
                images[2, :, -self.patch :, -self.patch :] = torch.rand(self.patch)
                tokens = model(**self._arguments(images), output_hidden_states=True)
                same, first, last = tokens.hidden_states[0]
            count, patches = len(same), self.size**2
            for changed, place in ((first, count - patches), (last, count - 1)):
                if (changed != same).any(-1).nonzero().flatten().tolist() != [place]:
                    raise ModelError(fault)
        except Exception as error:  # families fail in their own ways
            reason = str(error).strip().split("\n")[0].rstrip(".") or fault
            raise ModelError(
                f"transformer: {config.model_type} gives no features of {self.size} x {self.size} "
                f"patches for {image_size} x {image_size} pixels ({reason})."
            ) from error
        return order[order.index(_blocks(model)[0]) + 1 :]


def _features(tokens: Tensor, height: int, width: int) -> Features:
    """tokens (B, others + h * w, C), the class token first if there are others."""
    others = tokens.shape[1] - height * width
    grid = tokens[:, others:].transpose(1, 2).reshape(len(tokens), -1, height, width)
    return Features(grid, summary=tokens[:, 0] if others else None)


def _order_of_calls(model: nn.Module) -> list[str]:
    """A list that fills with the names of the model's children as they are called."""
    order: list[str] = []
    holder, blocks = _blocks(model)
    for name, child in model.named_children():
        called = blocks[0] if name == holder else child
        called.register_forward_pre_hook(lambda *_, name=name: order.append(name))
    return order


def _cut(model: nn.Module, dead: Iterable[str]) -> None:
    """Take away the parts that come after the last block, and mask tokens, which nothing uses."""
    for name in dead:
        setattr(model, name, _Passed())
    for module in model.modules():
        if isinstance(getattr(module, "mask_token", None), nn.Parameter):
            setattr(module, "mask_token", None)  # noqa: B010  (its type would not allow it)


class _Passed(nn.Module):
    """Stands where a norm or head was: the first argument comes back."""

    def forward(self, x: Tensor, *others: Any, **more: Any) -> Tensor:
        return x


def _blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of blocks, and the name of the model's child that is or holds it."""
    config: Any = model.config
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            return name.split(".")[0], module
    raise ModelError(f"{config.model_type} is no vision transformer: it has no blocks.")
