"""losses.py: what training minimises; pure functions of logits and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.nn
import torch.nn.functional as F
from torch import Tensor


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """One minus the soft Dice overlap, averaged over the pictures whose mask is not empty.

    Args:
        logits: (B, 1, H, W).
        mask: (B, 1, H, W), 0 or 1.

    Returns:
        A scalar in [0, 1]; 0 when every mask is empty (the overlap is then not defined). Of several
        processes it is each one's part: their mean is the loss of all pictures together.
    """
    probability = torch.sigmoid(logits)
    overlap = (probability * mask).sum(dim=(1, 2, 3))
    total = (probability + mask).sum(dim=(1, 2, 3))
    edited = (mask.sum(dim=(1, 2, 3)) > 0).float()
    count, processes = edited.sum(), 1
    if dist.is_available() and dist.is_initialized():
        processes = dist.get_world_size()
        dist.all_reduce(count)
    return ((1 - (2 * overlap + 1) / (total + 1)) * edited).sum() * processes / count.clamp(min=1)


def pool_evidence(evidence: Tensor, sharpness: float = 4.0) -> Tensor:
    """Log-mean-exp over the cells, (B, 1, h, w) -> (B,): between the mean and the maximum."""
    cells = evidence.flatten(1) * sharpness
    return (
        torch.logsumexp(cells, dim=1) - torch.log(torch.tensor(float(cells.shape[1])))
    ) / sharpness


def image_logit(logits: Tensor, evidence: Tensor | None) -> Tensor:
    """One logit for each picture, (B,): of its evidence, or else the mean of its mask logits.

    The mean of the logits, in training and in validation alike. (DeCLIP's published code trains on
    it, but validates the mean of the probabilities.)

    Args:
        logits: (B, 1, h, w) mask logits, as the network gives them.
        evidence: (B, 1, h', w') coarse logits, or None where the network has no such head.
    """
    if evidence is not None:
        return pool_evidence(evidence.float())
    return logits.float().flatten(1).mean(dim=1)


def image_loss(logits: Tensor, evidence: Tensor | None, edited: Tensor) -> Tensor:
    """Weak supervision: cross-entropy of `image_logit` against ``edited`` (B,), 0 or 1."""
    return F.binary_cross_entropy_with_logits(image_logit(logits, evidence), edited)


def localization_loss(
    logits: Tensor, evidence: Tensor | None, mask: Tensor, *, dice: float = 1.0, image: float = 0.25
) -> Tensor:
    """Where and whether: pixel cross-entropy, Dice, and cross-entropy of the pooled evidence.

    Args:
        logits: (B, 1, h, w) mask logits; the target is brought to their size.
        evidence: (B, 1, h', w') coarse logits, or None where the network has no such head.
        mask: (B, 1, H, W), 0 or 1.
        dice: weight of the Dice term (0 = cross-entropy alone, as DeCLIP is trained).
        image: weight of the image-level term.
    """
    target = mask
    if mask.shape[-2:] != logits.shape[-2:]:
        target = (F.interpolate(mask, logits.shape[-2:], mode="area") >= 0.5).float()
    loss = F.binary_cross_entropy_with_logits(logits, target)
    if dice:
        loss = loss + dice * dice_loss(logits, target)
    if evidence is not None and image:
        edited = (mask.flatten(1).amax(dim=1) > 0).float()
        loss = loss + image * F.binary_cross_entropy_with_logits(pool_evidence(evidence), edited)
    return loss


def info_nce(
    query: Tensor, positive: Tensor, negatives: Tensor | None = None, temperature: float = 0.1
) -> Tensor:
    """How much more each query resembles its positive than the negatives (InfoNCE).

    Van den Oord et al., "Representation learning with contrastive predictive coding" (2018),
    equation 4, over cosines: the mean of the cross-entropies of picking the positive.

    Args:
        query: (N, D), of any length: vectors are normalised here.
        positive: (N, D), one for each query.
        negatives: (M, D), the same ones for every query; None: the positives of the others.
        temperature: cosines are divided by it.
    """
    query, positive = F.normalize(query.float(), dim=1), F.normalize(positive.float(), dim=1)
    if negatives is None:
        logits = query @ positive.T
        target = torch.arange(len(query), device=query.device)
    else:
        same = (query * positive).sum(dim=1, keepdim=True)
        logits = torch.cat([same, query @ F.normalize(negatives.float(), dim=1).T], dim=1)
        target = torch.zeros(len(query), dtype=torch.long, device=query.device)
    return F.cross_entropy(logits / temperature, target)


class Views(NamedTuple):
    """Embeddings (N, D) of what one step sees of the N pictures of one class."""

    plain: Tensor
    """The picture as it is."""
    augmented: Tensor
    """A transformed view of it, or of another picture of its class."""
    whole: Tensor
    """A large ("global") crop."""
    part: Tensor
    """A small ("local") crop."""


class ContrastiveLoss(NamedTuple):
    """CoDE's loss and its parts, scalars."""

    real: Tensor
    """Mean of the two terms whose queries are real."""
    fake: Tensor
    """Mean of the two terms whose queries are generated."""
    terms: dict[str, Tensor]
    """The four InfoNCE terms: real_full, real_crops, fake_full, fake_crops."""

    @property
    def total(self) -> Tensor:
        """What is minimised: both classes, as in the paper.

        (The published training loop adds the real class twice and never the generated one.)
        """
        return self.real + self.fake


