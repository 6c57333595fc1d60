"""config.py: what a matrix is made of: the sets, the axis, and the options of every training."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from ..data.records import SPLITS
from ..errors import ForgemapError
from ..train.config import LocalizerConfig, described

AXES = {
    "sets": "the training set alone: one matrix",
    "architecture": "one matrix for each architecture",
    "backbone": "one matrix for each backbone of DeCLIP",
    "layer": "one matrix for each layer that is decoded",
    "decoder": "one matrix for each decoder",
    "seed": "one matrix for each seed: how far chance alone moves the figures",
}
"""What is varied; all but "sets" are options of the training of the same name."""

NAME = re.compile(r"\w[\w.+-]*")  # of a set or value: it becomes a folder


class Named(NamedTuple):
    """A set as the user names it."""

    name: str
    manifests: tuple[str, ...]


class Training(NamedTuple):
    """One training of the matrix."""

    value: str
    """Of the axis; "" where the axis is "sets"."""
    train: str
    """The training set's name."""
    config: LocalizerConfig


@dataclass(frozen=True)
class MatrixConfig(LocalizerConfig):
    """The sets and the axis; all other fields are options of every training."""

    data: list[str] = described([], "With --by method: what is divided; a manifest or NAME:ROOT.")
    out: str = described("runs/matrix", "Folder of the matrix: trainings, cells, table.")
    train: list[str] = described(
        [], "A set, as NAME=DATA; repeated for each set, or for several manifests of one."
    )
    test: list[str] = described([], "A set that is tested on and not trained on, NAME=DATA.")
    by: str = described("", "method: every method of --data is a set; untouched pictures shared.")
    methods: list[str] = described([], "With --by method: only these, as splice,latent_edit.")
    axis: str = described("sets", f"What is varied: {', '.join(AXES)}.")
    values: list[str] = described([], "Values of the axis, as conv-4,conv-20.")
    per_value: dict[str, Any] = described(
        {}, "Training options for single values of the axis: {value: {option: ...}}."
    )
    split: str = described("test", "The split that is tested on.")
    test_limit: int = described(0, "Pictures of a test set at most; 0 = all.")
    test_workers: int = described(1, "Processes that test.")

    def check(self) -> None:
        """Raise a ForgemapError for the first value that cannot work, before any long work."""
        if self.axis not in AXES:
            raise ForgemapError(f"Unknown axis {self.axis!r}: use one of {', '.join(AXES)}.")
        if (self.axis == "sets") == bool(self.values):
            wanted = "takes no --values" if self.values else "needs --values"
            raise ForgemapError(f"The axis {self.axis!r} {wanted}.")
        if self.by not in ("", "method"):
            raise ForgemapError(f"--by {self.by!r} is unknown: method is the only one.")
        if bool(self.by) != bool(self.data) or bool(self.by) == bool(self.train):
            raise ForgemapError(
                "Name the sets, either with --train NAME=DATA (repeated) or with "
                "--data DATA --by method."
            )
        if self.methods and not self.by:
            raise ForgemapError("--methods chooses among the sets of --by method.")
        if self.split not in SPLITS or self.split == "train":
            raise ForgemapError(f"--split is test or val, not {self.split!r}.")
        if self.test_limit < 0 or self.test_workers < 1:
            raise ForgemapError("--test-limit is at least 0, --test-workers at least 1.")
        if unknown := sorted(set(self.per_value) - set(self.axis_values())):
            raise ForgemapError(f"per_value: {unknown[0]!r} is not among the values of the axis.")
        if self.nodes > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ForgemapError("A matrix is made on one machine, without torchrun: use --devices.")
        by_backbone = self.axis in ("backbone", "layer", "decoder")
        if by_backbone and self.architecture != "declip":
            raise ForgemapError(
                f"The axis {self.axis!r} is one of DeCLIP: add --architecture declip."
            )

    def axis_values(self) -> list[str]:
        """The values in their order; [""] where the axis is "sets"."""
        return split_commas(self.values, "value") or [""]

    def sets(self) -> list[Named]:
        """The sets named by --train, then those of --test (see `tested_only`)."""
        return list(named([*self.train, *self.test]))

    def tested_only(self) -> set[str]:
        """Names of the sets that nothing is trained on."""
        return {one.name for one in named(self.test)} - {one.name for one in named(self.train)}

    def training(self, value: str, train: str, data: Path, out: Path) -> Training:
        """The options of one training. Raises ForgemapError for an unknown or impossible one."""
        names = [f.name for f in fields(LocalizerConfig)]
        options = {name: getattr(self, name) for name in names}
        if self.axis != "sets":
            options[self.axis] = convert(self.axis, value)
        extra = self.per_value.get(value) or {}
        if not isinstance(extra, dict):
            raise ForgemapError(f"per_value: {value!r} must be given as {{option: value}}.")
        if unknown := sorted(
            set(extra) - set(names) | set(extra) & {"data", "out", "recipe", self.axis}
        ):
            raise ForgemapError(f"per_value: {value!r} cannot set {unknown[0]!r}.")
        options |= extra | {"data": [str(data)], "out": str(out)}
        config = LocalizerConfig(**options)
        try:
            config.check()
        except TypeError as error:  # a word where a number belongs, from per_value
            raise ForgemapError(f"per_value: {value!r} does not fit ({error}).") from None
        return Training(value, train, config)


def convert(axis: str, value: str) -> Any:
    """A value of the axis as the option of that name wants it."""
    if axis != "seed":
        return value
    if not value.isdigit():
        raise ForgemapError(f"A seed is a whole number, not {value!r}.")
    return int(value)


def named(items: Iterable[str]) -> Iterator[Named]:
    """NAME=DATA, several of them with one name joined, in their first order."""
    found: dict[str, list[str]] = {}
    for item in items:
        name, equals, manifest = item.partition("=")
        if not equals or not manifest or not NAME.fullmatch(name):
            raise ForgemapError(
                f"{item!r} is not NAME=DATA, such as lama=data/lama or lama=dolos/lama:ROOT "
                "(letters, digits and . + - _ in the name)."
            )
        found.setdefault(name, []).append(manifest)
    return (Named(name, tuple(manifests)) for name, manifests in found.items())


def split_commas(items: Sequence[str], what: str) -> list[str]:
    """["a,b", "c"] -> ["a", "b", "c"]; each usable as a folder's name, none twice."""
    parts = [part.strip() for item in items for part in str(item).split(",") if part.strip()]
    if wrong := [part for part in parts if not NAME.fullmatch(part)]:
        raise ForgemapError(f"{wrong[0]!r} cannot be a {what}.")
    if len(set(parts)) < len(parts):
        raise ForgemapError(f"A {what} is named twice: {', '.join(parts)}.")
    return parts


def changed(config: LocalizerConfig) -> dict[str, Any]:
    """The training options that are not at their defaults, for the record."""
    result = {}
    for field in fields(LocalizerConfig):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = getattr(config, field.name)
        if field.name not in ("data", "out") and value != default:
            result[field.name] = value
    return result
