"""methods.py: the edits by name. Each is (pixels, rng, context) -> Edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from forgemap.errors import DataError
from forgemap.synth.edit import Context, Edit
from forgemap.synth.fill import inpaint_exemplar, inpaint_ns, inpaint_telea
from forgemap.synth.learned import inpaint_learned
from forgemap.synth.local import blur, jpeg_region, noise, resample
from forgemap.synth.paste import copy_move, splice, splice_poisson
from forgemap.synth.regenerate import autoencoder_paste, latent_edit
from forgemap.synth.retouch import heal, recolour

Method = Callable[[np.ndarray, np.random.Generator, Context], Edit]

METHODS: dict[str, Method] = {
    "splice": splice,
    "splice_poisson": splice_poisson,
    "copy_move": copy_move,
    "inpaint_telea": inpaint_telea,
    "inpaint_ns": inpaint_ns,
    "inpaint_exemplar": inpaint_exemplar,
    "inpaint_learned": inpaint_learned,
    "autoencoder_paste": autoencoder_paste,
    "latent_edit": latent_edit,
    "resample": resample,
    "blur": blur,
    "noise": noise,
    "jpeg_region": jpeg_region,
    "heal": heal,
    "recolour": recolour,
}
NEED_DONOR = ("splice", "splice_poisson")
NEED_AUTOENCODER = ("autoencoder_paste", "latent_edit")
NEED_TORCH = (*NEED_AUTOENCODER, "inpaint_learned")


def choose_methods(names: Sequence[str] | None, autoencoder: bool) -> list[str]:
    """The methods to use, in METHODS' order; all that are possible when `names` is None.

    Raises:
        DataError: an unknown name, or a method that needs an autoencoder when there is none.
    """
    if names is None:
        return [name for name in METHODS if autoencoder or name not in NEED_AUTOENCODER]
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise DataError(f"Unknown method {unknown[0]!r}: use some of {', '.join(METHODS)}.")
    if not names:
        raise DataError(f"No methods given: use some of {', '.join(METHODS)}.")
    wanting = [name for name in names if name in NEED_AUTOENCODER]
    if wanting and not autoencoder:
        raise DataError(
            f"{wanting[0]} needs an autoencoder: give one with --autoencoder (such as nearest, "
            "a folder or a hub id)."
        )
    return [name for name in METHODS if name in names]
