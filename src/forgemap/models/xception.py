"""xception.py: the first blocks of Xception, the baseline that is trained from scratch.

Chai et al., "What makes fake images detectable?" (ECCV 2020; "Patch Forensics") cut Xception
(Chollet, CVPR 2017, figure 5) off early, so that each position sees only a small patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .clip import layer_numbers
from .output import Features, combine


class Xception(nn.Module):
    """Xception's entry flow up to and including one block.

    images (B, 3, 224, 224) -> grid (B, C, h, h): layer1 55 x 55, layer2 28 x 28, layer3 14 x 14.

    Args:
        layer: "layer1" to "layer3", the three blocks of the entry flow, or several, such as
            "layer1+layer2", whose channels are concatenated on the grid of the first.
        channels: of the two convolutions, then of each block; blocks after `layer` are not built.
    """

    def __init__(
        self, layer: str = "layer2", channels: Sequence[int] = (32, 64, 128, 256, 728)
    ) -> None:
        super().__init__()
        first, second, *widths = channels
        self.numbers = layer_numbers(layer, range(1, len(widths) + 1))
        self.conv1 = nn.Conv2d(3, first, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.blocks = nn.ModuleDict()
        inputs, size, sizes = second, 109, []
        for number, width in enumerate(widths[: max(self.numbers)], start=1):
            self.blocks[f"block{number}"] = EntryBlock(inputs, width, relu_first=number > 1)
            inputs, size = width, (size + 1) // 2
            sizes.append(size)
        self.channels = sum(widths[number - 1] for number in self.numbers)
        self.size = sizes[self.numbers[0] - 1]  # of the grid, for an input of 224 x 224

    def forward(self, images: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        maps = []
        for block in self.blocks.values():
            x = block(x)
            maps.append(Features(x))
        return combine(maps[number - 1] for number in self.numbers)

    def residual_blocks(self) -> list[nn.Module]:
        """The blocks in their order."""
        return list(self.blocks.values())


class EntryBlock(nn.Module):
    """Two separable convolutions and a max pool of stride 2, around a strided shortcut."""

    def __init__(self, inputs: int, outputs: int, relu_first: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.ReLU(),
            SeparableConv(inputs, outputs),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            SeparableConv(outputs, outputs),
            nn.BatchNorm2d(outputs),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        self.rep = nn.Sequential(*layers[0 if relu_first else 1 :])
        self.skip = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
        self.skipbn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.rep(x) + self.skipbn(self.skip(x))


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel alone, then a 1x1 convolution across channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.conv1(x))
