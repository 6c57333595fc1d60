"""generated.py: is a picture generated as a whole? An embedder and its classifiers, measured.

found = evaluate("runs/code/model", "d3-test", "results")
for table in generated_tables.tables(found):
    console.print(table)

Every generator stands alone in the tables; pooled figures hide that one of them is never found.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .. import classifiers as kinds
from ..classifiers import Classifier
from ..data.records import split_of
from ..errors import DataError, ModelError
from ..image import DEFAULT_MAX_PIXELS
from ..models.crops import AGGREGATIONS
from . import facts
from .embed import Model, embed
from .embeddings import Embeddings, is_embeddings, read_embeddings
from .generated_scores import POOLED, Scored, groups_by_variant, left_out, score
from .results import Group

EMBEDDINGS = "embeddings.parquet"


@dataclass(frozen=True, eq=False)
class Found:
    """What `evaluate` found.

    Attributes:
        facts: what was evaluated, with what, when and where; JSON-able.
        groups: classifier -> figures of each variant: of each generator (kind "generator"), pooled
            ("overall") and their mean ("mean"); "left out, <kind>" are classifiers that never saw
            the generator.
        scored: the pictures behind them.
        errors: path and reason of pictures that could not be read.
    """

    facts: dict[str, Any]
    groups: dict[str, list[Group]]
    scored: Scored
    errors: tuple[tuple[str, str], ...]

    def group(self, classifier: str, name: str = POOLED, variant: str | None = None) -> Group:
        """One of the groups; of the first variant unless one is named. KeyError if none."""
        for group in self.groups[classifier]:
            if group.name == name and variant in (None, group.variant):
                return group
        raise KeyError(f"no group {name!r} in the variant {variant!r}")

    @property
    def imbalance(self) -> str:
        """One sentence where one class has over ten times the pictures of the other, else ""."""
        fake = int(self.scored.columns["label"].sum())
        real = len(self.scored.columns["label"]) - fake
        if 0 < min(fake, real) * 10 < max(fake, real):
            few = "real" if real < fake else "generated"
            return (
                f"{min(fake, real)} {few} pictures against {max(fake, real)} others: accuracy over "
                "both says little; look at each class, AUC and TPR."
            )
        return ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of results.json; NaN (undefined) is null."""
        groups = {name: [g.to_dict() for g in some] for name, some in self.groups.items()}
        failed = [{"path": path, "error": error} for path, error in self.errors]
        return {**self.facts, "classifiers": groups, "errors": failed}


def evaluate(
    model: str | Path,
    data: str | Path,
    out: str | Path | None = None,
    *,
    classifiers: Sequence[str] = (),
    fit: str | Path | None = None,
    leave_one_out: bool = False,
    split: str | None = None,
    limit: int | None = None,
    recompress: Sequence[int] = (),
    robustness: bool = False,
    transforms: bool = False,
    crops: str = "centre",
    aggregation: str = "mean-score",
    seed: int = 0,
    device: str = "cpu",
    workers: int = 0,
    batch: int = 64,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: bool = True,
    engine: str = "auto",
    precision: str = "auto",
) -> Found:
    """Measure an embedder with its classifiers on real and generated pictures.

    Args:
        model: an embedder's folder, or its hub id.
        data: folder, manifest or shards of real and generated pictures (every layout of
            `data.generated.read_generated`), or an embedding file of this model.
        out: folder for results.json, scores, plots and embeddings; a run that was stopped goes on.
        classifiers: names of `classifiers.KINDS` or files; those in the model's folder if none.
        fit: pictures, or an embedding file, to fit classifiers of these names on (all kinds if no
            names). Where it says splits its training part is taken.
        leave_one_out: for each generator, also fit classifiers that never saw it, on `fit` or else
            on the training part of `data`, which is then not evaluated. (Whether the embedder saw
            it is another matter: that is decided when it is trained.)
        split, limit, recompress, robustness, transforms, crops, seed, workers, batch, max_pixels:
            see `embed.embed`.
        aggregation: a key of `models.crops.AGGREGATIONS`: the crops' scores into one.
        engine, precision: what computes the embedder; see `engines.load`.

    Raises:
        DataError: nothing to evaluate or fit on, embeddings of another model.
        ModelError: no such embedder or classifier, a classifier of other embeddings.
    """
    begin = time.monotonic()
    if aggregation not in AGGREGATIONS:
        raise ModelError(f"unknown aggregation {aggregation!r}; valid: {', '.join(AGGREGATIONS)}.")
    loaded = Model.load(model, device, engine=engine, precision=precision)
    names = _names(loaded, classifiers, fit is not None or leave_one_out)
    common: dict[str, Any] = {
        "crops": crops,
        "seed": seed,
        "workers": workers,
        "batch": batch,
        "max_pixels": max_pixels,
        "progress": progress,
    }
    more = {"recompress": recompress, "robustness": robustness, "transforms": transforms}
    given = {"split": split, "limit": limit, **more}
    where = _folder(out)
    with TemporaryDirectory(prefix="forgemap-") as scratch:
        place = Path(scratch) if where is None else where
        tested = _embedded(loaded, data, place / EMBEDDINGS, given, common)
        learned = None
        if fit is not None:
            learned = _embedded(loaded, fit, place / f"fit-{EMBEDDINGS}", {}, common)
            _apart(data, tested, fit, learned)
            learned = _training(learned, fit)
        elif leave_one_out:
            learned, tested = _divided(tested, data)
    if learned is not None:
        chosen: dict[str, Classifier] = {
            name: kinds.fit(name, learned.vectors, learned["label"], loaded.source)
            for name in names
        }
    else:
        chosen = {name: kinds.load(file, loaded.source) for name, file in names.items()}
    scored = score(tested, chosen, aggregation)
    groups = {
        name: groups_by_variant(scored, scores, seed) for name, scores in scored.scores.items()
    }
    if leave_one_out:
        assert learned is not None
        groups |= left_out(tested, learned, loaded, list(names), aggregation, scored, seed)
    described = {
        "model": loaded.source.model,
        "model_hash": loaded.source.fingerprint,
        "data": str(data),
        "split": split,
        "limit": limit,
        "fit": None if fit is None else str(fit),
        "fitted_on": 0 if learned is None else len(learned),
        "crops": tested.facts.get("plan", {}).get("crops", crops),
        "aggregation": aggregation,
        "threshold": 0.5,
        "pictures": len(scored.columns["path"]),
        "failed": len(tested.errors),
        "seed": seed,
        "wall_seconds": round(time.monotonic() - begin, 1),
        "device": device,
        "computed": str(loaded.computed),
        **facts.machine(),
    }
    found = Found(described, groups, scored, tested.errors)
    if where is not None:
        from . import generated_tables

        generated_tables.save(found, where)
    return found


