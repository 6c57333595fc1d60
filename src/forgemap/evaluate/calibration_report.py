"""calibration_report.py: what a calibration promises and what it costs, in words and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich.table import Table

from ..errors import DataError
from ..scoring import Decision
from . import conformal
from .calibration_look import Observation
from .calibration_pictures import Label
from .conformal import Bound, Kind
from .markdown import markdown_table
from .plots import save_diagram
from .reliability import Reliability, reliability
from .results import write

if TYPE_CHECKING:
    from .calibration import Calibration


class Line(NamedTuple):
    """A line of the table that `forgemap calibrate` prints: shares lie in [0, 1]."""

    name: str
    edited: bool
    photos: int
    pictures: int
    manipulated: float
    inconclusive: float
    marked: float
    #: What is promised of `manipulated` for a new untouched picture; None: nothing.
    bound: float | None


def kinds_of(untouched: Sequence[Observation]) -> list[Kind]:
    """The kinds of some untouched pictures, each with their places in the list."""
    members: dict[Label, list[int]] = {}
    for place, observation in enumerate(untouched):
        for label in observation.kinds:
            members.setdefault(label, []).append(place)
    return [
        Kind(label.name, np.array(places), label.pool, label.processed)
        for label, places in sorted(members.items(), key=lambda item: (item[0].processed, item[0]))
    ]


def sentence(
    observations: Sequence[Observation],
    kept: np.ndarray,
    promised: Sequence[Bound],
    split: str | None,
    statistic: str = "",
) -> str:
    """What the thresholds rest on and promise, for whoever reads a report.

    Args:
        kept: the photo behind each picture that the thresholds were chosen on.
        statistic: the one that the score is; empty: a regression on the other photos.
    """
    edited = sum(o.edited for o in observations)
    photos = len({o.source for o in observations})
    rest = len(set(kept.tolist()))
    use = f"{photos - rest} of them for the score and {rest} for the thresholds"
    if statistic:
        use = f"all of them for the thresholds, since the score, by {statistic} alone, needs none"
    text = (
        f"{edited} edited and {len(observations) - edited} untouched pictures of {part(split)}, "
        f"from {photos} photos, {use}; "
    )
    levels = sorted({b.level for b in promised if b.level is not None})
    if not levels:
        return text + "too few photos to bound the false alarms among new ones."
    shares = [
        f"at most {100 * level:.3g}% for {_kinds(sum(b.level == level for b in promised))}"
        for level in levels
    ]
    text += "chance that a new untouched picture reaches the threshold: " + ", ".join(shares)
    if few := [b for b in promised if b.level is None]:
        best = min(conformal.attainable(b.photos) for b in few)
        text += (
            f"; {_kinds(len(few))} have too few photos for a bound, which could be {best:.0%} at "
            "best"
        )
    return text + "."


def part(split: str | None) -> str:
    """A split in words."""
    return "all splits" if split is None else f"the {split} split"


def _kinds(number: int) -> str:
    return f"{number} kind of picture" if number == 1 else f"{number} kinds of pictures"


def table_of(
    decision: Decision,
    observations: Sequence[Observation],
    scores: np.ndarray,
    areas: np.ndarray,
    promised: Sequence[Bound],
) -> list[Line]:
    """What becomes of the pictures at the thresholds: untouched by kind, edited by method."""
    edited = np.array([o.edited for o in observations])
    photos = np.array([o.source for o in observations])
    reached = scores >= decision.manipulated_at
    palettes = np.array([o.has_fewer(decision.min_colours) for o in observations])
    called = reached & (areas <= decision.whole_area) & ~palettes
    doubted = (scores >= decision.clear_below) | (areas > decision.doubt_area) | palettes
    doubted &= ~called
    plain = np.flatnonzero(~edited)

    def line(name: str, members: np.ndarray, bound: float | None) -> Line:
        return Line(
            name,
            edited=bool(edited[members[0]]),
            photos=len(set(photos[members].tolist())),
            pictures=len(members),
            manipulated=float(called[members].mean()),
            inconclusive=float(doubted[members].mean()),
            marked=float(areas[members].mean()),
            bound=bound,
        )

    lines = [line(b.kind.name, plain[b.kind.members], b.level) for b in promised]
    methods = sorted({o.group for o in observations if o.edited})
    for method in methods:
        mine = [i for i, o in enumerate(observations) if o.edited and o.group == method]
        lines.append(line(method, np.array(mine), None))
    return [*lines, line("all edited", np.flatnonzero(edited), None)]


class Report(NamedTuple):
    """A calibration as tables."""

    decision: Decision
    lines: Sequence[Line]
    losses: Mapping[str, float]
    reliability: Reliability
    #: Behind the pictures that the curve was fitted on.
    photos: int

    @classmethod
    def of(cls, found: Calibration, seed: int = 0) -> Report:
        """Measures how far the score holds."""
        measured = reliability(found.scores, found.edited, found.photos, seed=seed)
        photos = len(set(found.photos.tolist()))
        return cls(found.decision, found.lines, found.losses, measured, photos)

    def rows(self, edited: bool) -> list[list[str]]:
        """Header and a row for each kind of untouched, or method of edited pictures."""
        first = "edited by" if edited else "untouched, kind"
        head = [first, "photos", "pictures", "manipulated", "inconclusive", "area marked"]
        body = [
            [
                line.name,
                str(line.photos),
                str(line.pictures),
                f"{line.manipulated:.1%}",
                f"{line.inconclusive:.1%}",
                f"{line.marked:.2%}",
            ]
            for line in self.lines
            if line.edited is edited
        ]
        if edited:
            return [head, *body]
        promises = [
            f"none (1 in {line.photos + 1})" if line.bound is None else f"{line.bound:.3g}"
            for line in self.lines
            if not line.edited
        ]
        return [[*head, "bound"], *([*row, p] for row, p in zip(body, promises, strict=True))]

    def sentences(self) -> list[str]:
        """What the tables leave out."""
        decision = self.decision
        chosen = [
            f"Judged manipulated from {decision.manipulated_at:.3f} on, cleared below "
            f"{decision.clear_below:.3f} unless more than {decision.doubt_area:.1%} is marked, "
            f"inconclusive where more than {decision.whole_area:.0%} is or there are fewer than "
            f"{decision.min_colours} colours; "
            f"calibrated on {decision.calibrated_on}"
        ]
        if self.losses:
            losses = ", ".join(f"{name} {loss:.3f}" for name, loss in self.losses.items())
            chosen.append(
                "Log-loss of the curves on photos that they have not seen, a fifth of "
                f"{self.photos} at a time: {losses}. The best is then fitted on all "
                f"{self.photos}; the calibration error is that on the unseen fifths."
            )
        else:
            chosen.append("Too few photos for a curve: the score only ranks pictures.")
        return [*chosen, self.reliability.sentence()]

    def shown(self) -> list[Table | str]:
        """For the terminal."""
        made: list[Table | str] = []
        titles = {
            "At the thresholds, untouched pictures": self.rows(False),
            "At the thresholds, edited pictures": self.rows(True),
            "Does the score hold? Photos that its curve has not seen": self.reliability.rows(),
        }
        for title, (head, *body) in titles.items():
            table = Table(title=title, title_justify="left")
            table.add_column(head[0])
            for name in head[1:]:
                table.add_column(name, justify="right")
            for row in body:
                table.add_row(*row)
            made.append(table)
        return [*made, *self.sentences()]

    def save(self, folder: Path) -> None:
        """calibration.json, calibration.md and reliability.png, each whole or not at all.

        Raises:
            ForgemapError: a file cannot be written, or matplotlib is not installed.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder} cannot be made: {error.strerror or error}.") from error
        data = {
            "decision": self.decision.to_dict(),
            "kinds": [line._asdict() for line in self.lines],
            "log_loss": dict(self.losses),
            "reliability": self.reliability.to_dict(),
        }
        write(folder / "calibration.json", json.dumps(data, indent=1, allow_nan=False) + "\n")
        text = [
            "# Calibration\n",
            "\n\n".join(self.sentences()) + "\n",
            markdown_table(self.rows(False)),
            markdown_table(self.rows(True)),
            markdown_table(self.reliability.rows()),
        ]
        write(folder / "calibration.md", "\n".join(text))
        save_diagram(self.reliability, folder / "reliability.png")
