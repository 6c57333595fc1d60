"""peak.py: what this machine's arithmetic gives at most, measured: large products by oneDNN."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import clock

SIDE = 1024
TRIES = 6


def _float32() -> Callable[[], object]:
    # As a 1x1 convolution, which oneDNN computes; a matrix product in float32 goes to MKL, which
    # on AMD's processors reaches half of it.
    x = torch.randn(1, SIDE, 32, 32).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(SIDE, SIDE, 1, 1)
    return lambda: torch.nn.functional.conv2d(x, weight)


def _bf16() -> Callable[[], object]:
    a, b = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16) for _ in range(2))
    return lambda: a @ b


#: What is multiplied, for each data type: SIDE^3 multiplications and as many additions.
PRODUCTS = {"float32": _float32, "bfloat16": _bf16}


@cache
def peak(dtype: str) -> float:
    """Operations (a multiplication and an addition are two) a second of one thread's CPU time.

    The best of a few tries: unlike a median, a peak is not what a busy machine happens to leave.
    """
    product = PRODUCTS[dtype]()
    product()
    best = float("inf")
    for _ in range(TRIES):
        begin = clock()
        product()
        best = min(best, clock() - begin)
    return 2 * SIDE**3 / best


def operations(work: Callable[[], Any]) -> float:
    """Floating-point operations of the products and convolutions that some work does."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())
