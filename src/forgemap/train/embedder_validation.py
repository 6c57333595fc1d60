"""embedder_validation.py: how far apart an embedder puts real and generated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..classifiers import Classifier, Source, fit
from ..data.contrast import ViewSettings, encoded
from ..data.generated import REAL, Labelled
from ..data.twins import processed
from ..errors import ForgemapError
from ..evaluate.metrics import detection_metrics
from ..image import load_image
from ..models.crops import cut
from ..models.embedder import Embedder
from .batches import one_thread

BATCH = 64


class Crop(NamedTuple):
    """One picture as the network is going to see it."""

    image: Tensor
    """(3, side, side) uint8."""
    generator: str


class Crops(Dataset[Crop]):
    """Centre crops in the encoding that all pictures of the run have, or crops as trained on."""

    def __init__(
        self,
        pictures: Sequence[Labelled],
        settings: ViewSettings,
        seed: int,
        processed: bool = False,
    ) -> None:
        self.pictures, self.settings, self.seed = pictures, settings, seed
        self.processed = processed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> Crop:
        picture = self.pictures[i]
        rng = np.random.default_rng([self.seed, i])
        pixels = encoded(load_image(picture.image), self.settings, rng)
        if self.processed:
            view = processed(pixels, self.settings, rng)
        else:
            (view,), _ = cut(pixels, self.settings.side)
        return Crop(torch.from_numpy(view.transpose(2, 0, 1).copy()), picture.generator)


class Embedded(NamedTuple):
    """Embeddings of pictures, in their order."""

    vectors: np.ndarray
    """(N, D) float32."""
    generators: list[str]

    @property
    def labels(self) -> np.ndarray:
        """(N,) 0 = real, 1 = fake."""
        return np.array([name != REAL for name in self.generators], int)


@torch.inference_mode()
def embedded(network: Embedder, crops: Crops, workers: int) -> Embedded:
    """The embeddings of all pictures; where there are several processes, each computes a part."""
    rank, world = 0, 1
    if dist.is_available() and dist.is_initialized():
        rank, world = dist.get_rank(), dist.get_world_size()
    mine = range(rank, len(crops), world)
    loader: DataLoader[Crop] = DataLoader(
        crops, BATCH, sampler=mine, num_workers=workers, worker_init_fn=one_thread
    )
    vectors, names = [np.zeros((0, network.width), np.float32)], []
    try:
        for batch in loader:
            images = normalised(batch.image.to(network.class_token.device), network)
            vectors.append(network(images).float().cpu().numpy())
            names += list(batch.generator)
    except ForgemapError as error:
        # A reading process's error comes as a traceback; its last line is the sentence.
        raise type(error)(str(error).strip().splitlines()[-1].split("Error: ")[-1]) from error
    part = Embedded(np.concatenate(vectors), names)
    if world == 1:
        return part
    parts: list[Embedded] = [part] * world
    dist.all_gather_object(parts, part)
    whole = np.empty((len(crops), network.width), np.float32)
    generators = [""] * len(crops)
    for number, other in enumerate(parts):
        whole[number::world] = other.vectors
        generators[number::world] = other.generators
    return Embedded(whole, generators)


def normalised(images: Tensor, network: Embedder) -> Tensor:
    """(B, 3, H, W) uint8 -> float32, as the network's preprocessing has it."""
    mean, std = (
        torch.tensor(values, device=images.device).view(1, 3, 1, 1)
        for values in (network.preprocess.mean, network.preprocess.std)
    )
    return (images.float() / 255 - mean) / std


def validate(
    learned: Embedded, held: Embedded, kinds: Sequence[str], choice: tuple[str, str], source: Source
) -> tuple[dict[str, float], dict[str, Classifier]]:
    """Classifiers fitted on training pictures, and their scores on held-out ones.

    Returns:
        For each classifier ``<kind>/real`` and ``<kind>/<generator>``: the share that is judged
        right; ``<kind>/balanced``: the mean of the real share and the generators' mean;
        ``<kind>/auc``; and ``choice``: of the kind ``choice[0]`` the measure ``choice[1]``,
        "balanced" or "auc". And the classifiers.
    """
    result: dict[str, float] = {}
    classifiers = {}
    labels, names = held.labels, np.array(held.generators)
    for kind in kinds:
        classifier = fit(kind, learned.vectors, learned.labels, source)
        scores = classifier.scores(held.vectors)
        right = (scores > 0.5) == labels
        for name in (REAL, *sorted({*held.generators} - {REAL})):
            result[f"{kind}/{name}"] = float(right[names == name].mean())
        found = [result[f"{kind}/{name}"] for name in sorted({*held.generators} - {REAL})]
        result[f"{kind}/balanced"] = (result[f"{kind}/{REAL}"] + float(np.mean(found))) / 2
        result[f"{kind}/auc"] = detection_metrics(scores, labels)["auc"]
        classifiers[kind] = classifier
    result["choice"] = result["/".join(choice)]
    return result, classifiers
