"""sets.py: the sets of a matrix as manifests in its folder, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..data.catalog import open_data
from ..data.records import Record, write_manifest
from ..errors import DataError
from ..evaluate.pictures import check_masks, draw, read_mask
from .config import MatrixConfig, named, split_commas

UNTOUCHED = "untouched"


@dataclass(frozen=True)
class EditSet:
    """One kind of edit: what it is trained on and tested on."""

    name: str
    train: Path | None
    """Manifest of its train and val splits; None where it is only tested on."""
    parts: tuple[Path, ...]
    """Manifests that are tested on; one of untouched pictures may be shared with other sets."""
    everything: float
    """IoU of marking every pixel: the mean share of the area that is edited."""
    counts: dict[str, dict[str, int]]
    """Split -> {"edited", "untouched", "photos"}."""


def prepare(config: MatrixConfig, out: Path) -> tuple[list[EditSet], list[str]]:
    """Read, check and write every set; the sets and remarks for the report.

    Raises:
        DataError: a manifest that cannot be read, a mask that is missing, does not fit or marks
            nothing, a split that is empty, a name that is used twice.
    """
    sources = list(_divided(config) if config.by else _given(config))
    for name, records, shared in sources:
        check_splits(name, [*records, *shared], config)
        check_masks([*records, *shared])
    remarks = overlaps(sources, config.split)
    return [_write(config, out / "sets", *source) for source in sources], remarks


def _given(config: MatrixConfig) -> Iterable[tuple[str, list[Record], list[Record]]]:
    for one in config.sets():
        yield one.name, [r for path in one.manifests for r in open_data(path)], []


def _divided(config: MatrixConfig) -> Iterable[tuple[str, list[Record], list[Record]]]:
    """One set for each method, and for each of --test; untouched pictures are shared."""
    records = [r for path in config.data for r in open_data(path)]
    untouched = [r for r in records if not r.manipulated]
    present = sorted({r.method for r in records if r.manipulated})
    chosen = split_commas(config.methods, "method") or present
    if missing := [method for method in chosen if method not in present]:
        raise DataError(
            f"No picture of {', '.join(config.data)} was edited by {missing[0]!r}; "
            f"there are {', '.join(present)}."
        )
    for method in chosen:
        yield method, [r for r in records if r.method == method], untouched
    for one in named(config.test):
        if one.name in (*chosen, UNTOUCHED):
            raise DataError(f"The name {one.name!r} of --test is taken: choose another.")
        yield one.name, [r for path in one.manifests for r in open_data(path)], []


def check_splits(name: str, records: Sequence[Record], config: MatrixConfig) -> None:
    """Every split that will be used has an edited picture."""
    tested_only = name in config.tested_only()
    for split in (config.split,) if tested_only else ("train", "val", config.split):
        if not any(r.split == split and r.manipulated for r in records):
            raise DataError(f"The set {name!r} has no edited picture in its {split} split.")


def overlaps(sources: Sequence[tuple[str, list[Record], list[Record]]], split: str) -> list[str]:
    """Remarks on photos that are trained on in one set and tested on in another."""
    trained: dict[str, str] = {}
    for name, records, shared in sources:
        trained |= {r.source: name for r in (*records, *shared) if r.split == "train" and r.source}
    remarks = []
    for name, records, shared in sources:
        twice = {r.source for r in (*records, *shared) if r.split == split} & trained.keys()
        if twice:
            example = min(twice)
            remarks.append(
                f"{len(twice)} photos that {name} is tested on are trained on in another set, such "
                f"as {Path(example).name} in {trained[example]}: those figures are too high."
            )
    return remarks


def _write(
    config: MatrixConfig, folder: Path, name: str, records: list[Record], shared: list[Record]
) -> EditSet:
    everyone = [*records, *shared]
    train = None
    if name not in config.tested_only():
        fit = [r for r in everyone if r.split in ("train", "val")]
        train = write_manifest(fit, folder / f"{name}.train.jsonl")
    limit = config.test_limit or None
    tested = draw([r for r in records if r.split == config.split], limit, config.seed)
    parts = [write_manifest(tested, folder / f"{name}.test.jsonl")]
    plain = draw([r for r in shared if r.split == config.split], limit, config.seed)
    if plain:
        parts.append(write_manifest(plain, folder / f"{UNTOUCHED}.test.jsonl"))
    counts = {
        "train": count(r for r in everyone if r.split == "train"),
        "val": count(r for r in everyone if r.split == "val"),
        "tested": count([*tested, *plain]),
    }
    everything = float(np.mean([share(r) for r in tested if r.manipulated]))
    return EditSet(name, train, tuple(parts), everything, counts)


def share(record: Record) -> float:
    """Of the area that is edited; a manipulated picture without a mask is so as a whole."""
    mask = read_mask(record)
    return 1.0 if mask is None else float(mask.mean())


def count(records: Iterable[Record]) -> dict[str, int]:
    """How many edited and untouched pictures, of how many photos."""
    found = list(records)
    edited = sum(r.manipulated for r in found)
    photos = len({r.source for r in found})
    return {"edited": edited, "untouched": len(found) - edited, "photos": photos}


def digest(file: Path) -> str:
    """SHA-256 of a manifest, in hex."""
    return sha256(file.read_bytes()).hexdigest()
