"""preprocess.py: from an RGB array to the tensor that a model reads; every model owns one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from .errors import ModelError

_FILTERS = {
    "bilinear": PILImage.Resampling.BILINEAR,
    "bicubic": PILImage.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Preprocess:
    """Resize (or not), scale to [0, 1], normalise. Stored in a model's `config.json`."""

    #: Side in pixels that pictures are resized to, aspect ratio not kept; None = native resolution.
    size: int | None
    #: Mean of each of R, G, B, in [0, 1], subtracted after scaling.
    mean: tuple[float, float, float]
    #: Standard deviation of each of R, G, B, divided by; above 0.
    std: tuple[float, float, float]
    #: Antialiased filter of the resizing.
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if self.size is not None and (not isinstance(self.size, int) or self.size < 1):
            raise ModelError(f"preprocess: size must be a whole number above 0, not {self.size!r}.")
        for name, low in (("mean", None), ("std", 0.0)):
            value = getattr(self, name)
            numbers = isinstance(value, (tuple, list)) and len(value) == 3
            if not numbers or not all(_is_number(v) and (low is None or v > low) for v in value):
                kind = "three numbers above 0" if name == "std" else "three numbers"
                raise ModelError(f"preprocess: {name} must be {kind} (R, G, B), not {value!r}.")
            object.__setattr__(self, name, tuple(float(v) for v in value))
        if self.interpolation not in _FILTERS:
            valid = ", ".join(_FILTERS)
            raise ModelError(
                f"preprocess: unknown interpolation {self.interpolation!r}; valid: {valid}."
            )

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """`pixels` (H, W, 3) uint8 -> (size, size, 3) uint8, as they are if native."""
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"expected (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
        if self.size is None or pixels.shape[:2] == (self.size, self.size):
            return pixels
        picture = PILImage.fromarray(pixels)
        return np.array(picture.resize((self.size, self.size), _FILTERS[self.interpolation]))

    def __call__(self, pixels: np.ndarray) -> Tensor:
        """`pixels` (H, W, 3) uint8 -> float32 (1, 3, size, size), or (1, 3, H, W) if native."""
        pixels = self.resize(pixels)
        # One float copy, scaled in place: x / 255 / std - mean / std.
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
        tensor = torch.from_numpy(planes).float()
        scale = torch.tensor([255.0 * s for s in self.std]).view(1, 3, 1, 1)
        shift = torch.tensor([m / s for m, s in zip(self.mean, self.std, strict=True)])
        return tensor.div_(scale).sub_(shift.view(1, 3, 1, 1))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` of it gives an equal Preprocess."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocess:
        """Strict: an unknown, missing or impossible entry is a ModelError that names it."""
        names = [f.name for f in fields(cls)]
        if unknown := sorted(set(data) - set(names)):
            raise ModelError(
                f"preprocess: unknown entry {', '.join(map(repr, unknown))}; "
                f"valid: {', '.join(names)}."
            )
        if missing := [n for n in names if n not in data and n != "interpolation"]:
            raise ModelError(f"preprocess: missing entry {', '.join(map(repr, missing))}.")
        return cls(**data)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


CLIP = Preprocess(
    size=224,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
NATIVE = Preprocess(size=None, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
