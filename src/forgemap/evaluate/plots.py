"""plots.py: pictures of Results as PNG: IoU per method, ROC, reliability, robustness curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ForgemapError
from ..files import whole
from .reliability import Reliability
from .reliability import reliability as measure
from .results import ALL, NONE, Results, Row
from .robustness import GRIDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#8c510a")


def save_all(results: Results, folder: Path) -> list[Path]:
    """Every plot that the results have data for, in `folder`; the files written.

    Raises ForgemapError if matplotlib is not installed.
    """
    written = []
    if results.of("as is", "method"):
        written.append(_save(folder / "iou.png", lambda axes: iou_bars(results, axes)))
    if results.of("as is", "method") and results.of("as is", "untouched"):
        written.append(_save(folder / "roc.png", lambda axes: roc(results, axes)))
        written.append(_save(folder / "reliability.png", lambda axes: reliability(results, axes)))
    for change in GRIDS:
        if len(_levels(results, change)) > 2:
            draw = _curve_of(results, change)
            written.append(_save(folder / f"robustness_{change}.png", draw))
    return written


def iou_bars(results: Results, axes: Axes) -> None:
    """Mean IoU per method with its interval, one colour per recompression (at most four)."""
    shown = results.variants if len(results.variants) <= 4 else results.variants[:1]
    names = [group.name for group in results.of(shown[0], "method", "overall")]
    width = 0.8 / len(shown)
    for number, variant in enumerate(shown):
        found = {group.name: group["iou"] for group in results.of(variant, "method", "overall")}
        place = np.array([names.index(name) for name in found]) + (number + 0.5) * width - 0.4
        values = np.array(list(found.values()))  # (methods, 3): value, low, high
        error = np.nan_to_num(np.abs(values[:, 1:] - values[:, :1]).T)
        axes.bar(place, values[:, 0], width, label=variant, color=COLOURS[number], yerr=error)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set(ylim=(0, 1), ylabel="IoU at 0.5, mean per picture (95 % interval)")
    if len(shown) > 1:
        axes.legend()


def roc(results: Results, axes: Axes) -> None:
    """One curve per method against all untouched pictures, as they are."""
    rows = _sound(results)
    untouched = np.sort([row["score"] for row in rows if not row["manipulated"]])
    for number, group in enumerate(results.of("as is", "method", "overall")):
        edited = np.sort([r["score"] for r in rows if r["manipulated"] and _in(r, group.name)])
        thresholds = np.unique(np.concatenate((untouched, edited, [2.0])))[::-1]
        false = 1 - np.searchsorted(untouched, thresholds) / untouched.size
        true = 1 - np.searchsorted(edited, thresholds) / edited.size
        label = f"{group.name} ({group['image_auc'].value:.3f})"
        axes.plot(false, true, drawstyle="steps-post", label=label, **_style(group.name, number))
    axes.plot([0, 1], [0, 1], color="0.7", lw=1, ls="--")
    axes.set(xlabel="untouched pictures judged wrongly", ylabel="edited pictures found")
    axes.legend(title="method (AUC)", fontsize="small")


def reliability(results: Results, axes: Axes) -> None:
    """Share of edited pictures against the mean score, in the bins of the calibration error."""
    rows = _sound(results)
    columns = [[row[name] for row in rows] for name in ("score", "manipulated", "source")]
    diagram(measure(*columns), axes)


def diagram(found: Reliability, axes: Axes) -> None:
    """Shares of edited pictures with their 95 % bands; a score that holds lies on the diagonal."""
    score = np.array([b.score for b in found.bins])
    share, low, high = np.array([b.share for b in found.bins]).T
    number = np.array([b.pictures for b in found.bins])
    axes.plot([0, 1], [0, 1], color="0.7", lw=1, ls="--")
    axes.fill_between(score, low, high, color=COLOURS[0], alpha=0.12, lw=0)
    known = ~np.isnan(low)
    error = np.clip([share - low, high - share], 0, None)[:, known]
    axes.errorbar(score[known], share[known], error, fmt="none", color=COLOURS[0], lw=1)
    axes.plot(score, share, color=COLOURS[0], lw=1)
    axes.scatter(score, share, s=10 + 400 * number / number.sum(), color=COLOURS[0])
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="score (dots: size by number of pictures)",
        ylabel="share that is edited (95 % by photo)",
        title=f"expected calibration error {found.error.value:.3f}; by chance {found.chance:.3f}",
    )


def save_diagram(found: Reliability, file: Path) -> Path:
    """The reliability diagram as a PNG; raises ForgemapError if matplotlib is not installed."""
    return _save(file, lambda axes: diagram(found, axes), (6, 5.5))


def curves(results: Results, change: str, axes: Axes) -> None:
    """IoU of each method over the levels of one change, with its 95 % interval as a band."""
    levels = _levels(results, change)
    place = np.arange(len(levels) + 1)
    names = [group.name for group in results.of("as is", "method", "overall")]
    for number, name in enumerate(names):
        found = [
            {g.name: g["iou"] for g in results.of(v, "method", "overall")}.get(name, NONE)
            for v in ("as is", *(f"{change} {level:g}" for level in levels))
        ]
        values, low, high = np.array(found).T
        style = _style(name, number)
        axes.plot(place, values, marker="o", ms=4, label=name, **style)
        axes.fill_between(place, low, high, color=style["color"], alpha=0.12, lw=0)
    axes.set_xticks(place, ["as is", *(f"{level:g}" for level in levels)])
    axes.set(ylim=(0, 1), xlabel=GRIDS[change].unit, ylabel="IoU at 0.5, mean per picture")
    axes.legend(fontsize="small")


def _style(name: str, number: int) -> dict[str, Any]:
    colour = "black" if name == ALL else COLOURS[number % len(COLOURS)]
    return {"color": colour, "lw": 2.2 if name == ALL else 1.2}


def _curve_of(results: Results, change: str) -> Callable[[Any], None]:
    return lambda axes: curves(results, change, axes)


def _levels(results: Results, change: str) -> list[float]:
    edited = {group.variant for group in results.groups if group.kind == "overall"}
    return [level for level in GRIDS[change].levels if f"{change} {level:g}" in edited]


def _sound(results: Results) -> list[Row]:
    return [r for r in results.rows if r["error"] is None and r["variant"] == "as is"]


def _in(row: Row, name: str) -> bool:
    return name in (ALL, row["method"])


def _save(file: Path, draw: Callable[[Any], None], size: tuple[float, float] = (7, 5)) -> Path:
    """One figure as a PNG, written beside and renamed; `size` in inches, 120 pixels each."""
    try:
        from matplotlib.figure import Figure  # slow to import, and only an extra
    except ModuleNotFoundError as error:
        raise ForgemapError(
            'Plots need matplotlib, which is not installed: pip install "forgemap[evaluate]"'
        ) from error
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    with whole(file) as beside:
        figure.savefig(beside, dpi=120, format="png")
    return file
