"""calibration_score.py: the sum behind a score: a regression on some photos, or one statistic."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..pooling import COPIES, LOSSY, STATISTICS
from .calibration_look import Observation
from .probability import weights_of

REGRESSED = (
    *("logit_peak32", "logit_peak64", "logit_top"),
    *("evidence_peak", "evidence_top", "evidence_lse"),
)
"""Statistics that the regression is on; those of the evidence only where the network has it."""

PARTS = 4
"""One of so many parts of the photos is for the regression, the others for the thresholds."""


class Score(NamedTuple):
    """A weighted sum of statistics, and the pictures that it owes its weights to."""

    features: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float
    #: (n,) bool: those of the photos that the weights were fitted on.
    seen: np.ndarray

    def sums(self, values: Sequence[Mapping[str, float]]) -> np.ndarray:
        """(n,) bias + weights . features of each picture; rising with the suspicion, no unit."""
        table = np.array([[one[name] for name in self.features] for one in values])
        return table @ np.array(self.weights) + self.bias


def score_of(
    observations: Sequence[Observation], values: Sequence[Mapping[str, float]], name: str = ""
) -> Score:
    """The regression of edited / untouched, on a quarter of the photos; or one statistic.

    What a file that was saved with loss gets on top is fitted afterwards, with as many edited as
    untouched ones among files with and without loss: it stands for what loss hides, and never for
    which kind of file more of these pictures happen to be saved as. Copied regions are added as
    they are: log-odds, from a search that knows nothing of the maps.

    Args:
        observations: n pictures.
        values: the statistics of each.
        name: the statistic that is taken as it is, so that no photo is spent on weights; empty:
            the regression.

    Raises:
        DataError: there are too few photos for a quarter of them with edited and untouched ones.
    """
    if name:
        return Score((name,), (1.0,), 0.0, np.zeros(len(observations), bool))
    names = tuple(n for n in REGRESSED if n in values[0])
    table = np.array([[v[n] for n in names] for v in values])
    edited = np.array([o.edited for o in observations])
    seen = part_for_score(observations)
    weights, bias = weights_of(table[seen], edited[seen])
    alike = seen & np.array([o.listed for o in observations])  # the others are all untouched
    lossy = np.array([v[LOSSY] for v in values])
    if len(set(zip(lossy[alike], edited[alike], strict=True))) == 4:
        both = np.column_stack((table @ weights, lossy))
        (slope, step), _ = weights_of(both[alike], edited[alike], lossy[alike])
        if slope > 0:
            names, weights = (*names, LOSSY), np.append(weights, step / slope)
    if COPIES in values[0]:
        names, weights = (*names, COPIES), np.append(weights, 1.0)
    return Score(names, tuple(map(float, np.round(weights, 6))), round(bias, 6), seen)


def check_statistic(name: str, offered: Iterable[str] = STATISTICS) -> None:
    """Is there such a statistic, among all or among those that a network offers? DataError if not;
    an empty name passes."""
    if not name or name in (valid := [n for n in offered if n in STATISTICS]):
        return
    problem = f"Unknown statistic {name!r}"
    if name in STATISTICS:
        problem = f"{name} needs an evidence head, which this network does not have"
    raise DataError(f"{problem}: use one of {', '.join(valid)}.")


def part_for_score(observations: Sequence[Observation]) -> np.ndarray:
    """(n,) bool: a quarter of the photos, alike in kind and folder to the rest, for the regression.

    What a picture scores has no say in it, so that the others stay exchangeable with new ones.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    edited = np.array([o.edited for o in observations])
    photos = [o.source for o in observations]
    strata = [f"{o.edited} {Path(o.source).parent}" for o in observations]
    folds = StratifiedGroupKFold(PARTS, shuffle=True, random_state=0)
    for labels in (strata, edited.tolist()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of folders with fewer photos than parts
            try:
                parts = [test for _, test in folds.split(edited, labels, photos)]
            except ValueError:  # every folder has fewer pictures than parts
                continue
        for members in parts:
            chosen = np.zeros(len(edited), bool)
            chosen[members] = True
            if all(len(set(edited[some])) == 2 for some in (chosen, ~chosen)):
                return chosen
    raise DataError(
        "The photos cannot be divided into two parts with edited and untouched pictures each: "
        "more photos are needed."
    )
