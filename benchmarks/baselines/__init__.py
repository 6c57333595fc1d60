"""baselines: classic forensic maps, written after their papers, to stand beside a trained model.

python -m benchmarks.baselines DATA --model default

Each is a function pixels (H, W, 3) uint8 -> (H, W) float32 in [0, 1], higher = more suspicious.
They see pixels alone, as the model does. None was tuned beyond what its paper says; the threshold
of each is chosen on the val split (see judge.py).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.baselines.copy_move import sift_copy_move
from benchmarks.baselines.error_level import error_level
from benchmarks.baselines.jpeg_traces import block_grid, jpeg_ghost
from benchmarks.baselines.noise import noise_variance

BASELINES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ela": error_level,
    "noise": noise_variance,
    "ghost": jpeg_ghost,
    "grid": block_grid,
    "sift": sift_copy_move,
}
