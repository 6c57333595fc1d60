"""classifiers.py: embeddings -> scores in [0, 1]; fake = 1 in all of them.

model = fit("linear", embeddings, labels, source)   # or "nearest", "one-class"
model.scores(embeddings)                            # above 0.5: generated
save(model, "real-or-not.safetensors"); load("real-or-not.safetensors", source)

The three of CoDE (Baraldi et al., ECCV 2024), with its settings. Fitting needs scikit-learn; what
is fitted is a few arrays, so that scores need NumPy alone and a file of them can be read without
unpickling anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from .errors import DataError, ModelError
from .files import write_whole
from .neighbours import Search, search

METADATA = "forgemap.classifier"


@dataclass(frozen=True)
class Source:
    """Which embeddings a classifier was fitted on; it is of no use on any others."""

    model: str
    """The embedder's folder or hub id, for people."""
    fingerprint: str
    """`Embedder.fingerprint` of it, for the check."""
    width: int
    """Length of an embedding."""


class Classifier(Protocol):
    """What all kinds have in common."""

    kind: ClassVar[str]

    @property
    def source(self) -> Source:
        """What it was fitted on."""

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """embeddings (N, D) -> scores (N,) in [0, 1], float64: the higher, the likelier generated.

        Above 0.5 where the classifier's own decision is "generated".
        """

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file of it holds."""


@dataclass(frozen=True, eq=False)
class Linear:
    """Logistic regression; its score is its probability."""

    kind: ClassVar[str] = "linear"
    source: Source
    weights: np.ndarray
    """(D,) float64."""
    bias: np.ndarray
    """(1,) float64."""

    @classmethod
    def fit(cls, embeddings: np.ndarray, labels: np.ndarray, source: Source) -> Linear:
        """As published: C = 0.316, classes balanced."""
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=0.316, class_weight="balanced", max_iter=1000)
        fitted.fit(embeddings, labels)
        return cls(source, fitted.coef_[0].astype(np.float64), fitted.intercept_.astype(np.float64))

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        return _sigmoid(_checked(embeddings, self.source) @ self.weights + self.bias)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weights": self.weights, "bias": self.bias}


@dataclass(frozen=True, eq=False)
class Nearest:
    """1-nearest neighbour by the cosine.

    The score compares the distances to the nearest real and the nearest generated neighbour:
    r / (r + g), 0.5 where they are the same (a tie counts as real).
    """

    kind: ClassVar[str] = "nearest"
    source: Source
    real: Search
    fake: Search

    @classmethod
    def fit(
        cls, embeddings: np.ndarray, labels: np.ndarray, source: Source, index: str = "auto"
    ) -> Nearest:
        """Keep all embeddings, each class in an index of its own (see `neighbours.SEARCHES`)."""
        units = normalised(embeddings)
        return cls(source, search(units[labels == 0], index), search(units[labels == 1], index))

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        units = normalised(_checked(embeddings, self.source))
        real, fake = (1 - side.nearest(units).clip(-1, 1) for side in (self.real, self.fake))
        total = real + fake
        return np.where(total > 0, real / np.where(total > 0, total, 1), 0.5)

    def arrays(self) -> dict[str, np.ndarray]:
        sides = {"real": self.real.arrays(), "fake": self.fake.arrays()}
        return {f"{side}.{name}": a for side, part in sides.items() for name, a in part.items()}


@dataclass(frozen=True, eq=False)
class OneClass:
    """One-class support vector machine, fitted on real pictures alone.

    Its inliers (a positive decision) are *real* pictures, so what lies outside is generated. (The
    comment in CoDE's published demo says the opposite.) The score is a sigmoid of the negative
    decision, in units of the offset; the decision's sign changes at 0.5.
    """

    kind: ClassVar[str] = "one-class"
    source: Source
    vectors: np.ndarray
    """(S, D) float64 support vectors."""
    weights: np.ndarray
    """(S,) float64 dual coefficients."""
    numbers: np.ndarray
    """(4,) float64: gamma, degree and coef0 of the polynomial kernel, offset of the decision."""

    @classmethod
    def fit(cls, embeddings: np.ndarray, labels: np.ndarray, source: Source) -> OneClass:
        """As published: nu = 0.1, polynomial kernel of degree 3, gamma = 1 / D."""
        from sklearn.svm import OneClassSVM

        fitted = OneClassSVM(nu=0.1, kernel="poly", gamma="auto")
        fitted.fit(embeddings[labels == 0].astype(np.float64))
        numbers = [1 / embeddings.shape[1], fitted.degree, fitted.coef0, -fitted.intercept_[0]]
        return cls(source, fitted.support_vectors_, fitted.dual_coef_[0], np.array(numbers))

    def decision(self, embeddings: np.ndarray) -> np.ndarray:
        """scikit-learn's decision_function: above 0 for inliers, which are real pictures."""
        gamma, degree, coef0, offset = self.numbers
        values = []
        for part in np.array_split(embeddings, max(1, len(embeddings) // 4096)):
            values.append((gamma * (part @ self.vectors.T) + coef0) ** degree @ self.weights)
        return np.concatenate(values) - offset

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        decision = self.decision(_checked(embeddings, self.source))
        return _sigmoid(-decision / (abs(self.numbers[3]) or 1.0))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors, "weights": self.weights, "numbers": self.numbers}


#: The classifiers by name.
KINDS: dict[str, Any] = {kind.kind: kind for kind in (Linear, Nearest, OneClass)}


def fit(
    kind: str, embeddings: np.ndarray, labels: np.ndarray, source: Source, **settings: Any
) -> Classifier:
    """A classifier of embeddings (N, D) with labels (N,), 0 = real, 1 = fake.

    Args:
        kind: a key of `KINDS`. "one-class" looks at the real ones alone.
        embeddings: from the embedder that ``source`` names.
        labels: numbers or booleans.
        source: see `Source`.
        settings: further arguments of the kind's ``fit``.

    Raises:
        DataError: too few of a class, lengths that differ, values that are not finite.
    """
    if kind not in KINDS:
        raise ModelError(f"unknown classifier {kind!r}; valid: {', '.join(KINDS)}.")
    embeddings, labels = _checked(embeddings, source), np.asarray(labels).astype(int)
    if labels.shape != (len(embeddings),) or not np.isin(labels, (0, 1)).all():
        raise DataError(f"{len(embeddings)} embeddings need as many labels, each 0 or 1.")
    counts = {"real": int((labels == 0).sum()), "generated": int((labels == 1).sum())}
    for name in ("real",) if kind == "one-class" else ("real", "generated"):
        if counts[name] < 2:
            raise DataError(
                f"The {kind} classifier needs at least 2 {name} pictures to learn from, "
                f"there {'is' if counts[name] == 1 else 'are'} {counts[name] or 'none'}; add some."
            )
    try:
        return KINDS[kind].fit(embeddings, labels, source, **settings)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"Fitting a {kind} classifier needs {error.name}: pip install 'forgemap[classify]'."
        ) from error


def save(classifier: Classifier, path: str | Path) -> Path:
    """Write a classifier as one safetensors file, whole or not at all.

    Raises:
        ModelError: it cannot be written.
    """
    from safetensors.numpy import save as save_bytes

    path = Path(path)
    facts = json.dumps({"kind": classifier.kind, "source": asdict(classifier.source)})
    arrays = {name: np.ascontiguousarray(a) for name, a in classifier.arrays().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not save_file, whose files only their owner can read.
        write_whole(path, save_bytes(arrays, metadata={METADATA: facts}))
    except Exception as error:
        raise ModelError(f"{path}: cannot be written ({error}).") from error
    return path


def load(path: str | Path, source: Source | None = None) -> Classifier:
    """Read a classifier's file.

    Args:
        path: a file that `save` wrote.
        source: the embedder that it is going to be used with.

    Raises:
        ModelError: no such file, something else or a damaged one, or a classifier that was fitted
            on the embeddings of another model than ``source``.
    """
    path = Path(path)
    facts, arrays = _read(path)
    try:
        kind, given = facts["kind"], facts["source"]
        own = Source(**{f.name: given[f.name] for f in fields(Source)})
        if kind not in KINDS:
            raise ModelError(f"unknown classifier {kind!r}; valid: {', '.join(KINDS)}")
        classifier = _assembled(kind, arrays, own)
    except (KeyError, TypeError, ValueError, IndexError, ModelError) as error:
        raise ModelError(f"{path}: is not a whole classifier ({error}); fit it anew.") from error
    if source is not None and source.fingerprint != own.fingerprint:
        raise ModelError(
            f"{path}: was fitted on embeddings of {own.model} ({own.fingerprint[:12]}), not of "
            f"{source.model} ({source.fingerprint[:12]}); fit it anew on those."
        )
    return classifier


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"{path}: no such classifier file.")
    try:
        with safe_open(path, framework="np") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        pickled = path.suffix in (".sav", ".joblib", ".pkl", ".pickle")
        remedy = "; `forgemap convert` reads pickles that you trust" if pickled else ""
        raise ModelError(f"{path}: not a readable safetensors file ({error}){remedy}.") from error
    if not isinstance(facts, dict):
        raise ModelError(f"{path}: holds no classifier of Forgemap, but something else.")
    return facts, arrays


def _assembled(kind: str, arrays: Mapping[str, np.ndarray], source: Source) -> Classifier:
    """The classifier of a file's arrays; ValueError or KeyError where one does not fit."""
    width = source.width
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")

    def shaped(name: str, *shape: int | None) -> np.ndarray:
        found = arrays[name]
        if found.ndim != len(shape) or any(
            wanted not in (None, size) for size, wanted in zip(found.shape, shape, strict=True)
        ):
            raise ValueError(f"{name} has the shape {found.shape}")
        return found

    if kind == "linear":
        return Linear(source, shaped("weights", width), shaped("bias", 1))
    if kind == "one-class":
        vectors = shaped("vectors", None, width)
        numbers = shaped("numbers", 4)
        return OneClass(source, vectors, shaped("weights", len(vectors)), numbers)
    sides = []
    for side in ("real", "fake"):
        vectors = shaped(f"{side}.vectors", None, width)
        prefix = f"{side}."
        rest = {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
        sides.append(search(vectors, "auto", rest))
    return Nearest(source, *sides)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Rows brought to length 1, float32; a row of zeros stays one."""
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _checked(embeddings: np.ndarray, source: Source) -> np.ndarray:
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or embeddings.shape[1] != source.width:
        raise DataError(
            f"Embeddings of the shape {embeddings.shape} are not those of {source.model}, whose "
            f"length is {source.width}."
        )
    if not np.isfinite(embeddings).all():
        raise DataError(f"Embeddings of {source.model} hold numbers that are not finite.")
    return embeddings.astype(np.float64)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))  # never overflows
