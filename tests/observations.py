"""Observations of held-out pictures, as a network would give them that sees most edits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from forgemap.evaluate.calibration_look import SHIFTS, Observation
from forgemap.evaluate.calibration_pictures import PLAIN, PROCESSED, Label

KINDS = {"text": -1.0, "portrait": 1.5}
"""Processing and how far it moves the evidence of an untouched picture."""


def synthetic(rng: np.random.Generator, photos: int) -> tuple[list[Observation], list[dict]]:
    """Observations of photos with two untouched, two edited and two processed pictures each."""
    seen, values = [], []

    def add(group: str, photo: int, evidence: float, edited: bool, *kinds: Label) -> None:
        nothing = np.zeros(len(SHIFTS))
        area = nothing + (0.001 if not edited else 0.1) * rng.random()
        listed = not any(kind.processed for kind in kinds)
        seen.append(Observation(group, f"p/{photo}", edited, nothing, area, Path(), kinds, listed))
        both = {"evidence_peak": evidence, "evidence_top": evidence + rng.normal(0, 0.3)}
        values.append(both | {"evidence_lse": evidence, "logit_peak32": rng.normal(), "area": 0.0})

    for photo in range(photos):
        own = rng.normal()  # pictures of a photo resemble each other
        for _ in range(2):
            add("untouched crops", photo, own + rng.normal(-2, 1), False, Label(PLAIN, PLAIN))
            add("splice", photo, own + rng.normal(2, 2), True)
        for name, shift in KINDS.items():
            evidence = own + rng.normal(shift - 2, 1)
            add(PROCESSED, photo, evidence, False, Label(name, PROCESSED, True))
    for one in values:
        one |= {"logit_top": one["logit_peak32"], "lossy": 0.0}
    return seen, values
