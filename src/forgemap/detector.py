"""detector.py: Detector, the front door: a picture in, a Report out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from . import confidence as confidences
from . import engines
from .answers import together
from .compression import lowest_quality, palette
from .confidence import Confidence
from .copies import Copies, Copy, find_copies, sentence, tell
from .errors import ImageError
from .familiarity import Familiarity, temper
from .generated import GenerationDetector
from .image import DEFAULT_MAX_PIXELS, Image, load_image
from .model_folder import read_localizer
from .pooling import COPIES
from .recompression import Later, find_later
from .report import Report, find_regions
from .scoring import Decision, features
from .tiling import localize, localize_many
from .windows import Windows, check, look_closer


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network sees in one picture."""

    #: (H, W) float32, calibrated probability that each pixel was edited.
    heat: np.ndarray
    #: (h, w) float32 logits of coarse cells; None where the network has no evidence head.
    evidence: np.ndarray | None


class Detector:
    """Both questions in one place: edited, where? (a localizer) and generated as a whole?

    Args:
        model: a localizer of `forgemap.models`, in eval mode on `device`.
        decision: how its maps become a verdict.
        name: identifies the model in reports.
        device: where the model is.
        weights_sha256: of the weights' file, for reports.
        windows: for a model of a fixed input size, what it looks at besides the whole picture.
        generation: who answers the second question; None: it is not asked.
        familiarity: what the thresholds' photographs look like; None: any picture is judged.
        confidence: how sure the mask is, and where; None: reports do not say.
        computed: by which engine and in which precision the model is.
        copies: look for regions that occur twice, if the decision counts them; see docs/copies.md.

    Raises:
        ModelError: windows for a model that looks at native resolution.
    """

    def __init__(
        self,
        model: nn.Module,
        decision: Decision | None = None,
        *,
        name: str = "unnamed",
        device: str | torch.device = "cpu",
        weights_sha256: str | None = None,
        windows: Windows | None = None,
        generation: GenerationDetector | None = None,
        familiarity: Familiarity | None = None,
        confidence: Confidence | None = None,
        computed: engines.Computed | None = None,
        copies: bool = True,
    ) -> None:
        # Convolutions of native-resolution models are a third faster in this layout on a CPU.
        native = getattr(model, "native", False)
        if native:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: Any = model
        self.decision = decision or Decision()
        self.name = name
        self.device = torch.device(device)
        self.windows = windows
        self.familiarity = familiarity
        self.confidence = confidence if windows is None else None
        if windows is not None:
            check(model)  # type: ignore[arg-type]
            # The thresholds were chosen on maps of the whole-picture pass alone.
            self.decision = self.decision.uncalibrated()
        self.copies = copies and COPIES in self.decision.features
        self.basis: dict[str, Any] = {
            "weights_sha256": weights_sha256,
            "input_size": getattr(getattr(model, "preprocess", None), "size", None),
            "windows": None if windows is None else str(windows),
            "copies": self.copies,
            **self.decision.to_dict(),
        }
        self.computed = computed or engines.Computed()
        self.generation = generation
        if generation is not None:
            self.basis["generated"] = {"name": generation.name, **generation.basis}

    @classmethod
    def load(
        cls,
        model: str | Path = "default",
        device: str | torch.device = "cpu",
        *,
        windows: Windows | str | None = None,
        detector: GenerationDetector | str | Path | None = "default",
        classifier: str | Path | None = None,
        engine: str = "auto",
        precision: str = "auto",
        copies: bool = True,
    ) -> Detector:
        """Read both models.

        Args:
            model: the localizer: the bundled one (`"default"`), a model folder, a published model
                that was downloaded before (`forgemap models`), or one of the Hugging Face hub.
            device: where both networks go.
            windows: see the class; "mean", "max", or with scales as in "mean:1,2,4".
            detector: the embedder that answers the second question, and
            classifier: its classifier; see `GenerationDetector.load`, or what that returned. None:
                it is not asked.
            engine, precision: what computes the localizer; see `engines.load`. The embedder
                follows where it has such an export or precision, else it is taken as with "auto".
            copies: see the class.

        Raises:
            ModelError: no such model, a broken one, a device that this machine lacks, or an
                engine that is not installed.
        """
        windows = Windows.parse(windows) if isinstance(windows, str) else windows
        read = read_localizer(model, device, engine=engine, precision=precision)
        generation = detector if isinstance(detector, GenerationDetector) else None
        if isinstance(detector, (str, Path)):
            generation = GenerationDetector.load(
                detector, device, classifier=classifier, engine=engine, precision=precision
            )
        return cls(
            read.network,
            read.decision,
            name=read.name,
            device=device,
            weights_sha256=read.weights_sha256,
            windows=windows,
            generation=generation,
            familiarity=read.familiarity,
            confidence=read.confidence,
            computed=read.computed,
            copies=copies,
        )

    def predict(self, pixels: np.ndarray) -> Prediction:
        """`pixels` (H, W, 3) uint8 RGB, any size -> calibrated probabilities of the same size."""
        if self.windows is None:
            logits = localize(self.model, pixels, device=self.device)
        else:
            logits = look_closer(self.model, pixels, self.windows, device=self.device)
        return Prediction(self.decision.heat(logits.mask), logits.evidence)

    def predict_many(self, pictures: Sequence[np.ndarray]) -> Iterator[Prediction]:
        """Pictures (H, W, 3) uint8 RGB of any sizes, in one pass where the model allows it."""
        if self.windows is not None:
            yield from map(self.predict, pictures)
            return
        for logits in localize_many(self.model, pictures, device=self.device):
            yield Prediction(self.decision.heat(logits.mask), logits.evidence)

    def analyze(
        self,
        source: Any,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        threshold: float | None = None,
    ) -> Report:
        """Judge one picture. Writes no files; the probability map is in `report.heat`.

        Args:
            source: a path, bytes, a binary file, a PIL image, an (H, W[, 3 | 4]) array, or an
                `Image` that was loaded before. Files say how they were saved, which the score
                takes into account; an array counts as saved without loss.
            max_pixels: larger pictures are refused before they are decoded.
            threshold: probability from which a pixel belongs to the mask and its regions;
                default: the model's own. The verdict rests on the model's own thresholds.

        Raises:
            ImageError: the picture cannot be read.
        """
        image = source
        if not isinstance(image, Image):
            image = load_image(source, max_pixels=max_pixels, metadata=True)
        return self.judge(image, self.predict(image.samples), threshold)

    def judge(self, image: Image, prediction: Prediction, threshold: float | None = None) -> Report:
        """What `analyze` says of a picture, from what the network saw in it."""
        threshold = self.decision.mask_threshold if threshold is None else threshold
        later = self.later(image)
        if later is not None:
            prediction = Prediction(*later.join(prediction.heat, prediction.evidence))
        heat, told, said = prediction.heat, list[Copy](), ""
        copies = self.search(image.samples)
        strength = 0.0 if copies is None else copies.strength
        values = features(heat, prediction.evidence, image.lossy, strength)
        if self.decision.score(values) >= self.decision.clear_below:
            if copies is not None:
                heat, told = tell(copies, heat)
            said = sentence(told) + ("" if later is None else f" {later.words()}")
        (height, width), quality = heat.shape, image.jpeg_quality
        if self.decision.min_jpeg_quality:
            quality = lowest_quality(quality, image.samples)
        area = float(np.count_nonzero(heat >= threshold) / heat.size)
        judgement = self.decision.judge(
            values,
            width=width,
            height=height,
            jpeg_quality=quality,
            colours=palette(image.samples) if self.decision.min_colours else None,
            area=area,
        )
        if self.familiarity is not None:
            judgement = temper(judgement, self.familiarity.judge(image.samples))
        regions, sure = find_regions(heat, threshold), None
        if self.confidence is not None:
            sure = self.confidence.cells(image.samples, prediction.heat, threshold, told=heat)
            regions = [replace(r, confidence=confidences.inside(sure, r.polygon)) for r in regions]
        generated = summary = None
        disagree = False
        if self.generation is not None:
            generated = self.generation.judge(image)
            summary, disagree = together(judgement.verdict, area, generated.verdict)
        return Report(
            path=image.name,
            sha256=image.sha256,
            width=width,
            height=height,
            orientation=image.orientation,
            verdict=judgement.verdict,
            score=judgement.score,
            area=area,
            regions=regions,
            copies=told,
            model=self.name,
            reason=judgement.reason + said,
            notes=list(image.notes),
            generated=None if generated is None else generated.to_dict(),
            summary=summary,
            disagree=disagree,
            metadata=None if image.metadata is None else image.metadata.to_dict(),
            mean_confidence=None if sure is None else float(sure.mean()),
            heat=heat,
            confidence_cells=sure,
            threshold=threshold,
            basis=self.basis,
        )

    def search(self, pixels: np.ndarray) -> Copies | None:
        """Regions that occur twice in a picture (H, W, 3) uint8 RGB; None if it is not asked."""
        return find_copies(pixels) if self.copies else None

    def later(self, image: Image) -> Later | None:
        """Parts of a JPEG that came after its first compression; None: none, or not asked."""
        return find_later(image) if self.decision.recompression else None

    def analyze_many(
        self,
        sources: Iterable[Any],
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        threshold: float | None = None,
    ) -> Iterator[Report]:
        """Judge one picture after the other; a bad one gives a Report with `error` set."""
        for source in sources:
            try:
                yield self.analyze(source, max_pixels=max_pixels, threshold=threshold)
            except ImageError as error:
                name = str(source) if isinstance(source, (str, Path)) else "<picture>"
                yield Report(name, model=self.name, error=str(error))


def load(model: str | Path = "default", device: str | torch.device = "cpu") -> Detector:
    """Same as `Detector.load`."""
    return Detector.load(model, device)


def analyze(
    source: Any, *, model: str | Path = "default", device: str = "cpu", **options: Any
) -> Report:
    """Judge one picture with a model that stays loaded; see `Detector.analyze`."""
    return _loaded(str(model), device).analyze(source, **options)


@lru_cache(maxsize=2)
def _loaded(model: str, device: str) -> Detector:
    return Detector.load(model, device)