LABEL_SCALE = 2.0


def contrastive_loss(
    real: Views,
    fake: Views,
    temperature: float = 0.1,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> ContrastiveLoss:
    """CoDE's loss: pictures and crops of one class attract, the other class of the batch repels.

    Baraldi et al., "Contrasting deepfakes diffusion via contrastive learning and global-local
    similarities" (ECCV 2024, arXiv 2407.20337), section 4.

    Args:
        real, fake: the views of both classes, N pictures of each.
        temperature: see `info_nce`.
        gather: brings the negatives of all processes together (`gather_rows`); None: a process
            looks at its own batch, as published.
    """
    keys = torch.cat([real.augmented, real.whole, fake.augmented, fake.whole], dim=1)
    keys = gather(keys) if gather else keys
    real_full, real_crops, fake_full, fake_crops = keys.chunk(4, dim=1)
    terms = {
        "real_full": info_nce(real.plain, real.augmented, fake_full, temperature),
        "real_crops": info_nce(real.part, real.whole, fake_crops, temperature),
        "fake_full": info_nce(fake.plain, fake.augmented, real_full, temperature),
        "fake_crops": info_nce(fake.part, fake.whole, real_crops, temperature),
    }
    return ContrastiveLoss(
        real=(terms["real_full"] + terms["real_crops"]) / 2,
        fake=(terms["fake_full"] + terms["fake_crops"]) / 2,
        terms=terms,
    )


def label_loss(vectors: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of a classifier on embeddings that is fixed: the network comes to meet it.

    Its logit is `LABEL_SCALE` times the mean of the even channels less that of the odd ones. A last
    layer that is learned gains nothing over one that is not (Hoffer, Hubara and Soudry, "Fix your
    classifier", ICLR 2018), and a run has no weights to keep beside the network's.

    Args:
        vectors: (N, D).
        labels: (N,), 1 = generated.
    """
    logits = LABEL_SCALE * (vectors[:, ::2].mean(1) - vectors[:, 1::2].mean(1))
    return F.binary_cross_entropy_with_logits(logits.float(), labels.float())


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (N, D) of every process -> (R * N, D) in every process, in the order of the processes.

    The gradient of a row is the sum of what all processes ask of it, so that the gradient of the
    mean of the processes' losses (what DDP makes of them) is that of one process with the whole
    batch. Needs a process group; without one, rows are returned as they are.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    # Differentiable, unlike dist's own.
    return torch.cat(dist.nn.all_gather(rows.contiguous()))  # type: ignore[no-untyped-call]
