"""settings.py: what decides a run's rows, and what only decides how fast they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ForgemapError

if TYPE_CHECKING:
    from ..detector import Detector


@dataclass(frozen=True)
class Settings:
    """Options of a scan.

    Attributes:
        model, device, options: of `Detector.load`; `options` are its further keywords.
        threshold: probability from which a pixel belongs to the mask; None: the model's own.
        max_pixels: larger pictures are refused before they are decoded.
        masks: also write a PNG mask of each picture.
        batch: pictures in one pass of the network, at most.
        batch_pixels: of all pictures of a pass together; one larger picture goes alone.
        workers: decoding processes; 0: chosen for the machine.
        timeout: seconds after which a picture that is still being decoded is given up.
        part_rows: rows of one Parquet file.
        part_seconds: a part is written at the latest so long after the one before.
        actors: on a cluster, the fewest and the most models at once.
    """

    model: str = "default"
    device: str = "cpu"
    options: tuple[tuple[str, Any], ...] = ()
    threshold: float | None = None
    max_pixels: int = 100_000_000
    masks: bool = False
    batch: int = 8
    batch_pixels: int = 24_000_000
    workers: int = 0
    timeout: float = 300.0
    part_rows: int = 1000
    part_seconds: float = 30.0
    actors: tuple[int, int] = (1, 64)

    def __post_init__(self) -> None:
        for name in ("max_pixels", "batch", "batch_pixels", "part_rows"):
            if getattr(self, name) < 1:
                raise ForgemapError(f"{name} is {getattr(self, name)}: it must be 1 or more.")
        if self.workers < 0 or self.timeout <= 0 or self.part_seconds <= 0:
            raise ForgemapError("workers is 0 or more; timeout and part_seconds are above 0.")
        if not 1 <= self.actors[0] <= self.actors[1]:
            raise ForgemapError(
                f"actors {self.actors}: the fewest is 1 or more, the most not less."
            )

    def load(self) -> Detector:
        """The model, on its device."""
        from ..detector import Detector

        return Detector.load(self.model, self.device, **dict(self.options))

    def decisive(self, detector: Detector) -> dict[str, Any]:
        """What two runs must share so that one can go on with the other's results; JSON-able.

        Device, engine, batch and workers are not among it: they change a score in its last digits
        at most. The precision may change more.
        """
        second = detector.generation and detector.generation.computed.precision
        own = {} if second in (None, "fp32") else {"precision_generated": second}
        return {
            "model": detector.basis,
            "precision": detector.computed.precision,
            **own,
            "threshold": threshold_of(self, detector),
            "max_pixels": self.max_pixels,
            "masks": self.masks,
        }


def threshold_of(settings: Settings, detector: Detector) -> float:
    """The probability from which a pixel belongs to the mask."""
    own = detector.decision.mask_threshold
    return float(own if settings.threshold is None else settings.threshold)
