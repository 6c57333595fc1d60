"""The DeCLIP family: one contract over every backbone, layer and decoder, then what is special."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forgemap.errors import ModelError
from forgemap.models.build import BUILDERS, build
from forgemap.models.checkpoint import load_model, save_model
from forgemap.models.decoders import (
    DECODERS,
    AttentionDecoder,
    ConvDecoder,
    LinearDecoder,
    upsamplings_to_skip,
)
from forgemap.models.localizer import BACKBONES, Localizer, declip
from forgemap.models.output import Features

TINY: dict[str, Any] = {
    "width": 16,
    "layers": 3,
    "heads": 2,
    "patch": 32,
    "rn50_width": 4,
    "rn50_layers": [1, 2, 1, 1],
    "xception_channels": [4, 4, 8, 8, 16],
    "channels": [4, 4, 3, 2],
    "transformer": {
        "model_type": "dinov3_vit",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_register_tokens": 2,
        "patch_size": 32,
    },
}
VIT = [f"layer{number}" for number in range(3)]
RN50 = [f"layer{number}" for number in range(1, 5)]
XCEPTION = [f"layer{number}" for number in range(1, 4)]
LAYERS = {
    "vit": [*VIT, "layer0+layer2"],
    "rn50": [*RN50, "layer2+layer3"],
    "xception": [*XCEPTION, "layer1+layer3"],
    "vit+rn50": ["layer0+layer1", "layer1+layer2", "layer2+layer3", "layer0+layer2+layer4"],
    "transformers": [*VIT, "layer0+layer2"],
}
EVERY_BACKBONE = [(backbone, layer) for backbone in BACKBONES for layer in LAYERS[backbone]]


def tiny(
    backbone: str, layer: str | None = None, decoder: str = "linear", **more: Any
) -> Localizer:
    torch.manual_seed(0)
    if layer is None:
        layer = LAYERS[backbone][-1]
    model = build(
        {
            "architecture": "declip",
            **TINY,
            "backbone": backbone,
            "layer": layer,
            **more,
            "decoder": decoder,
        }
    )
    assert isinstance(model, Localizer)
    return model


def images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("backbone", "layer"), EVERY_BACKBONE)
def test_every_pair_runs_learns_and_survives_saving(
    backbone: str, layer: str, decoder: str, tmp_path: Path
) -> None:
    model = tiny(backbone, layer, decoder, trainable="all")

    output = model(images(2))  # training, all of it
    assert output.mask.shape == (2, 1, 256, 256)
    assert (output.evidence is None) == (decoder != "gradcam")
    loss = output.mask.square().mean()
    (loss if output.evidence is None else loss + output.evidence.sum()).backward()
    for name, parameter in model.named_parameters():  # there are no dead ones
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name

    save_model(model, tmp_path / "model")
    again, config = load_model(tmp_path / "model")
    assert config["model"] == model.config == again.config
    with torch.no_grad():
        assert torch.equal(again(images(1)).mask, model.eval()(images(1)).mask)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_picture_gets_the_same_answer_in_any_batch(backbone: str) -> None:
    model = tiny(backbone, decoder="conv-4").eval()
    with torch.no_grad():
        together = model(images(3)).mask
        alone = torch.cat([model(image[None]).mask for image in images(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_frozen_means_frozen(backbone: str) -> None:
    model = tiny(backbone, decoder="conv-4", trainable="frozen").train()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}

    model(images(2)).mask.mean().backward()

    assert model.training and model.decoder.training
    assert not any(module.training for module in model.backbone.modules())
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(parameter.grad is not None for parameter in model.decoder.parameters())
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} drifted"


def test_unfrozen_backbone_is_in_train_mode_and_follows_eval() -> None:
    model = tiny("rn50", trainable="all").train()
    before = model.backbone.bn1.running_mean.clone()
    model(images(2))
    assert not torch.equal(model.backbone.bn1.running_mean, before)
    assert not model.eval().backbone.training


def test_clip_is_frozen_and_xception_trained_unless_told_otherwise() -> None:
    assert tiny("vit").freeze_backbone and tiny("rn50").freeze_backbone
    assert not tiny("xception").freeze_backbone


@pytest.mark.parametrize("number", range(3))
def test_vit_ends_with_the_layer_asked_for(number: int) -> None:
    width, patches = TINY["width"], (224 // TINY["patch"]) ** 2
    block = 12 * width**2 + 13 * width  # attention 4, MLP 8 matrices; biases and two norms
    stem = (3 * TINY["patch"] ** 2 + 1 + patches + 1 + 2) * width
    backbone = tiny("vit", f"layer{number}").backbone
    assert sum(p.numel() for p in backbone.parameters()) == stem + (number + 1) * block


def test_resnet_and_xception_end_with_the_layer_asked_for() -> None:
    def parts(model: Localizer) -> set[str]:
        return {part for name in model.backbone.state_dict() for part in name.split(".")}

    assert {"layer1", "layer2"} < parts(tiny("rn50", "layer2"))
    assert not {"layer3", "layer4"} & parts(tiny("rn50", "layer2"))
    assert "block2" in parts(tiny("xception", "layer2"))
    assert "block3" not in parts(tiny("xception", "layer2"))


def test_vit_features_are_transformers_hidden_states() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2,
        patch_size=32, image_size=224, hidden_act="quick_gelu",
    )  # fmt: skip
    whole = CLIPVisionModel(config).eval()
    backbone = tiny("vit", "layer1").backbone
    backbone.model.load_state_dict(
        {name: whole.state_dict()[name] for name in backbone.model.state_dict()}
    )
    with torch.no_grad():
        expected = whole(pixel_values=images(2), output_hidden_states=True).hidden_states[2]
        features = backbone(images(2))
    torch.testing.assert_close(features.summary, expected[:, 0])
    torch.testing.assert_close(features.grid.flatten(2).transpose(1, 2), expected[:, 1:])
    assert backbone.model.config._attn_implementation == "sdpa"


def test_fusion_puts_the_resnet_on_the_grid_of_the_vit() -> None:
    fusion = tiny("vit+rn50", "layer1+layer1").backbone
    with torch.no_grad():
        grid, vit = fusion(images(2)).grid, fusion.vit(images(2)).grid
    assert grid.shape == (2, 16 + 16, 7, 7)
    assert torch.equal(grid[:, :16], vit)


def test_published_sizes_are_the_defaults() -> None:
    with torch.device("meta"):
        model = declip("vit+rn50")
    assert model.config["layer"] == "layer20+layer3"
    assert len(model.backbone.vit.model.encoder.layers) == 21
    assert model.backbone.channels == 2048
    convolutions = [m for m in model.decoder.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 21
    assert convolutions[0].weight.shape == (512, 2048, 5, 5)
    assert [c.out_channels for c in convolutions[::5]] == [512, 256, 128, 64, 1]
    assert model.preprocess.size == 224


def test_linear_is_one_map_for_every_position() -> None:
    decoder = LinearDecoder(5)
    grid = torch.randn(2, 5, 256, 256)  # the mask's own size: nothing is resized
    expected = torch.einsum("bchw,c->bhw", grid, decoder.linear.weight[0]) + decoder.linear.bias
    torch.testing.assert_close(decoder(Features(grid))[:, 0], expected)


@pytest.mark.parametrize("causal", [True, False])
def test_causal_attention_does_not_look_ahead(causal: bool) -> None:
    torch.manual_seed(0)
    decoder = AttentionDecoder(8, heads=2, causal=causal).eval()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter)
    features = Features(torch.randn(1, 8, 4, 4), torch.randn(1, 8))
    changed = Features(features.grid.clone(), features.summary)
    changed.grid[..., 3, 3] += 1  # the last token
    with torch.no_grad():
        top = (decoder(features) - decoder(changed))[..., :32, :].abs().max()
    assert (top == 0) == causal


def test_attention_sees_the_class_token() -> None:
    torch.manual_seed(0)
    decoder = AttentionDecoder(8, heads=2).eval()
    grid = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        with_it, without = decoder(Features(grid, torch.randn(1, 8))), decoder(Features(grid))
    assert with_it.shape == without.shape
    assert not torch.equal(with_it, without)


@pytest.mark.parametrize(("size", "skip"), [(56, 2), (55, 2), (28, 1), (16, 0), (14, 0), (7, 0)])
def test_large_maps_are_upsampled_less(size: int, skip: int) -> None:
    assert upsamplings_to_skip(size) == skip
    decoder = ConvDecoder(4, 1, [4, 4, 4, 4], skip)
    assert sum(isinstance(m, nn.Upsample) for m in decoder.modules()) == 4 - skip


def test_decoders_start_as_in_the_paper() -> None:
    decoder = ConvDecoder(32, 5, [32, 32, 32, 32])
    kernels = torch.cat([p.flatten() for p in decoder.parameters() if p.dim() > 1])
    assert kernels.std().item() == pytest.approx(0.02, rel=0.02)
    norms = [m for m in decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() for norm in norms)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": "unet"}, list(BUILDERS)),
        ({}, list(BUILDERS)),
        ({"architecture": ["declip"]}, list(BUILDERS)),
        ({"architecture": "declip", "backbone": "vit-b"}, list(BACKBONES)),
        ({"architecture": "declip", "decoder": "conv"}, list(DECODERS)),
        ({"architecture": "declip", "depth": 3}, ["depth", "rn50_layers"]),
        ({"architecture": "declip", "backbone": "vit", **TINY, "layer": "layer3"}, VIT),
        ({"architecture": "declip", "backbone": "rn50", "layer": "layer0"}, RN50),
        ({"architecture": "declip", "backbone": "xception", "layer": "2"}, XCEPTION),
        ({"architecture": "declip", **TINY, "layer": "layer2"}, ["two layers"]),
        ({"architecture": "declip", "backbone": "vit", "heads": 5}, ["5 heads", "1024"]),
        ({"architecture": "declip", "backbone": "rn50", "rn50_width": "wide"}, ["declip", "sizes"]),
        ({"architecture": "declip", "backbone": "rn50", "rn50_width": -4}, ["declip", "sizes"]),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_one_sentence_with_the_remedy(
    config: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(ModelError) as error:
        build(config)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in said)


def test_only_a_vit_needs_transformers() -> None:
    code = """if True:
        import sys
        sys.modules["transformers"] = None  # as if it were not installed
        import forgemap.models.checkpoint
        from forgemap.errors import ModelError
        from forgemap.models.build import build
        build({"architecture": "tracenet"})
        small = {"architecture": "declip", "rn50_width": 4, "decoder": "attention"}
        build({**small, "backbone": "rn50", "layer": "layer1"})
        build({**small, "backbone": "xception"})
        try:
            build({**small, "backbone": "vit"})
        except ModelError as error:
            assert "forgemap[clip]" in str(error)
        else:
            raise AssertionError
        """
    subprocess.run([sys.executable, "-c", code], check=True)
