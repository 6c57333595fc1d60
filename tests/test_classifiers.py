"""Classifiers of embeddings: scikit-learn's own answers, fake = 1 in all, files without pickle."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from forgemap.classifiers import KINDS, Linear, Nearest, OneClass, Source, fit, load, normalised
from forgemap.classifiers import save as save_classifier
from forgemap.errors import DataError, ForgemapError, ModelError
from forgemap.neighbours import SEARCHES, search
from forgemap.unpickle import convert_classifier

sklearn = pytest.importorskip("sklearn")

WIDTH = 8
SOURCE = Source("tiny", "a" * 64, WIDTH)
GOLDEN = Path(__file__).parent / "golden" / "sklearn-1.1.3"


def embeddings(count: int = 160, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping clouds (N, WIDTH) float32 away from the origin, and labels, a third real."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 3 > 0).astype(int)
    centres = np.stack([np.linspace(1, 2, WIDTH), np.linspace(2, 0.5, WIDTH)])
    return (centres[labels] + rng.normal(0, 0.7, (count, WIDTH))).astype(np.float32), labels


def theirs(kind: str) -> object:
    """scikit-learn's own estimator, with the published settings."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import OneClassSVM

    x, y = embeddings()
    if kind == "linear":
        return LogisticRegression(C=0.316, class_weight="balanced", max_iter=1000).fit(x, y)
    if kind == "nearest":
        return KNeighborsClassifier(n_neighbors=1, metric="cosine").fit(x, y)
    return OneClassSVM(nu=0.1, kernel="poly", gamma="auto").fit(x[y == 0])


def their_labels(kind: str, x: np.ndarray) -> np.ndarray:
    predicted = theirs(kind).predict(x)  # type: ignore[attr-defined]
    return (predicted == -1).astype(int) if kind == "one-class" else predicted


@pytest.mark.parametrize("kind", KINDS)
def test_decisions_are_those_of_scikit_learn(kind: str) -> None:
    x, _ = embeddings(seed=1)
    scores = fit(kind, *embeddings(), SOURCE).scores(x)
    assert scores.shape == (len(x),) and scores.dtype == np.float64
    assert scores.min() >= 0 and scores.max() <= 1
    assert ((scores > 0.5) == their_labels(kind, x)).all()
    assert len(set(scores.round(6))) > 100, "scores, not only labels"


def test_the_linear_score_is_scikit_learns_probability() -> None:
    x, _ = embeddings(seed=1)
    expected = theirs("linear").predict_proba(x)[:, 1]  # type: ignore[attr-defined]
    np.testing.assert_allclose(fit("linear", *embeddings(), SOURCE).scores(x), expected, atol=1e-5)


def test_the_one_class_decision_is_scikit_learns() -> None:
    x, _ = embeddings(seed=1)
    model = fit("one-class", *embeddings(), SOURCE)
    assert isinstance(model, OneClass)
    expected = theirs("one-class").decision_function(x)  # type: ignore[attr-defined]
    np.testing.assert_allclose(model.decision(x.astype(float)), expected, rtol=1e-6, atol=1e-9)


def test_the_one_class_label_trap() -> None:
    """Inliers (+1 in scikit-learn) are real: their scores are low; outliers (-1) are fake."""
    x, y = embeddings()
    model = fit("one-class", x, y, SOURCE)
    real = x[y == 0]
    inlier = theirs("one-class").predict(real) == 1  # type: ignore[attr-defined]
    assert inlier.mean() > 0.8
    scores = model.scores(real)
    assert (scores[inlier] <= 0.5).all() and (scores[~inlier] > 0.5).all()
    assert model.scores(np.zeros((1, WIDTH)))[0] > 0.5, "unlike any real picture: fake"


@pytest.mark.parametrize("kind", KINDS)
def test_fake_is_one(kind: str) -> None:
    x, y = embeddings(300)
    x[y == 1] *= -1 if kind != "one-class" else 0.05  # plainly another class
    scores = fit(kind, x, y, SOURCE).scores(x)
    assert scores[y == 1].mean() > 0.6 > 0.45 > scores[y == 0].mean()


def test_the_one_class_classifier_never_sees_generated_pictures() -> None:
    x, y = embeddings()
    other = x.copy()
    other[y == 1] = 100
    a, b = (fit("one-class", data, y, SOURCE).arrays() for data in (x, other))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_tie_between_neighbours_counts_as_real() -> None:
    x = np.eye(4, WIDTH, dtype=np.float32)
    model = fit("nearest", x, np.array([0, 0, 1, 1]), SOURCE)
    same = np.array([[0, 1, 1, 0, 0, 0, 0, 0]], np.float32)
    assert model.scores(same)[0] == pytest.approx(0.5) and not model.scores(same)[0] > 0.5 + 1e-9
    assert model.scores(x).tolist() == [0, 0, 1, 1]


def test_scores_never_overflow() -> None:
    for kind in KINDS:
        far = np.array([[1e6] * WIDTH, [-1e6] * WIDTH, [0] * WIDTH])
        scores = fit(kind, *embeddings(), SOURCE).scores(far)
        assert np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1


