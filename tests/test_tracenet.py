"""TraceNet: any size, bounded reach, residuals that see only what is not smooth."""

from __future__ import annotations

import pytest
import torch

from forgemap.models import tracenet
from forgemap.models.tracenet import Residuals, TraceNet, high_pass_kernels


@pytest.fixture(scope="module")
def network() -> TraceNet:
    torch.manual_seed(0)
    return TraceNet(widths=(4, 4, 6, 8, 8), colours=True).eval()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (64, 100), (129, 95)])
def test_the_mask_has_the_size_of_the_picture(network: TraceNet, height: int, width: int) -> None:
    output = network(torch.rand(2, 3, height, width) * 2 - 1)
    assert output.mask.shape == (2, 1, height, width)
    assert output.evidence is not None
    assert output.evidence.shape == (2, 1, -(-height // 16), -(-width // 16))


def test_a_pixel_acts_no_farther_than_the_stated_reach() -> None:
    torch.manual_seed(0)
    network = TraceNet(widths=(4, 4, 4, 4, 4)).double().eval()
    image = torch.rand(1, 3, 16, 1616, dtype=torch.float64)
    for column in range(800, 816):  # every position on the network's grid
        changed = image.clone()
        changed[..., column] += 1.0
        with torch.no_grad():
            difference = (network(image).mask - network(changed).mask).abs().amax(dim=(0, 1, 2))
        touched = difference.nonzero().flatten()
        assert column - touched.min() <= TraceNet.reach
        assert touched.max() - column <= TraceNet.reach
        assert touched.max() - touched.min() > 100, "the network must see context"


def test_smooth_ramps_leave_no_residual_and_noise_does() -> None:
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    inner = Residuals()(ramp)[..., 4:-4, 4:-4]
    assert inner.abs().max() < 1e-4
    assert Residuals()(torch.rand(1, 3, 64, 64))[..., 4:-4, 4:-4].abs().mean() > 0.5
    assert high_pass_kernels().sum(dim=(1, 2, 3)).abs().max() < 1e-6


def test_every_parameter_is_trained() -> None:
    network = TraceNet(widths=(4, 4, 6, 8, 8), colours=True).train()
    output = network(torch.rand(2, 3, 64, 64))
    assert output.evidence is not None
    (output.mask.mean() + output.evidence.mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("height", [128, 257, 394])
def test_strips_change_nothing(
    network: TraceNet, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(1, 3, height, 45) * 2 - 1
    with torch.inference_mode():
        strips = network(images)
        monkeypatch.setattr(tracenet, "STRIP", height)
        whole = network(images)
    torch.testing.assert_close(strips.mask, whole.mask, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(strips.evidence, whole.evidence, atol=1e-5, rtol=1e-5)
