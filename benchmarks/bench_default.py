"""bench_default.py: the bundled default on a picture of one megapixel, beside its first version."""

from __future__ import annotations

from typing import Any

import cv2
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from torch import Tensor

from benchmarks.timing import Case
from forgemap.copies import find_copies
from forgemap.encode import encode_jpeg
from forgemap.engines import load
from forgemap.image import load_image
from forgemap.model_folder import WEIGHTS
from forgemap.models.checkpoint import load_model
from forgemap.models.output import LocalizerOutput
from forgemap.models.tracenet import TraceNet, upsample
from forgemap.recompression import find_later

SIDE = 1024


class FirstVersion(TraceNet):
    """TraceNet as in version 1: nothing of JPEG's grid, every BatchNorm a step of its own."""

    def forward(self, images: Tensor) -> LocalizerOutput:
        x0 = self.stem(torch.cat([images, self.residuals(images)], dim=1))
        x1 = self.down1(F.avg_pool2d(x0.abs_(), 2))
        x2 = self.down2(x1)
        x3 = self.down3(self.in3(x2))
        x4 = self.down4(x3)
        y = self.up3(upsample(self.lateral4(x4), x3) + self.lateral3(x3))
        y = self.up2(upsample(y, x2) + self.lateral2(x2))
        y = self.up1(upsample(y, x1) + self.lateral1(x1))
        return LocalizerOutput(upsample(self.mask_head(y), images), self.evidence_head(x4))


def cases(quick: bool) -> list[Case]:
    """A megapixel by the network as it ships, in float32, and by what version 1 was; then with what
    has been added around it."""
    side = 512 if quick else SIDE
    folder = WEIGHTS / "default"
    shipped = load(folder, engine="torch", precision="fp32").model
    plain: Any = load_model(folder)[0]
    first: Any = FirstVersion(colours=plain.config["colours"]).eval()  # which it does not look at
    first.load_state_dict(plain.state_dict())
    first.to(memory_format=torch.channels_last)  # as `Detector` has always had it
    # A busy photograph, in which there are as many keypoints as the search takes.
    pixels = cv2.resize(load_sample_image("china.jpg"), (side, side), interpolation=cv2.INTER_CUBIC)
    saved = load_image(encode_jpeg(pixels, 90))
    images = shipped.preprocess(pixels).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def network() -> LocalizerOutput:
        return shipped(images)

    @torch.inference_mode()
    def literal() -> LocalizerOutput:
        return first(images)

    def check() -> None:
        literal()
        with torch.inference_mode():
            torch.testing.assert_close(network().mask, plain(images).mask, atol=1e-3, rtol=1e-4)

    def both() -> object:
        return network(), find_copies(pixels), find_later(saved)

    name = f"the default, {side} x {side}, float32 / its first version, without JPEG grid"
    searched = f"the default, copies and a JPEG's blocks, {side} x {side} / its first version"
    return [Case(name, network, literal, check, None), Case(searched, both, literal, check, None)]
