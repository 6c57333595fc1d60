"""calibration_generated.py: choose an embedder's thresholds on held-out pictures, real and
generated (`forgemap calibrate` on an embedder's folder)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from .. import classifiers
from ..classifiers import Classifier
from ..errors import DataError, ModelError
from ..generated import GenerationDetector, Rule
from ..image import load_image
from ..models.crops import aggregate, cut
from .calibration import untouched_photos, worst_quantile, write_entry
from .calibration_limits import USUAL, Limits
from .calibration_pictures import honestly, photos_of
from .embed import Model, embed
from .generated_scores import score

QUALITIES = (90, 75)
"""Every picture also counts saved anew at these JPEG qualities."""

REDUCED = "reduced, saved without loss"
LONGEST = (1280, 640, 240)
"""Longer sides in pixels of reduced photos."""

MIDDLE = 768
"""Largest side in pixels of what honest processing is tried on: the middle of a photo."""


@dataclass
class Scores:
    """Raw scores of a classifier, one for each picture and variant."""

    raw: list[float]
    fake: list[bool]
    group: list[str]
    """Where the false alarms of a real picture are counted."""
    source: list[str]
    """The photograph that a picture was made of."""
    processed: list[bool] = field(default_factory=list)
    """Whether it was honestly processed, and counts for that limit alone; empty: none was."""

    def extend(
        self,
        raw: np.ndarray,
        fake: Iterable[bool],
        group: list[str],
        source: list[str],
        processed: bool = False,
    ) -> None:
        """More pictures, of which each has an entry in all."""
        self.raw += [float(x) for x in raw]
        self.fake += [bool(x) for x in fake]
        self.group += group
        self.source += source
        self.processed += [processed] * len(raw)


def calibrate_generated(
    folder: str | Path,
    data: Sequence[str],
    photos: Sequence[str] = (),
    *,
    split: str | None = "val",
    limits: Limits = USUAL,
    processing: Sequence[str] = (),
    seed: int = 0,
    crops: str = "five",
    classifier: str = "linear",
    min_side: int = 96,
    min_jpeg_quality: int = 50,
) -> Rule:
    """Choose scale, shift and thresholds of an embedder's folder, and write them into it.

    Args:
        folder: an embedder's folder with classifiers; its ``config.json`` gets ``generated``.
        data: folders, manifests or shards of real and generated pictures.
        photos: folders of untouched photographs, judged whole: as they are, re-encoded, reduced.
        split: the split that everything is taken from, never the one that was trained on; None:
            everything, as of a folder that says no splits.
        limits: what must hold in every group of real pictures.
        processing: names of `synth.benign.BENIGN`; each photo's middle is judged after each of them
            too, where the limit ``processed`` holds.
        seed: of the processing.
        crops: a key of `models.crops.CROPS`.
        classifier: which of the folder's classifiers is asked.
        min_side, min_jpeg_quality: below which a picture is inconclusive; see `Rule`.

    Raises:
        DataError: data that cannot be read, or without real or generated pictures of the split.
        ModelError: no such classifier, or one that cannot tell the two apart here.
    """
    folder = Path(folder)
    model = Model.load(folder)
    fitted = classifiers.load(folder / f"{classifier}.safetensors", model.source)
    rule = Rule(classifier=classifier, crops=crops)
    found = Scores([], [], [], [])
    with TemporaryDirectory(prefix="forgemap-") as scratch:
        for number, name in enumerate(data):
            file = Path(scratch) / f"{number}.parquet"
            tested = embed(model, name, file, split=split, crops=crops, recompress=QUALITIES)
            scored = score(tested, {classifier: fitted}, rule.aggregation)
            columns = scored.columns
            groups = [f"real, {variant}" for variant in columns["variant"]]
            sources = [str(key) for key in columns["group"]]
            found.extend(scored.scores[classifier], columns["label"], groups, sources)
    judge = GenerationDetector(model.network, fitted, rule)
    _add_photos(found, judge, photos, split)
    for kind, source, pixels in processed_photos(photos, split, processing, seed):
        found.extend(_raw(judge, pixels), [False], [kind], [source], processed=True)
    rule = replace(
        decide(found, rule, split, ", ".join(data), limits),
        min_side=min_side,
        min_jpeg_quality=min_jpeg_quality,
    )
    write_entry(folder, "generated", rule.to_dict())
    return rule


def _add_photos(
    found: Scores, judge: GenerationDetector, photos: Sequence[str], split: str | None
) -> None:
    if not photos:
        return
    for group, source, pixels in untouched_photos(photos, split):
        found.extend(_raw(judge, pixels), [False], [group], [source])
    for source, pixels in reduced_photos(photos, split, judge.embedder.image_size):
        found.extend(_raw(judge, pixels), [False], [REDUCED], [source])


def reduced_photos(
    paths: Sequence[str], split: str | None, smallest: int
) -> Iterator[tuple[str, np.ndarray]]:
    """(source, pixels): each photo of a split in smaller sizes, saved without loss.

    Nothing is left in them of the JPEG that the photo was, as in generated pictures; none has a
    side of less than ``smallest`` pixels.
    """
    console = Console(stderr=True)
    for path in track(photos_of(paths, split), "reduced photos", console=console):
        pixels = load_image(path).samples
        height, width = pixels.shape[:2]
        for longest in LONGEST:
            scale = longest / max(height, width)
            if scale < 2 / 3 and scale * min(height, width) >= smallest:
                size = (round(scale * width), round(scale * height))
                yield str(path), cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def processed_photos(
    paths: Sequence[str], split: str | None, processing: Sequence[str], seed: int
) -> Iterator[tuple[str, str, np.ndarray]]:
    """(kind, source, pixels): the middle of each photo of a split, after each honest processing."""
    if not processing:
        return
    console = Console(stderr=True)
    for path in track(photos_of(paths, split), "honest processing", console=console):
        image = load_image(path)
        rows, columns = (slice((n - min(n, MIDDLE)) // 2, None) for n in image.samples.shape[:2])
        middle = np.ascontiguousarray(image.samples[rows, columns][:MIDDLE, :MIDDLE])
        for name in processing:
            yield name, str(path), honestly(name, middle, seed, image.sha256).samples


def _raw(judge: GenerationDetector, pixels: np.ndarray) -> np.ndarray:
    """(1,) the classifier's score of a picture."""
    ask: Classifier = judge.classifier
    views = cut(pixels, judge.embedder.image_size, judge.rule.crops).views
    return np.array([aggregate(judge.embed(views), ask.scores, judge.rule.aggregation)])


