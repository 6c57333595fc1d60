"""generated_alarms.py: how often an embedder calls photographs generated: as they are, as they are
shared, after honest processing, and edited in places.

python -m benchmarks.generated_alarms PHOTOS... [--model FOLDER]... [--edits SET]... [--split test]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from forgemap.data.records import read_manifest
from forgemap.errors import ForgemapError
from forgemap.evaluate.calibration_generated import REDUCED, processed_photos, reduced_photos
from forgemap.evaluate.calibration_pictures import untouched_photos
from forgemap.evaluate.markdown import markdown_table
from forgemap.generated import VERDICTS, GenerationDetector
from forgemap.image import Image, load_image
from forgemap.synth.benign import BENIGN

SMALLEST = 160
"""Shorter side in pixels that reduced photos have at least."""

Shown = tuple[str, Image]
"""The kind of a picture, and the picture."""


def photographs(
    paths: Sequence[str], split: str, seed: int, kinds: Sequence[str] = tuple(BENIGN)
) -> Iterator[Shown]:
    """Photos of a split whole, as they are, re-encoded and reduced, and their middles processed."""
    for kind, _, pixels in untouched_photos(paths, split):
        yield kind.split(", ", 1)[1], load_image(pixels)
    for _, pixels in reduced_photos(paths, split, SMALLEST):
        yield REDUCED, load_image(pixels)
    for kind, _, pixels in processed_photos(paths, split, kinds, seed):
        yield f"after {kind}", load_image(pixels)


def edits(sets: Iterable[str]) -> Iterator[Shown]:
    """The pictures of sets made by `forgemap synth` or `benchmarks.foreign`."""
    for name in sets:
        for record in read_manifest(name):
            kind = "edited" if record.manipulated else "untouched"
            yield f"{Path(name).stem}, {kind}", load_image(record.image)


def table(models: Sequence[str], shown: Iterable[Shown]) -> str:
    """Of each kind, by each model: the share that is called generated, and that is not cleared."""
    judges = [GenerationDetector.load(name) for name in models]
    counts: dict[str, np.ndarray] = {}
    for kind, image in shown:
        found = counts.setdefault(kind, np.zeros((len(models), 3), int))
        for row, judge in zip(found, judges, strict=True):
            row[VERDICTS.index(judge.judge(image).verdict)] += 1
    rows = []
    for kind, found in counts.items():
        total = int(found[0].sum())
        cells = [f"{row[2]} ({row[2] / total:.1%}), {1 - row[0] / total:.0%}" for row in found]
        rows.append([kind, str(total), *cells])
    return markdown_table([["pictures", "number", *models], *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="*")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--edits", action="append", default=[])
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--no-processing", action="store_true", help="photos whole and reduced only"
    )
    given = parser.parse_args(arguments)
    if not given.photos and not given.edits:
        parser.error("name photographs, or sets with --edits")
    torch.set_num_threads(1)

    def shown() -> Iterator[Shown]:
        if given.photos:
            kinds = () if given.no_processing else tuple(BENIGN)
            yield from photographs(given.photos, given.split, given.seed, kinds)
        yield from edits(given.edits)

    try:
        print(table(given.model or ["default"], shown()))
    except ForgemapError as error:
        print(f"benchmarks.generated_alarms: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
