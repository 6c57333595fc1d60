"""Published checkpoints in all their forms give one network; what does not fit is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from forgemap.errors import ModelError
from forgemap.models.checkpoint import load_model, read_published, save_model
from forgemap.models.localizer import Localizer

from .test_golden_declip import golden_images

GOLDEN = Path(__file__).parent / "golden" / "declip"
State = dict[str, Tensor]


def published(name: str) -> State:
    """The state dict of a reference file, as a published checkpoint has it."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    mark = "model_state."
    return {key.removeprefix(mark): t for key, t in tensors.items() if key.startswith(mark)}


@pytest.fixture(scope="module")
def resnet() -> State:
    return published("rn50_layer1_conv-4")


@pytest.fixture(scope="module")
def vit() -> State:
    return published("vit_layer2_linear")


def checkpoint(state: State, layer: str | None, decoder: str) -> dict[str, Any]:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
    facts = {"total_steps": 7, "feature_layer": layer, "decoder_type": decoder}
    return {"model": state, "optimizer": optimizer, **facts}


def logits(model: Localizer) -> Tensor:
    with torch.no_grad():
        return model(golden_images(batch=1)).mask


def halves(state: State) -> tuple[State, State]:
    """The decoder's tensors, and the backbone's as OpenAI publishes them."""
    decoder = {name: t for name, t in state.items() if not name.startswith("model.")}
    backbone = {name.removeprefix("model."): t for name, t in state.items() if name not in decoder}
    return decoder, backbone


TEXT_TOWER = {
    "model.token_embedding.weight": torch.zeros(9, 4),
    "model.positional_embedding": torch.zeros(5, 4),
    "model.transformer.resblocks.0.ln_1.weight": torch.zeros(4),
    "model.ln_final.bias": torch.zeros(4),
    "model.text_projection": torch.zeros(4, 4),
    "model.logit_scale": torch.tensor(1.0),
}


def test_every_form_of_a_file_gives_the_same_network(resnet: State, tmp_path: Path) -> None:
    expected = logits(read_published(GOLDEN / "rn50_layer1_conv-4.safetensors"))
    whole = checkpoint({**resnet, **TEXT_TOWER}, "layer1", "conv-4")
    torch.save(whole, tmp_path / "whole.pth")
    decoder, backbone = halves(resnet)
    torch.save(checkpoint(decoder, "layer1", "conv-4"), tmp_path / "decoder.pth")
    save_file(backbone, tmp_path / "clip.safetensors")

    same = [
        read_published(tmp_path / "whole.pth"),
        read_published(whole),
        read_published(resnet, layer="layer1"),
        read_published(tmp_path / "decoder.pth", backbones=[tmp_path / "clip.safetensors"]),
        read_published(str(tmp_path / "decoder.pth"), backbones=[backbone]),
    ]
    for model in same:
        assert torch.equal(logits(model), expected)
        assert not model.training


def test_half_precision_is_read_as_single(resnet: State) -> None:
    half = {name: t.half() if t.is_floating_point() else t for name, t in resnet.items()}
    model = read_published(half, layer="layer1")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_what_was_read_can_be_saved_as_a_model_folder(tmp_path: Path) -> None:
    for path in sorted(GOLDEN.glob("*.safetensors")):
        model = read_published(path)
        again, config = load_model(save_model(model, tmp_path / path.stem))
        assert json.loads(json.dumps(model.config)) == config["model"]
        assert torch.equal(logits(again), logits(model))


def test_without_a_layer_it_is_the_last_one(resnet: State, vit: State) -> None:
    head = {"fc.0.weight": torch.randn(1, 128), "fc.0.bias": torch.zeros(1)}
    _, backbone = halves(resnet)
    model = read_published(checkpoint(head, None, "linear"), backbones=[backbone])
    assert model.config["layer"] == "layer4"
    model = read_published(checkpoint(vit, None, "linear"), heads=2)
    assert model.config["layer"] == "layer3"


def test_vit_may_come_from_transformers(vit: State) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=128, num_hidden_layers=4, num_attention_heads=2,
        patch_size=14, image_size=224, hidden_act="quick_gelu",
    )  # fmt: skip
    tower = CLIPVisionModel(config).eval()
    state = {f"vision_model.{name}": t for name, t in tower.state_dict().items()}
    state |= {"text_model.embeddings.token_embedding.weight": torch.zeros(9, 4)}
    decoder, _ = halves(vit)

    found = logits(read_published(decoder, backbones=[state], layer="layer2", heads=2))

    with torch.no_grad():
        tokens = tower(golden_images(batch=1), output_hidden_states=True).hidden_states[3][:, 1:]
        linear = tokens @ decoder["fc.0.weight"].T + decoder["fc.0.bias"]
    expected = torch.nn.functional.interpolate(linear.view(1, 1, 16, 16), 256, mode="bicubic")
    torch.testing.assert_close(found, expected)


def test_fusion_takes_its_backbones_in_any_order(resnet: State, vit: State) -> None:
    torch.manual_seed(0)
    head = {"fc.0.weight": torch.randn(1, 32 + 64), "fc.0.bias": torch.zeros(1)}
    file = checkpoint(head, "layer2", "linear")
    towers = [halves(vit)[1], halves(resnet)[1]]
    model = read_published(file, backbones=towers, heads=2)
    assert model.config["backbone"] == "vit+rn50"
    assert model.config["layer"] == "layer2+layer3"
    swapped = read_published(file, backbones=towers[::-1], heads=2)
    assert torch.equal(logits(model), logits(swapped))


