"""embedder.py: CoDE's Embedder: image -> one vector in which real and generated pictures lie apart.

Baraldi et al., "Contrasting deepfakes diffusion via contrastive learning and global-local
similarities" (ECCV 2024, arXiv 2407.20337): a ViT-Tiny/16 at 224 x 224, trained from scratch; the
embedding is the class token after the last norm.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..preprocess import NATIVE, Preprocess
from .crops import cut
from .stems import BLOCK, STEMS, SpectrumStem, TraceStem

#: As published: native resolution (pictures are cropped, never resized), ImageNet's mean and std.
CODE = Preprocess(size=None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

NATIVE_SCALE = 2.2
"""Brings images in [-1, 1] to about the spread that ImageNet's statistics give them."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.functional.gelu,
    "relu": nn.functional.relu,
    "gelu_pytorch_tanh": nn.GELU(approximate="tanh"),
}


class Embedder(nn.Module):
    """A vision transformer, as transformers' ViT without its pooler, of PyTorch's own layers.

    images (B, 3, image_size, image_size), normalised -> embeddings (B, width).

    With the stem "both" there are two, one on traces and one on spectra, and the embedding is what
    each says of the picture, (B, 2 width). The spectrum of an enlargement outlives a compression
    that wipes out traces; a good decoder leaves hardly any in the spectrum, and traces know it.

    Args:
        width: channels of a token, and length of the embedding; with the stem "both", half of it.
        layers: transformer blocks.
        heads: attention heads of a block.
        mlp: hidden channels of a block's two-layer network.
        patch: side of a patch in pixels.
        image_size: side of the input in pixels.
        activation: a key of `ACTIVATIONS`.
        eps: of every layer norm.
        dropout: share of values that is dropped in training.
        stem: one of `STEMS`; all but "patches" need patches of 16 pixels, and "spectra" and "both"
            an image_size of at least 32.
        spectra_layers: transformer blocks on spectra, where the stem is "both".

    The defaults are the published network's (5.5 M weights).
    """

    native = True  # pictures come in their own size; see `embed`

    def __init__(
        self,
        width: int = 192,
        layers: int = 12,
        heads: int = 3,
        mlp: int = 768,
        patch: int = 16,
        image_size: int = 224,
        activation: str = "gelu",
        eps: float = 1e-6,
        dropout: float = 0.0,
        stem: str = "patches",
        spectra_layers: int = 4,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ModelError(f"unknown activation {activation!r}; valid: {', '.join(ACTIVATIONS)}.")
        if image_size % patch:
            raise ModelError(f"image_size {image_size} is not a multiple of the patch, {patch}.")
        if stem not in STEMS:
            raise ModelError(f"unknown stem {stem!r}; valid: {', '.join(STEMS)}.")
        if stem in ("spectra", "both") and (patch != 16 or image_size < BLOCK):
            raise ModelError(
                f"a stem of {stem} takes blocks of 32 pixels at steps of 16: patch must be 16 "
                f"and image_size at least 32, not {patch} and {image_size}."
            )
        if stem == "traces" and patch != 16:
            raise ModelError(
                f"the stem of traces makes tokens of 16 x 16 pixels: patch must be 16, not {patch}."
            )
        if min(layers, spectra_layers) < 1:
            raise ModelError(
                f"{min(layers, spectra_layers)} layers make no network; give at least 1."
            )
        config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if stem != "both":
            del config["spectra_layers"]
        self.config: dict[str, Any] = {"architecture": "embedder", **config}
        self.preprocess = NATIVE if stem in ("traces", "both") else CODE
        self.width, self.image_size = width * (2 if stem == "both" else 1), image_size
        self.patches: nn.Module
        side = image_size // patch
        if stem == "patches":
            self.patches = nn.Conv2d(3, width, patch, stride=patch)
        elif stem == "spectra":
            self.patches, side = SpectrumStem(width), side - 1
        else:
            self.patches = TraceStem(width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, side**2 + 1, width))
        block = nn.TransformerEncoderLayer(
            width,
            heads,
            mlp,
            dropout,
            activation=ACTIVATIONS[activation],
            layer_norm_eps=eps,
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.ModuleList(copy.deepcopy(block) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps)
        self._initialise()
        self.spectra: Embedder | None = None
        if stem == "both":
            sizes = config | {"layers": spectra_layers, "stem": "spectra"}
            self.spectra = Embedder(**sizes)

    def _initialise(self) -> None:
        """As ViTs are trained from scratch: N(0, 0.02), cut off at two sigma; biases 0."""
        parts = self.modules() if self.config["stem"] == "patches" else self.blocks.modules()
        for module in parts:
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, nn.MultiheadAttention):
                nn.init.trunc_normal_(module.in_proj_weight, std=0.02, a=-0.04, b=0.04)
        for parameter in (self.class_token, self.positions):
            nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)

    def residual_blocks(self) -> list[nn.Module]:
        """The blocks that run whole, in their order: all but the last (see `_class_token`)."""
        return list(self.blocks)[:-1]

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, image_size, image_size) -> embeddings (B, width), or (B, 2 width)."""
        found = self.patches(images)
        vectors = self.of_tokens(*(found if isinstance(found, tuple) else (found,)))
        if self.spectra is None:
            return vectors
        return torch.cat([vectors, self.spectra(images * NATIVE_SCALE)], dim=1)

    def of_tokens(self, patches: Tensor, summary: Tensor | None = None) -> Tensor:
        """What the stem gave, tokens (B, width, h, w) and what a stem of traces adds to the class
        token (B, width) -> embeddings (B, width)."""
        patches = patches.flatten(2).transpose(1, 2)
        first = self.class_token.expand(patches.shape[0], -1, -1)
        if summary is not None:
            first = first + summary[:, None]
        tokens = torch.cat([first, patches], dim=1)
        tokens = tokens + self.positions
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        return self.norm(_class_token(last, tokens))

    def begin_as(self, stem: str, other: Embedder, source: str) -> None:
        """Of an embedder on both: its part on "traces" or "spectra" takes over the other's weights.

        Args:
            stem: which part.
            other: an embedder of that stem alone, of the part's sizes.
            source: what to call it in an error.

        Raises:
            ModelError: this is no embedder on both; another stem, or other sizes.
        """
        config = {k: v for k, v in self.config.items() if k != "spectra_layers"}
        if stem == "spectra" and self.spectra:
            config = self.spectra.config
        if self.spectra is None or other.config != config | {"stem": stem}:
            raise ModelError(
                f"{source}: as the part on {stem} of an embedder on both can only start an "
                f"embedder on {stem}, of its sizes."
            )
        if stem == "spectra":
            self.spectra.load_state_dict(other.state_dict())
        else:
            self.load_state_dict(self.state_dict() | other.state_dict())

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what its embeddings depend on: sizes, preprocessing and weights.

        The same for one network in any kind of file, and another one after any training.
        """
        digest = hashlib.sha256()
        sizes = {k: v for k, v in self.config.items() if k != "dropout"}
        if sizes["stem"] == "patches":  # so were all before there was a choice
            del sizes["stem"]
        digest.update(json.dumps([sizes, self.preprocess.to_dict()], sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def embed(self, pixels: np.ndarray, crops: str = "centre") -> Tensor:
        """A picture (H, W, 3) uint8 -> the embeddings of its crops (V, D), float32, on the CPU.

        Args:
            pixels: sRGB, as `image.load_image` gives it; never resized.
            crops: a key of `crops.CROPS`; "centre" gives one embedding, as published.
        """
        device = self.class_token.device
        views = [self.preprocess(view) for view in cut(pixels, self.image_size, crops).views]
        return self(torch.cat(views).to(device)).float().cpu()


def _class_token(block: Any, tokens: Tensor) -> Tensor:
    """What a block makes of the class token (B, width): all that is needed of the last one."""
    normed = block.norm1(tokens)
    attended, _ = block.self_attn(normed[:, :1], normed, normed, need_weights=False)
    token = tokens[:, :1] + block.dropout1(attended)
    inner = block.dropout(block.activation(block.linear1(block.norm2(token))))
    return (token + block.dropout2(block.linear2(inner)))[:, 0]
