"""retouch.py: edits of photo editors' brushes: healing, and an object in another colour."""

from __future__ import annotations

import cv2
import numpy as np

from forgemap.errors import DataError
from forgemap.synth.edit import Context, Edit, blend, window_of

LARGEST = 0.15  # share of the picture: a larger healed place would mostly copy itself


def heal(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """A healing brush: something removed by the texture of a nearby place, on the brightness that
    the surroundings suggest."""
    low, high = context.area
    local = Context(area=(low, max(low, min(high, LARGEST))))
    mask, kind = local.region(pixels, rng)
    feather = int(rng.integers(1, 7))
    window = window_of(mask, feather + 1)
    height, width = (s.stop - s.start for s in window)
    shift = _clear_of(mask, window, rng)
    top, left = window[0].start + shift[0], window[1].start + shift[1]
    texture = pixels[top : top + height, left : left + width].astype(np.float32)
    sigma = float(np.exp(rng.uniform(np.log(3), np.log(16))))
    ground = _surroundings(pixels[window].astype(np.float32), mask[window], sigma)
    keep = float(rng.uniform(0.7, 1.0))
    detail = texture - cv2.GaussianBlur(texture, (0, 0), sigma)
    patch = np.rint(ground + keep * detail).clip(0, 255).astype(np.uint8)
    result, truth = blend(pixels, patch, mask, window, feather)
    parameters = {"region": kind, "shift": shift, "sigma": round(sigma, 2), "feather": feather}
    return Edit(result, truth, parameters)


def recolour(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """An object in another colour, or lighter or darker: its hue turned, its saturation and
    brightness multiplied."""
    mask, kind = context.region(pixels, rng)
    feather = int(rng.integers(0, context.feather + 1))
    window = window_of(mask, feather + 1)
    turn, richer = float(rng.uniform(-90, 90)), float(rng.uniform(0.5, 1.8))
    lighter = float(np.exp(rng.uniform(-0.4, 0.4)))
    hls = cv2.cvtColor(pixels[window].astype(np.float32) / 255, cv2.COLOR_RGB2HLS)
    hls[..., 0] = (hls[..., 0] + turn) % 360
    hls[..., 1] = (hls[..., 1] * lighter).clip(0, 1)
    hls[..., 2] = (hls[..., 2] * richer + 0.05).clip(0, 1)
    patch = np.rint(cv2.cvtColor(hls, cv2.COLOR_HLS2RGB) * 255).clip(0, 255).astype(np.uint8)
    result, truth = blend(pixels, patch, mask, window, feather)
    drawn = {"turn": round(turn, 1), "saturation": round(richer, 3), "light": round(lighter, 3)}
    return Edit(result, truth, {"region": kind, "feather": feather, **drawn})


def _clear_of(mask: np.ndarray, window: tuple[slice, slice], rng: np.random.Generator) -> list[int]:
    """A shift (down, right) of the window to a place that shows little of the masked region."""
    sides = [s.stop - s.start for s in window]
    best, least = [0, 0], mask.size + 1
    for _ in range(30):
        # Near by: a brush takes its texture from where it looks alike.
        goal = [
            int(np.clip(s.start + rng.normal(0, 1.5 * n), 0, whole - n))
            for s, n, whole in zip(window, sides, mask.shape, strict=True)
        ]
        taken = mask[goal[0] : goal[0] + sides[0], goal[1] : goal[1] + sides[1]]
        seen = int(np.count_nonzero(taken & mask[window]))
        if seen < least:
            best = [g - s.start for g, s in zip(goal, window, strict=True)]
            least = seen
        if least <= 0.05 * np.count_nonzero(mask):
            return best
    if best == [0, 0]:
        raise DataError("no place was found to take a healing texture from; ask for a smaller area")
    return best


def _surroundings(pixels: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth colours (h, w, 3) of the place, those under the mask carried in from its rim."""
    small = tuple(max(2, side // 4) for side in mask.shape[::-1])
    view = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA).clip(0, 255).astype(np.uint8)
    hidden = cv2.resize(mask.astype(np.uint8), small, interpolation=cv2.INTER_NEAREST)
    hidden = cv2.dilate(hidden, np.ones((3, 3), np.uint8))
    if hidden.all():
        hidden[0], hidden[-1], hidden[:, 0], hidden[:, -1] = 0, 0, 0, 0
    filled = cv2.inpaint(view, hidden, 3, cv2.INPAINT_NS)
    ground = cv2.resize(filled, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.GaussianBlur(ground.astype(np.float32), (0, 0), sigma))
