"""bare.py: networks built without memory for their parameters, which come from a file anyway.

Drawing random weights only to overwrite them takes longer than reading the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from .build import build


def build_bare(config: Mapping[str, Any]) -> nn.Module:
    """As `build`, with parameters on the device "meta" and real buffers; all must be assigned.

    Networks whose building runs them once (backbone "transformers") are built whole.
    """
    if config.get("backbone") == "transformers":
        return build(config)
    with parameters_on_meta():
        return build(config)


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Networks that are built inside have parameters without memory; their buffers are real."""
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None:
            bare = param.detach().to("meta")
            param = nn.Parameter(bare, requires_grad=param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
