"""Engines: packed layers compute the same; what is chosen is installed and proved."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from forgemap import engines
from forgemap.detector import Detector
from forgemap.engines import names
from forgemap.engines.packed import LowPrecision, accelerate, can_pack, has_bf16, pack
from forgemap.engines.record import RECORD, Export, Parity, read_export
from forgemap.engines.select import _best
from forgemap.errors import ModelError
from forgemap.models.build import build
from forgemap.models.checkpoint import load_model, save_model, weights_sha256

from .conftest import picture

TINY = {"architecture": "declip", "backbone": "vit", "width": 64, "layers": 3, "heads": 2}
TINY |= {"layer": "layer1", "channels": [8, 8, 8, 8]}


def vit(decoder: str = "conv-4", **more: object) -> nn.Module:
    torch.manual_seed(0)
    return build({**TINY, "decoder": decoder, **more}).eval()


def record(**changes: object) -> Export:
    made = Export("onnx", "fp32", "ab", {}, Parity(4, "photos", 1e-5, 1.0, 0), 1.5)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
@pytest.mark.parametrize(
    ("decoder", "more"),
    [("conv-4", {}), ("linear", {}), ("attention", {}), ("gradcam", {"gradcam_hidden": 32})],
)
def test_packed_layers_answer_as_torch_does(decoder, more):
    model = vit(decoder, **more)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = model(images)
        assert pack(model) >= 12  # six linear layers in each of two blocks
        got = model(images)
    assert torch.allclose(got.mask.sigmoid(), expected.mask.sigmoid(), atol=1e-5)


def test_what_cannot_be_packed_runs_as_it_is(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not can_pack()
    model = accelerate(vit(), "fp32", torch.device("cpu"))
    assert any(type(module) is nn.Linear for module in model.modules())


@pytest.mark.skipif(not has_bf16(), reason="this processor has no bfloat16")
def test_bfloat16_is_close_and_answers_in_float32():
    model = vit()
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = model(images).mask
        low = accelerate(model, "bf16", torch.device("cpu"))
        got = low(images)
    assert isinstance(low, LowPrecision) and low.native is False and low.preprocess.size == 224
    assert got.mask.dtype == torch.float32 and got.evidence is None
    assert 0 < (got.mask - expected).abs().max() < 0.05 * expected.abs().max() + 1e-3


@pytest.mark.skipif(not has_bf16(), reason="this processor has no bfloat16")
@pytest.mark.parametrize("decoder", ["conv-4", "attention"])
def test_read_layer_by_layer_the_bfloat16_model_is_the_same(decoder, tmp_path):
    model = vit(decoder)
    folder = save_model(model, tmp_path / "model")
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        got = engines.load(folder, engine="torch", precision="bf16").model(images).mask
        expected = accelerate(model, "bf16", torch.device("cpu"))(images).mask
    assert torch.allclose(got, expected, atol=0.02 * float(expected.abs().max()))


@pytest.mark.skipif(not has_bf16(), reason="this processor has no bfloat16")
def test_weights_that_do_not_fit_are_named_in_bfloat16_too(model_folder, tmp_path):
    folder = save_model(vit("linear"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["model"]["width"] = 32
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"mis-shaped .*class_embedding is \(64,\), not \(32,\)"):
        engines.load(folder, engine="torch", precision="bf16")
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        engines.load(folder, engine="torch", precision="bf16")


def test_unknown_names_list_the_valid_ones(model_folder):
    with pytest.raises(ModelError, match="valid: auto, torch, onnx, openvino"):
        engines.load(model_folder, engine="tensorrt")
    with pytest.raises(ModelError, match="valid: auto, fp32, bf16, int8"):
        engines.load(model_folder, precision="fp8")


def test_without_an_export_auto_is_torch_in_float32(model_folder):
    loaded = engines.load(model_folder)
    assert (loaded.engine, loaded.precision) == ("torch", "fp32")
    assert loaded.weights_sha256 == weights_sha256(model_folder)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_an_engine_that_is_not_installed_names_the_extra(engine, model_folder, monkeypatch):
    monkeypatch.setattr(names, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=rf'pip install "forgemap\[{engine}\]"'):
        Detector.load(model_folder, engine=engine)


def test_an_engine_without_an_export_names_the_command(model_folder):
    with pytest.raises(ModelError, match=r"forgemap export .* --format onnx"):
        engines.load(model_folder, engine="onnx")
    with pytest.raises(ModelError, match="int8 needs an export"):
        engines.load(model_folder, engine="torch", precision="int8")


@pytest.mark.parametrize(
    ("precision", "parity", "proved"),
    [
        ("fp32", Parity(4, "", 9e-4), True),
        ("fp32", Parity(4, "", 2e-3), False),
        ("fp32", Parity(4, "", float("nan")), False),
        ("fp32", Parity(0, "", 0.0), False),  # nothing was compared
        ("int8", Parity(400, "", 0.5, 0.985, 2), True),
        ("int8", Parity(400, "", 0.5, 0.985, 3), False),
        ("int8", Parity(400, "", 0.5, 0.975, 0), False),
        ("bf16", Parity(4, "", 0.5, 1.0, 1), False),
        ("bf16", Parity(4, "", 0.5, cosine=0.9995), True),
        ("bf16", Parity(4, "", 0.5, cosine=0.99), False),
    ],
)
def test_limits_of_the_proof(precision, parity, proved):
    assert record(precision=precision, parity=parity).proved() is proved


def test_auto_takes_the_fastest_proved_export_that_beats_torch():
    here = Path()
    slow, fast = record(speed=0.9), record(speed=2.0)
    wrong = record(speed=9.0, parity=Parity(4, "photos", 0.1, 1.0, 0))
    other = record(speed=8.0, format="openvino", precision="int8")
    assert _best([(here, slow)], "auto", "auto") is None
    assert _best([(here, slow)], "onnx", "auto") == (here, slow)  # asked for by name
    assert _best([(here, slow), (here, wrong), (here, fast)], "auto", "auto") == (here, fast)
    assert _best([(here, fast), (here, other)], "auto", "fp32") == (here, fast)


def test_an_export_of_other_weights_is_not_taken(tmp_path, model_folder):
    network = load_model(model_folder)[0]
    folder = save_model(network, tmp_path / "model")
    beside = folder / "exports" / "onnx-fp32"
    beside.mkdir(parents=True)
    (beside / RECORD).write_text(record(weights_sha256="0" * 64, speed=9.0).to_json())
    assert engines.load(folder).engine == "torch"
    assert read_export(beside) == record(weights_sha256="0" * 64, speed=9.0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "onnx"}'])
def test_a_damaged_record_is_one_sentence(tmp_path, text):
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(ModelError, match=r"damaged .*export the model again") as caught:
        engines.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_engine_of_a_detector_changes_no_map(model_folder):
    pixels = picture(80, 112)
    plain = Detector(build(json.loads((model_folder / "config.json").read_text())["model"]).eval())
    plain.model.load_state_dict(load_model(model_folder)[0].state_dict())
    chosen = Detector.load(model_folder, engine="torch", precision="fp32", detector=None)
    assert np.allclose(plain.predict(pixels).heat, chosen.predict(pixels).heat, atol=1e-5)


def test_openvino_is_imported_without_its_telemetry():
    pytest.importorskip("importlib.metadata").version("openvino")
    code = (
        "from forgemap.engines.openvino_engine import silent; silent(); import sys;"
        "print(sorted(n for n in sys.modules if n.startswith('openvino_telemetry.')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=240
    )
    assert run.stdout.strip() == "[]"
