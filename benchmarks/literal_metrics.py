"""literal_metrics.py: pixel metrics written straight from their definitions, a sort for each.

Two forms, both slow on purpose, to measure the library's against: `with_torch` has the structure of
DeCLIP's published evaluation (pooling as erosion, a torch sort for F1 and one for AP),
`with_sklearn` the one that most people would write (scipy's filters, scikit-learn's curves).
Both return iou, f1_fixed, f1_best, ap.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import maximum_filter, minimum_filter
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve


def with_torch(prob: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """prob: (H, W) float32, mask: (H, W) uint8 of 0 and 1."""
    prediction, truth = torch.from_numpy(prob), torch.from_numpy(mask).float()
    predicted = prediction > 0.5
    union = torch.logical_or(predicted, truth).sum()
    intersection = torch.logical_and(predicted, truth).sum()

    padded = F.pad(truth, (7, 7, 7, 7), value=float("inf"))
    positives = -F.max_pool2d(-padded[None], 15, stride=1)[0] > 0
    negatives = F.max_pool2d(F.pad(truth, (5, 5, 5, 5))[None], 11, stride=1)[0] == 0

    order = torch.argsort(prediction.flatten())
    order = order[(positives | negatives).flatten()[order]]
    values = prediction.flatten()[order]
    fn, tn = positives.flatten()[order].cumsum(0), negatives.flatten()[order].cumsum(0)
    tp, fp = positives.sum() - fn, negatives.sum() - tn
    step = values[1:] > values[:-1]
    tp, fp, fn = tp[:-1][step], fp[:-1][step], fn[:-1][step]
    best = (2 * tp / (2 * tp + fp + fn)).max()

    scored = (positives | negatives).flatten()
    pairs = 2 * truth.flatten()[scored].long() + predicted.flatten()[scored]
    _, fp_fixed, fn_fixed, tp_fixed = torch.bincount(pairs, minlength=4)

    order = torch.argsort(prediction.flatten(), descending=True)
    values, hits = prediction.flatten()[order], truth.flatten()[order]
    last = F.pad(values[1:] != values[:-1], (0, 1), value=True)
    tp, seen = hits.double().cumsum(0)[last], torch.arange(1, hits.numel() + 1)[last]
    precision, recall = tp / seen, tp / tp[-1]
    ap = (recall.diff(prepend=recall.new_zeros(1)) * precision).sum()
    return {
        "iou": float(intersection / union),
        "f1_fixed": float(2 * tp_fixed / (2 * tp_fixed + fp_fixed + fn_fixed)),
        "f1_best": float(best),
        "ap": float(ap),
    }


def with_sklearn(prob: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """prob: (H, W) float32, mask: (H, W) uint8 of 0 and 1."""
    predicted, truth = prob > 0.5, mask > 0
    positives = minimum_filter(mask, 15) > 0
    scored = positives | (maximum_filter(mask, 11) == 0)
    precision, recall, _ = precision_recall_curve(positives[scored], prob[scored])
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-32)
    return {
        "iou": (predicted & truth).sum() / (predicted | truth).sum(),
        "f1_fixed": float(f1_score(positives[scored], predicted[scored])),
        "f1_best": float(f1.max()),
        "ap": float(average_precision_score(truth.ravel(), prob.ravel())),
    }
