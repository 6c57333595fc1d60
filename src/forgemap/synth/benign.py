"""benign.py: what honest people do to their pictures, by name: processing that is no forgery.

    processed = process("messenger", pixels, rng)

Every processing is a function (pixels, mask, rng) -> Processed that treats the whole picture by one
rule; the mask of an earlier edit moves along with the picture's geometry. What is drawn depends on
`rng` and the picture's size, never on its content, so that an edited picture and its untouched twin
get the very same treatment and a network cannot tell them apart by it.

The overlays (text, logos, frames) do replace pixels. They count as benign all the same: an overlay
that anybody can see deceives nobody, and a verdict of "manipulated" because of a caption is a false
alarm. No mask ever marks them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from forgemap.errors import DataError
from forgemap.synth import benign_geometry, benign_light, benign_lives, benign_overlay, camera
from forgemap.synth.benign_parts import Mask, Pixels, Processed, Rng

__all__ = ["BENIGN", "Processed", "Processing", "choose", "draw", "process"]


class Processing(NamedTuple):
    """One kind of processing and the family that tables list it under."""

    apply: Callable[[Pixels, Mask, Rng], Processed]
    family: str
    """ "geometry", "light", "overlay", "format" (saved anew), "life" (a way to the viewer) or
    "origin" (how the picture came to be, which no edit comes before)."""


BENIGN: dict[str, Processing] = {
    "resize": Processing(benign_geometry.resize, "geometry"),
    "crop": Processing(benign_geometry.crop, "geometry"),
    "rotate": Processing(benign_geometry.rotate, "geometry"),
    "cylinder": Processing(benign_geometry.cylinder, "geometry"),
    "stitch": Processing(benign_geometry.stitch, "geometry"),
    "sharpen": Processing(benign_light.sharpen, "light"),
    "denoise": Processing(benign_light.denoise, "light"),
    "grain": Processing(benign_light.grain, "light"),
    "tone": Processing(benign_light.tone, "light"),
    "filter": Processing(benign_light.colour_filter, "light"),
    "dodge": Processing(benign_light.dodge, "light"),
    "hdr": Processing(benign_light.hdr, "light"),
    "portrait": Processing(benign_light.portrait, "light"),
    "text": Processing(benign_overlay.text, "overlay"),
    "logo": Processing(benign_overlay.logo, "overlay"),
    "watermark": Processing(benign_overlay.watermark, "overlay"),
    "frame": Processing(benign_overlay.frame, "overlay"),
    "jpeg": Processing(benign_lives.jpeg, "format"),
    "webp": Processing(benign_lives.webp, "format"),
    "avif": Processing(benign_lives.avif, "format"),
    "heic": Processing(benign_lives.heic, "format"),
    "gif": Processing(benign_lives.gif, "format"),
    "lossless": Processing(benign_lives.lossless, "format"),
    "resaved": Processing(benign_lives.resaved, "life"),
    "web": Processing(benign_lives.web, "life"),
    "screenshot": Processing(benign_lives.screenshot, "life"),
    "messenger": Processing(benign_lives.messenger, "life"),
    "developed": Processing(camera.developed, "origin"),
}


def process(name: str, pixels: Pixels, rng: Rng, mask: Mask | None = None) -> Processed:
    """The picture after one processing.

    Args:
        name: a key of BENIGN.
        pixels: (H, W, 3) uint8.
        rng: source of all randomness; equal states and sizes give equal draws.
        mask: (H, W) uint8, 0 or 255, of an earlier edit; None = none.

    Raises:
        DataError: an unknown name.
    """
    if name not in BENIGN:
        raise DataError(f"Unknown processing {name!r}: use one of {', '.join(BENIGN)}.")
    if mask is None:
        mask = np.zeros(pixels.shape[:2], np.uint8)
    done = BENIGN[name].apply(pixels, mask, rng)
    return done._replace(pixels=np.ascontiguousarray(done.pixels))


def sometimes(pixels: Pixels, rng: Rng, share: float) -> Pixels:
    """The picture after one processing, each kind alike, with probability `share`; else as is.

    (`draw` has every family alike, so that portrait blur and denoising, which look most like what a
    generator does, would be rare.)
    """
    hit, name = rng.random() < share, str(rng.choice(list(BENIGN)))
    return process(name, pixels, rng).pixels if hit else pixels


def choose(names: Sequence[str] | None) -> tuple[str, ...]:
    """The names as given, or all of BENIGN; DataError for an unknown or repeated one."""
    if names is None:
        return tuple(BENIGN)
    for name in names:
        if name not in BENIGN:
            raise DataError(f"Unknown processing {name!r}: use one of {', '.join(BENIGN)}.")
    if not names or len({*names}) < len(names):
        raise DataError("Name at least one processing, and each but once.")
    return tuple(names)


def draw(rng: Rng, share: float, names: Sequence[str]) -> str | None:
    """One of the names with probability `share`, every family alike and its members alike."""
    hit, family, member = rng.random(), rng.random(), rng.random()
    if hit >= share:
        return None
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(BENIGN[name].family, []).append(name)
    if not families:
        return None
    members = list(families.values())[int(family * len(families))]
    return members[int(member * len(members))]