def test_heads_are_clips_unless_the_file_says_otherwise(vit: State) -> None:
    assert read_published(GOLDEN / "vit_layer2_linear.safetensors").config["heads"] == 2
    with pytest.raises(ModelError, match="how many attention heads"):  # of 32 channels, none of 64
        read_published(vit, layer="layer2")


def refused(match: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(ModelError, match=match) as error:
        read_published(*args, **kwargs)
    assert "\n" not in str(error.value)


SPOIL: dict[str, tuple[Callable[[State], object], str]] = {
    "decoder tensor missing": (lambda s: s.pop("fc.1.bias"), r"missing fc\.1\.bias\."),
    "first weight missing": (lambda s: s.pop("fc.0.weight"), r"missing fc\.0\.weight\."),
    "first bias missing": (lambda s: s.pop("fc.0.bias"), r"missing fc\.0\.bias\."),
    "norm's mean missing": (
        lambda s: s.pop("fc.4.running_mean"),
        r"missing fc\.4\.running_mean\.",
    ),
    "backbone tensor missing": (
        lambda s: s.pop("model.visual.layer1.0.bn2.weight"),
        r"missing visual\.layer1\.0\.bn2\.weight\.",
    ),
    "size-giving tensor missing": (
        lambda s: s.pop("model.visual.layer1.0.conv1.weight"),
        r"missing visual\.layer1\.0\.conv1\.weight\.",
    ),
    "decoder tensor unexpected": (
        lambda s: s.update({"fc.2.weight_g": torch.ones(1)}),
        r"unexpected fc\.2\.weight_g\.",
    ),
    "backbone tensor unexpected": (
        lambda s: s.update({"model.visual.layer1.1.conv9.weight": torch.ones(1)}),
        r"visual\.layer1\.1\.conv9\.weight",
    ),
    "unheard-of part": (
        lambda s: s.update({"head.weight": torch.ones(1)}),
        r"unexpected head\.weight\.",
    ),
    "decoder tensor mis-shaped": (
        lambda s: s.update({"fc.3.weight": torch.ones(10, 12, 3, 3)}),
        r"mis-shaped fc\.3\.weight is \(10, 12, 3, 3\), not \(10, 12, 5, 5\)",
    ),
    "backbone tensor mis-shaped": (
        lambda s: s.update({"model.visual.bn1.bias": torch.ones(3)}),
        r"mis-shaped visual\.bn1\.bias is \(3,\), not \(2,\)",
    ),
}


@pytest.mark.parametrize("fault", SPOIL)
def test_tensors_that_do_not_fit_are_named(fault: str, resnet: State) -> None:
    spoil, said = SPOIL[fault]
    state = dict(resnet)
    spoil(state)
    refused(said, checkpoint(state, "layer1", "conv-4"))


def test_a_stacked_matrix_of_the_vit_is_named_as_in_the_file(vit: State) -> None:
    name = "visual.transformer.resblocks.1.attn.in_proj_weight"
    missing = {key: t for key, t in vit.items() if key != f"model.{name}"}
    refused(rf"missing {name}\.", missing, layer="layer2", heads=2)
    wrong = {**vit, f"model.{name}": torch.ones(64, 32)}
    refused(rf"{name} is \(64, 32\), not \(96, 32\)", wrong, layer="layer2", heads=2)


def test_only_blocks_after_the_layer_may_go_unused(vit: State) -> None:
    extra = {**vit, "model.visual.transformer.resblocks.2.adapter.weight": torch.ones(1)}
    refused(
        r"unexpected visual\.transformer\.resblocks\.2\.adapter", extra, layer="layer2", heads=2
    )
    assert read_published(extra, layer="layer1", heads=2)


def test_what_the_file_lacks_is_asked_for(resnet: State) -> None:
    decoder, backbone = halves(resnet)
    refused("holds the decoder alone; give its backbone", checkpoint(decoder, "layer1", "conv-4"))
    refused("give the layer", resnet)
    refused("holds its own backbone", resnet, layer="layer1", backbones=[backbone])
    refused("holds no decoder", backbone)
    refused("holds no backbone that Forgemap knows", decoder, layer="layer1", backbones=[decoder])


def test_what_the_file_says_must_be_so(resnet: State) -> None:
    refused("a conv-4 decoder's, not conv-20's", checkpoint(resnet, "layer1", "conv-20"))
    refused("unknown layer 'layer9'; valid: layer1", checkpoint(resnet, "layer9", "conv-4"))


def test_files_that_are_none_are_refused(tmp_path: Path, resnet: State) -> None:
    refused("no such file", tmp_path / "missing.pth")
    refused("no such file", tmp_path / "missing.safetensors")
    (tmp_path / "noise.pth").write_bytes(b"noise")
    refused("noise.pth: corrupt", tmp_path / "noise.pth")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    refused("not a readable safetensors file", tmp_path / "noise.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    refused("holds no state dict, but a list", tmp_path / "list.pth")
    torch.save(resnet, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:9999])
    refused("cut.pth: corrupt", tmp_path / "cut.pth")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, resnet: State) -> None:
    torch.save(
        {**checkpoint(resnet, "layer1", "conv-4"), "share": Fraction(1, 2)}, tmp_path / "x.pth"
    )
    refused(r"cannot be read without running code \(fractions\.Fraction\)", tmp_path / "x.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "ViT-L-14.pt")
    refused("not a DeCLIP checkpoint", tmp_path / "ViT-L-14.pt")  # read as data; see test_convert