def decide(found: Scores, rule: Rule, split: str | None, origin: str, limits: Limits) -> Rule:
    """Calibration (Platt's: a logistic regression on the logit) and thresholds."""
    from sklearn.linear_model import LogisticRegression

    fake = np.array(found.fake)
    groups = np.array(found.group)
    processed = np.array(found.processed or [False] * len(fake))
    if not fake.any() or fake.all():
        raise DataError(f"{origin}: {_part(split)} must hold real and generated pictures.")
    raw = np.clip(np.array(found.raw), 1e-9, 1 - 1e-9)
    logits = np.log(raw / (1 - raw))
    # Honest processing sets thresholds; what scores mean is asked of pictures in pairs.
    platt = LogisticRegression(C=1e6, class_weight="balanced")
    platt.fit(logits[~processed, None], fake[~processed])
    scale, shift = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    if scale <= 0:
        raise ModelError(
            f"{origin}: the classifier scores real pictures as high as generated ones; it needs "
            "more training before thresholds mean anything."
        )
    rule = replace(rule, scale=round(scale, 6), shift=round(shift, 6))
    scores = np.array([rule.score(value) for value in found.raw])
    plain = ~fake & ~processed
    real = scores[plain]
    generated_at = min(1.0, worst_quantile(real, groups[plain], limits.alarms))
    if processed.any():
        bound = worst_quantile(scores[processed], groups[processed], limits.processed)
        generated_at = min(1.0, max(generated_at, bound))
    generated_at = max(generated_at, limits.manipulated_at)
    doubted = worst_quantile(real, groups[plain], limits.doubts)
    clear_below = min(generated_at, limits.clear_below, doubted)
    return replace(
        rule,
        generated_at=round(generated_at, 6),
        clear_below=round(clear_below, 6),
        calibrated_on=(
            f"{int(fake.sum())} generated and {len(real)} real pictures of "
            f"{_part(split)}, from {len(set(found.source))} photos; at most {limits.alarms:.0%} of "
            "the real of any kind reach the threshold"
            + (
                f", and {limits.processed:.0%} after any of {len(set(groups[processed]))} kinds of "
                "honest processing."
                if processed.any()
                else "."
            )
        ),
        real=tuple(round(float(q), 4) for q in np.quantile(real, np.linspace(0, 1, 101))),
    )


def _part(split: str | None) -> str:
    return "the whole" if split is None else f"the {split} split"
