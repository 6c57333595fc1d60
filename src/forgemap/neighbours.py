"""neighbours.py: the nearest of many vectors: exact in NumPy, by FAISS's cells above a size.

Cosines of unit vectors throughout. FAISS indices are built from plain arrays each time, so that no
file of FAISS's own has to be trusted; what takes long, the clustering, is kept as arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .errors import ModelError

#: Up to this many vectors all cosines are computed; above, FAISS looks into the nearest cells.
EXACT_LIMIT = 200_000
PROBES = 64  # cells of an approximate index that a query looks into


class Search(Protocol):
    """Vectors (N, D) of length 1, and how the nearest is found."""

    @property
    def vectors(self) -> np.ndarray:
        """The vectors themselves."""

    def nearest(self, queries: np.ndarray) -> np.ndarray:
        """Unit queries (Q, D) float32 -> the cosine to the nearest vector, (Q,) float64."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file of it holds."""


@dataclass(frozen=True, eq=False)
class Exact:
    """All cosines, by NumPy."""

    vectors: np.ndarray

    def nearest(self, queries: np.ndarray) -> np.ndarray:
        best = np.empty(len(queries))
        step = max(1, 2**24 // len(self.vectors))  # 64 MiB of cosines at a time
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            best[start : start + step] = (part @ self.vectors.T).max(axis=1)
        return best

    def arrays(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors}


@dataclass(frozen=True, eq=False)
class Flat:
    """All cosines, by FAISS."""

    vectors: np.ndarray
    index: Any

    def nearest(self, queries: np.ndarray) -> np.ndarray:
        return self.index.search(np.ascontiguousarray(queries), 1)[0][:, 0].astype(np.float64)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors}


@dataclass(frozen=True, eq=False)
class Cells:
    """The cosines in the `PROBES` cells nearest to the query, by FAISS (an inverted file)."""

    vectors: np.ndarray
    centres: np.ndarray
    """(C, D) float32, the middle of each cell."""
    cells: np.ndarray
    """(N,) int64, the cell of each vector."""
    index: Any

    def nearest(self, queries: np.ndarray) -> np.ndarray:
        return self.index.search(np.ascontiguousarray(queries), 1)[0][:, 0].astype(np.float64)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors, "centres": self.centres, "cells": self.cells}


def exact(vectors: np.ndarray, kept: Mapping[str, np.ndarray]) -> Exact:
    return Exact(vectors)


def flat(vectors: np.ndarray, kept: Mapping[str, np.ndarray]) -> Flat:
    index = _faiss().IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return Flat(vectors, index)


def cells(vectors: np.ndarray, kept: Mapping[str, np.ndarray]) -> Cells:
    faiss = _faiss()
    number, width = vectors.shape
    if {"centres", "cells"} <= kept.keys():
        centres = np.ascontiguousarray(kept["centres"], np.float32)
        places = np.ascontiguousarray(kept["cells"], np.int64)
        fits = centres.ndim == 2 and centres.shape[1] == width and places.shape == (number,)
        if not fits or not ((places >= 0) & (places < len(centres))).all():
            raise ValueError("its index does not fit its vectors")
    else:
        count = min(max(1, int(4 * number**0.5)), max(1, number // 39))  # FAISS's own rules
        training = faiss.Kmeans(
            width, count, niter=10, seed=0, spherical=True, max_points_per_centroid=64
        )
        training.train(vectors)
        centres = training.centroids
        places = training.index.search(vectors, 1)[1][:, 0]
    quantizer = faiss.IndexFlatIP(width)
    quantizer.add(centres)
    index = faiss.IndexIVFFlat(quantizer, width, len(centres), faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    pointer = faiss.swig_ptr
    index.add_core(number, pointer(vectors), None, pointer(places))
    index.nprobe = min(PROBES, len(centres))
    return Cells(vectors, centres, places, index)


#: Kinds of index by name: made from unit vectors, and from what a file kept of an earlier one.
SEARCHES: dict[str, Callable[[np.ndarray, Mapping[str, np.ndarray]], Search]] = {
    "exact": exact,
    "flat": flat,
    "cells": cells,
}


def search(
    vectors: np.ndarray, index: str = "auto", kept: Mapping[str, np.ndarray] | None = None
) -> Search:
    """An index over unit vectors (N, D) float32.

    Args:
        vectors: at least one.
        index: a key of `SEARCHES`, or "auto": "cells" above `EXACT_LIMIT` vectors or where one was
            kept, and FAISS is installed; else "exact".
        kept: the arrays of an earlier index over the same vectors.

    Raises:
        ModelError: an unknown index, or one that needs FAISS where there is none.
    """
    kept = kept or {}
    vectors = np.ascontiguousarray(vectors, np.float32)
    if not len(vectors):
        raise ValueError("there is no vector to search")
    if index == "auto":
        large = len(vectors) > EXACT_LIMIT or {"centres", "cells"} <= kept.keys()
        index = "cells" if large and _installed() else "exact"
    if index not in SEARCHES:
        raise ModelError(f"unknown index {index!r}; valid: auto, {', '.join(SEARCHES)}.")
    return SEARCHES[index](vectors, kept)


def _installed() -> bool:
    from importlib.util import find_spec

    return find_spec("faiss") is not None


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ModelError(
            f"This index needs FAISS: pip install 'forgemap[classify]' ({error})."
        ) from error
    return faiss
