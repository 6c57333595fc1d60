"""inpaint.py: an inpainting pipeline of diffusers, and the paper's variants of what it draws."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forgemap.errors import ModelError

PRECISIONS = ("auto", "32", "16", "bf16")

# Variant -> picture from (source, drawn), both (H, W, 3) uint8, and the mask (H, W) bool. DeCLIP
# asks with them what a detector goes by: a latent-diffusion model decodes the whole picture, so
# that its traces lie outside of the mask too.
VARIANTS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    # As the model gives it: the region is new, everything was decoded.
    "ldm": lambda source, drawn, mask: drawn,
    # Only the region is pasted back: traces inside alone.
    "ldm_clean": lambda source, drawn, mask: np.where(mask[..., None], drawn, source),
    # The real region in the decoded picture: traces outside alone, and nothing new to see.
    "ldm_real": lambda source, drawn, mask: np.where(mask[..., None], source, drawn),
}


class Inpainter:
    """An inpainting pipeline on one device.

    Args:
        model: a folder saved by diffusers, or a hub id.
        device: "cpu", "cuda:1" ...
        precision: from PRECISIONS; "auto" = 16 bits on a GPU, 32 on a CPU.

    Raises:
        ModelError: no such pipeline, one that does not inpaint, or one without safetensors.
    """

    def __init__(self, model: str, device: str = "cpu", precision: str = "auto") -> None:
        import torch

        self._torch, self.name = torch, model
        if precision not in PRECISIONS:
            raise ModelError(f"Unknown precision {precision!r}: use {', '.join(PRECISIONS)}.")
        if precision == "auto":
            precision = "32" if device.startswith("cpu") else "16"
        kinds = {"32": torch.float32, "16": torch.float16, "bf16": torch.bfloat16}
        pipeline = _load(model, kinds[precision])
        try:
            self.pipeline = pipeline.to(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise ModelError(f"{model} cannot run on the device {device!r}: {reason}") from None
        self.pipeline.set_progress_bar_config(disable=True)

    def draw(
        self,
        pictures: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int,
        guidance: float,
    ) -> list[np.ndarray]:
        """What the model draws in the place of the masked regions.

        Args:
            pictures: (H, W, 3) uint8, all of one size, sides multiples of 8.
            masks: (H, W) bool, True = redraw.
            prompts: one for each picture.
            seeds: one for each picture; drawn on the CPU, so that devices agree on the noise.
            steps: of denoising.
            guidance: of the prompt; 1 and less = none.

        Returns:
            (H, W, 3) uint8 each, the whole picture as decoded.

        Raises:
            ModelError: the device is out of memory, or the model's numbers are none.
        """
        from PIL import Image as PILImage

        torch = self._torch
        height, width = masks[0].shape
        try:
            with torch.inference_mode():
                drawn = self.pipeline(
                    prompt=list(prompts),
                    image=[PILImage.fromarray(p) for p in pictures],
                    mask_image=[PILImage.fromarray(m.astype(np.uint8) * 255) for m in masks],
                    height=height,
                    width=width,
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                    output_type="np",
                ).images
        except torch.cuda.OutOfMemoryError:
            raise ModelError(
                f"{self.name} ran out of GPU memory with {len(pictures)} pictures of {width} x "
                f"{height} pixels: use a smaller --batch or --size."
            ) from None
        if not np.isfinite(drawn).all():
            raise ModelError(f"{self.name} gave values that are no numbers: use --precision 32.")
        return [np.rint(one.clip(0, 1) * 255).astype(np.uint8) for one in drawn]


def _load(model: str, dtype: Any) -> Any:
    # transformers advises, a dozen times, to install torchvision, which nothing here needs.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    import diffusers
    import transformers

    library: Any = diffusers  # parts of it are untyped
    for talker in (library, transformers):
        talker.utils.logging.disable_progress_bar()
    if Path(model).is_dir() and not (Path(model) / "model_index.json").is_file():
        raise ModelError(f"{model} is no pipeline of diffusers: it has no model_index.json.")
    try:
        parts = library.DiffusionPipeline.load_config(model)
        # The safety checker paints pictures black; a data set has to see what was drawn.
        unchecked = (
            {"safety_checker": None, "requires_safety_checker": False}
            if "safety_checker" in parts
            else {}
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer versions call it dtype
            pipeline = library.DiffusionPipeline.from_pretrained(
                model, torch_dtype=dtype, use_safetensors=True, **unchecked
            )
        if "mask_image" not in _arguments(pipeline):
            pipeline = library.AutoPipelineForInpainting.from_pipe(pipeline)
    except ModelError:
        raise
    except Exception as error:  # diffusers raises all sorts of errors
        reason = " ".join(str(error).split())
        raise ModelError(f"The pipeline {model} cannot be loaded: {reason}") from None
    if missing := {"prompt", "image", "mask_image"} - _arguments(pipeline):
        raise ModelError(
            f"{model} is a {type(pipeline).__name__}, which takes no {' and no '.join(missing)}: "
            "give a pipeline that inpaints from a prompt."
        )
    return pipeline


def _arguments(pipeline: Any) -> set[str]:
    import inspect

    return set(inspect.signature(type(pipeline).__call__).parameters)
