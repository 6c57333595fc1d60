"""entries.py: what a model's `config.json` says of a dataclass, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .errors import ModelError


def strict_entries(usual: Any, data: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """`data`, if each entry is a field of the dataclass `usual` and of the same kind as there.

    Raises:
        ModelError: it names the first that is not; `what` says of what it is an entry.
    """
    names = {f.name for f in fields(usual)}
    if unknown := sorted(set(data) - names):
        raise ModelError(
            f"{what}: unknown entry {unknown[0]!r}; valid: {', '.join(sorted(names))}."
        )
    of_text = {f.name for f in fields(usual) if f.type == "tuple[str, ...]"}
    for name, value in data.items():
        example = getattr(usual, name)
        if not _fits(("",) if name in of_text else example, value):
            raise ModelError(f"{what}: {name} cannot be {value!r}.")
    return data


def _fits(example: object, value: object) -> bool:
    """Is `value`, read from JSON, of the same kind as `example`?"""
    if isinstance(example, tuple):
        first = example[0] if example else 0.0  # of numbers, where it is empty by default
        return isinstance(value, (list, tuple)) and all(_fits(first, v) for v in value)
    if isinstance(example, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(example)
