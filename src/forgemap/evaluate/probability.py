"""probability.py: a score that is a probability: a regression on statistics, and a curve after it.

The regression (`weights_of`) says how much each statistic counts. The curve (`fit_curve`) turns
its sum into log-odds that hold: of the pictures with score p the share p is edited, if half of all
are. Platt's curve is a line; beta calibration (Kull, Silva Filho, Flach: AISTATS 2017) is nearly a
line at each end; isotonic regression (Zadrozny and Elkan: KDD 2002) any rising curve. Which one, if
any, is decided by the log-loss (a proper score, which the calibration error is not) on photos that
the curve was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

KNOTS = 16
BINS = 12
"""Of the isotonic curve, each with as many pictures: more would follow chance."""
MARGIN = 0.002
"""A curve with fewer degrees of freedom is kept unless another's log-loss is lower by this."""
FEWEST_PHOTOS = 10
"""Photos of each class without which no curve is fitted."""
FLATTEST = 0.02
"""Least slope of a curve: pictures that differ keep different scores."""


class Curve(NamedTuple):
    """Sums -> log-odds at knots, linear between and beyond them; see `scoring.Decision`."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, sums: Floats) -> Floats:
        if not self.x:
            return sums
        x, y = np.array(self.x), np.array(self.y)
        place = np.clip(np.searchsorted(x, sums, side="right") - 1, 0, x.size - 2)
        slope = (y[place + 1] - y[place]) / (x[place + 1] - x[place])
        return y[place] + (sums - x[place]) * slope


AS_IS = Curve("no curve", (), ())


class Fitted(NamedTuple):
    """A curve and what it was chosen by."""

    curve: Curve
    #: (n,) probability of each picture by a curve that was chosen and fitted on other photos.
    held_out: Floats
    #: Curve -> its log-loss on photos that it was not fitted on; empty if none was fitted.
    losses: dict[str, float]


def fit_score(
    table: np.ndarray, edited: np.ndarray, sources: Sequence[str]
) -> tuple[np.ndarray, float, np.ndarray]:
    """Logistic regression of edited / untouched on the features, both kinds weighing the same.

    Returns:
        Weights, bias, and for each picture the score by a fit that has not seen its photo (five
        folds by source), on which thresholds can be chosen without fooling oneself.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(
        StandardScaler(), LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
    )
    folds = GroupKFold(min(5, len(set(sources))))
    held_out = cross_val_predict(
        pipeline, table, edited, groups=list(sources), cv=folds, method="predict_proba"
    )[:, 1]
    weights, bias = weights_of(table, edited)
    return weights, bias, held_out


