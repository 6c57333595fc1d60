"""maps.py: embeddings as a map in two dimensions, a colour for each generator (UMAP or t-SNE)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.generated import REAL
from ..errors import DataError
from . import plots
from .embeddings import Embeddings

FEWEST = 5  # pictures that have neighbours to speak of


def umap(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """UMAP (McInnes et al., 2018) by the cosine, 15 neighbours."""
    import warnings

    from umap import UMAP

    neighbours = min(15, len(vectors) - 1)
    # Its spectral start needs more points than dimensions of the start.
    start = "spectral" if len(vectors) > 20 else "random"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed means one thread
        drawn = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, init=start)
        return np.asarray(drawn.fit_transform(vectors), np.float32)


def tsne(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """t-SNE (van der Maaten and Hinton, 2008) by the cosine, perplexity 30."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    drawn = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=seed)
    return np.asarray(drawn.fit_transform(vectors), np.float32)


#: Ways of laying vectors (N, D) out in two dimensions (N, 2), given a seed.
MAPS: dict[str, Callable[[NDArray[np.float32], int], NDArray[np.float32]]] = {
    "umap": umap,
    "tsne": tsne,
}


def draw(found: Embeddings, how: str, file: Path, *, most: int = 5000, seed: int = 0) -> Path:
    """Draw embeddings as a PNG; the first crop of each picture in its first variant.

    Args:
        how: a key of `MAPS`.
        most: at most so many pictures, drawn by `seed`: more take long and hide one another.

    Raises:
        DataError: an unknown name, or too few pictures.
    """
    if how not in MAPS:
        raise DataError(f"Unknown map {how!r}: use one of {', '.join(MAPS)}.")
    if len(found):
        found = found.where((found["crop"] == 0) & (found["variant"] == found["variant"][0]))
    if len(found) < FEWEST:
        raise DataError(f"{len(found)} pictures are too few for a map: {FEWEST} are needed.")
    if len(found) > most:
        kept = np.zeros(len(found), bool)
        kept[np.random.default_rng(seed).choice(len(found), most, replace=False)] = True
        found = found.where(kept)
    places = MAPS[how](found.vectors, seed)
    return plots._save(file, lambda axes: scatter(places, found["generator"], how, axes))


def scatter(places: NDArray[np.float32], generators: NDArray[Any], how: str, axes: Any) -> None:
    """Points (N, 2), real pictures in grey, each generator in its colour."""
    size = max(2.0, min(20.0, 20000 / len(places)))
    names = sorted({*generators} - {REAL})
    shown = [(REAL, "0.6"), *((n, plots.COLOURS[i % 8]) for i, n in enumerate(names))]
    for name, colour in shown:
        here = places[generators == name]
        if len(here):
            axes.scatter(here[:, 0], here[:, 1], s=size, color=colour, label=name, linewidths=0)
    axes.set(xticks=[], yticks=[], xlabel=f"{'UMAP' if how == 'umap' else 't-SNE'}, by the cosine")
    axes.legend(title="generator", fontsize="small", markerscale=2)
