"""unpickle.py: CoDE's published classifiers (.sav, .joblib), read once, in a process of their own.

python -m forgemap.unpickle FILE OUT     # what `convert_classifier` starts; nobody else needs it

A pickle is a program. This one runs apart, only when somebody said that they trust it, and with
every class but NumPy's arrays replaced by an empty shell: what comes back are numbers and names,
which do not depend on the installed version of scikit-learn either.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .classifiers import Classifier, Linear, Nearest, OneClass, Source, normalised, save
from .errors import ModelError
from .neighbours import search

SUFFIXES = (".sav", ".joblib", ".pkl", ".pickle")
SECONDS = 300  # the published files take one
# What a pickle may really use; everything else becomes a `Shell`.
_ALLOWED = {
    *((module, name) for module in ("numpy", "numpy.dtypes") for name in ("ndarray", "dtype")),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
    ("joblib.numpy_pickle", "NumpyArrayWrapper"),
    ("collections", "OrderedDict"),
    ("copyreg", "_reconstructor"),
    ("copy_reg", "_reconstructor"),
    ("_codecs", "encode"),
    *(("builtins", name) for name in ("object", "set", "frozenset", "bytearray", "complex")),
    *(("__builtin__", name) for name in ("object", "set", "frozenset", "bytearray", "complex")),
}
_WANTED = (
    *("coef_", "intercept_", "classes_", "_fit_X", "_y", "n_neighbors", "effective_metric_"),
    *("metric", "support_vectors_", "_dual_coef_", "dual_coef_", "_intercept_", "_gamma"),
    *("gamma", "degree", "coef0", "kernel", "_sparse", "n_features_in_", "_sklearn_version"),
)


def convert_classifier(
    path: str | Path, out: str | Path, source: Source, *, trust: bool = False
) -> Classifier:
    """Read a pickled classifier of scikit-learn and write its safe form.

    Logistic regression of two classes, 1-nearest neighbour by the cosine, and the one-class SVM
    with a polynomial kernel, of any version of scikit-learn since 0.22.

    Args:
        path: a file by joblib or pickle.
        out: the safetensors file to write.
        source: the embedder that it was fitted on the embeddings of; the file does not tell.
        trust: whether the user trusts the file's maker; without it the file is not opened.

    Raises:
        ModelError: no trust, no such file, a file that holds something else, or embeddings of
            another length than the embedder's.
    """
    path = Path(path)
    if not trust:
        raise ModelError(
            f"{path}: is a pickle, which can run any code; if you trust its maker, add "
            "--trust-pickle, and it is read once in a process of its own."
        )
    if not path.is_file():
        raise ModelError(f"{path}: no such file.")
    kind, values = _apart(path)
    try:
        classifier = _READERS[kind](values, source)
    except KeyError as error:
        what = f"has no {error.args[0]}" if kind in _READERS else f"is a {kind}"
        raise ModelError(
            f"{path}: {what}; what can be converted are a fitted {', '.join(_READERS)}."
        ) from None
    except (ValueError, TypeError, IndexError) as error:
        raise ModelError(f"{path}: {error}.") from error
    save(classifier, out)
    return classifier


def _apart(path: Path) -> tuple[str, dict[str, Any]]:
    """Class name and attributes of what the pickle holds, read by another process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "values.npz"
        command = [sys.executable, "-m", "forgemap.unpickle", str(path.absolute()), str(out)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise ModelError(f"{path}: could not be read within {SECONDS} seconds.") from None
        if run.returncode or not out.is_file():
            lines = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
            raise ModelError(f"{path}: cannot be read as a pickled classifier ({lines[-1]}).")
        with np.load(out, allow_pickle=False) as file:
            values: dict[str, Any] = {name: file[name] for name in file.files}
    facts = json.loads(str(values.pop("facts")))
    return facts["class"], {**facts["values"], **values}


def _linear(values: dict[str, Any], source: Source) -> Linear:
    _two_classes(values)
    weights = _rows(values["coef_"], source)
    if len(weights) != 1:
        raise ValueError(f"its coefficients have the shape {weights.shape}, not one row")
    return Linear(source, weights[0], np.asarray(values["intercept_"], np.float64).reshape(1))


def _nearest(values: dict[str, Any], source: Source) -> Nearest:
    _two_classes(values)
    metric = values.get("effective_metric_", values["metric"])
    if metric != "cosine" or values["n_neighbors"] != 1:
        raise ValueError(
            f"it takes {values['n_neighbors']} neighbours by {metric}, not 1 by cosine"
        )
    vectors, labels = _rows(values["_fit_X"], source), np.asarray(values["_y"]).ravel()
    if labels.shape != (len(vectors),) or {*labels.tolist()} != {0, 1}:
        raise ValueError("its labels do not fit its embeddings, or lack one of the classes")
    units = normalised(vectors)
    return Nearest(source, search(units[labels == 0]), search(units[labels == 1]))


def _one_class(values: dict[str, Any], source: Source) -> OneClass:
    if values["kernel"] != "poly":
        raise ValueError(f"its kernel is {values['kernel']!r}, not 'poly'")
    vectors = _rows(values["support_vectors_"], source)
    dual = values["_dual_coef_"] if "_dual_coef_" in values else values["dual_coef_"]
    offset = values["_intercept_"] if "_intercept_" in values else values["intercept_"]
    gamma = values["_gamma"] if "_gamma" in values else values["gamma"]
    gamma = 1 / source.width if gamma == "auto" else gamma
    numbers = [gamma, values["degree"], values["coef0"], -np.asarray(offset).ravel()[0]]
    weights = np.asarray(dual, np.float64).ravel()
    if weights.shape != (len(vectors),):
        raise ValueError("its coefficients do not fit its support vectors")
    return OneClass(source, vectors, weights, np.array(numbers, np.float64))


#: scikit-learn's classes that can be converted.
_READERS: dict[str, Any] = {
    "LogisticRegression": _linear,
    "KNeighborsClassifier": _nearest,
    "OneClassSVM": _one_class,
}


def _rows(array: Any, source: Source) -> np.ndarray:
    rows = np.asarray(array, np.float64)
    if rows.ndim != 2 or rows.shape[1] != source.width or not np.isfinite(rows).all():
        raise ValueError(
            f"it was fitted on embeddings of the shape {rows.shape}, those of {source.model} are "
            f"{source.width} long: name the embedder that it belongs to"
        )
    return rows


def _two_classes(values: dict[str, Any]) -> None:
    if np.asarray(values["classes_"]).tolist() != [0, 1]:
        raise ValueError(f"its classes are {np.asarray(values['classes_']).tolist()}, not [0, 1]")


class Shell:
    """Stands for any class or function that a pickle names: keeps its state, does nothing."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


def main(path: str, out: str) -> None:
    """Read a pickle; write its object's class and plain attributes as an .npz without objects."""
    from joblib import numpy_pickle

    class Reader(numpy_pickle.NumpyUnpickler):  # type: ignore[misc]
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in _ALLOWED:
                return super().find_class(module, name)
            return type(name.rpartition(".")[2], (Shell,), {"__module__": module})

    read_array = numpy_pickle.NumpyArrayWrapper.read_array

    def read_numbers(wrapper: Any, *arguments: Any) -> Any:
        if wrapper.dtype.hasobject:  # joblib reads those with a plain unpickler
            raise ValueError("it holds arrays of objects")
        return read_array(wrapper, *arguments)

    numpy_pickle.NumpyArrayWrapper.read_array = read_numbers
    numpy_pickle.NumpyUnpickler = Reader
    found = numpy_pickle.load(path)
    attributes = vars(found) if isinstance(found, Shell) else {}
    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, Any] = {}
    for name in _WANTED:
        value = attributes.get(name)
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            arrays[name] = value
        elif isinstance(value, (str, int, float, bool)):
            plain[name] = value
    facts = json.dumps({"class": type(found).__name__, "values": plain})
    np.savez(out, facts=np.array(facts), **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
