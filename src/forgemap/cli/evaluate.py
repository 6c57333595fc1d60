"""forgemap evaluate: a model's scores on a data set with known masks."""

from __future__ import annotations


def evaluate() -> None:
    """Measure a model on a data set with known masks."""
