"""validation.py: how a localizer does on held-out pictures, method by method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.datasets import load_pair
from ..data.records import Record
from ..evaluate.metrics import detection_metrics, iou
from .losses import image_logit


class Choice(NamedTuple):
    """What the best checkpoint is chosen by, and a plateau is seen in."""

    score: Callable[[dict[str, float]], float]
    """From the scores of a validation, higher is better."""
    needs_masks: bool
    """Whether image labels alone do not tell."""


#: The choices by name.
CHOICES = {
    # A false alarm costs more than a miss.
    "balanced": Choice(lambda s: s["iou"] - 5 * s["flagged"] - s["alarms"] / 4, True),
    "iou": Choice(lambda s: s["iou"], True),
    "ap": Choice(lambda s: s["ap"], False),
}


class Held(NamedTuple):
    """One held-out picture."""

    record: Record
    inputs: object
    """What the network is called with: images (1, 3, H, W), or features computed before."""
    mask: np.ndarray
    """(H, W) uint8, 0 or 255."""


def pictures(records: Sequence[Record], network: nn.Module) -> Iterable[Held]:
    """Whole pictures, read and preprocessed one after the other."""
    device = next(network.parameters()).device
    for record in records:
        pixels, mask = load_pair(record)
        yield Held(record, network.preprocess(pixels).to(device), mask)  # type: ignore[operator]


@torch.inference_mode()
def validate(
    network: nn.Module, held: Iterable[Held], choice: str = "balanced"
) -> dict[str, float]:
    """Scores of a network in eval mode on held-out pictures.

    Returns:
        ``iou/<method>``: mean IoU at 0.5 per edited picture; ``iou``: the mean of those means;
        ``flagged``: mean share of area marked in untouched pictures; ``alarms``: share of
        untouched pictures with over 2 % of their area marked; where there are pictures of both
        kinds, of the image's logit (`image_logit`): ``auc``, ``ap`` and ``accuracy``; ``choice``:
        the score that ``choice`` names.
    """
    overlaps: dict[str, list[float]] = {}
    flagged: list[float] = []
    scores: list[float] = []
    labels: list[bool] = []
    for record, inputs, mask in held:
        output = network(inputs)
        logits: Tensor = output.mask.float()
        evidence = None if output.evidence is None else output.evidence.float()
        scores.append(float(image_logit(logits, evidence).double().sigmoid()))
        labels.append(record.manipulated)
        if logits.shape[-2:] != mask.shape:
            logits = F.interpolate(logits, mask.shape, mode="bilinear", align_corners=False)
        marked, edited = (logits[0, 0] > 0).cpu().numpy(), mask > 127
        if record.manipulated:
            overlaps.setdefault(record.method, []).append(iou(marked, edited))
        else:
            flagged.append(float(marked.mean()))

    result = {f"iou/{name}": float(np.mean(overlaps[name])) for name in sorted(overlaps)}
    result["iou"] = float(np.mean(list(result.values()))) if result else 0.0
    result["flagged"] = float(np.mean(flagged)) if flagged else 0.0
    result["alarms"] = float(np.mean(np.array(flagged) > 0.02)) if flagged else 0.0
    if len(set(labels)) == 2:
        image_level = detection_metrics(scores, labels)
        result |= {name: image_level[name] for name in ("auc", "ap", "accuracy")}
    result["choice"] = CHOICES[choice].score(result)
    return result