def weights_of(
    table: np.ndarray, edited: np.ndarray, groups: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """The regression of `fit_score` alone: weights (k,) for features (n, k), and bias.

    With ``groups`` (n,) both classes weigh the same in each group, too, and so do the groups.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(table)
    cells = edited if groups is None else np.char.add(groups.astype(str), edited.astype(str))
    _, places, counts = np.unique(cells, return_inverse=True, return_counts=True)
    regression = LogisticRegression(C=1.0, max_iter=1000)
    weight = edited.size / counts.size / counts[places]
    regression.fit(scaler.transform(table), edited, sample_weight=weight)
    weights = regression.coef_[0] / scaler.scale_
    return weights, float(regression.intercept_[0] - (weights * scaler.mean_).sum())


def fit_curve(sums: Floats, edited: NDArray[np.bool_], sources: Sequence[str]) -> Fitted:
    """The curve with the best log-loss on photos that it has not seen, fitted on all of them.

    Args:
        sums: (n,) of a regression that was fitted on other photos, or a statistic.
        edited: (n,) both classes; they weigh the same, so that the probabilities are those of a
            place where half of the pictures are edited.
        sources: (n,) the photo behind each; those of one stay together in the folds.

    Returns:
        `AS_IS` where there are fewer than FEWEST_PHOTOS of either class.
    """
    from sklearn.model_selection import GroupKFold

    photo = np.asarray(sources, str)
    if min(len(set(photo[edited])), len(set(photo[~edited]))) < FEWEST_PHOTOS:
        return Fitted(AS_IS, sigmoid(sums), {})
    curve, losses = _best(sums, edited, photo)
    held_out = np.empty(sums.size)
    for seen, unseen in GroupKFold(5).split(sums, groups=photo):
        # Chosen anew, too: even which curve it is owes nothing to the pictures that it is for.
        held_out[unseen] = _best(sums[seen], edited[seen], photo[seen])[0](sums[unseen])
    return Fitted(curve, sigmoid(held_out), losses)


def _best(
    sums: Floats, edited: NDArray[np.bool_], photo: NDArray[np.str_]
) -> tuple[Curve, dict[str, float]]:
    """The curve with the best log-loss in five folds by photo, fitted on all; each one's loss."""
    from sklearn.model_selection import GroupKFold

    held_out = {name: np.empty(sums.size) for name in CURVES}
    for seen, unseen in GroupKFold(5).split(sums, groups=photo):
        for name, fit in CURVES.items():
            held_out[name][unseen] = fit(sums[seen], edited[seen])(sums[unseen])
    losses = {name: log_loss(odds, edited) for name, odds in held_out.items()}
    best = min(losses.values())
    chosen = next(name for name, loss in losses.items() if loss <= best + MARGIN)
    return CURVES[chosen](sums, edited), losses


def log_loss(odds: Floats, edited: NDArray[np.bool_]) -> float:
    """Mean of -log p(truth) from log-odds (n,), both classes weighing the same."""
    loss = np.logaddexp(0, np.where(edited, -odds, odds))
    return float((loss * even(edited)).sum())


def even(edited: NDArray[np.bool_]) -> Floats:
    """(n,) weights that add up to one half in each class."""
    return np.where(edited, 0.5 / edited.sum(), 0.5 / (~edited).sum())


def sigmoid(odds: Floats) -> Floats:
    """Log-odds -> probabilities."""
    return np.asarray(0.5 * (1 + np.tanh(odds / 2)))


def platt(sums: Floats, edited: NDArray[np.bool_]) -> Curve:
    """A line; as it is where that would turn the order of the pictures round."""
    slope, shift = _regression(sums[:, None], edited)
    x = np.array([-1.0, 1.0])
    return _curve("Platt", x, slope[0] * x + shift) if slope[0] > 0 else AS_IS


def beta(sums: Floats, edited: NDArray[np.bool_]) -> Curve:
    """Beta calibration: a log p - b log(1 - p) + c with a, b >= 0, at KNOTS sums."""
    both = np.column_stack((-np.logaddexp(0, -sums), np.logaddexp(0, sums)))
    slopes, shift = _regression(both, edited)
    used = slopes > 0  # one that falls is left out, as the authors do
    if not used.any():
        return AS_IS
    if not used.all():
        some, shift = _regression(both[:, used], edited)
        slopes = np.where(used, some[0], 0.0)
        if some[0] <= 0:
            return AS_IS
    x = np.linspace(sums.min() - 2, sums.max() + 2, KNOTS)
    ends = np.column_stack((-np.logaddexp(0, -x), np.logaddexp(0, x)))
    return _curve("beta", x, ends @ slopes + shift)


def isotonic(sums: Floats, edited: NDArray[np.bool_]) -> Curve:
    """Isotonic regression of the shares in BINS bins of equal weight, joined by lines."""
    from sklearn.isotonic import IsotonicRegression

    weight = even(edited)
    order = np.argsort(sums, kind="stable")
    bins = np.minimum((np.cumsum(weight[order]) * BINS).astype(int), BINS - 1)
    x, share, size = [], [], []
    for number in range(BINS):
        mine = order[bins == number]
        if not mine.size:
            continue
        x.append(float(np.average(sums[mine], weights=weight[mine])))
        # Half a picture more of either class: what was never seen is not impossible.
        hits = weight[mine][edited[mine]].sum() / weight[mine].sum() * mine.size
        share.append((hits + 0.5) / (mine.size + 1))
        size.append(float(weight[mine].sum()))
    places, first = np.unique(x, return_index=True)
    if places.size < 2:
        return AS_IS
    shares, sizes = np.array(share)[first], np.array(size)[first]
    rising = IsotonicRegression().fit(places, shares, sample_weight=sizes).predict(places)
    return _curve("isotonic", places, np.log(rising / (1 - rising)))


CURVES: dict[str, Callable[[Floats, NDArray[np.bool_]], Curve]] = {
    AS_IS.name: lambda sums, edited: AS_IS,
    "Platt": platt,
    "beta": beta,
    "isotonic": isotonic,
}
"""From the simplest to the most flexible."""


def _curve(name: str, x: Floats, y: Floats) -> Curve:
    """Rounded for the file, and rising at least by FLATTEST."""
    x = np.round(x, 6)
    rise = np.maximum(np.diff(y), FLATTEST * np.diff(x))
    y = np.round(y[0] + np.concatenate(([0.0], np.cumsum(rise))), 6)
    # Rounding may join knots that lie close together, such as those of a marked area.
    apart = np.concatenate(([True], (np.diff(x) > 0) & (np.diff(y) > 0)))
    x, y = x[apart], y[apart]
    if x.size < 2:
        return AS_IS
    return Curve(name, tuple(map(float, x)), tuple(map(float, y)))


def _regression(inputs: Floats, edited: NDArray[np.bool_]) -> tuple[Floats, float]:
    from sklearn.linear_model import LogisticRegression

    # Hardly regularised: two or three numbers from hundreds of pictures. Where the classes are
    # apart, the little that is left keeps the slope finite.
    fitted = LogisticRegression(C=100.0, class_weight="balanced", max_iter=1000).fit(inputs, edited)
    return fitted.coef_[0], float(fitted.intercept_[0])
