"""validation.py: how a localizer does on held-out pictures, method by method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..data.datasets import load_pair
from ..data.records import Record
from ..evaluate.metrics import iou
from .losses import pool_evidence


@torch.inference_mode()
def validate(network: nn.Module, records: Sequence[Record]) -> dict[str, float]:
    """Scores of a network in eval mode on whole pictures.

    Returns:
        ``iou/<method>``: mean IoU at 0.5 per edited picture; ``iou``: the mean of those means;
        ``flagged``: mean share of area marked in untouched pictures; ``alarms``: share of
        untouched pictures with over 2 % of their area marked; ``auc``: of the image score,
        edited against untouched; ``choice``: what the best checkpoint is chosen by,
        ``iou - 5 flagged - alarms / 4`` (a false alarm costs more than a miss).
    """
    overlaps: dict[str, list[float]] = {}
    flagged: list[float] = []
    scores: dict[bool, list[float]] = {True: [], False: []}
    device = next(network.parameters()).device
    for record in records:
        pixels, mask = load_pair(record)
        output = network(network.preprocess(pixels).to(device))  # type: ignore[operator]
        logits = output.mask.float()
        if logits.shape[-2:] != mask.shape:
            logits = F.interpolate(logits, mask.shape, mode="bilinear", align_corners=False)
        marked, edited = (logits[0, 0] > 0).cpu().numpy(), mask > 127
        evidence = logits.flatten(1).sigmoid().mean(1)
        if output.evidence is not None:
            evidence = pool_evidence(output.evidence.float())
        scores[record.manipulated].append(float(evidence[0]))
        if record.manipulated:
            overlaps.setdefault(record.method, []).append(iou(marked, edited))
        else:
            flagged.append(float(marked.mean()))

    result = {f"iou/{name}": float(np.mean(overlaps[name])) for name in sorted(overlaps)}
    result["iou"] = float(np.mean(list(result.values()))) if result else 0.0
    result["flagged"] = float(np.mean(flagged)) if flagged else 0.0
    result["alarms"] = float(np.mean(np.array(flagged) > 0.02)) if flagged else 0.0
    if scores[True] and scores[False]:
        edited_scores, plain = np.array(scores[True]), np.array(scores[False])
        wins = edited_scores[:, None] > plain[None]
        ties = edited_scores[:, None] == plain[None]
        result["auc"] = float((wins + 0.5 * ties).mean())
    result["choice"] = result["iou"] - 5 * result["flagged"] - result["alarms"] / 4
    return result
