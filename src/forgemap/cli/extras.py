"""A missing optional library becomes one sentence that says how to install it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ForgemapError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around imports: names the extra (see pyproject.toml) that brings what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "forgemap":
            raise  # a fault of this package, not of the installation
        raise ForgemapError(
            f"This command needs {error.name.split('.')[0]}, which is not installed: "
            f'pip install "forgemap[{extra}]"'
        ) from error
