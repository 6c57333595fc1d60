"""Vision transformers of transformers as backbones, and which part of a backbone learns."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forgemap.errors import ModelError
from forgemap.models.build import build
from forgemap.models.checkpoint import load_model, save_model
from forgemap.models.decoders import DECODERS
from forgemap.models.localizer import Localizer
from forgemap.models.trainable import SCHEMES
from forgemap.models.transformer import TransformerViT

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
MLP = {"intermediate_size": 16}
DINO = {"mlp_ratio": 1, "patch_size": 14, "image_size": 42}
#: Family -> its fields, and whether it has a class token.
FAMILIES: dict[str, tuple[dict[str, Any], bool]] = {
    "vit": ({**MLP, "patch_size": 16, "image_size": 64}, True),
    "deit": ({**MLP, "patch_size": 16, "image_size": 64}, True),  # and a distillation token
    "dinov2": (DINO, True),
    "dinov2_with_registers": ({**DINO, "num_register_tokens": 3}, True),
    "dinov3_vit": ({**MLP, "patch_size": 16, "num_register_tokens": 4, "image_size": 64}, True),
    "siglip_vision_model": ({**MLP, "patch_size": 16, "image_size": 64}, False),
    "siglip2_vision_model": ({**MLP, "patch_size": 16, "num_patches": 16}, False),
    "clip_vision_model": ({**MLP, "patch_size": 16, "image_size": 64}, True),
    "mlcd_vision_model": (
        {**MLP, "patch_size": 14, "image_size": 42, "num_attention_heads": 1, "hidden_size": 16,
         "num_key_value_groups": 1},
        True,
    ),
}  # fmt: skip


def fields(family: str, **more: Any) -> dict[str, Any]:
    return {"model_type": family, **SMALL, **FAMILIES[family][0], **more}


def tiny(family: str = "vit", *, decoder: str = "linear", **more: Any) -> Localizer:
    torch.manual_seed(0)
    described = {"transformer": fields(family, **more.pop("network", {}))}
    if more.get("backbone", "transformers") != "transformers":
        described = {}
    config = {"backbone": "transformers", "channels": [4, 4, 3, 2], **described, **more}
    model = build({"architecture": "declip", "decoder": decoder, **config})
    assert isinstance(model, Localizer)
    return model


def images(model: Localizer, batch: int = 2) -> Tensor:
    side = model.preprocess.size
    assert side is not None
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def whole(family: str) -> nn.Module:
    """All blocks and heads, as transformers builds them, every parameter random."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(3)
    kind = fields(family)
    network = AutoModel.from_config(AutoConfig.for_model(kind.pop("model_type"), **kind))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A DINOv2 as transformers saves it, with a preprocessor of its own."""
    folder = tmp_path / "dino"
    whole("dinov2_with_registers").save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "BitImageProcessor",
        "do_center_crop": True,
        "crop_size": {"height": 60, "width": 60},
        "size": {"shortest_edge": 90},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Nothing can be reached; the list holds what somebody tried to reach."""
    tried: list[object] = []

    def refuse(*address: object, **__: object) -> None:
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_decoder_runs_learns_and_survives_saving(
    family: str, decoder: str, tmp_path: Path, no_network: list[object]
) -> None:
    model = tiny(family, decoder=decoder, layer="layer0+layer1", trainable="all")

    output = model(images(model))
    assert output.mask.shape == (2, 1, 256, 256)
    loss = output.mask.square().mean()
    (loss if output.evidence is None else loss + output.evidence.sum()).backward()
    for name, parameter in model.named_parameters():  # there are no dead ones
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name

    save_model(model, tmp_path / "model")
    again, config = load_model(tmp_path / "model")
    assert config["model"] == model.config == again.config
    with torch.no_grad():
        assert torch.equal(again(images(model)).mask, model.eval()(images(model)).mask)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_the_blocks_own_outputs_patch_by_patch(family: str) -> None:
    network = whole(family)
    backbone = TransformerViT(
        fields(family),
        "layer0+layer1",
        side := 48 if "14" not in str(fields(family)["patch_size"]) else 42,
    )
    backbone.eval()
    own = backbone.model.state_dict()
    assert len(own) < len(network.state_dict())  # the third block, norms and heads are not built
    backbone.model.load_state_dict({name: network.state_dict()[name] for name in own})

    caught: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, nn.ModuleList) and len(module) == 3:
            for block in module[:2]:
                block.register_forward_hook(
                    lambda _, __, y: caught.append(y if isinstance(y, Tensor) else y[0])
                )
    pictures = torch.randn(2, 3, side, side)
    with torch.no_grad():
        network(**backbone._arguments(pictures))
        grid, summary = backbone(pictures)
    patches = (side // backbone.patch) ** 2
    expected = torch.cat([tokens[:, -patches:] for tokens in caught], dim=2)
    torch.testing.assert_close(grid.flatten(2).transpose(1, 2), expected)
    has_class_token = FAMILIES[family][1]
    assert (summary is not None) == has_class_token
    if summary is not None:
        torch.testing.assert_close(summary, torch.cat([tokens[:, 0] for tokens in caught], dim=1))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_change_at_the_top_left_moves_the_top_left_most(family: str) -> None:
    backbone = tiny(family, layer="layer0").backbone.eval()
    height, width = 2 * backbone.patch, 3 * backbone.patch
    if family == "mlcd_vision_model":
        height = width = 3 * backbone.patch  # its position embeddings are those of a square
    pictures = torch.zeros(2, 3, height, width)
    pictures[1, :, : backbone.patch, : backbone.patch] = 3
    with torch.no_grad():
        grid = backbone(pictures).grid
    assert grid.shape[2:] == (height // backbone.patch, width // backbone.patch)
    change = (grid[1] - grid[0]).norm(dim=0)
    assert change.argmax() == 0 and change[0, 0] > 2 * change.flatten()[1:].max()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_gets_the_same_answer_in_any_batch(family: str) -> None:
    model = tiny(family, decoder="conv-4").eval()
    with torch.no_grad():
        together = model(images(model, 3)).mask
        alone = torch.cat([model(image[None]).mask for image in images(model, 3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "dinov3_vit", "siglip_vision_model"])
def test_no_block_after_the_layer_is_built(name: str) -> None:
    counts = [
        sum(p.numel() for p in tiny(name, layer=f"layer{n}").backbone.parameters())
        for n in range(3)
    ]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0
    assert tiny(name, layer="layer0+layer1").backbone.channels == 2 * SMALL["hidden_size"]


def test_a_long_network_is_cut_at_the_depth_of_the_papers() -> None:
    assert tiny("vit", network={"num_hidden_layers": 24}).config["layer"] == "layer20"
    assert tiny("vit", network={"num_hidden_layers": 12}).config["layer"] == "layer9"


def test_a_pretrained_folder_brings_weights_and_preprocessing(
    saved: Path, tmp_path: Path, no_network: list[object]
) -> None:
    model = build({
        "architecture": "declip", "backbone": f"transformers:{saved}", "layer": "layer1",
        "decoder": "linear",
    })  # fmt: skip
    network = whole("dinov2_with_registers")
    for name, tensor in model.backbone.model.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name
    assert model.preprocess.size == 56  # 60 less what is no whole patch of 14
    assert model.preprocess.mean == (0.1, 0.2, 0.3)
    assert model.preprocess.std == (0.4, 0.5, 0.6)
    assert model.preprocess.interpolation == "bicubic"
    assert str(tmp_path) not in json.dumps(model.config)  # this machine's folders stay here

    save_model(model, tmp_path / "model")
    shutil.rmtree(saved)
    again, _ = load_model(tmp_path / "model")
    assert again.preprocess == model.preprocess
    assert no_network == []  # nobody even tried
    with torch.no_grad():
        assert torch.equal(again(images(model)).mask, model.eval()(images(model)).mask)


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_of_pictures_and_text_the_pictures_part_is_taken(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    vision = fields(f"{kind}_vision_model")
    text = {**SMALL, **MLP, "vocab_size": 10, "max_position_embeddings": 8}
    if kind == "clip":
        text |= {"bos_token_id": 1, "eos_token_id": 2}
    both = AutoConfig.for_model(kind, vision_config=vision, text_config=text)
    network = AutoModel.from_config(both, dtype=torch.float16)
    network.save_pretrained(tmp_path / "both")
    model = build({
        "architecture": "declip", "backbone": f"transformers:{tmp_path / 'both'}",
        "decoder": "linear",
    })  # fmt: skip
    own = model.backbone.model.state_dict()
    assert own and {tensor.dtype for tensor in own.values()} == {torch.float32}
    for name, tensor in own.items():
        assert torch.equal(tensor, network.vision_model.state_dict()[name].float()), name


def test_offline_a_hub_id_is_one_sentence(
    no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="nobody/no-such-model") as error:
        build({"architecture": "declip", "backbone": "transformers:nobody/no-such-model"})
    assert "\n" not in str(error.value)


def test_a_damaged_preprocessing_file_is_not_taken_for_none(saved: Path) -> None:
    (saved / "preprocessor_config.json").write_text("{ torn")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json cannot be read"):
        build({"architecture": "declip", "backbone": f"transformers:{saved}", "layer": "layer1"})


def test_weights_that_do_not_fit_are_one_sentence(saved: Path) -> None:
    from safetensors.torch import load_file, save_file

    def refused() -> str:
        with pytest.raises(ModelError) as error:
            build({"architecture": "declip", "backbone": f"transformers:{saved}"})
        assert "\n" not in str(error.value) and str(saved) in str(error.value)
        return str(error.value)

    weights = saved / "model.safetensors"
    tensors = load_file(weights)
    name = next(n for n in tensors if "layer.0.norm1" in n)
    save_file({n: t for n, t in tensors.items() if n != name}, weights, {"format": "pt"})
    assert name in refused()
    weights.write_bytes(b"not a safetensors file")
    refused()
    weights.unlink()
    torch.save(tensors, saved / "pytorch_model.bin")  # pickled: not even looked at
    refused()
    (saved / "config.json").write_text("{")
    refused()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"transformer": None}, ["transformers:facebook/dinov2-base", "model_type"]),
        ({"transformer": {"hidden_size": 8}}, ["model_type", "dinov3_vit"]),
        ({"transformer": {"model_type": "resnext"}}, ["resnext", "dinov3_vit"]),
        ({"transformer": {"model_type": "bert"}}, ["bert", "patch_size"]),
        ({"transformer": {"model_type": "swin"}}, ["swin", "num_hidden_layers"]),
        ({"transformer": {"model_type": "vit_mae"}}, ["shuffles", "model_type vit"]),
        (
            {"transformer": {"model_type": "yolos", **SMALL, **MLP, "image_size": [64, 64]}},
            ["yolos", "one for each patch"],
        ),
        ({"transformer": fields("vit", widht=8)}, ["widht", "hidden_size"]),
        ({"transformer": fields("vit", hidden_size=-8)}, ["vit"]),
        ({"transformer": fields("vit", hidden_size="wide")}, ["vit", "hidden_size"]),
        ({"transformer": fields("vit"), "image_size": 70}, ["70", "64"]),
        ({"transformer": fields("vit"), "layer": "layer3"}, ["layer3", "layer0, layer1, layer2"]),
        ({"transformer": fields("vit"), "layer": "layer1+layer1"}, ["twice"]),
        ({"backbone": "transformers:/no/such/folder"}, ["/no/such/folder", "hub id"]),
        (
            {"backbone": "transformers:a/b", "transformer": fields("vit")},
            ["leave the argument transformer out"],
        ),
        ({"transformer": fields("vit"), "trainable": "some"}, list(SCHEMES)),
        ({"transformer": fields("vit"), "trainable": "last-0"}, list(SCHEMES)),
        ({"transformer": fields("vit"), "trainable": "last-4"}, ["2 blocks"]),
        ({"backbone": "xception", "trainable": "lora-2"}, ["no linear layers", "last-<blocks>"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence_with_the_remedy(
    config: dict[str, Any], said: list[str], no_network: list[object]
) -> None:
    with pytest.raises(ModelError) as error:
        build({"architecture": "declip", "backbone": "transformers", "decoder": "linear", **config})
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in said), str(error.value)


# What learns.

NOISY = {"hidden_dropout_prob": 0.4, "attention_probs_dropout_prob": 0.4}


def step(model: Localizer) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(images(model)).mask.mean().backward()
    optimizer.step()


def changed(model: Localizer, before: dict[str, Tensor]) -> set[str]:
    now = model.backbone.state_dict()
    return {name for name, value in before.items() if not torch.equal(now[name], value)}


def copy_of(model: Localizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.backbone.state_dict().items()}


def test_frozen_means_frozen_with_dropout_and_drop_path() -> None:
    model = tiny("dinov2", network={**NOISY, "drop_path_rate": 0.5}).train()
    before = copy_of(model)
    with torch.no_grad():
        first, second = (model.backbone(images(model)).grid for _ in range(2))
    assert torch.equal(first, second)
    step(model)
    assert not changed(model, before)
    assert all(not p.requires_grad for p in model.backbone.parameters())


@pytest.mark.parametrize("backbone", ["transformers", "vit", "rn50", "vit+rn50", "xception"])
def test_last_blocks_learn_and_all_before_them_stand_still(backbone: str) -> None:
    sizes: dict[str, Any] = {
        "width": 16, "layers": 3, "heads": 2, "patch": 32, "rn50_width": 4,
        "rn50_layers": [1, 2, 1, 1], "xception_channels": [4, 4, 8, 8, 16],
    }  # fmt: skip
    layer = "layer2+layer2" if backbone == "vit+rn50" else "layer2"
    model = tiny("vit", backbone=backbone, layer=layer, trainable="last-1", **sizes).train()
    before = copy_of(model)
    step(model)
    last = {
        "transformers": ("model.layers.2.",),
        "vit": ("model.encoder.layers.2.",),
        "rn50": ("stages.layer2.1.",),
        "vit+rn50": ("vit.model.encoder.layers.2.", "resnet.stages.layer2.1."),
        "xception": ("blocks.block2.",),
    }[backbone]
    moved = changed(model, before)  # weights and BatchNorm's statistics alike
    assert moved and all(name.startswith(last) for name in moved)
    assert any(name.endswith("running_mean") for name in moved) == (
        backbone in ("rn50", "vit+rn50", "xception")
    )
    assert not any(module.training for module in model.eval().modules())


def test_only_the_blocks_that_learn_drop_out() -> None:
    model = tiny("dinov2", network=NOISY, trainable="last-1").train()
    training = {name for name, m in model.backbone.named_modules() if m.training}
    assert training and all(name.startswith("model.encoder.layer.1") for name in training)


@pytest.mark.parametrize("backbone", ["transformers", "vit+rn50"])
def test_lora_moves_its_factors_alone_and_is_merged_when_saved(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    sizes: dict[str, Any] = {
        "width": 16, "layers": 2, "heads": 2, "patch": 32, "rn50_width": 4, "rn50_layers": [1, 1],
    }  # fmt: skip
    layer = "layer1+layer2" if backbone == "vit+rn50" else "layer1"
    arguments = {"backbone": backbone, "layer": layer, "trainable": "lora-2", **sizes}
    model = tiny("dinov3_vit", **arguments)
    plain = tiny("dinov3_vit", **{**arguments, "trainable": "frozen"})
    with torch.no_grad():  # at first nothing is changed
        torch.testing.assert_close(model.backbone(images(plain)), plain.backbone(images(plain)))

    before = copy_of(model)
    for _ in range(2):
        step(model)
    factors = {name for name in before if ".lora_" in name}
    assert {n for n, p in model.backbone.named_parameters() if p.requires_grad} == factors
    assert {n for n in factors if "lora_B" in n} <= changed(model, before) <= factors

    with torch.no_grad():
        expected = model.eval()(images(model)).mask
        assert (expected - plain.eval()(images(plain)).mask).abs().max() > 1e-3
    save_model(model, tmp_path / "model")
    assert any("lora" in name for name in model.state_dict())  # the run itself goes on
    monkeypatch.setitem(sys.modules, "peft", None)  # as if it were not installed
    again, config = load_model(tmp_path / "model")
    assert config["model"]["trainable"] == "frozen"
    assert again.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(again(images(model)).mask, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match=r"forgemap\[lora\]"):
        again.set_trainable("lora-2")


def test_a_merged_model_learns_on_with_new_factors_or_another_scheme(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = tiny("vit", trainable="lora-2")
    for _ in range(2):
        step(model)
    save_model(model, tmp_path / "model")
    again, _ = load_model(tmp_path / "model")
    for scheme in ("lora-3", "last-1", "frozen", "all", "lora-1"):
        with torch.no_grad():
            expected = model.eval()(images(model)).mask
        again.set_trainable(scheme)
        assert again.training and again.config["trainable"] == scheme
        with torch.no_grad():
            torch.testing.assert_close(
                again.eval()(images(model)).mask, expected, rtol=1e-4, atol=1e-5
            )
    assert again.portable()[1].keys() == tiny("vit").state_dict().keys()


def test_an_interrupted_run_with_lora_is_built_and_loaded_again() -> None:
    pytest.importorskip("peft")
    model = tiny("vit", trainable="lora-2")
    for _ in range(2):
        step(model)
    again = build(model.config)
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images(model)).mask, model.eval()(images(model)).mask)


def test_configurations_of_before_say_freeze_backbone() -> None:
    assert tiny("vit", freeze_backbone=False).trainable == "all"
    assert tiny("vit", freeze_backbone=True).freeze_backbone
    assert "freeze_backbone" not in tiny("vit").config