@pytest.mark.parametrize("index", SEARCHES)
def test_every_index_finds_scikit_learns_neighbour(index: str) -> None:
    from sklearn.neighbors import NearestNeighbors

    if index != "exact":
        pytest.importorskip("faiss")
    rng = np.random.default_rng(2)
    vectors = normalised(rng.normal(0, 1, (3000, WIDTH)))
    queries = normalised(rng.normal(0, 1, (200, WIDTH)))
    distance, _ = NearestNeighbors(n_neighbors=1, metric="cosine").fit(vectors).kneighbors(queries)
    found = 1 - search(vectors, index).nearest(queries)
    # Of 76 cells all but a few are looked into here; the benchmark measures a large index.
    same = np.isclose(found, distance[:, 0], atol=1e-6)
    assert same.all() if index != "cells" else same.mean() > 0.98


def test_an_approximate_index_comes_back_from_its_file(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(3)
    x, y = rng.normal(0, 1, (1500, WIDTH)), np.arange(1500) % 2
    model = fit("nearest", x, y, SOURCE, index="cells")
    assert isinstance(model, Nearest) and "fake.centres" in model.arrays()
    again = load(save_classifier(model, tmp_path / "c.safetensors"))
    assert type(again.real).__name__ == "Cells"  # type: ignore[attr-defined]
    queries = rng.normal(0, 1, (50, WIDTH))
    assert np.array_equal(again.scores(queries), model.scores(queries))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_the_same_scores(kind: str, tmp_path: Path) -> None:
    model = fit(kind, *embeddings(), SOURCE)
    again = load(save_classifier(model, tmp_path / "c.safetensors"), SOURCE)
    x, _ = embeddings(seed=4)
    assert again.kind == kind and again.source == SOURCE
    assert np.array_equal(again.scores(x), model.scores(x))


def test_scoring_needs_neither_scikit_learn_nor_faiss(tmp_path: Path) -> None:
    paths = [
        str(save_classifier(fit(kind, *embeddings(), SOURCE), tmp_path / f"{kind}.safetensors"))
        for kind in KINDS
    ]
    code = (
        "import sys, numpy as np; from forgemap.classifiers import load\n"
        f"for path in {paths!r}: load(path).scores(np.ones((2, {WIDTH})))\n"
        "assert not {'sklearn', 'faiss', 'torch', 'joblib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_classifier_of_other_embeddings_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = save_classifier(fit("linear", *embeddings(), SOURCE), tmp_path / "c.safetensors")
    other = Source("another", "b" * 64, WIDTH)
    with pytest.raises(
        ModelError, match=r"c\.safetensors: was fitted on .* tiny .*, not of another"
    ):
        load(path, other)
    with pytest.raises(DataError, match="length is 8"):
        load(path).scores(np.ones((2, 9)))


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "shape", "nan", "kind", "metadata"])
def test_a_damaged_file_is_one_sentence(damage: str, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = save_classifier(fit("linear", *embeddings(), SOURCE), tmp_path / "c.safetensors")
    facts = {"kind": "linear", "source": vars(SOURCE)}
    arrays = {"weights": np.ones(WIDTH), "bias": np.zeros(1)}
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:60])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other":
        save_file(arrays, path)
    else:
        if damage == "shape":
            arrays["weights"] = np.ones(WIDTH - 1)
        if damage == "nan":
            arrays["weights"][0] = np.nan
        if damage == "kind":
            facts["kind"] = "forest"
        if damage == "metadata":
            facts["source"] = {"model": "tiny"}
        save_file(arrays, path, metadata={"forgemap.classifier": json.dumps(facts)})
    with pytest.raises(ModelError, match=r"c\.safetensors: ") as raised:
        load(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "labels", "words"),
    [
        ("linear", [0, 0, 0, 1], "at least 2 generated pictures .* there is 1"),
        ("nearest", [1, 1, 1, 1], "at least 2 real pictures .* there are none"),
        ("one-class", [1, 1, 1, 0], "at least 2 real pictures"),
        ("linear", [0, 1], "as many labels"),
        ("linear", [0, 1, 2, 2], "each 0 or 1"),
        ("forest", [0, 0, 1, 1], "valid: linear, nearest, one-class"),
    ],
)
def test_too_little_to_learn_from_is_one_sentence(kind: str, labels: list[int], words: str) -> None:
    with pytest.raises(ForgemapError, match=words):
        fit(kind, np.ones((4, WIDTH)), np.array(labels), SOURCE)


def test_imbalance_does_not_decide_the_linear_classifier() -> None:
    x, y = embeddings(3000)
    few = np.flatnonzero(y == 0)[:50]
    chosen = np.concatenate([few, np.flatnonzero(y == 1)])
    recall = [(fit("linear", x[chosen], y[chosen], SOURCE).scores(x) > 0.5)[y == k] for k in (0, 1)]
    assert abs((1 - recall[0].mean()) - recall[1].mean()) < 0.1


