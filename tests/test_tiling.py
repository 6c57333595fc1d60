"""Tiling: a tiled picture gets the answer of the whole picture, at any size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from forgemap.models.output import LocalizerOutput
from forgemap.preprocess import CLIP, NATIVE
from forgemap.scoring import Decision, features
from forgemap.tiling import localize, ramps, split

from .conftest import picture


class SmallNet(nn.Module):
    """Random and fully convolutional: pools to 1/16 and back, sees 40 pixels to each side."""

    native, preprocess, stride, reach = True, NATIVE, 16, 48

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.near = nn.Conv2d(3, 4, 3, padding=1)
        self.far = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Conv2d(8, 1, 3, padding=1)
        self.evidence = nn.Conv2d(4, 1, 1)
        self.largest = 0

    def forward(self, images: torch.Tensor) -> LocalizerOutput:
        self.largest = max(self.largest, *images.shape[-2:])
        height, width = images.shape[-2:]
        near = torch.relu(self.near(images))
        far = torch.relu(self.far(F.avg_pool2d(near, 16, ceil_mode=True)))
        up = F.interpolate(far, scale_factor=16.0, mode="nearest")[..., :height, :width]
        return LocalizerOutput(self.head(torch.cat([near, up], 1)), self.evidence(far))


class FixedNet(nn.Module):
    """Answers the red channel of its 224x224 input, shrunk to 8x8."""

    native, preprocess = False, CLIP

    def forward(self, images: torch.Tensor) -> LocalizerOutput:
        return LocalizerOutput(F.adaptive_avg_pool2d(images[:, :1], 8), None)


@pytest.fixture(scope="module")
def network() -> SmallNet:
    return SmallNet().eval()


@pytest.mark.parametrize("size", [(500, 300), (333, 417), (640, 224), (225, 223), (16, 700)])
def test_tiled_equals_whole(network, size):
    pixels = picture(*size)
    whole = localize(network, pixels, tile=2048)
    network.largest = 0
    tiled = localize(network, pixels, tile=224, ramp=32)
    assert network.largest <= 224
    assert tiled.mask.shape == size
    assert np.abs(tiled.mask - whole.mask).max() < 1e-3
    assert tiled.evidence.shape == whole.evidence.shape == (-(-size[0] // 16), -(-size[1] // 16))
    assert np.abs(tiled.evidence - whole.evidence).max() < 1e-3


def test_too_narrow_a_margin_shows_that_the_agreement_is_earned(network):
    pixels = picture(500, 300)
    whole = localize(network, pixels, tile=2048)
    careless = localize(network, pixels, tile=224, margin=0, ramp=16)
    assert np.abs(careless.mask - whole.mask).max() > 1e-3


def test_shifted_by_the_stride_the_answer_shifts_along(network):
    pixels = picture(400, 400)
    whole = localize(network, pixels, tile=224).mask
    shifted = localize(network, pixels[32:, 48:], tile=224).mask
    assert np.abs(whole[32 + 64 :, 48 + 64 :] - shifted[64:, 64:]).max() < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (5, 40), (15, 15), (31, 33)])
def test_tiny_and_thin_pictures_do_not_crash(network, size):
    logits = localize(network, picture(*size), tile=224)
    assert logits.mask.shape == size
    assert logits.evidence.shape == (-(-size[0] // 16), -(-size[1] // 16))
    assert np.isfinite(logits.mask).all()


@given(st.integers(1, 5000), st.integers(1, 60), st.integers(0, 20), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_spans_cover_everything_and_weights_add_up_to_one(length, extra, margin, ramp):
    stride = 16
    overlap = (2 * margin + ramp) * stride
    tile = overlap + extra * stride
    spans = split(length, tile, overlap, stride)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(start % stride == 0 and 0 < stop - start <= tile for start, stop in spans)
    assert all(a[1] - b[0] >= overlap for a, b in pairwise(spans))
    total = np.zeros(length)
    for (start, stop), weight in zip(spans, ramps(spans, length, margin * stride), strict=True):
        assert (weight >= 0).all()
        total[start:stop] += weight
    assert total == pytest.approx(np.ones(length), abs=1e-5)


def test_next_to_a_cut_nothing_counts():
    first, second = ramps([(0, 100), (60, 160)], 160, margin=10)
    assert (first[-10:] == 0).all()
    assert (second[:10] == 0).all()
    assert (first[:60] == 1).all()


@pytest.mark.parametrize("size", [(60, 700), (256, 256), (3, 5), (1, 400)])
def test_fixed_size_models_answer_at_the_size_of_the_picture(size):
    logits = localize(FixedNet(), picture(*size))
    assert logits.mask.shape == size
    assert logits.mask.dtype == np.float32
    assert logits.evidence is None


def test_fixed_size_answer_lies_where_the_picture_says():
    pixels = np.zeros((300, 500, 3), np.uint8)
    pixels[:, 250:, 0] = 255
    mask = localize(FixedNet(), pixels).mask
    assert mask[:, :200].max() < 0 < mask[:, 300:].min()


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(200, 420),
    width=st.integers(200, 420),
    tile=st.integers(14, 24),
    ramp=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_where_tiles_are_cut_does_not_move_the_verdict(height, width, tile, ramp, seed):
    network, decision = SmallNet().eval(), Decision(("logit_peak32", "evidence_top"), (1.0, 1.0))
    pixels = picture(height, width, seed)
    judged = []
    for cut in ({"tile": 2048}, {"tile": 16 * tile, "ramp": 16 * ramp}):
        mask, evidence = localize(network, pixels, **cut)
        values = features(decision.heat(mask), evidence)
        judged.append(decision.judge(values, width=width, height=height))
    whole, tiled = judged
    assert tiled.score == pytest.approx(whole.score, abs=1e-3)
    if abs(whole.score - 0.5) > 1e-3:
        assert tiled.verdict == whole.verdict
