"""localizer.py: DeCLIP's Localizer: image -> backbone -> decoder -> mask logits.

Smeu, Oneata and Oneata, "DeCLIP: decoding CLIP representations for deepfake localization"
(WACV 2025, arXiv 2409.08849), figure 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ..errors import ModelError
from ..preprocess import CLIP, Preprocess
from .clip import ClipFusion, ClipResNet, ClipViT
from .decoders import DECODERS, AttentionDecoder, ConvDecoder, LinearDecoder, upsamplings_to_skip
from .gradcam import GradCamDecoder
from .output import Features, LocalizerOutput
from .pretrained import PREFIX, choose, default_layer
from .trainable import learning_modules, merged_tensors, read_scheme, set_trainable
from .transformer import TransformerViT
from .xception import Xception

#: The backbones by name, and the layer that the paper takes of each.
BACKBONES = {
    "vit": "layer20",
    "rn50": "layer3",
    "vit+rn50": "layer20+layer3",
    "xception": "layer2",
    "transformers": "layer20",  # of 24; the same depth of shorter ones
}


class Localizer(nn.Module):
    """Which pixels were manipulated? A backbone looks, a decoder answers.

    Args:
        backbone: images (B, 3, 224, 224) -> `Features`.
        decoder: `Features` -> logits (B, 1, 256, 256), or a whole `LocalizerOutput`.
        preprocess: how pictures are made into images.
        trainable: what of the backbone learns, one of `trainable.SCHEMES`. All the rest gets no
            gradients and stays in eval mode (BatchNorm statistics, dropout) whatever `train()` is
            called with.
        config: what `build` makes the same network from.
    """

    native = False

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        preprocess: Preprocess = CLIP,
        *,
        trainable: str = "frozen",
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.preprocess = preprocess
        self.config = config or {}
        self.set_trainable(trainable)

    def forward(self, images: Tensor | Features) -> LocalizerOutput:
        """Images, or what the backbone makes of them -> mask logits (B, 1, 256, 256).

        images (B, 3, 224, 224), normalised, or `Features` that were computed before. Only
        "gradcam" gives evidence, (B, 1, 1, 1).
        """
        features = images if isinstance(images, Features) else self.backbone(images)
        output = self.decoder(features)
        if isinstance(output, LocalizerOutput):
            return output
        return LocalizerOutput(output.float(), evidence=None)

    def train(self, mode: bool = True) -> Localizer:
        """As usual, but what is frozen of the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        for module in learning_modules(self.backbone, self.trainable):
            module.train(mode)
        return self

    def set_trainable(self, scheme: str) -> None:
        """Choose what of the backbone learns from now on, and go into train mode.

        LoRA factors that are there are merged into the weights first; "lora-<rank>" begins new
        ones, which at first change nothing.
        """
        set_trainable(self.backbone, scheme)
        self.trainable = scheme
        if self.config:
            self.config = {**self.config, "trainable": scheme}
        self.train()

    @property
    def freeze_backbone(self) -> bool:
        """Whether nothing of the backbone learns: its features of a picture never change."""
        return self.trainable == "frozen"

    def portable(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The configuration and tensors to save: LoRA is merged, so that loading needs no peft."""
        if not self.trainable.startswith("lora"):
            return self.config, dict(self.state_dict())
        return {**self.config, "trainable": "frozen"}, merged_tensors(self)


def declip(
    backbone: str = "vit+rn50",
    layer: str | None = None,
    decoder: str = "conv-20",
    *,
    width: int = 1024,
    layers: int = 24,
    heads: int = 16,
    patch: int = 14,
    image_size: int | None = None,
    transformer: Mapping[str, Any] | None = None,
    rn50_width: int = 64,
    rn50_layers: Sequence[int] = (3, 4, 6, 3),
    xception_channels: Sequence[int] = (32, 64, 128, 256, 728),
    channels: Sequence[int] = (512, 256, 128, 64),
    skip_upsampling: int | None = None,
    decoder_heads: int | None = None,
    causal: bool = False,
    gradcam_hidden: int = 0,
    trainable: str | None = None,
    freeze_backbone: bool | None = None,
) -> Localizer:
    """A DeCLIP network with random weights; the default sizes are the published ones.

    Only a backbone of "transformers:<folder or hub id>" brings its pretrained weights; its
    configuration then says "transformers", and the network is built again without them.

    Args:
        backbone: a key of `BACKBONES`, or "transformers:" and a local folder or hub id
            ("transformers:facebook/dinov2-base", "…@revision").
        layer: where the features are taken: "layer0" to "layer23" (ViT), "layer1" to "layer4"
            (ResNet), "layer1" to "layer3" (Xception), "layer20+layer3" (fusion, the ResNet's last);
            several as "layer6+layer12"; the paper's if None.
        decoder: a key of `DECODERS`.
        width, layers, heads, patch: of the ViT, see `ClipViT`.
        image_size: side of the input in pixels; None: 224, or what the transformer was made for.
        transformer: of the backbone "transformers", see `TransformerViT`'s fields.
        rn50_width, rn50_layers: of the ResNet, see `ClipResNet`.
        xception_channels: see `Xception`.
        channels: of the convolutional decoders' four stages.
        skip_upsampling: stages of a convolutional decoder without upsampling; from the size of the
            features if None.
        decoder_heads, causal: of the attention decoder, see `AttentionDecoder`.
        gradcam_hidden: of the Grad-CAM decoder, see `GradCamDecoder`.
        trainable: see `Localizer`; None: "frozen", save for Xception, which is trained from
            scratch.
        freeze_backbone: as configurations used to say it: True is "frozen", False is "all".

    Raises:
        ModelError: an unknown backbone, layer or decoder; the valid ones are listed.
    """
    arguments = locals()  # all of them by name: the configuration, but for what is resolved below
    preprocess, weights = CLIP, None
    if backbone.startswith(PREFIX) or backbone == "transformers":
        transformer, preprocess, weights = choose(backbone, transformer)
        backbone = "transformers"
        layer = layer or default_layer(transformer)
    if backbone not in BACKBONES:
        valid = ", ".join([*BACKBONES, f"{PREFIX}<folder or hub id>"])
        raise ModelError(f"unknown backbone {backbone!r}; valid: {valid}.")
    if decoder not in DECODERS:
        raise ModelError(f"unknown decoder {decoder!r}; valid: {', '.join(DECODERS)}.")
    layer = layer or BACKBONES[backbone]
    preprocess = replace(preprocess, size=image_size or preprocess.size)
    side = preprocess.size or 224
    if trainable is None:
        frozen = backbone != "xception" if freeze_backbone is None else freeze_backbone
        trainable = "frozen" if frozen else "all"
    read_scheme(trainable)
    arguments |= {"backbone": backbone, "layer": layer, "transformer": transformer}
    arguments |= {"image_size": side, "trainable": trainable}
    del arguments["freeze_backbone"]
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
    config = {"architecture": "declip", **config}

    def vit(layer: str) -> ClipViT:
        return ClipViT(layer, width, layers, heads, patch, side)

    def resnet(layer: str) -> ClipResNet:
        return ClipResNet(layer, rn50_width, rn50_layers)

    tower: ClipViT | ClipResNet | ClipFusion | TransformerViT | Xception
    if backbone == "vit":
        tower = vit(layer)
    elif backbone == "rn50":
        tower = resnet(layer)
    elif backbone == "xception":
        tower = Xception(layer, xception_channels)
    elif backbone == "transformers" and transformer is not None:
        tower = TransformerViT(transformer, layer, side, weights)
    else:
        vit_layer, plus, resnet_layer = layer.rpartition("+")
        if not plus:
            raise ModelError(f"{layer!r}: the fusion takes two layers, such as 'layer20+layer3'.")
        tower = ClipFusion(vit(vit_layer), resnet(resnet_layer))

    head: nn.Module
    if decoder == "linear":
        head = LinearDecoder(tower.channels)
    elif decoder == "attention":
        head = AttentionDecoder(tower.channels, decoder_heads, causal)
    elif decoder == "gradcam":
        head = GradCamDecoder(tower.channels, gradcam_hidden)
    else:
        if skip_upsampling is None:
            skip_upsampling = upsamplings_to_skip(tower.size)
        depth = int(decoder.removeprefix("conv-")) // 4
        head = ConvDecoder(tower.channels, depth, channels, skip_upsampling)

    return Localizer(tower, head, preprocess, trainable=trainable, config=config)
