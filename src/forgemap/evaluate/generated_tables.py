"""generated_tables.py: what `generated.evaluate` found as tables, plots, JSON and Parquet."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from ..errors import DataError
from ..files import whole, write_whole
from . import plots
from .generated import Found
from .generated_scores import METRICS, POOLED
from .results import ALL, Group, Results, Row, _table

SCORES = "scores.parquet"


def tables(found: Found) -> list[Table]:
    """One table per classifier and variant, generators in rows."""
    made = []
    for classifier, groups in found.groups.items():
        for variant in dict.fromkeys(group.variant for group in groups):
            some = [group for group in groups if group.variant == variant]
            shown = f", pictures {variant}" if variant != "as is" else ""
            title = f"{classifier}{shown}: share judged right, ranking, calibration"
            made.append(_table(title, "generator", some, METRICS))
    return made


def save(found: Found, folder: Path) -> None:
    """results.json, scores.parquet, and for each classifier a ROC and a reliability plot."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scored = found.scored
    try:
        columns = {name: pa.array(column.tolist()) for name, column in scored.columns.items()}
        columns |= {f"score_{name}": pa.array(values) for name, values in scored.scores.items()}
        with whole(folder / SCORES) as beside:
            pq.write_table(pa.table(columns), beside)
        text = json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n"
        write_whole(folder / "results.json", text)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}.") from None
    for name in scored.scores:
        shown = Shown(found, name)
        plots._save(folder / f"roc-{name}.png", partial(roc, shown))
        plots._save(folder / f"reliability-{name}.png", partial(reliability, shown))


class Shown(Results):
    """One classifier's figures of the first variant in the form that the plots take."""

    def __init__(self, found: Found, classifier: str) -> None:
        columns, scores = found.scored.columns, found.scored.scores[classifier]
        first = columns["variant"][0]
        self.facts, self.rows, self.groups = {}, [], []
        for n in range(len(scores)):
            if columns["variant"][n] == first:
                row: Row = {"variant": "as is", "error": None, "score": float(scores[n])}
                row |= {
                    "manipulated": bool(columns["label"][n]),
                    "method": columns["generator"][n],
                    "source": str(columns["key"][n] or columns["path"][n]),
                }
                self.rows.append(row)
        for group in found.groups[classifier]:
            if group.variant == first and group.kind != "mean":
                kind = "overall" if group.name == POOLED else "method"
                name = ALL if group.name == POOLED else group.name
                values = {"image_auc": group["auc"]}
                self.groups.append(Group("as is", kind, name, group.pictures, group.photos, values))


def roc(shown: Shown, axes: Any) -> None:
    """One curve per generator against all real pictures."""
    plots.roc(shown, axes)
    axes.set(xlabel="real pictures judged generated", ylabel="generated pictures found")
    axes.legend(title="generator (AUC)", fontsize="small")


def reliability(shown: Shown, axes: Any) -> None:
    """Share of generated pictures against the mean score."""
    plots.reliability(shown, axes)
    axes.set(ylabel="share that is generated")
