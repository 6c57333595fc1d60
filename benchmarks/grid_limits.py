"""grid_limits.py: what a second JPEG compression leaves of the first.

    python -m benchmarks.grid_limits DATA

The strongest trace of an edit in a JPEG photograph is the grid that the edited part lacks. Here the
maps of `models.grid.GridTraces` alone, without any network, tell edited from untouched pixels of
pictures of `forgemap synth` that were saved without loss, as they are and saved as JPEG once more:
the mean area under the curve of the single map that does best. Whatever a
network makes of these maps, it cannot find what is not in them. Grouped by how finely the source
photograph is compressed, since a coarser second compression leaves nothing of a fine first one.
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
    """(C,) pixel AUC of each map of GridTraces, at 1/8 of the resolution; nan where the mask marks
    all cells or none."""
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


def measure(data: str, split: str | None, limit: int) -> list[list[str]]:
    """Rows of the table: the sources, the number of pictures, and the best map's mean AUC for each
    way of saving."""
    records = [r for r in open_data(data, split) if r.method in METHODS]
    if not records:
        raise DataError(f"{data} has no pictures edited by any of {', '.join(METHODS)}.")
    step = max(1, len(records) // limit)
    traces = GridTraces()
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
        mean = table.mean((0, 1))  # below one half: low values of the map mean edited
        best = int(np.abs(mean - 0.5).argmax())
        table = table[:, :, best] if mean[best] > 0.5 else 1 - table[:, :, best]
        sources = [source for source, _ in some]
        values = [cell(mean_interval(column, sources), 2) for column in table.T]
        lines.append([kind, str(len(some)), *values])
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid_limits", description=__doc__)
    parser.add_argument("data", help="a manifest of pictures that were saved without loss")
    parser.add_argument("--split", default=None, choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, default=150, help="pictures at most")
    given = parser.parse_args(arguments)
    try:
        lines = measure(given.data, given.split, given.limit)
    except ForgemapError as error:
        print(f"benchmarks.grid_limits: {error}", file=sys.stderr)
        return 2
    print(markdown_table(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
