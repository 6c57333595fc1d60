"""clip.py: CLIP's image towers, ViT and ResNet, cut off after the last layer that is needed.

Radford et al., "Learning transferable visual models from natural language supervision" (2021).
A tower ends where its features are taken: later blocks are not built, computed, loaded or saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelError
from .output import Features, combine


class ClipViT(nn.Module):
    """CLIP's vision transformer up to and including one residual block.

    images (B, 3, image_size, image_size) -> grid (B, width, g, g) and class token (B, width),
    where g = image_size / patch. Neither the last norm nor the projection is applied.

    Args:
        layer: "layer0" (the output of the first block) to "layer<layers - 1>", or several, such as
            "layer6+layer12", whose channels are concatenated.
        width: channels of a token.
        layers: blocks of the whole tower, of which only the first ones are built.
        heads: attention heads; CLIP's own towers have width / 64.
        patch: side of a patch in pixels.
        image_size: side of the input in pixels.

    The defaults are ViT-L/14's. Importing transformers takes seconds, hence only here.
    """

    def __init__(
        self,
        layer: str = "layer20",
        width: int = 1024,
        layers: int = 24,
        heads: int = 16,
        patch: int = 14,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        try:
            from transformers import CLIPVisionConfig, CLIPVisionModel
        except ImportError as error:
            raise ModelError(
                f"a ViT backbone needs transformers: pip install 'forgemap[clip]' ({error})."
            ) from error

        self.numbers = layer_numbers(layer, range(layers))
        if heads < 1 or width % heads:
            raise ModelError(f"{heads} heads cannot share a ViT's width of {width} equally.")
        config = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=max(self.numbers) + 1,
            num_attention_heads=heads,
            patch_size=patch,
            image_size=image_size,
            hidden_act="quick_gelu",
        )
        config._attn_implementation = "sdpa"
        self.model = CLIPVisionModel(config)
        self.model.add_module("post_layernorm", nn.Identity())  # after the last block: dead here
        self.channels = width * len(self.numbers)
        self.size = image_size // patch

    def forward(self, images: Tensor) -> Features:
        if len(self.numbers) == 1:
            layers = [self.model(pixel_values=images).last_hidden_state]
        else:
            states = self.model(pixel_values=images, output_hidden_states=True).hidden_states
            layers = [states[number + 1] for number in self.numbers]  # the first are embeddings
        return combine(
            Features(
                tokens[:, 1:].transpose(1, 2).unflatten(2, (self.size, self.size)), tokens[:, 0]
            )
            for tokens in layers
        )

    def residual_blocks(self) -> list[nn.Module]:
        """The blocks in their order."""
        return list(self.model.encoder.layers)


class ClipResNet(nn.Module):
    """CLIP's modified ResNet up to and including one stage.

    images (B, 3, H, W) -> grid (B, 4 * width * 2^(n - 1), H / s, W / s) for layer n, where
    s = 4, 8, 16, 32 for layer1 to layer4. It differs from ResNet (section 2.4 of the paper) by its
    stem of three convolutions and by average pooling before every convolution that would stride.

    Args:
        layer: "layer1" to "layer4", or several, such as "layer2+layer3", whose channels are
            concatenated on the grid of the first.
        width: channels of the stem.
        layers: bottleneck blocks of each stage, of which only the first stages are built.

    The defaults are RN50's. The parts have the names that OpenAI's weights use.
    """

    def __init__(
        self, layer: str = "layer3", width: int = 64, layers: Sequence[int] = (3, 4, 6, 3)
    ) -> None:
        super().__init__()
        self.numbers = layer_numbers(layer, range(1, len(layers) + 1))
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.stages = nn.ModuleDict()
        channels, widths = width, []
        for number in range(max(self.numbers)):
            planes, stride = width * 2**number, 1 if number == 0 else 2
            blocks = [Bottleneck(channels, planes, stride)]
            channels = 4 * planes
            blocks += [Bottleneck(channels, planes) for _ in range(layers[number] - 1)]
            self.stages[f"layer{number + 1}"] = nn.Sequential(*blocks)
            widths.append(channels)
        self.channels = sum(widths[number - 1] for number in self.numbers)
        self.size = 56 // 2 ** (self.numbers[0] - 1)  # of the grid, for an input of 224 x 224

    def forward(self, images: Tensor) -> Features:
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.avg_pool2d(x, 2)
        maps = []
        for stage in self.stages.values():
            x = stage(x)
            maps.append(Features(x))
        return combine(maps[number - 1] for number in self.numbers)

    def residual_blocks(self) -> list[nn.Module]:
        """The bottlenecks of all stages in their order."""
        return [block for stage in self.stages.values() for block in stage.children()]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut; average-pools by `stride` in both paths."""

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        outputs = 4 * planes
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self.pool(y)))
        return F.relu(y + self.downsample(self.pool(x)))


class ClipFusion(nn.Module):
    """ViT and ResNet side by side (DeCLIP, section 4.3): their channels, on the ViT's grid.

    images (B, 3, 224, 224) -> grid (B, C_vit + C_resnet, g, g); the ResNet's map is resized
    bilinearly. There is no class token, because the ResNet has none.
    """

    def __init__(self, vit: ClipViT, resnet: ClipResNet) -> None:
        super().__init__()
        self.vit = vit
        self.resnet = resnet
        self.channels = vit.channels + resnet.channels
        self.size = vit.size

    def forward(self, images: Tensor) -> Features:
        tokens = self.vit(images).grid
        maps = F.interpolate(self.resnet(images).grid, tokens.shape[-2:], mode="bilinear")
        return Features(torch.cat([tokens, maps], dim=1))


def layer_numbers(layer: str, valid: range) -> list[int]:
    """ "layer7" -> [7], "layer6+layer12" -> [6, 12], or a ModelError that lists the valid ones."""
    names = {f"layer{number}": number for number in valid}
    wanted = layer.split("+")
    for name in wanted:
        if name not in names:
            raise ModelError(f"unknown layer {name!r}; valid: {', '.join(names)}.")
    if len({*wanted}) < len(wanted):
        raise ModelError(f"{layer!r} names a layer twice.")
    return [names[name] for name in wanted]
