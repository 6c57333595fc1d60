"""bench_embedder.py: embeddings of CoDE's network beside transformers' own ViT, same weights."""

from __future__ import annotations

import tempfile
from functools import cache
from typing import Any

import torch

from benchmarks.timing import Case
from forgemap.models.huggingface import load_embedder


@cache
def networks() -> tuple[Any, Any]:
    """Ours and transformers', of the published size with random weights."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768)
    theirs = ViTModel(config, add_pooling_layer=False).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours, _ = load_embedder(folder)
    return ours, theirs


def cases(quick: bool) -> list[Case]:
    """One picture at a time, and a batch."""
    return [_case(batch) for batch in ((1,) if quick else (1, 16))]


def _case(batch: int) -> Case:
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1))

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return networks()[0](images)

    @torch.inference_mode()
    def literal() -> torch.Tensor:
        return networks()[1](pixel_values=images).last_hidden_state[:, 0]

    def check() -> None:
        torch.testing.assert_close(ours(), literal(), atol=1e-4, rtol=1e-4)

    return Case(f"embed {batch} of 224 x 224 (ViT-Tiny)", ours, literal, check, None)
