"""calibration.py: choose a model's thresholds on held-out pictures (`forgemap calibrate`).

The photos are divided in two. A quarter of them fits the regression that the score is. The others,
of which it has seen nothing, say what its sum is worth as a probability (`probability`) and how
high untouched pictures score (`conformal`): the chances of a false alarm that are stated hold for a
new picture because of that. A score that is one statistic, named beforehand, has seen no photo, and
all of them are such others. The curve may be fitted on the same photos as the thresholds: it rises,
so that it changes no picture's rank. What the statement leaves out: the mask's shift, one number of
33, is chosen on all photos, since the limit on marked area needs them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from ..data.catalog import open_data
from ..data.records import Record
from ..errors import DataError
from ..files import write_whole
from ..scoring import Decision
from . import conformal
from .calibration_confidence import fit_confidence
from .calibration_familiarity import usual
from .calibration_limits import USUAL, Limits
from .calibration_look import SHIFTS, Observation, crew
from .calibration_pictures import PROCESSED, photos_of, tasks, untouched_photos
from .calibration_report import Line, kinds_of, part, sentence, table_of
from .calibration_score import PARTS, check_statistic, score_of
from .conformal import Levels, empirical
from .image_level import halves
from .probability import fit_curve, fit_score, sigmoid

__all__ = ["Limits", "calibrate", "fit_score", "untouched_photos", "worst_quantile", "write_entry"]

STEP = 0.001
"""By so much log-odds a threshold lies above the score that must stay below it: more than another
engine or processor changes a score by."""


class Calibration(NamedTuple):
    """A decision, and how it does on the pictures that its thresholds were chosen on."""

    decision: Decision
    lines: list[Line]
    #: Of pictures with edited ones beside them that were made alike: probability by a curve that,
    #: as the regression, has not seen their photo (see `probability.Fitted`); truth; photo.
    scores: np.ndarray
    edited: np.ndarray
    photos: np.ndarray
    #: What the curve was chosen by: log-loss of each.
    losses: dict[str, float]


def choose_shift(observations: Sequence[Observation], limits: Limits) -> float:
    """The shift with the best mean IoU of those that keep untouched pictures within the limit on
    marked area; the lowest if none does.

    It holds for crops and for whole photos as for one, and for the honestly processed, where more
    is allowed: processing does something to a picture, and the bounds on verdicts are those of
    `decide`. What is marked as a whole does not count: of such a picture the verdict says that no
    place of it stands out (`Decision.whole_area`), and a single photograph that was developed
    oddly would otherwise blunt the mask of every edit.
    """
    methods = grouped(o for o in observations if o.edited)
    overlap = np.mean([np.mean([o.overlap for o in g], axis=0) for g in methods.values()], axis=0)
    marked: dict[str, list[np.ndarray]] = {}
    for one in observations:
        if not one.edited:
            pool = one.kinds[0].pool if one.kinds else one.group
            marked.setdefault(pool, []).append(np.where(one.flagged > limits.whole, 0, one.flagged))
    processed = max(limits.flagged, limits.flagged_processed)
    most = [processed if pool == PROCESSED else limits.flagged for pool in marked]
    means = np.array([np.mean(areas, axis=0) for areas in marked.values()])
    allowed = np.all(means <= np.array(most)[:, None], axis=0)
    if not allowed.any():
        return float(SHIFTS[0])
    return float(SHIFTS[np.argmax(np.where(allowed, overlap, -1))])


def grouped(observations: Iterable[Observation]) -> dict[str, list[Observation]]:
    """Observations by group."""
    groups: dict[str, list[Observation]] = {}
    for observation in observations:
        groups.setdefault(observation.group, []).append(observation)
    return groups


def worst_quantile(scores: np.ndarray, groups: Sequence[str], share: float) -> float:
    """The least threshold that at most ``share`` of the scores reach, overall and in any group.

    This is about the very pictures that it is given: `conformal` bounds new ones.
    """
    names = np.array(groups)
    cuts = [np.quantile(scores, 1 - share)]
    cuts += [empirical(scores[names == name], share) for name in set(groups)]
    return float(np.nextafter(max(cuts), 2))


def calibrate(
    model: str | Path,
    data: Sequence[str],
    photos: Sequence[str] = (),
    *,
    split: str | None = "val",
    limits: Limits = USUAL,
    processing: Sequence[str] = (),
    score: str = "",
    limit: int | None = None,
    seed: int = 0,
    workers: int = 1,
    min_side: int = 96,
    min_jpeg_quality: int = 50,
) -> Calibration:
    """Choose mask shift, score and thresholds of a model folder, and write them into it; with them
    what a confidence map is looked up in, and what the untouched pictures look like.

    Args:
        model: a model folder; its ``config.json`` gets the new ``decision``, ``confidence`` and
            ``familiarity``.
        data: manifests, or named sets (see `open_data`), with edited and untouched pictures.
        photos: folders of untouched photos, judged whole: as they are, re-encoded and reduced.
        split: the split that everything is taken from, never the one that was trained on; None:
            all, for photos of which none was trained on.
        limits: what must hold for every kind of untouched picture.
        processing: names of `synth.benign.BENIGN`; an untouched picture of each photo is judged
            after each of them too, so that each kind has photos enough for a bound.
        score: one of `pooling.STATISTICS`, taken as it is, so that all photos set the thresholds;
            to be named before its scores on these are known. Empty: a regression on a quarter.
        limit: at most this many pictures of `data`, and as many of `photos`, drawn by `seed`.
        seed: of the draw and of what is random in the processing.
        workers: processes, each with a model of its own.
        min_side, min_jpeg_quality: below which a picture is inconclusive; see `Decision`.

    Raises:
        DataError: a manifest cannot be read, the split holds too few edited or untouched photos, or
            there is no statistic `score`, or none of this network.
        ForgemapError: a worker died.
    """
    check_statistic(score)
    folder = Path(model)
    records: list[Record] = [r for d in data for r in open_data(d, split)]
    whole = photos_of(photos, split) if photos else []
    if limit is not None and limit < len(whole):
        whole = sorted(np.random.default_rng(seed).permutation(np.array(whole))[:limit].tolist())
    work = tasks(halves(records, limit, seed), whole, processing, seed)
    with crew(folder, workers) as hands, TemporaryDirectory(prefix="forgemap-") as scratch:
        # Whether the network has an evidence head shows on one picture, before hours of work.
        first = [task._replace(processing=()) for task in work[:1] if score]
        for offered in hands.features(hands.look(first, Path(scratch)), Decision()):
            check_statistic(score, offered)
        observations = hands.look(work, Path(scratch))
        check(observations, split, ", ".join(data))
        shift = choose_shift(observations, limits)
        values = hands.features(observations, Decision(mask_shift=shift))
        confidence = fit_confidence(hands.cells(observations, Decision(mask_shift=shift)))
    found = decide(observations, values, shift, split, limits, score)
    decision = replace(found.decision, min_side=min_side, min_jpeg_quality=min_jpeg_quality)
    untouched = [o for o in observations if not o.edited]
    familiarity = usual([o.statistics for o in untouched], [o.source for o in untouched])
    entries = {
        "decision": decision.to_dict(),
        "confidence": confidence.to_dict(),
        "familiarity": None if familiarity is None else familiarity.to_dict(),
    }
    write_entries(folder, entries)
    return found._replace(decision=decision)


def check(observations: Sequence[Observation], split: str | None, origin: str) -> None:
    """Are there photos enough to divide? DataError if not."""
    counts = [len({o.source for o in observations if o.edited is e}) for e in (True, False)]
    if not all(counts):
        raise DataError(f"{origin}: {part(split)} must hold edited and untouched pictures.")
    if min(counts) < PARTS:
        raise DataError(
            f"{origin}: {counts[0]} edited and {counts[1]} untouched photos of {part(split)} "
            f"are too few to calibrate on: {PARTS} of each are the least, 100 are better."
        )


def decide(
    observations: Sequence[Observation],
    values: Sequence[Mapping[str, float]],
    shift: float,
    split: str | None,
    limits: Limits,
    statistic: str = "",
) -> Calibration:
    """Score and thresholds from what was observed.

    Args:
        observations: n of them, that `check` has passed.
        values: the statistics of each, at the mask's shift.
        statistic: the one that the score is; empty: a regression on several.
    """
    edited = np.array([o.edited for o in observations])
    photos = np.array([o.source for o in observations])
    score = score_of(observations, values, statistic)
    # From here on only photos that the weights owe nothing to.
    kept = np.flatnonzero(~score.seen).tolist()
    sums, edited, photos = score.sums(values)[kept], edited[kept], photos[kept]
    listed = np.array([observations[i].listed for i in kept])
    curve, held_out, losses = fit_curve(sums[listed], edited[listed], photos[listed].tolist())
    odds, plain = curve(sums), ~edited
    place = int(np.flatnonzero(shift == SHIFTS)[0])
    areas = np.array([observations[i].flagged[place] for i in kept])
    kinds = kinds_of([observations[i] for i in kept if not observations[i].edited])
    # What is marked nearly everywhere or has a palette is inconclusive, however it scores, and
    # accuses nobody.
    few_colours = np.array([observations[i].has_fewer(limits.colours) for i in kept])
    accusing = np.where((areas > limits.whole) | few_colours, -np.inf, odds)
    # A picture may miss being cleared by its score or by its area: each has half of the chance.
    half = limits.doubts / 2
    promised = conformal.bounds(kinds, photos[plain], limits.levels)
    highest = conformal.threshold(accusing[plain], photos[plain], promised, limits.levels)
    manipulated_at = max(above(highest), limits.manipulated_at)
    doubted = Levels(half, half)
    # One kind of processing may be doubted more often: the plain kinds count, and all together.
    doubts = [b for b in conformal.bounds(kinds, photos[plain], doubted) if not b.kind.processed]
    # What has a palette is not cleared by any threshold.
    least, area = (
        conformal.threshold(column[plain], photos[plain], doubts, doubted)
        for column in (np.where(few_colours, -np.inf, odds), np.where(few_colours, 0, areas))
    )
    rare = conformal.rarities(accusing[plain], photos[plain], promised)
    scores = sigmoid(odds)
    decision = Decision(
        features=score.features,
        weights=score.weights,
        bias=score.bias,
        curve_from=curve.x,
        curve_to=curve.y,
        prevalence=0.5 if losses else 0.0,
        manipulated_at=manipulated_at,
        clear_below=min(manipulated_at, above(least), limits.clear_below),
        mask_shift=shift,
        doubt_area=min(1.0, round(max(limits.flagged, area) + 5e-7, 6)),
        whole_area=limits.whole,
        min_colours=limits.colours,
        recompression=True,
        calibrated_on=sentence(observations, photos, promised, split, statistic),
        untouched=tuple(np.quantile(scores[plain], np.linspace(0, 1, 101)).round(4).tolist()),
        rarity=tuple(rare),
        rarity_at=tuple(above(cut) for cut in rare.values()),
        bounds=tuple(map(str, promised)),
    )
    lines = table_of(decision, [observations[i] for i in kept], scores, areas, promised)
    return Calibration(decision, lines, held_out, edited[listed], photos[listed], losses)


def above(odds: float) -> float:
    """The threshold that a picture with these log-odds just misses, as a score."""
    return float(sigmoid(np.array(min(odds, 700.0) + STEP)))


def write_entry(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    """Put an entry, such as ``decision``, into a model folder's ``config.json``, atomically."""
    write_entries(folder, {name: values})


def write_entries(folder: Path, entries: Mapping[str, Mapping[str, Any] | None]) -> None:
    """The same of several at once; None takes an entry away."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for name, values in entries.items():
        config.pop(name, None)
        if values is not None:
            config[name] = values
    write_whole(path, json.dumps(config, indent=2) + "\n")
