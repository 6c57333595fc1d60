"""fill.py: edits that remove what was there: inpainting by diffusion and by exemplars."""

from __future__ import annotations

import cv2
import numpy as np

from forgemap.errors import DataError
from forgemap.synth.edit import Context, Edit, blend, window_of

EXEMPLAR_CELLS, EXEMPLAR_SIDE = 800, 112  # at most this many to fill, and a side
PATCH = 7  # cells a side


def inpaint_telea(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """The region filled by fast marching (Telea, J. Graphics Tools 2004)."""
    return _diffuse(pixels, rng, context, cv2.INPAINT_TELEA)


def inpaint_ns(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """The region filled by Navier-Stokes diffusion (Bertalmio et al., CVPR 2001)."""
    return _diffuse(pixels, rng, context, cv2.INPAINT_NS)


def _diffuse(
    pixels: np.ndarray, rng: np.random.Generator, context: Context, algorithm: int
) -> Edit:
    mask, kind = context.region(pixels, rng)
    radius = int(rng.integers(2, 9))
    window = window_of(mask, radius + 2)  # nothing farther away has a say
    patch = cv2.inpaint(
        np.ascontiguousarray(pixels[window]), mask[window].astype(np.uint8) * 255, radius, algorithm
    )
    result, truth = blend(pixels, patch, mask, window)
    return Edit(result, truth, {"region": kind, "radius": radius})


def inpaint_exemplar(pixels: np.ndarray, rng: np.random.Generator, context: Context) -> Edit:
    """The region filled with patches from around it (Criminisi, Perez and Toyama, "Region filling
    and object removal by exemplar-based image inpainting", IEEE TIP 2004).

    The search sees the surroundings reduced by a whole factor and only says where each cell is to
    be copied from; the pixels are then copied at full resolution, with their noise.
    """
    mask, kind = context.region(pixels, rng)
    rows, columns = window_of(mask)
    reach = max(24, 3 * max(rows.stop - rows.start, columns.stop - columns.start) // 4)
    window = window_of(mask, reach)
    local, patch = mask[window], np.ascontiguousarray(pixels[window])
    height, width = local.shape
    step = max(
        1,
        round((np.count_nonzero(local) / EXEMPLAR_CELLS) ** 0.5),
        -(-max(height, width) // EXEMPLAR_SIDE),
    )
    rim = (-height % step, -width % step)
    local = np.pad(local, ((0, rim[0]), (0, rim[1])), mode="edge")
    patch = np.pad(patch, ((0, rim[0]), (0, rim[1]), (0, 0)), mode="reflect")
    shape = (local.shape[0] // step, local.shape[1] // step)
    # A cell is known only when all its pixels are, so no masked pixel is ever copied.
    hidden = np.asarray(local.reshape(shape[0], step, shape[1], step).any(axis=(1, 3)))
    view = cv2.resize(patch, shape[::-1], interpolation=cv2.INTER_AREA)
    source = _exemplars(view, hidden)
    y, x = np.divmod(source, shape[1])
    y = np.kron(y, np.ones((step, step), int)) * step + np.arange(local.shape[0])[:, None] % step
    x = np.kron(x, np.ones((step, step), int)) * step + np.arange(local.shape[1])[None, :] % step
    filled = patch[y, x][:height, :width]
    result, truth = blend(pixels, filled, mask, window)
    return Edit(result, truth, {"region": kind, "step": step})


def _exemplars(view: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """For each cell of a small picture, the flat index of the cell that it is filled with.

    From the rim inwards, where most is known and edges run into the hole first: the patch around
    a cell is completed with the patch of known cells that it resembles most.

    Args:
        view: (h, w, 3) uint8.
        hidden: (h, w) bool, the cells to fill; all others map to themselves.
    """
    shape, half = hidden.shape, PATCH // 2
    seen = cv2.cvtColor(view, cv2.COLOR_RGB2Lab).astype(np.float32)
    source = np.arange(hidden.size).reshape(shape)
    confidence = np.where(hidden, 0, 1).astype(np.float32)
    left = hidden.copy()
    while left.any():
        y, x = _most_certain(seen, confidence, left)
        rows = slice(max(0, y - half), min(shape[0], y + half + 1))
        columns = slice(max(0, x - half), min(shape[1], x + half + 1))
        known = ~left[rows, columns]
        cost = cv2.matchTemplate(
            seen,
            seen[rows, columns],
            cv2.TM_SQDIFF,
            mask=np.repeat(known[..., None], 3, axis=2).astype(np.float32),
        )
        # Only what was known from the start is copied, never what has been filled in.
        whole = cv2.erode((~hidden).astype(np.uint8), np.ones(known.shape), anchor=(0, 0)) > 0
        allowed = whole[: cost.shape[0], : cost.shape[1]]
        if not allowed.any():
            raise DataError("too little of the picture is left to fill a region from")
        best = int(np.argmin(np.where(allowed, cost, np.inf)))
        top, start = divmod(best, cost.shape[1])
        there = np.s_[top : top + known.shape[0], start : start + known.shape[1]]
        new = ~known
        seen[rows, columns][new] = seen[there][new]
        source[rows, columns][new] = source[there][new]
        confidence[rows, columns][new] = confidence[rows, columns].mean()
        left[rows, columns] = False
    return source


def _most_certain(seen: np.ndarray, confidence: np.ndarray, left: np.ndarray) -> tuple[int, int]:
    """The cell on the hole's rim to fill next: confidence times edge strength (equation 1)."""
    rim = left & (cv2.erode(left.astype(np.uint8), np.ones((3, 3)), borderValue=1) == 0)
    certain = cv2.blur(confidence, (PATCH, PATCH), borderType=cv2.BORDER_REPLICATE)
    grey = np.where(left, 0, seen[..., 0])
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    # Gradients across the rim are the hole's own, not the picture's.
    near = cv2.dilate(left.astype(np.uint8), np.ones((3, 3))) > 0
    strength = np.where(near, 0, np.hypot(dx, dy)).astype(np.float32)
    edges = cv2.dilate(strength, np.ones((PATCH, PATCH)))
    priority = np.where(rim, certain * (edges / 1020 + 0.01), -1)
    y, x = divmod(int(np.argmax(priority)), left.shape[1])
    return y, x
