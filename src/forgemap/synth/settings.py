"""settings.py: what decides a synthesis run, and the piece of work that one process is given."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from forgemap.synth.methods import NEED_TORCH


@dataclass(frozen=True)
class Photo:
    """A source photo: its path as given, and the SHA-256 of its bytes."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Settings:
    """All that decides what a run makes; see synthesize()."""

    out: Path
    methods: tuple[str, ...]
    per_photo: int
    seed: int
    autoencoders: tuple[str, ...]
    crop: int | None
    vary: bool
    untouched: bool
    area: tuple[float, float]
    photos: tuple[Photo, ...]
    inpainter: str = ""
    whole: bool = False
    latent_noise: float = 0.0
    weight_noise: float = 0.0
    benign: float = 0.0
    processing: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """JSON-able; equal for two runs exactly when they make the same pictures."""
        digest = sha256("".join(photo.sha256 for photo in self.photos).encode()).hexdigest()
        return {
            "methods": list(self.methods),
            "per_photo": self.per_photo,
            "seed": self.seed,
            "autoencoder": ",".join(self.autoencoders) or None,
            "crop": self.crop,
            "vary": self.vary,
            "untouched": self.untouched,
            "area": list(self.area),
            "photos": f"{len(self.photos)} with digest {digest[:16]}",
            # As runs were described before there was a choice.
            **({"inpainter": self.inpainter} if self.inpainter else {}),
            **({"whole": True} if self.whole else {}),
            **({"latent_noise": self.latent_noise} if self.latent_noise else {}),
            **({"weight_noise": self.weight_noise} if self.weight_noise else {}),
            **({"benign": [self.benign, *self.processing]} if self.benign else {}),
        }

    @property
    def with_torch(self) -> bool:
        """Whether any network is run."""
        return self.whole or any(name in NEED_TORCH for name in self.methods)

    def pictures(self, index: int) -> int:
        """How many pictures edit `index` of a photo gives."""
        if self.whole:
            return 1 + len(self.autoencoders)
        return 2 if self.has_twin(index) else 1

    def has_twin(self, index: int) -> bool:
        """Whether edit `index` of a photo gets an untouched twin.

        Where every edit of a photo starts from the same picture, one twin is enough.
        """
        varied = self.crop is not None or self.vary or self.benign > 0
        return self.untouched and (index == 0 or varied)


@dataclass(frozen=True)
class Task:
    """Some edits, by number, of one photo."""

    photo: Photo
    indices: tuple[int, ...]


def chance(seed: int, photo: Photo, *purpose: int | str) -> np.random.Generator:
    """Random numbers of their own for each photo, edit and purpose."""
    words = [int.from_bytes(str(word).encode(), "big") for word in purpose]
    return np.random.default_rng([seed, int(photo.sha256, 16), *words])