def pickled(kind: str, path: Path) -> Path:
    import joblib

    joblib.dump(theirs(kind), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_classifier_becomes_a_safe_file(kind: str, tmp_path: Path) -> None:
    path = pickled(kind, tmp_path / "c.joblib")
    convert_classifier(path, tmp_path / "c.safetensors", SOURCE, trust=True)
    model = load(tmp_path / "c.safetensors", SOURCE)
    x, _ = embeddings(seed=5)
    assert model.kind == kind and ((model.scores(x) > 0.5) == their_labels(kind, x)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_an_old_scikit_learn_can_be_read(kind: str, tmp_path: Path) -> None:
    """Written by scikit-learn 1.1.3, NumPy 1.26, joblib 1.2, and what it answered itself."""
    expected = np.load(GOLDEN / "answers.npz")
    path = GOLDEN / f"{kind}.joblib"
    model = convert_classifier(path, tmp_path / "c.safetensors", SOURCE, trust=True)
    scores = model.scores(expected["queries"])
    assert ((scores > 0.5) == expected[f"{kind}.labels"]).all()
    if isinstance(model, Linear):
        np.testing.assert_allclose(scores, expected["linear.values"], atol=1e-9)
    if isinstance(model, OneClass):
        decision = model.decision(expected["queries"].astype(float))
        np.testing.assert_allclose(decision, expected["one-class.values"], rtol=1e-6, atol=1e-9)


def test_a_pickle_is_not_opened_without_trust(tmp_path: Path) -> None:
    path = pickled("linear", tmp_path / "c.sav")
    with pytest.raises(ModelError, match=r"c\.sav: is a pickle, .* add --trust-pickle"):
        convert_classifier(path, tmp_path / "c.safetensors", SOURCE)
    assert not (tmp_path / "c.safetensors").exists()
    with pytest.raises(ModelError, match="forgemap convert"):
        load(path)


class Evil:
    """Unpickled as usual, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("hidden", ["bare", "in an array"])
def test_a_pickle_that_runs_code_runs_nothing(hidden: str, tmp_path: Path) -> None:
    import joblib

    evil = Evil(tmp_path / "was-here")
    path = tmp_path / "c.joblib"
    if hidden == "bare":
        path.write_bytes(pickle.dumps(evil))
    else:
        estimator = theirs("linear")
        estimator.coef_ = np.array([evil], dtype=object)  # type: ignore[attr-defined]
        joblib.dump(estimator, path)
    with pytest.raises(ModelError, match=r"c\.joblib: "):
        convert_classifier(path, tmp_path / "c.safetensors", SOURCE, trust=True)
    assert not (tmp_path / "was-here").exists() and not (tmp_path / "c.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": "euclidean"}, "1 neighbours by euclidean, not 1 by cosine"),
        ({"n_neighbors": 5}, "5 neighbours by cosine"),
        ("other class", r"is a GaussianNB; what can be converted are a fitted LogisticRegression"),
        ("not fitted", "has no classes_"),
        ("other width", "those of tiny are 8 long"),
        ("garbage", "cannot be read as a pickled classifier"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(
    change: str | dict[str, object], words: str, tmp_path: Path
) -> None:
    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier

    x, y = embeddings()
    path = tmp_path / "c.sav"
    if change == "garbage":
        path.write_bytes(b"\x80\x04nothing")
    elif change == "other class":
        joblib.dump(GaussianNB().fit(x, y), path)
    elif change == "not fitted":
        joblib.dump(LogisticRegression(), path)
    elif change == "other width":
        joblib.dump(LogisticRegression().fit(x[:, :5], y), path)
    else:
        settings = {"n_neighbors": 1, "metric": "cosine", **change}  # type: ignore[dict-item]
        joblib.dump(KNeighborsClassifier(**settings).fit(x, y), path)
    with pytest.raises(ModelError, match=words) as raised:
        convert_classifier(path, tmp_path / "out.safetensors", SOURCE, trust=True)
    assert "\n" not in str(raised.value) and "c.sav" in str(raised.value)


def test_convert_writes_the_safe_form_from_the_command_line(tmp_path: Path) -> None:
    import joblib
    from sklearn.linear_model import LogisticRegression
    from typer.testing import CliRunner

    from forgemap.cli import app
    from forgemap.models.build import build
    from forgemap.models.checkpoint import save_model

    sizes = {"width": WIDTH, "layers": 1, "heads": 2, "mlp": 8, "patch": 8, "image_size": 16}
    model = build({"architecture": "embedder", **sizes})
    folder = save_model(model, tmp_path / "embedder")
    joblib.dump(LogisticRegression().fit(*embeddings()), tmp_path / "linear.sav")
    arguments = ["convert", str(tmp_path / "linear.sav"), "--embedder", str(folder)]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, ModelError) and "--trust-pickle" in str(refused.exception)
    done = CliRunner().invoke(app, [*arguments, "--trust-pickle"])
    assert done.exit_code == 0, done.exception
    found = load(tmp_path / "linear.safetensors")
    assert found.source.fingerprint == model.fingerprint()  # type: ignore[operator]