def _folder(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    out = Path(out)
    ours = {EMBEDDINGS, f"{EMBEDDINGS}.parts", f"fit-{EMBEDDINGS}.parts", "results.json"}
    if out.exists() and (not out.is_dir() or (os.listdir(out) and not ours & {*os.listdir(out)})):
        raise DataError(f"{out} already holds something else: give a new or empty folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be made: {error.strerror or error}.") from None
    return out


def _names(model: Model, wanted: Sequence[str], fitting: bool) -> dict[str, str]:
    """Classifier -> its file, "" if it is to be fitted."""
    if fitting:
        if files := [name for name in wanted if name not in kinds.KINDS]:
            raise ModelError(
                f"{files[0]}: a classifier that is fitted here is named by its kind: "
                f"{', '.join(kinds.KINDS)}."
            )
        return dict.fromkeys(wanted or kinds.KINDS, "")
    own = {kind: model.folder / f"{kind}.safetensors" for kind in kinds.KINDS}
    there = {kind: str(file) for kind, file in own.items() if file.is_file()}
    if wanted:
        chosen: dict[str, str] = {}
        for name in wanted:
            if name in kinds.KINDS and name not in there:
                raise ModelError(f"{own[name]}: no such classifier; --fit makes one.")
            chosen[name if name in kinds.KINDS else Path(name).stem] = there.get(name, name)
        return chosen
    if not there:
        raise ModelError(
            f"{model.folder} has no classifier ({', '.join(f.name for f in own.values())}): name "
            "one with --classifier, or give pictures to fit one on with --fit."
        )
    return there


def _embedded(
    model: Model, data: str | Path, file: Path, given: dict[str, Any], common: dict[str, Any]
) -> Embeddings:
    if not is_embeddings(data):
        return embed(model, data, file, **given, **common)
    changes = [name for name in ("recompress", "robustness", "transforms") if given.get(name)]
    if changes or given.get("limit"):
        option = (changes or ["limit"])[0]
        raise DataError(
            f"{data} holds embeddings, not pictures: give --{option} to `forgemap embed` instead."
        )
    found = read_embeddings(data, model.source)
    if split := given.get("split"):
        found = found.where(found["split"] == split)
    if not len(found):
        raise DataError(f"{data} holds no embedding{f' of the split {split!r}' if split else ''}.")
    return found


def _apart(data: str | Path, tested: Embeddings, fit: str | Path, learned: Embeddings) -> None:
    """What is fitted on must not be evaluated."""
    if Path(data).resolve() == Path(fit).resolve() or (
        (learned.vectors.shape == tested.vectors.shape)
        and np.array_equal(learned.vectors, tested.vectors)
    ):
        raise DataError(
            f"{fit} is what is evaluated, too: fit on other pictures, or use --leave-one-out, "
            "which divides them."
        )


def _training(learned: Embeddings, fit: str | Path) -> Embeddings:
    """The part to learn from: as it is, not changed; the split "train" where splits are named."""
    first = learned["variant"] == learned["variant"][0] if len(learned) else learned["variant"]
    learned = learned.where(np.asarray(first, bool))
    if not any(learned["split"]):
        return learned
    train = learned.where(np.isin(learned["split"], ("train", "")))
    if not len(train):
        raise DataError(f"{fit} has no training part to fit on: its splits are others.")
    return train


def _divided(whole: Embeddings, data: str | Path) -> tuple[Embeddings, Embeddings]:
    """(training part in its first variant, the rest): by the splits, else by a hash of the key."""
    import hashlib

    def belongs(split: str, key: str) -> str:
        return split or split_of(hashlib.sha256(os.fsencode(key)).hexdigest())

    splits = np.array([belongs(s, k) for s, k in zip(whole["split"], whole["key"], strict=True)])
    train = (splits == "train") & (whole["variant"] == whole["variant"][0])
    rest = splits != "train"
    for name, part in (("train", train), ("test", rest)):
        if len({*whole["label"][part]}) < 2:
            raise DataError(
                f"{data}: its {name} part does not hold both real and generated pictures: give "
                "other pictures to fit on with --fit."
            )
    return whole.where(train), whole.where(rest)
