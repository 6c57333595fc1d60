"""calibration.py: choose a model's thresholds on held-out pictures (`forgemap calibrate`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from ..data.catalog import open_data
from ..data.datasets import load_pair
from ..data.records import Record, split_of
from ..detector import Detector
from ..encode import jpeg
from ..errors import DataError
from ..image import find_images, load_image
from ..pooling import features
from ..scoring import Decision
from ..tiling import localize

FEATURES = ("logit_peak32", "logit_top", "evidence_peak", "evidence_top", "evidence_lse")
"""Statistics that the score is fitted on; those of the evidence only where the network has it."""

SHIFTS = np.arange(-6.0, 2.01, 0.25)
"""Candidates for what is added to the mask logits."""


@dataclass
class Observation:
    """What one held-out picture says about the thresholds."""

    group: str  # where its false alarms are counted: a method, or a kind of untouched picture
    source: str
    edited: bool
    overlap: np.ndarray  # (len(SHIFTS),) IoU with the mask for each shift; empty if untouched
    flagged: np.ndarray  # (len(SHIFTS),) share of the area that is marked
    maps: Path  # the logits, on disk: they are needed once more when the shift is known

    def features(self, decision: Decision) -> dict[str, float]:
        """The picture's statistics under a decision's mask calibration."""
        with np.load(self.maps) as maps:
            evidence = maps["evidence"] if maps["evidence"].size else None
            return features(decision.heat(maps["mask"].astype(np.float32)), evidence)


@dataclass(frozen=True)
class Limits:
    """How often an untouched picture may be accused, at most, in any group of pictures."""

    #: Share of untouched pictures judged manipulated.
    alarms: float = 0.02
    #: Mean share of the area of an untouched picture that is marked.
    flagged: float = 0.005
    #: Share of untouched pictures that are not cleared (manipulated or inconclusive).
    doubts: float = 0.1


def observe(
    detector: Detector, group: str, source: str, pixels: np.ndarray, mask: np.ndarray, maps: Path
) -> Observation:
    """Run the network once, note what every candidate shift would mark, keep the logits."""
    logits = localize(detector.model, pixels, device=detector.device)
    edited = bool(mask.any())
    inside = logits.mask[mask > 0] if edited else np.zeros(0, np.float32)
    outside = logits.mask[mask == 0]
    hits = np.array([np.count_nonzero(inside > -shift) for shift in SHIFTS])
    misses = np.array([np.count_nonzero(outside > -shift) for shift in SHIFTS])
    evidence = np.zeros(0) if logits.evidence is None else logits.evidence
    np.savez(maps, mask=logits.mask.astype(np.float16), evidence=evidence)
    return Observation(
        group,
        source,
        edited,
        hits / (inside.size + misses) if edited else np.zeros(0),
        (hits + misses) / logits.mask.size,
        maps,
    )


def untouched_photos(
    paths: Sequence[str], split: str | None
) -> Iterable[tuple[str, str, np.ndarray]]:
    """(group, source, pixels) of whole photos of one split (None: of all), as they are and as they
    are shared."""
    found, problems = find_images(paths)
    if problems:
        raise DataError(f"{problems[0][1]}.")
    photos = [p for p in found if split in (None, split_of(load_image(p).sha256))]
    if not photos:
        raise DataError(f"{', '.join(paths)}: no photo falls into the {split} split.")
    for path in track(photos, "whole photos"):
        pixels = load_image(path).pixels
        folder = path.parent.name
        yield f"{folder}, as it is", str(path), pixels
        for quality in (90, 75):
            yield f"{folder}, JPEG {quality}", str(path), jpeg(pixels, quality)
        if max(pixels.shape[:2]) > 1600:
            scale = 1280 / max(pixels.shape[:2])
            small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            yield f"{folder}, for the web", str(path), jpeg(small, 85)


def choose_shift(observations: Sequence[Observation], limits: Limits) -> float:
    """The shift with the best mean IoU of those that keep every group of untouched pictures
    within the limit on marked area; the lowest if none does."""
    methods = grouped(o for o in observations if o.edited)
    plain = grouped(o for o in observations if not o.edited)
    overlap = np.mean([np.mean([o.overlap for o in g], axis=0) for g in methods.values()], axis=0)
    worst = np.max([np.mean([o.flagged for o in g], axis=0) for g in plain.values()], axis=0)
    allowed = worst <= limits.flagged
    if not allowed.any():
        return float(SHIFTS[0])
    return float(SHIFTS[np.argmax(np.where(allowed, overlap, -1))])


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
    pipeline.fit(table, edited)
    scaler, regression = pipeline[0], pipeline[1]
    weights = regression.coef_[0] / scaler.scale_
    bias = float(regression.intercept_[0] - (weights * scaler.mean_).sum())
    return weights, bias, held_out


def grouped(observations: Iterable[Observation]) -> dict[str, list[Observation]]:
    """Observations by group."""
    groups: dict[str, list[Observation]] = {}
    for observation in observations:
        groups.setdefault(observation.group, []).append(observation)
    return groups


def worst_quantile(scores: np.ndarray, groups: Sequence[str], share: float) -> float:
    """The least threshold that at most ``share`` of the scores reach, overall and in any group.

    A group too small for such a share to be one picture counts with its second-highest score:
    its highest would let a single photo decide.
    """
    names = np.array(groups)
    cuts = [np.quantile(scores, 1 - share)]
    for name in set(groups):
        mine = np.sort(scores[names == name])
        cuts.append(mine[max(0, min(len(mine) - 2, int(np.ceil(len(mine) * (1 - share))) - 1))])
    return float(np.nextafter(max(cuts), 2))


def calibrate(
    model: str | Path,
    data: Sequence[str],
    photos: Sequence[str] = (),
    *,
    split: str = "val",
    limits: Limits = Limits(),
    min_side: int = 96,
    min_jpeg_quality: int = 50,
) -> Decision:
    """Choose mask shift, score and thresholds of a model folder, and write them into it.

    Args:
        model: a model folder; its ``config.json`` gets the new ``decision``.
        data: manifests, or named sets (see `open_data`), with edited and untouched pictures.
        photos: folders of untouched photos, judged whole: as they are, re-encoded and reduced.
        split: the split that everything is taken from; never the one that was trained on.
        limits: what must hold in every group of untouched pictures.
        min_side, min_jpeg_quality: below which a picture is inconclusive; see `Decision`.

    Raises:
        DataError: a manifest cannot be read, or the split holds no edited or no untouched picture.
    """
    folder = Path(model)
    detector = Detector.load(folder, detector=None)
    detector.decision = Decision()
    records: list[Record] = [r for d in data for r in open_data(d, split)]
    with TemporaryDirectory(prefix="forgemap-") as scratch:
        observations = []
        for name, group, source, pixels, mask in held_out(records, photos, split):
            maps = Path(scratch) / f"{name}.npz"
            observations.append(observe(detector, group, source, pixels, mask, maps))
        decision = decide(observations, split, ", ".join(data), limits)
    decision = replace(decision, min_side=min_side, min_jpeg_quality=min_jpeg_quality)
    write_entry(folder, "decision", decision.to_dict())
    return decision


def held_out(
    records: Sequence[Record], photos: Sequence[str], split: str
) -> Iterable[tuple[int, str, str, np.ndarray, np.ndarray]]:
    """(number, group, source, pixels, mask) of everything that is looked at."""
    for number, record in enumerate(track(records, "held-out pictures")):
        plain = "untouched, honestly processed" if record.benign else "untouched crops"
        group = record.method if record.manipulated else plain
        yield number, group, record.source, *load_pair(record)
    if photos:
        for number, (group, source, pixels) in enumerate(untouched_photos(photos, split)):
            nothing = np.zeros(pixels.shape[:2], np.uint8)
            yield len(records) + number, group, source, pixels, nothing


def decide(
    observations: Sequence[Observation], split: str, origin: str, limits: Limits
) -> Decision:
    """Mask shift, score and thresholds from what was observed."""
    edited = np.array([o.edited for o in observations])
    if not edited.any() or edited.all():
        raise DataError(f"{origin}: the {split} split must hold edited and untouched pictures.")
    shift = choose_shift(observations, limits)
    values = [o.features(Decision(mask_shift=shift)) for o in observations]
    names = [name for name in FEATURES if name in values[0]]
    table = np.array([[v[name] for name in names] for v in values])
    weights, bias, scores = fit_score(table, edited, [o.source for o in observations])
    plain = [o.group for o in observations if not o.edited]
    place = int(np.flatnonzero(shift == SHIFTS)[0])
    areas = np.array([o.flagged[place] for o in observations if not o.edited])
    doubt_area = min(1.0, max(limits.flagged, worst_quantile(areas, plain, limits.alarms)))
    manipulated_at = min(1.0, worst_quantile(scores[~edited], plain, limits.alarms))
    clear_below = min(manipulated_at, worst_quantile(scores[~edited], plain, limits.doubts))
    return Decision(
        features=tuple(names),
        weights=tuple(round(float(w), 6) for w in weights),
        bias=round(bias, 6),
        manipulated_at=round(manipulated_at, 6),
        clear_below=round(clear_below, 6),
        mask_shift=shift,
        doubt_area=round(doubt_area, 6),
        calibrated_on=(
            f"{int(edited.sum())} edited and {int((~edited).sum())} untouched pictures of the "
            f"{split} split, from {len({o.source for o in observations})} photos; at most "
            f"{limits.alarms:.0%} of the untouched of any kind reach the threshold."
        ),
        untouched=tuple(
            round(float(q), 4) for q in np.quantile(scores[~edited], np.linspace(0, 1, 101))
        ),
    )


def write_entry(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    """Put an entry, such as ``decision``, into a model folder's ``config.json``, atomically."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config[name] = values
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
