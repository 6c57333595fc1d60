"""grid_limits.py: what tells an edit from a JPEG photograph, and what a second compression leaves.

    python -m benchmarks.grid_limits DATA

The strongest traces of an edit in a JPEG photograph are the grid that the edited part lacks and the
colours that a decoder cannot give. Here the maps of `models.grid.GridTraces` and of
`models.colours.jpeg_colours` alone, without any network, tell edited from untouched pixels of
pictures of `forgemap synth` that were saved without loss. First, by method, the mean area under the
curve of the best of the grid's maps and of the colours' map. Then all of these pictures as they are
and saved as JPEG once more: the single map that does best. Whatever a network makes of these maps,
it cannot find what is not in them. Grouped by how finely the source photograph is compressed, since
a coarser second compression leaves nothing of a fine first one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as Pillow
from sklearn.metrics import roc_auc_score

from forgemap.data.catalog import open_data
from forgemap.data.datasets import load_pair
from forgemap.data.records import Record
from forgemap.encode import jpeg
from forgemap.errors import DataError, ForgemapError
from forgemap.evaluate.bootstrap import mean_interval
from forgemap.evaluate.markdown import cell, markdown_table
from forgemap.models.grid import GridTraces

METHODS = ("splice", "copy_move", "autoencoder_paste", "inpaint_telea", "inpaint_exemplar")
"""Edits whose pixels do not keep the photograph's grid."""
QUALITIES = (98, 95, 90, 85, 75)
COARSE = 8.0
"""Mean step of a luminance table above which a compression is called coarse: quality 93 or less."""


def aucs(pixels: np.ndarray, mask: np.ndarray, traces: GridTraces) -> np.ndarray:
    """(C,) pixel AUC of each map of GridTraces, the colours' last, at 1/8 of the resolution;
    nan where the mask marks all cells or none."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None] / 127.5 - 1
    maps = traces(image)[0].numpy()
    shape = (maps.shape[2], maps.shape[1])
    cells = np.asarray(Pillow.fromarray(mask).resize(shape, Pillow.Resampling.BOX)) > 127
    if cells.all() or not cells.any():
        return np.full(len(maps), np.nan)
    return np.array([roc_auc_score(cells.ravel(), one.ravel()) for one in maps])


def coarseness(path: str) -> str:
    """How the file was compressed: "fine", "coarse", or "no JPEG"."""
    with Pillow.open(path) as picture:
        tables = getattr(picture, "quantization", None)
    if not tables:
        return "no JPEG"
    return "coarse" if np.mean(tables[min(tables)]) > COARSE else "fine"


def best(table: np.ndarray) -> np.ndarray:
    """The AUCs of the map that does best on the whole, low values of it meaning edited if that is
    better: (N, ..., C) -> (N, ...)."""
    mean = table.reshape(-1, table.shape[-1]).mean(0)
    place = int(np.abs(mean - 0.5).argmax())
    return table[..., place] if mean[place] > 0.5 else 1 - table[..., place]


def by_method(data: str, split: str | None, limit: int) -> list[list[str]]:
    """Rows of the first table: method, pictures, the best map of the grid, the colours' map."""
    groups: dict[str, list[Record]] = {}
    for record in open_data(data, split):
        if record.manipulated:
            groups.setdefault(record.method, []).append(record)
    traces = GridTraces(colours=True)
    lines = [["edit", "pictures", "JPEG's grid", "JPEG's colours"]]
    for method, records in sorted(groups.items()):
        some = records[:: max(1, len(records) * len(groups) // limit)]
        found = [(r.source, aucs(*load_pair(r), traces)) for r in some]
        found = [(source, row) for source, row in found if not np.isnan(row).any()]
        if not found:
            continue
        sources = [source for source, _ in found]
        table = np.array([row for _, row in found])
        cells = [
            cell(mean_interval(best(part), sources), 2) for part in (table[:, :-1], table[:, -1:])
        ]
        lines.append([method, str(len(found)), *cells])
    return lines


def measure(data: str, split: str | None, limit: int) -> list[list[str]]:
    """Rows of the table: the sources, the number of pictures, and the best map's mean AUC for each
    way of saving."""
    records = [r for r in open_data(data, split) if r.method in METHODS]
    if not records:
        raise DataError(f"{data} has no pictures edited by any of {', '.join(METHODS)}.")
    step = max(1, len(records) // limit)
    traces = GridTraces(colours=True)
    found: dict[str, list[tuple[str, np.ndarray]]] = {}
    for record in records[::step][:limit]:
        pixels, mask = load_pair(record)
        ways = [pixels, *(jpeg(pixels, quality) for quality in QUALITIES)]
        rows = np.array([aucs(shown, mask, traces) for shown in ways])
        if not np.isnan(rows).any():
            found.setdefault(coarseness(record.source), []).append((record.source, rows))
    lines = [["source photographs", "pictures", "as saved", *(f"JPEG {q}" for q in QUALITIES)]]
    for kind, some in sorted(found.items()):
        table = np.array([rows for _, rows in some])
        sources = [source for source, _ in some]
        values = [cell(mean_interval(column, sources), 2) for column in best(table).T]
        lines.append([kind, str(len(some)), *values])
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid_limits", description=__doc__)
    parser.add_argument("data", help="a manifest of pictures that were saved without loss")
    parser.add_argument("--split", default=None, choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, default=150, help="pictures at most")
    given = parser.parse_args(arguments)
    try:
        methods = by_method(given.data, given.split, given.limit)
        lines = measure(given.data, given.split, given.limit)
    except ForgemapError as error:
        print(f"benchmarks.grid_limits: {error}", file=sys.stderr)
        return 2
    print(markdown_table(methods), markdown_table(lines), sep="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
