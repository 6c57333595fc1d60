"""published.py: figures that papers report, to be printed beside ours, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublishedMatrix:
    """A table of a paper: trained on one set, tested on another."""

    #: What was trained, as the paper calls it.
    system: str
    #: Paper, venue, identifier.
    source: str
    #: What a figure is, with its unit.
    metric: str
    #: (training set, test set) -> figure in percent.
    cells: Mapping[tuple[str, str], float]
    #: Other systems of the same table: name -> (in-domain mean, out-of-domain mean).
    others: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def in_domain(self) -> float:
        """Mean over the sets of training and testing on the same one, in percent."""
        same = [value for (train, test), value in self.cells.items() if train == test]
        return sum(same) / len(same)

    @property
    def out_of_domain(self) -> float:
        """Mean over the pairs of different sets, in percent."""
        other = [value for (train, test), value in self.cells.items() if train != test]
        return sum(other) / len(other)


def _cells(tests: str, rows: dict[str, tuple[float, ...]]) -> dict[tuple[str, str], float]:
    names = tests.split()
    return {
        (train, test): value
        for train, values in rows.items()
        for test, value in zip(names, values, strict=True)
    }


PUBLISHED = {
    "declip": PublishedMatrix(
        system="DeCLIP, CLIP ViT-L/14 + RN50, conv-20",
        source=(
            "Smeu, Oneata and Oneata, DeCLIP: Decoding CLIP representations for deepfake "
            "localization, WACV 2025, arXiv 2409.08849"
        ),
        metric="IoU at 0.5 in percent, mean per image, on Dolos",
        cells=_cells(
            "ldm repaint-p2 lama pluralistic",
            {
                "ldm": (51.1, 44.7, 43.5, 56.4),
                "repaint-p2": (27.4, 74.0, 42.4, 54.2),
                "lama": (21.6, 29.5, 86.5, 32.0),
                "pluralistic": (4.9, 8.1, 51.9, 83.7),
            },
        ),
        others={
            "Patch Forensics": (69.3, 20.4),
            "CLIP-linear": (36.2, 18.5),
            "PSCC-Net": (81.0, 21.6),
        },
    ),
}
"""Every published matrix, by a short name."""


def canonical(name: str) -> str:
    """The name under which a set is published: "Dolos_RePaint-P2-9k" -> "repaint-p2"."""
    short = name.lower().replace("_", "-").removeprefix("dolos-")
    return short.removesuffix("-9k")


def beside(train: str, test: str) -> float | None:
    """The published percentage for this pair of sets; None if no table has it."""
    pair = canonical(train), canonical(test)
    return next((p.cells[pair] for p in PUBLISHED.values() if pair in p.cells), None)


def tables_with(names: list[str]) -> list[PublishedMatrix]:
    """The published matrices that have at least two of these sets."""
    ours = {canonical(name) for name in names}
    return [p for p in PUBLISHED.values() if len(ours & {train for train, _ in p.cells}) > 1]
