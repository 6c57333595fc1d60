"""build.py: a model's configuration -> the model, with random weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import ModelError
from .embedder import Embedder
from .localizer import declip
from .tracenet import TraceNet

#: Every architecture. Each model's ``config`` names one of them and its keyword arguments.
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "declip": declip,
    "tracenet": TraceNet,
    "embedder": Embedder,
}


def build(
    config: Mapping[str, Any], builders: Mapping[str, Callable[..., nn.Module]] = BUILDERS
) -> nn.Module:
    """The model that `config` describes, with random weights.

    Args:
        config: ``{"architecture": <a key of builders>, **keyword arguments}``, JSON-able; what is
            left out takes its default. Every model keeps its own as ``model.config``.
        builders: the architectures to choose from.

    Raises:
        ModelError: an unknown architecture or argument (the valid ones are listed), or an
            impossible value.
    """
    arguments = dict(config)
    name = arguments.pop("architecture", None)
    if not isinstance(name, str) or name not in builders:
        raise ModelError(f"unknown architecture {name!r}; valid: {', '.join(builders)}.")
    valid = inspect.signature(builders[name]).parameters
    if unknown := [argument for argument in arguments if argument not in valid]:
        raise ModelError(
            f"{name}: unknown argument {', '.join(map(repr, unknown))}; valid: {', '.join(valid)}."
        )
    try:
        return builders[name](**arguments)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, AssertionError) as error:
        # Sizes that make no network: -1 channels, "many" layers, 5 heads for a width of 32.
        reason = str(error).split("\n")[0]
        raise ModelError(f"{name}: no network has these sizes ({reason}).") from error
