"""image_level.py: is this picture edited? Many ways to pool a map into one score, side by side.

comparison = compare("default", "edited/", fit=["edited-val/"], split="test")
for table in image_tables.tables(comparison):
    console.print(table)
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from rich.console import Console
from rich.progress import track

from ..data.catalog import root_of
from ..data.records import Record
from ..detector import Detector
from ..errors import DataError
from ..image import Image, load_image
from ..scoring import Decision, features
from ..tiling import localize
from . import facts
from .image_scores import best_thresholds, score_all
from .journal import Journal
from .pictures import check_masks, draw, read, read_mask
from .results import Row
from .robustness import AS_IS, Variant, variants

SHARPNESS = 4.0  # of the log-mean-exp by which the evidence head is trained (train.losses)


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    facts: JSON-able. names: the poolings that this network has, in order. rows: one per picture and
    variant; row["scores"] holds every pooling's score. thresholds: pooling -> the threshold with
    the best accuracy on the pictures that "fitted" was fitted on; empty without such pictures.
    """

    facts: dict[str, Any]
    names: list[str]
    rows: list[Row]
    thresholds: dict[str, float]


def compare(
    model: str | Path | Detector,
    data: str | Path,
    out: str | Path | None = None,
    *,
    fit: Sequence[str | Path] = (),
    split: str | None = None,
    fit_split: str | None = "val",
    limit: int | None = None,
    recompress: Sequence[int] = (),
    raw: bool = False,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Comparison:
    """Score every picture by every pooling.

    Args:
        model: "default", a model folder or hub id, or a loaded Detector.
        data: a manifest, or its folder, with edited and untouched pictures.
        out: folder that is written to; an interrupted run goes on there. None: nothing is written.
        fit: manifests that the regression is fitted on, never those of `data`'s photos.
        split, fit_split: only the records of this split; None: all.
        limit: at most this many pictures of `data`, and as many of `fit`; one half untouched, the
            other drawn by `seed` evenly over the methods.
        recompress: JPEG qualities; every picture is judged once more after each.
        raw: pool the network's own probabilities, without the model's mask calibration.
        seed: of the draw.

    Raises:
        DataError: no edited or no untouched picture, a photo in both `data` and `fit`, bad masks.
        ModelError: no such model.
    """
    begin = time.monotonic()
    chosen = variants(list(recompress), robustness=False)
    records, digest = read(Path(data), split)
    records = halves(records, limit, seed)
    fitting: list[tuple[str, Record]] = []
    digests = []
    for number, source in enumerate(fit):
        found, hashed = read(Path(source), fit_split)
        digests.append(hashed)
        fitting += [(f"{number}/{_name(r, source)}", r) for r in found]
    kept = {id(r) for r in halves([r for _, r in fitting], limit, seed)}
    fitting = [(name, r) for name, r in fitting if id(r) in kept]
    _check(data, records, [r for _, r in fitting], bool(fit))
    detector = model if isinstance(model, Detector) else Detector.load(model, device, detector=None)
    header = {
        "model": detector.name,
        "decision": detector.decision.to_dict(),
        "raw": raw,
        "seed": seed,
    }
    look = Look(detector, raw, seed)
    named = [(_name(r, data), r) for r in records]
    rows = list(look.at(named, chosen, {**header, "data_sha256": digest}, out, "data", progress))
    fit_header = {**header, "data_sha256": digests}
    other = list(look.at(fitting, chosen, fit_header, out, "fit", progress)) if fit else []
    names = score_all(rows, other)
    described = {
        **header,
        "split": split,
        "limit": limit,
        "variants": [variant.name for variant in chosen],
        "fitted_on": len(other),
        "failed": sum(row["error"] is not None for row in rows),
        "wall_seconds": round(time.monotonic() - begin, 1),
        "device": device,
        **facts.machine(),
    }
    sound = [row for row in rows if row["error"] is None]
    return Comparison(described, names, sound, best_thresholds(other, names))


def halves(records: list[Record], limit: int | None, seed: int) -> list[Record]:
    """At most `limit` records, half of them untouched: few false alarms need many to show."""
    if limit is None or limit >= len(records):
        return records
    edited = draw([r for r in records if r.manipulated], limit - limit // 2, seed)
    return [*edited, *draw([r for r in records if not r.manipulated], limit // 2, seed)]


class Look(NamedTuple):
    """How pictures are looked at."""

    detector: Detector
    raw: bool
    seed: int

    def at(
        self,
        named: Sequence[tuple[str, Record]],
        chosen: Sequence[Variant],
        header: dict[str, Any],
        out: str | Path | None,
        folder: str,
        progress: bool,
    ) -> Iterator[Row]:
        """A row for each picture and variant, from the journal where it is there already."""
        with closing(Journal(None if out is None else Path(out) / folder, header)) as journal:
            console = Console(stderr=True, quiet=not progress)
            for name, record in track(
                named, f"Looking ({folder})", console=console, disable=not progress
            ):
                missing = [v for v in chosen if (name, v.name) not in journal.rows]
                for row in self.observe(name, record, missing) if missing else ():
                    journal.add(row)
                    if row["error"] is not None:
                        sentence = f"Failed: {row['error']}"
                        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
            for variant in chosen:
                for name, _ in named:
                    yield journal.rows[name, variant.name]

    def observe(self, name: str, record: Record, chosen: Sequence[Variant]) -> Iterator[Row]:
        """One row per variant: what every pooling needs; whatever goes wrong is its `error`."""
        fixed: Row = {
            "image": name,
            "method": record.method,
            "manipulated": record.manipulated,
            "source": record.source,
            "folder": Path(record.source).parent.name or ".",
        }
        for variant in chosen:
            row = {**fixed, "variant": variant.name, "error": None, "values": None, "edited": 0.0}
            try:
                image = load_image(record.image)
                mask = read_mask(record)
                if record.manipulated:
                    row["edited"] = 1.0 if mask is None else float(mask.mean())
                rng = np.random.default_rng([self.seed, crc32(f"{name} {variant.name}".encode())])
                if variant != AS_IS:
                    image = load_image(variant.apply(image.samples, rng))
                row["values"] = self.values(image)
            except Exception as error:  # one broken file must not end the run
                row["error"] = f"{record.image}: {error}"
            yield row

    def values(self, image: Image) -> dict[str, float]:
        """The statistics of `pooling.features`, the model's own score, and two more logits."""
        logits = localize(self.detector.model, image.samples, device=self.detector.device)
        decision = self.detector.decision
        copies = self.detector.search(image.samples)
        strength = 0.0 if copies is None else copies.strength
        heat, evidence = decision.heat(logits.mask.copy()), logits.evidence
        later = self.detector.later(image)
        if later is not None:
            heat, evidence = later.join(heat, evidence)
        own = features(heat, evidence, image.lossy, strength)
        found = dict(own)
        shown = Decision() if self.raw else decision
        if self.raw:
            found = features(shown.heat(logits.mask.copy()), logits.evidence, image.lossy)
        calibrated = logits.mask * shown.mask_scale + shown.mask_shift
        found["mean_logit"] = float(calibrated.mean(dtype=np.float64))
        found["decision"] = decision.score(own)
        if logits.evidence is not None:
            cells = logits.evidence.astype(np.float64) * SHARPNESS
            top = cells.max()
            found["head"] = float(top + np.log(np.mean(np.exp(cells - top)))) / SHARPNESS
        return found


def _name(record: Record, data: str | Path) -> str:
    return os.path.relpath(record.image, root_of(data))


def _check(data: str | Path, records: list[Record], fitting: list[Record], fit: bool) -> None:
    check_masks([*records, *fitting])
    for what, found in (("data", records), ("fit", fitting)) if fit else (("data", records),):
        if {r.manipulated for r in found} != {True, False}:
            raise DataError(
                f"{data}: the pictures of {what} must be edited ones and untouched ones; "
                "see --split, --fit-split and --limit."
            )
    if shared := {r.source for r in records} & {r.source for r in fitting if r.source}:
        raise DataError(
            f"{min(shared)} is behind pictures of both the data and --fit: fit on other photos."
        )
