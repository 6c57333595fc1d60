"""fill.py: edits that remove what was there: inpainting by diffusion and by exemplars."""

from __future__ import annotations

import cv2
import numpy as np

from forgemap.synth.edit import Context, Edit, blend, window_of

EXEMPLAR_CELLS, EXEMPLAR_SIDE = 800, 112  # at most this many to fill, and a side, per solution
FAINT = 1e-3


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
    """The region filled with patches from around it, by shift maps (Pritch et al., ICCV 2009).

    OpenCV's solver (after He and Sun, ECCV 2012) takes seconds on a few thousand pixels, so it
    sees the surroundings reduced by a whole factor and only says where each cell is to be copied
    from; the pixels are then copied at full resolution, with their noise.

    The same seed gives the same region, but not always the same filling: the solver reads memory
    that it has not set (seen in OpenCV 5.0), so now and then it copies from elsewhere.
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
    source = _shift_map(view, hidden)
    y, x = np.divmod(source, shape[1])
    y = np.kron(y, np.ones((step, step), int)) * step + np.arange(local.shape[0])[:, None] % step
    x = np.kron(x, np.ones((step, step), int)) * step + np.arange(local.shape[1])[None, :] % step
    filled = patch[y, x][:height, :width]
    result, truth = blend(pixels, filled, mask, window)
    return Edit(result, truth, {"region": kind, "step": step})


def _shift_map(view: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """For each cell of a small picture, the flat index of the cell that it is filled with.

    Args:
        view: (h, w, 3) uint8.
        hidden: (h, w) bool, the cells to fill; all others map to themselves.
    """
    cells = hidden.size
    # A fourth channel, too faint to sway the solver, carries each cell's index through it.
    index = np.arange(cells, dtype=np.float32).reshape(hidden.shape) / cells
    lab = cv2.cvtColor(view, cv2.COLOR_RGB2Lab).astype(np.float32)
    seen = np.dstack([lab, index * FAINT])
    filled = np.zeros_like(seen)
    cv2.setRNGSeed(0)
    cv2.xphoto.inpaint(
        seen, np.where(hidden, 0, 255).astype(np.uint8), filled, cv2.xphoto.INPAINT_SHIFTMAP
    )
    source = np.rint(filled[..., 3] / FAINT * cells).astype(int)
    return np.where(hidden, source, np.arange(cells).reshape(hidden.shape))
