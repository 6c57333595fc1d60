"""markdown.py: Results as Markdown tables, one column for each variant, for model cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .bootstrap import Interval
from .reliability import reliability

if TYPE_CHECKING:
    from .results import Results

IMAGE = {
    "image_auc": "AUC of the score",
    "tpr_at_fpr_1": "true positives at 1 % false positives",
    "tpr_at_fpr_5": "true positives at 5 % false positives",
    "ece": "calibration error",
    "judged_manipulated": "edited, judged manipulated",
}
UNTOUCHED = {
    "judged_manipulated": "untouched, judged manipulated",
    "judged_inconclusive": "untouched, inconclusive",
    "flagged": "share of untouched area marked",
}

MOST = 12  # variants side by side


def markdown(results: Results) -> str:
    """IoU by method, image-level figures and source folders; 95 % intervals in brackets."""
    variants = results.variants if len(results.variants) <= MOST else results.variants[:1]
    groups = {(g.kind, g.name, g.variant): g for g in results.groups}
    kinds: dict[tuple[str, str], int] = {}  # (kind, name) -> pictures, in the tables' order
    for group in results.groups:
        kinds.setdefault((group.kind, group.name), group.pictures)

    def cells(kind: str, name: str, metric: str, digits: int = 2) -> list[str]:
        found = [groups.get((kind, name, variant)) for variant in variants]
        return ["" if g is None else cell(g[metric], digits) for g in found]

    parts = []
    edited = [key for key in kinds if key[0] in ("method", "overall")]
    if edited:
        body = [[n, str(kinds[k, n]), *cells(k, n, "iou")] for k, n in edited]
        body = [["edit", "pictures", *variants], *body]
        parts += ["IoU at 0.5, mean per picture:\n", markdown_table(body)]
    whole = [[t, *cells(k, n, m)] for k, n in edited if k == "overall" for m, t in IMAGE.items()]
    plain = [n for k, n in kinds if k == "untouched"]
    whole += [[t, *cells("untouched", n, m, 3)] for n in plain for m, t in UNTOUCHED.items()]
    if whole:
        lines = [["", *variants], *whole]
        parts += ["Image level, all methods against untouched:\n", markdown_table(lines)]
    parts += _reliable(results)
    lives = [n for k, n in kinds if k == "benign"]
    if lives:
        first = variants[0]
        heads = ["untouched, processed by", "pictures", *UNTOUCHED.values()]
        body = [
            [g.name, str(g.pictures), *(cell(g[m], 3) for m in UNTOUCHED)]
            for g in (groups["benign", name, first] for name in lives)
        ]
        parts += [f"Benign processing, {first}:\n", markdown_table([heads, *body])]
    folders = [n for k, n in kinds if k == "folder"]
    if len(folders) > 1:
        first = variants[0]
        found = [groups["folder", name, first] for name in folders]
        body = [
            [g.name, str(g.pictures), *(cell(g[m], 3) for m in ("iou", "flagged", "alarms"))]
            for g in found
        ]
        heads = ["photos of", "pictures", "IoU", "untouched area marked", "untouched accused"]
        parts += [f"By source of the photographs, {first}:\n", markdown_table([heads, *body])]
    return "\n".join(parts)


def cell(value: Interval, digits: int) -> str:
    """Value and interval, as ``0.68 (0.63-0.74)``; empty where undefined."""
    if value.value != value.value:
        return ""
    return f"{value.value:.{digits}f} ({value.low:.{digits}f}-{value.high:.{digits}f})"


def _reliable(results: Results) -> list[str]:
    """Do the scores of the first variant hold as probabilities? Empty without both classes."""
    rows = [r for r in results.rows if r["error"] is None and r["variant"] == results.variants[0]]
    if len({row["manipulated"] for row in rows}) < 2:
        return []
    columns = ([row[name] for row in rows] for name in ("score", "manipulated", "source"))
    found = reliability(*columns)
    title = f"Scores as probabilities, {results.variants[0]}:\n"
    return [title, markdown_table(found.rows()), found.sentence() + "\n"]


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table: a line of heads, then rows of a name and its figures."""
    heads, *rows = lines
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, rule, *rows))
