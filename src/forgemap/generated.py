"""generated.py: the second question: was the whole picture generated? An embedder and its rule.

judge = GenerationDetector.load()                 # the bundled one; a folder; "code"
judge.judge(load_image("photo.jpg")).verdict      # "no sign of generation", ...

CoDE (Baraldi et al., ECCV 2024): a classifier on the embeddings of crops at native resolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import classifiers, engines
from .classifiers import Classifier, Source
from .entries import strict_entries
from .errors import ModelError
from .image import Image
from .models.checkpoint import find_folder
from .models.crops import AGGREGATIONS, CROPS, aggregate, cut
from .models.embedder import Embedder
from .scoring import share_reaching

WEIGHTS = Path(__file__).parent / "weights" / "embedder"
"""The bundled embedder's folder."""

PUBLISHED = {"code": "aimagelab/CoDE"}
"""Short names of published embedders -> their ids on the Hugging Face hub."""

VERDICTS = ("no sign of generation", "inconclusive", "generated")
CROPS_AT_ONCE = 8


@dataclass(frozen=True)
class Rule:
    """How a classifier's scores become a verdict. Stored in `config.json` under `generated`.

    The defaults are the published ones: one centre crop, generated above one half.
    """

    #: Which classifier file of the folder is asked: linear, nearest or one-class.
    classifier: str = "linear"
    #: Which crops of a picture are looked at, a key of `CROPS`, and how their scores become one.
    crops: str = "centre"
    aggregation: str = "mean-score"
    #: score = sigmoid(scale * logit(classifier's score) + shift), the calibration.
    scale: float = 1.0
    shift: float = 0.0
    #: Scores from here on are judged generated, scores below `clear_below` to show no sign of it.
    generated_at: float = float(np.nextafter(0.5, 1))
    clear_below: float = float(np.nextafter(0.5, 1))
    #: Pictures whose shorter side in pixels is below are inconclusive, whatever their score.
    min_side: int = 0
    #: JPEGs of a lower estimated quality in which nothing is found are inconclusive.
    min_jpeg_quality: int = 0
    #: One sentence on the pictures that the thresholds were chosen on; empty = not calibrated.
    calibrated_on: str = ""
    #: Scores that 0, 1 ... 100 % of the real pictures among them stay below; empty = not known.
    real: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "real", tuple(float(s) for s in self.real))
        for name, value, valid in (
            ("classifier", self.classifier, classifiers.KINDS),
            ("crops", self.crops, CROPS),
            ("aggregation", self.aggregation, AGGREGATIONS),
        ):
            if value not in valid:
                raise ModelError(f"generated: unknown {name} {value!r}; valid: {', '.join(valid)}.")
        if not 0 <= self.clear_below <= self.generated_at <= 1:
            raise ModelError(
                "generated: 0 <= clear_below <= generated_at <= 1 must hold, not "
                f"clear_below={self.clear_below}, generated_at={self.generated_at}."
            )
        if not all(map(math.isfinite, (self.scale, self.shift, *self.real))):
            raise ModelError("generated: scale, shift and real must be finite.")

    def score(self, raw: float) -> float:
        """A classifier's score in [0, 1] -> the calibrated one."""
        if (self.scale, self.shift) == (1.0, 0.0):
            return raw
        clipped = min(max(raw, 1e-9), 1 - 1e-9)
        logit = math.log(clipped / (1 - clipped))
        return 0.5 * (1 + math.tanh((self.scale * logit + self.shift) / 2))

    def judge(
        self, score: float, *, width: int, height: int, jpeg_quality: int | None
    ) -> tuple[str, str]:
        """A calibrated score -> verdict and reason, in one sentence.

        Args:
            score: what `score` returned.
            width, height: of the picture in pixels.
            jpeg_quality: estimated quality, 1-100; None when the picture is no JPEG.
        """
        unsure = VERDICTS[1]
        if min(width, height) < self.min_side:
            verdict, reason = unsure, (
                f"The shorter side has {min(width, height)} pixels; this embedder needs at least "
                f"{self.min_side} to judge"
            )  # fmt: skip
        elif score >= self.generated_at:
            verdict = VERDICTS[2]
            reason = f"The score {score:.3f} reaches the threshold {self.generated_at:.3f}"
            if self.real:
                reason += f", as {share_reaching(self.real, score)} of real pictures do"
        elif score >= self.clear_below:
            verdict, reason = unsure, (
                f"The score {score:.3f} lies between {self.clear_below:.3f} (no sign of "
                f"generation) and {self.generated_at:.3f} (generated)"
            )  # fmt: skip
        elif jpeg_quality is not None and jpeg_quality < self.min_jpeg_quality:
            verdict, reason = unsure, (
                "Nothing was found, but the picture was recompressed at about quality "
                f"{jpeg_quality}: below {self.min_jpeg_quality} traces are likely gone"
            )  # fmt: skip
        else:
            verdict = VERDICTS[0]
            reason = f"The score {score:.3f} stays below {self.clear_below:.3f}"
        if not self.calibrated_on:
            reason += "; its thresholds are not calibrated"
        return verdict, reason + "."

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` of it gives an equal Rule."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rule:
        """Strict: an unknown entry or a value of the wrong kind is a ModelError that names it."""
        return cls(**strict_entries(cls(), data, "generated"))


@dataclass(frozen=True)
class Generated:
    """What is said of a picture as a whole."""

    verdict: str
    """One of ``VERDICTS``."""
    score: float
    """In [0, 1]: the higher, the likelier generated."""
    reason: str
    """What the verdict rests on, in one sentence."""
    model: str
    """Which embedder and classifier judged: name, a part of the weights' SHA-256, kind."""
    crops: int
    """How many squares of the picture were looked at."""
    notes: tuple[str, ...] = ()
    """What had to be done to look at the picture: whether it was padded."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "notes": list(self.notes)}


class GenerationDetector:
    """An embedder, a classifier of its embeddings, and the rule for a verdict.

    Args:
        embedder: in eval mode on its device.
        classifier: fitted on its embeddings.
        rule: how scores become a verdict.
        name: identifies the two in reports.
        weights_sha256: of the embedder's file, for reports.
        computed: by which engine and in which precision the embedder is.
    """

    def __init__(
        self,
        embedder: Embedder,
        classifier: Classifier,
        rule: Rule | None = None,
        *,
        name: str = "unnamed",
        weights_sha256: str | None = None,
        computed: engines.Computed | None = None,
    ) -> None:
        self.computed = computed or engines.Computed()
        self.embedder, self.classifier, self.rule = embedder, classifier, rule or Rule()
        self.name = name
        self.basis = {
            "weights_sha256": weights_sha256,
            "image_size": embedder.image_size,
            **self.rule.to_dict(),
        }

    @classmethod
    def load(
        cls,
        name: str | Path = "default",
        device: str | torch.device = "cpu",
        *,
        classifier: str | Path | None = None,
        engine: str = "auto",
        precision: str = "auto",
    ) -> GenerationDetector:
        """The bundled one (`"default"`), `"code"` (the published one), an embedder's folder or its
        id on the Hugging Face hub.

        Args:
            classifier: linear, nearest or one-class, as a file of that name in the folder; or the
                path of a classifier's file. Default: as the folder's config says, or linear.
            engine, precision: what computes the embedder, if it can be had so; else as with "auto"
                (see `engines.load`).

        Raises:
            ModelError: no such embedder, a broken one, one without a classifier, or one with a
                classifier that was fitted on other embeddings.
        """
        bundled = name == "default"
        if bundled and not (WEIGHTS / "config.json").is_file():
            raise ModelError(
                "This installation of Forgemap has no bundled embedder; name one with --detector, "
                "or install the released package."
            )
        given = WEIGHTS if bundled else PUBLISHED.get(str(name), name)
        folder = find_folder(given)
        loaded = engines.load_embedder(
            folder, engine=engine, precision=precision, device=device, strict=False
        )
        embedder, config = loaded.model, loaded.config
        try:
            rule = Rule.from_dict(config.get("generated", {}))
        except ModelError as error:
            raise ModelError(f"{folder / 'config.json'}: {error}") from error
        file = _classifier_file(folder, str(given), rule, classifier)
        source = Source(str(given), embedder.fingerprint(), embedder.width)
        fitted = classifiers.load(file, source)
        if fitted.kind != rule.classifier:  # the rule's numbers are those of another classifier
            rule = Rule(classifier=fitted.kind, crops=rule.crops, aggregation=rule.aggregation)
        sha256 = loaded.weights_sha256
        local = Path(given).is_dir() and not bundled
        title = folder.resolve().name if local else str(name)
        title = f"{title}@{sha256[:12]} ({fitted.kind})"
        return cls(
            *(embedder, fitted, rule),
            name=title,
            weights_sha256=sha256,
            computed=loaded.computed,
        )

    def judge(self, image: Image) -> Generated:
        """Was the whole picture generated?"""
        rule, side = self.rule, self.embedder.image_size
        views, notes = cut(image.samples, side, rule.crops)
        vectors = self.embed(views)
        score = rule.score(aggregate(vectors, self.classifier.scores, rule.aggregation))
        height, width = image.pixels.shape[:2]
        verdict, reason = rule.judge(
            score, width=width, height=height, jpeg_quality=image.jpeg_quality
        )
        return Generated(verdict, score, reason, self.name, len(views), notes)

    @torch.inference_mode()
    def embed(self, views: list[np.ndarray]) -> np.ndarray:
        """Squares (side, side, 3) uint8 -> embeddings (N, D) float32."""
        device = self.embedder.class_token.device
        parts = []
        for start in range(0, len(views), CROPS_AT_ONCE):
            batch = [self.embedder.preprocess(v) for v in views[start : start + CROPS_AT_ONCE]]
            parts.append(self.embedder(torch.cat(batch).to(device)).float().cpu().numpy())
        return np.concatenate(parts)


def _classifier_file(folder: Path, name: str, rule: Rule, asked: str | Path | None) -> Path:
    """The classifier's file that is asked for; a ModelError that says how to get one."""
    kind = rule.classifier if asked is None else str(asked)
    if kind not in classifiers.KINDS:
        return Path(kind)
    file = folder / f"{kind}.safetensors"
    if not file.is_file():
        raise ModelError(
            f"{name}: the embedder has no {kind} classifier with it; give the file of one with "
            "--classifier: `forgemap convert` makes it of a published one, `forgemap train "
            "embedder` and `forgemap evaluate --fit` fit one."
        )
    return file
