"""bench_declip.py: DeCLIP's forward beside its literal form, and beside transformers' own pipeline.

Both sides have the same weights. The engines' speeds are in bench_engines.py; here it is what
plain PyTorch gives: blocks that nobody reads are not computed, and no block's output is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.literal_declip import LiteralDeclip
from benchmarks.peak import operations
from benchmarks.timing import Case
from forgemap.models.clip import ClipViT
from forgemap.models.published import read_published
from forgemap.preprocess import CLIP


@dataclass(frozen=True)
class Size:
    """A network: the published one, or one like it that is small."""

    name: str
    width: int
    blocks: int
    heads: int
    layer: int
    channels: tuple[int, ...]
    rounds: int | None

    def literal(self) -> LiteralDeclip:
        torch.manual_seed(0)
        sizes = (self.width, self.blocks, self.heads, self.layer, self.channels)
        return LiteralDeclip(*sizes)


LARGE = Size("ViT-L/14", 1024, 24, 16, 20, (512, 256, 128, 64), rounds=3)
SMALL = Size("small ViT", 192, 12, 3, 9, (32, 32, 16, 8), rounds=None)


def cases(quick: bool) -> list[Case]:
    """One picture through the whole network, and through CLIP's tower alone."""
    size = SMALL if quick else LARGE
    return [Forward(size).case(), Pipeline(size).case()]


class Forward:
    """images (1, 3, 224, 224) -> mask logits (1, 1, 256, 256), on both sides."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))

    @cached_property
    def networks(self) -> tuple[Any, LiteralDeclip]:
        literal = self.size.literal().eval()
        return read_published(literal.checkpoint(), heads=self.size.heads), literal

    @torch.inference_mode()
    def ours(self) -> Tensor:
        return self.networks[0](self.images).mask

    @torch.inference_mode()
    def literal(self) -> Tensor:
        return self.networks[1](self.images).view(1, 1, 256, 256)

    def check(self) -> None:
        torch.testing.assert_close(self.ours(), self.literal(), atol=1e-3, rtol=1e-3)

    def case(self) -> Case:
        return Case(
            f"DeCLIP forward, {self.size.name} conv-20, torch float32",
            self.ours,
            self.literal,
            self.check,
            None,
            self.size.rounds,
            work=lambda: (operations(self.ours), "float32"),
        )


class Pipeline:
    """A picture's tokens after the last block: ours, and `image-feature-extraction`'s."""

    def __init__(self, size: Size) -> None:
        self.size = replace(size, layer=size.blocks - 1)
        pixels = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
        self.pixels, self.picture = pixels, Image.fromarray(pixels)

    @cached_property
    def networks(self) -> tuple[ClipViT, Any]:
        from transformers import CLIPVisionConfig, CLIPVisionModel, pipeline
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        size = self.size
        torch.manual_seed(0)
        config = CLIPVisionConfig(
            hidden_size=size.width,
            intermediate_size=4 * size.width,
            num_hidden_layers=size.blocks,
            num_attention_heads=size.heads,
            patch_size=14,
        )
        theirs = CLIPVisionModel(config).eval()
        ours = ClipViT(f"layer{size.layer}", size.width, size.blocks, size.heads).eval()
        ours.model.load_state_dict(theirs.state_dict(), strict=False)
        made = pipeline(  # type: ignore[call-overload]
            "image-feature-extraction",
            model=theirs,
            image_processor=CLIPImageProcessorPil(do_resize=False, do_center_crop=False),
            device="cpu",
        )
        return ours, made

    @torch.inference_mode()
    def ours(self) -> Tensor:
        return self.networks[0](CLIP(self.pixels)).grid

    def literal(self) -> Tensor:
        (tokens,) = self.networks[1](self.picture, return_tensors=True)
        grid = tokens[1:].T
        return grid.reshape(1, len(grid), 16, 16)

    def check(self) -> None:
        torch.testing.assert_close(self.ours(), self.literal(), atol=1e-3, rtol=1e-3)

    def case(self) -> Case:
        return Case(
            f"CLIP features, {self.size.name} / transformers' pipeline",
            self.ours,
            self.literal,
            self.check,
            None,
            self.size.rounds,
            work=lambda: (operations(self.ours), "float32"),
        )
