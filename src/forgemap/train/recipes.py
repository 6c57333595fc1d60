"""recipes.py: named sets of training settings; every value has a flag that overrides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ForgemapError

# Smeu, Oneata and Oneata (WACV 2025, arXiv 2409.08849), section 3.3, and its published code where
# the paper is silent: CLIP's ViT-L/14 is frozen, its decoder is trained by AdamW on cross-entropy
# alone; whole pictures of 224 x 224, each once per epoch.
DECLIP: dict[str, Any] = {
    "architecture": "declip",
    "backbone": "vit",
    "decoder": "conv-20",
    "decoder_init": "published",
    "samples": "whole",
    "perturb": "none",
    "supervision": "masks",
    "batch": 64,
    "epochs": 400,
    "schedule": "plateau",
    "lr": 1e-3,
    "betas": [0.9, 0.999],
    "weight_decay": 0.0,
    "patience": 5,
    "tolerance": 0.001,
    "lr_factor": 0.1,
    "lr_floor": 1e-6,
    "warmup": 0,
    "average": 0.0,
    "dice": 0.0,
    "image": 0.0,
    "clip": 0.0,
    "choice": "iou",
    "validate_every": 0,
    "validate_on": 0,
    "precision": "32-true",
}

#: The recipes by name: fields of `LocalizerConfig` whose values differ from its own.
RECIPES: dict[str, dict[str, Any]] = {
    # Our own: crops at native resolution, strong augmentation, a fixed number of steps.
    "default": {},
    # As published, on masks.
    "declip": DECLIP,
    # As published, on image labels: the mean of the logits answers for the picture.
    "declip-weak": {**DECLIP, "supervision": "image", "choice": "ap"},
    # The baseline of the weakly supervised setting: a classifier, and its Grad-CAM map as the mask.
    "gradcam": {**DECLIP, "supervision": "image", "choice": "ap", "decoder": "gradcam"},
}


def with_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values on top of those of the recipe that they name (``recipe``; "default" if none).

    Image labels cannot choose the best checkpoint by its masks: where they replace a recipe's masks
    and no choice is given, average precision chooses.

    Raises:
        ForgemapError: an unknown recipe; the valid ones are listed.
    """
    name = values.get("recipe", "default")
    if name not in RECIPES:
        raise ForgemapError(f"unknown recipe {name!r}; valid: {', '.join(RECIPES)}.")
    result = {**RECIPES[name], **values}
    if result.get("supervision") == "image" and "choice" not in values:
        result["choice"] = "ap"
    return result
