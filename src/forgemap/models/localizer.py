"""localizer.py: DeCLIP's Localizer: image -> backbone -> decoder -> mask logits.

Smeu, Oneata and Oneata, "DeCLIP: decoding CLIP representations for deepfake localization"
(WACV 2025, arXiv 2409.08849), figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..errors import ModelError
from ..preprocess import CLIP, Preprocess
from .clip import ClipFusion, ClipResNet, ClipViT
from .decoders import DECODERS, AttentionDecoder, ConvDecoder, LinearDecoder, upsamplings_to_skip
from .output import LocalizerOutput
from .xception import Xception

#: The backbones by name, and the layer that the paper takes of each.
BACKBONES = {
    "vit": "layer20",
    "rn50": "layer3",
    "vit+rn50": "layer20+layer3",
    "xception": "layer2",
}


class Localizer(nn.Module):
    """Which pixels were manipulated? A backbone looks, a decoder answers.

    Args:
        backbone: images (B, 3, 224, 224) -> `Features`.
        decoder: `Features` -> logits (B, 1, 256, 256).
        preprocess: how pictures are made into images.
        freeze_backbone: no gradients for the backbone, which also stays in eval mode (BatchNorm
            statistics, dropout) whatever `train()` is called with.
        config: what `build` makes the same network from.
    """

    native = False

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        preprocess: Preprocess = CLIP,
        *,
        freeze_backbone: bool = True,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.preprocess = preprocess
        self.freeze_backbone = freeze_backbone
        self.config = config or {}
        self.backbone.requires_grad_(not freeze_backbone)
        self.train()

    def forward(self, images: Tensor) -> LocalizerOutput:
        """images (B, 3, 224, 224), normalised -> mask logits (B, 1, 256, 256), no evidence."""
        features = self.backbone(images)
        mask = self.decoder(features)
        return LocalizerOutput(mask.float(), evidence=None)

    def train(self, mode: bool = True) -> Localizer:
        """As usual, but a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self


def declip(
    backbone: str = "vit+rn50",
    layer: str | None = None,
    decoder: str = "conv-20",
    *,
    width: int = 1024,
    layers: int = 24,
    heads: int = 16,
    patch: int = 14,
    image_size: int = 224,
    rn50_width: int = 64,
    rn50_layers: Sequence[int] = (3, 4, 6, 3),
    xception_channels: Sequence[int] = (32, 64, 128, 256, 728),
    channels: Sequence[int] = (512, 256, 128, 64),
    skip_upsampling: int | None = None,
    decoder_heads: int | None = None,
    causal: bool = False,
    freeze_backbone: bool | None = None,
) -> Localizer:
    """A DeCLIP network with random weights; the default sizes are the published ones.

    Args:
        backbone: a key of `BACKBONES`.
        layer: where the features are taken: "layer0" to "layer23" (ViT), "layer1" to "layer4"
            (ResNet), "layer1" to "layer3" (Xception), "layer20+layer3" (fusion); the paper's if
            None.
        decoder: a key of `DECODERS`.
        width, layers, heads, patch, image_size: of the ViT, see `ClipViT`.
        rn50_width, rn50_layers: of the ResNet, see `ClipResNet`.
        xception_channels: see `Xception`.
        channels: of the convolutional decoders' four stages.
        skip_upsampling: stages of a convolutional decoder without upsampling; from the size of the
            features if None.
        decoder_heads, causal: of the attention decoder, see `AttentionDecoder`.
        freeze_backbone: see `Localizer`; None: yes, save for Xception, which is trained from
            scratch.

    Raises:
        ModelError: an unknown backbone, layer or decoder; the valid ones are listed.
    """
    if backbone not in BACKBONES:
        raise ModelError(f"unknown backbone {backbone!r}; valid: {', '.join(BACKBONES)}.")
    if decoder not in DECODERS:
        raise ModelError(f"unknown decoder {decoder!r}; valid: {', '.join(DECODERS)}.")
    layer = layer or BACKBONES[backbone]
    if freeze_backbone is None:
        freeze_backbone = backbone != "xception"
    arguments = locals()  # all of them by name: the configuration, once tuples are JSON's lists
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
    config = {"architecture": "declip", **config}

    def vit(layer: str) -> ClipViT:
        return ClipViT(layer, width, layers, heads, patch, image_size)

    def resnet(layer: str) -> ClipResNet:
        return ClipResNet(layer, rn50_width, rn50_layers)

    tower: ClipViT | ClipResNet | ClipFusion | Xception
    if backbone == "vit":
        tower = vit(layer)
    elif backbone == "rn50":
        tower = resnet(layer)
    elif backbone == "xception":
        tower = Xception(layer, xception_channels)
    else:
        vit_layer, plus, resnet_layer = layer.partition("+")
        if not plus:
            raise ModelError(f"{layer!r}: the fusion takes two layers, such as 'layer20+layer3'.")
        tower = ClipFusion(vit(vit_layer), resnet(resnet_layer))

    head: nn.Module
    if decoder == "linear":
        head = LinearDecoder(tower.channels)
    elif decoder == "attention":
        head = AttentionDecoder(tower.channels, decoder_heads, causal)
    else:
        if skip_upsampling is None:
            skip_upsampling = upsamplings_to_skip(tower.size)
        depth = int(decoder.removeprefix("conv-")) // 4
        head = ConvDecoder(tower.channels, depth, channels, skip_upsampling)

    preprocess = replace(CLIP, size=image_size)
    return Localizer(tower, head, preprocess, freeze_backbone=freeze_backbone, config=config)
