"""model_folder.py: a localizer as it is found on disk: the network, and how its maps are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from . import engines
from .confidence import Confidence
from .errors import ModelError
from .familiarity import Familiarity
from .models.checkpoint import find_folder
from .models.ledger import check_weights
from .scoring import Decision

WEIGHTS = Path(__file__).parent / "weights"
"""Models that come with the package, one folder each."""


class Localizer(NamedTuple):
    """What a model's folder holds."""

    network: Any
    """In eval mode, on its device, computed by an engine of `forgemap.engines`."""
    decision: Decision
    familiarity: Familiarity | None
    """None: the model was calibrated before this existed, and does without; so of the next."""
    confidence: Confidence | None
    name: str
    """As in reports, with the beginning of the weights' hash."""
    weights_sha256: str
    computed: engines.Computed


def read_localizer(
    model: str | Path = "default",
    device: str | torch.device = "cpu",
    *,
    engine: str = "auto",
    precision: str = "auto",
) -> Localizer:
    """Read a localizer; arguments and errors are those of `Detector.load`."""
    bundled = model == "default"
    if bundled and not (WEIGHTS / "default" / "config.json").is_file():
        raise ModelError(
            "This installation of Forgemap has no bundled model; "
            "name a model folder with --model, or install the released package."
        )
    folder = find_folder(WEIGHTS / "default" if bundled else model)
    loaded = engines.load(folder, engine=engine, precision=precision, device=device)
    config = loaded.config
    familiarity = confidence = None
    try:
        decision = Decision.from_dict(config.get("decision", {}))
        if "familiarity" in config:
            familiarity = Familiarity.from_dict(config["familiarity"])
        if "confidence" in config:
            confidence = Confidence.from_dict(config["confidence"])
    except ModelError as error:
        raise ModelError(f"{folder / 'config.json'}: {error}") from error
    local = Path(model).is_dir() and not bundled
    name = folder.resolve().name if local else str(model)
    sha256 = loaded.weights_sha256
    if not local:
        check_weights(name, sha256)
    return Localizer(
        loaded.model,
        decision,
        familiarity,
        confidence,
        f"{name}@{sha256[:12]}",
        sha256,
        loaded.computed,
    )
