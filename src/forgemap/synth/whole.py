"""whole.py: pictures as they are and as autoencoders give them back (`synth --whole`)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forgemap.data.records import UNTOUCHED, split_of
from forgemap.files import write_whole
from forgemap.synth.edit import Edit
from forgemap.synth.prepare import finish, prepare
from forgemap.synth.regenerate import noisy
from forgemap.synth.settings import Photo, Settings, chance

if TYPE_CHECKING:
    from forgemap.synth.autoencoder import Autoencoder

REAL = "real"  # folder of the pictures as they are, beside those of the generators


def make_whole(
    settings: Settings,
    photo: Photo,
    pixels: np.ndarray,
    index: int,
    autoencoder: Callable[[str], Autoencoder],
) -> list[dict[str, Any]]:
    """Write picture `index` of a photo as it is and as each autoencoder gives it back; the rows.

    Args:
        autoencoder: loads those of the run by their names.
    """
    ready, before = prepare(
        pixels, chance(settings.seed, photo, index, "prepare"),
        crop=settings.crop, vary=settings.vary,
    )  # fmt: skip
    nothing = np.zeros(ready.shape[:2], np.uint8)
    # Half of the pictures keep their latents.
    most = settings.latent_noise
    noise = max(0.0, float(chance(settings.seed, photo, index, "noise").uniform(-most, most)))
    if noise:
        before["latent_noise"] = round(noise, 4)
    shaken = chance(settings.seed, photo, index, "shaken").uniform(0, settings.weight_noise)
    if shaken:
        before["weight_noise"] = round(shaken, 4)
    rows = []
    for source in (None, *settings.autoencoders):
        made = ready
        if source is not None:
            network = autoencoder(source)
            latents = network.encode_pixels(ready)
            if noise:
                latents = noisy(latents, noise, chance(settings.seed, photo, index, "latents"))
            weights = chance(settings.seed, photo, index, "weights")
            with network.shaken(shaken, weights) if shaken else nullcontext():
                made = network.decode_pixels(latents, ready.shape[:2])
        data, suffix, _, after = finish(
            Edit(made, nothing), chance(settings.seed, photo, index, "finish"), vary=settings.vary
        )
        folder = REAL if source is None else label_of(source)
        image_file = f"{folder}/{photo.sha256[:16]}-{index:04d}{suffix}"
        write_whole(settings.out / image_file, data)
        rows.append(
            {
                "image": image_file,
                "mask": None,
                "source": photo.path,
                "source_sha256": photo.sha256,
                "split": split_of(photo.sha256),
                "method": UNTOUCHED if source is None else folder,
                "parameters": {"index": index, **before, **after},
                "seed": settings.seed,
                **({} if source is None else {"marks": "whole"}),
            }
        )
    return rows


def label_of(source: str) -> str:
    """What pictures, folders and tables call an autoencoder: its name, or its folder's.

    A run's weights lie in a folder "model", whose parent says more.
    """
    if not Path(source).is_dir():
        return source.replace("/", "--")
    path = Path(source).resolve()
    return path.parent.name if path.name == "model" else path.name
