"""conformal.py: thresholds that a new untouched picture reaches with a chance of at most alpha.

Split conformal prediction (Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005;
Angelopoulos and Bates, arXiv 2107.07511): if a new picture is exchangeable with those that the
threshold is taken from, and the score was fitted on others, then no assumption about the scores is
needed. Each kind of picture has a bound of its own (Mondrian, or group-conditional: Vovk et al.,
section 4.5); kinds may overlap, since the highest of their thresholds holds for each of them.

Pictures of one photo are not independent. Of the sound ways to deal with that (one picture of each
photo drawn at random; the worst of each photo; all of them, each photo weighing the same) the third
is used: the hierarchical conformal prediction of Lee, Barber and Willett (arXiv 2306.06342), after
Dunn, Wasserman and Ramdas (arXiv 1809.07441). It is as exact as the random draw, wastes no picture
and depends on no seed; the worst of each photo would promise more than is asked for, and find less.
With one picture of each photo it is the ordinary rule with its (n + 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVELS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)
"""Chances that a picture's p-value is rounded up to."""

EVERYTHING = "all untouched"


def highest(scores: ArrayLike, photos: ArrayLike, level: float) -> float:
    """The score that a new picture of a new photo exceeds with a chance of at most `level`.

    Args:
        scores: (n,) of untouched pictures, in any unit.
        photos: (n,) the photo behind each, in any sortable type; every photo weighs the same,
            however many pictures it has.
        level: in [0, 1].

    Returns:
        One of the scores; infinity with fewer than 1 / level - 1 photos, which bound nothing.
    """
    score = np.asarray(scores, np.float64)
    _, member, pictures = np.unique(np.asarray(photos), return_inverse=True, return_counts=True)
    count = pictures.size
    order = np.argsort(score, kind="stable")
    # The new photo counts as one more, whose score may be anything: its share lies at infinity.
    below = np.cumsum(1 / (pictures[member][order] * (count + 1)))
    reached = np.flatnonzero(below >= 1 - level - 1e-9)
    return float(score[order[reached[0]]]) if reached.size else math.inf


def attainable(photos: int) -> float:
    """The lowest chance that so many photos can bound."""
    return 1 / (photos + 1)


def empirical(scores: ArrayLike, level: float) -> float:
    """The score that at most `level` of these very scores exceed: no bound for a new picture.

    A kind too small for that share to be one picture counts with its second-highest score: its
    highest would let a single photo decide.
    """
    mine = np.sort(np.asarray(scores, np.float64))
    place = max(0, min(mine.size - 2, math.ceil(mine.size * (1 - level)) - 1))
    return float(mine[place])


@dataclass(frozen=True)
class Kind:
    """Untouched pictures of one kind: where they are in the list of all, and what they join."""

    name: str
    members: NDArray[np.int64]
    #: What kinds with too few photos for `Levels.alarms` are put together as.
    pool: str
    #: Held to `Levels.processed` instead of `Levels.alarms`.
    processed: bool = False


@dataclass(frozen=True)
class Levels:
    """Chances of a false alarm, at most."""

    #: For a kind of untouched picture, and for the processed ones together.
    alarms: float
    #: For a kind of honest processing, and for a pool that has too few photos for `alarms`.
    processed: float


@dataclass(frozen=True)
class Bound:
    """What is promised for one kind."""

    kind: Kind
    photos: int
    #: The chance that is bounded; None: too few photos, only what was seen counts.
    level: float | None

    def score(self, scores: NDArray[Any], photos: NDArray[Any], levels: Levels) -> float:
        """The score that must stay below the threshold."""
        mine = self.kind.members
        if self.level is None:
            return empirical(scores[mine], levels.alarms)
        return highest(scores[mine], photos[mine], self.level)

    def __str__(self) -> str:
        what = f"{self.kind.name} ({self.photos} photos): "
        if self.level is None:
            return what + f"no bound, {attainable(self.photos):.0%} at best"
        return what + f"at most {self.level:.3g}"


def bounds(kinds: Sequence[Kind], photos: NDArray[Any], levels: Levels) -> list[Bound]:
    """What can be promised for each kind, for the pools of those with few photos, and for all.

    Args:
        kinds: may overlap, and must cover all pictures.
        photos: (n,) the photo behind each picture.
    """
    found: list[Bound] = []
    pools: dict[str, list[NDArray[np.int64]]] = {}
    for kind in kinds:
        count = len(set(photos[kind.members].tolist()))
        own = levels.processed if kind.processed else levels.alarms
        level = _reached(count, own)
        found.append(Bound(kind, count, level))
        if level is None or level > levels.alarms:
            pools.setdefault(kind.pool, []).append(kind.members)
    together = {
        **{name: np.unique(np.concatenate(members)) for name, members in pools.items()},
        EVERYTHING: np.arange(len(photos)),
    }
    for name, members in together.items():
        count = len(set(photos[members].tolist()))
        # There is nothing left to count them with: rather a weaker promise than none.
        level = _reached(count, levels.alarms, levels.processed)
        same = [b for b in found if np.array_equal(members, np.sort(b.kind.members))]
        if any(b.level is not None and b.level == level for b in same):
            continue
        for bound in same:
            if bound.level is None:
                found.remove(bound)  # a pool of one kind: it stands for it, by the kind's name
                name = bound.kind.name
        found.append(Bound(Kind(name, members, name), count, level))
    return found


def _reached(photos: int, *levels: float) -> float | None:
    """The first of the chances that so many photos can bound."""
    return next((level for level in levels if attainable(photos) <= level + 1e-12), None)


def threshold(
    scores: NDArray[Any], photos: NDArray[Any], promised: Sequence[Bound], levels: Levels
) -> float:
    """The score that must stay below `manipulated_at`, for every kind's bound to hold."""
    return max(bound.score(scores, photos, levels) for bound in promised)


def rarities(
    scores: NDArray[Any], photos: NDArray[Any], promised: Sequence[Bound]
) -> Mapping[float, float]:
    """Chance -> the score that a new untouched picture of any bounded kind exceeds no more often.

    Only for those of LEVELS that every bounded kind has photos enough for, the highest first.
    """
    sound = [bound for bound in promised if bound.level is not None]
    found: dict[float, float] = {}
    for level in LEVELS:
        if not sound or max(attainable(b.photos) for b in sound) > level + 1e-12:
            break
        found[level] = max(
            highest(scores[b.kind.members], photos[b.kind.members], level) for b in sound
        )
    return found
