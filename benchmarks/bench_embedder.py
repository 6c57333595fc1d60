"""bench_embedder.py: embeddings of CoDE's network beside transformers' own ViT and its pipeline."""

from __future__ import annotations

import tempfile
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.peak import operations
from benchmarks.timing import Case
from forgemap.models.embedder import CODE
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
    """One picture at a time, a batch, and a picture's pixels through the pipeline."""
    return [*(_case(batch) for batch in ((1,) if quick else (1, 16))), _pipeline()]


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

    return Case(
        f"CoDE embedding, {batch} of 224 x 224 / transformers' ViT",
        ours,
        literal,
        check,
        None,
        work=lambda: (operations(ours), "float32"),
    )


def _pipeline() -> Case:
    """From pixels to the embedding."""
    pixels = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)

    @cache
    def made() -> Any:
        from transformers import pipeline
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        mean, std = CODE.mean, CODE.std
        return pipeline(  # type: ignore[call-overload]
            "image-feature-extraction",
            model=networks()[1],
            image_processor=ViTImageProcessorPil(do_resize=False, image_mean=mean, image_std=std),
            device="cpu",
        )

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return networks()[0](CODE(pixels))[0]

    def literal() -> torch.Tensor:
        return made()(picture, return_tensors=True)[0, 0]

    def check() -> None:
        torch.testing.assert_close(ours(), literal(), atol=1e-4, rtol=1e-4)

    return Case("CoDE embedding of a picture / transformers' pipeline", ours, literal, check, None)
