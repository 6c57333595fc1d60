"""Exports: equal to torch, in any batch and size, or not written at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import nn

from forgemap import engines
from forgemap.cli import app
from forgemap.detector import Detector
from forgemap.engines.record import RECORD, read_export
from forgemap.errors import ModelError
from forgemap.export import export
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model

from .conftest import picture

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

DECLIP = {"architecture": "declip", "width": 32, "layers": 4, "heads": 2, "layer": "layer1"}
DECLIP |= {"rn50_width": 8, "rn50_layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
DECLIP |= {"xception_channels": [4, 8, 8, 16, 16], "backbone": "vit"}
KINDS = ("onnx", "openvino")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures, of which one cannot be read."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(8):
        pixels = picture(90 + 7 * seed, 120 - 5 * seed, seed)
        PILImage.fromarray(pixels).save(folder / f"{seed}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    return folder


def saved(folder: Path, **config: object) -> Path:
    torch.manual_seed(1)
    model = build(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training, not the identity
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return save_model(model, folder)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> tuple[Path, Path]:
    """A small convolutional model's folder, and its ONNX export in a folder of its own."""
    folder = tmp_path_factory.mktemp("export")
    config = {**DECLIP, "backbone": "rn50", "layer": "layer3", "decoder": "conv-4"}
    model = saved(folder / "model", **config)
    return model, export(model, "onnx", out=folder / "onnx", calibrate=photographs).folder


def test_an_export_answers_as_torch_does_in_any_batch(made):
    model, folder = made
    torch_model = engines.load(model, engine="torch").model
    loaded = engines.load(folder)
    assert (loaded.engine, loaded.precision) == ("onnx", "fp32")
    assert loaded.weights_sha256 == engines.load(model).weights_sha256
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, 224, 224)
        with torch.inference_mode():
            expected, got = torch_model(images), loaded.model(images)
        assert got.mask.shape == (batch, 1, 256, 256) and got.evidence is None
        assert torch.allclose(got.mask.sigmoid(), expected.mask.sigmoid(), atol=1e-5)


def test_a_detector_takes_an_export_s_folder(made):
    model, folder = made
    ours, theirs = (Detector.load(f, detector=None, engine="auto") for f in (folder, model))
    pictures = [picture(50, 70, 1), picture(300, 200, 2)]
    many = [seen.heat for seen in ours.predict_many(pictures)]
    for pixels, heat in zip(pictures, many, strict=True):
        assert np.allclose(heat, theirs.predict(pixels).heat, atol=1e-4)
    assert ours.basis["weights_sha256"] == theirs.basis["weights_sha256"]


def test_its_record_holds_what_proves_it(made):
    record = read_export(made[1])
    assert record.proved() and record.parity.pictures == 8  # the broken one is left out
    assert record.parity.largest_difference <= 1e-3 and record.parity.verdict_flips == 0
    assert set(record.files) == {"model.onnx", "model.onnx.data"}
    files = {path.name for path in made[1].iterdir()}
    assert files == {*record.files, RECORD, "config.json", "README.md"}


def test_analyze_runs_on_an_export(made, photos, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        app(
            [
                *("analyze", str(photos), "--model", str(made[1]), "--engine", "onnx"),
                *("--json", "--detector", "none", "--out", str(tmp_path / "out")),
            ]
        )
    assert end.value.code in (0, 1)
    assert len(json.loads(capsys.readouterr().out)) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_corrupt_export_is_one_sentence(made, tmp_path, damage):
    folder = tmp_path / "export"
    folder.mkdir()
    for file in made[1].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    data = folder / "model.onnx.data"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        data.unlink()
    else:
        data.write_bytes(content if damage == "flip" else content[:100])
    with pytest.raises(ModelError, match="export the model again") as caught:
        engines.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "asked", [{"engine": "torch"}, {"engine": "openvino"}, {"precision": "bf16"}]
)
def test_an_export_is_nothing_else_than_it_is(made, asked):
    with pytest.raises(ModelError, match="is an export for onnx in fp32"):
        engines.load(made[1], **asked)


@pytest.mark.slow
def test_what_does_not_match_is_not_written(made, photographs, tmp_path, monkeypatch):
    """The limit is set below what any rounding keeps to."""
    monkeypatch.setattr("forgemap.engines.record.LARGEST_DIFFERENCE", -1.0)
    out = tmp_path / "deep" / "export"
    with pytest.raises(ModelError, match="does not match: probabilities differ"):
        export(made[0], "onnx", out=out, calibrate=photographs, limit=1)
    assert not out.exists() and list((tmp_path / "deep").iterdir()) == []


def test_bad_requests_are_one_sentence(made, photographs, tmp_path):
    model, folder = made
    for message, arguments in (
        ("unknown format 'coreml'; valid: onnx, openvino", {"model": model, "kind": "coreml"}),
        ("computes no bfloat16", {"model": model, "precision": "bf16"}),
        ("is an export already", {"model": folder}),
        ("holds no picture", {"model": model, "calibrate": tmp_path}),
        ("holds something that is no export", {"model": model, "out": photographs}),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            export(**{"calibrate": photographs, "out": tmp_path / "new", **arguments})
        assert "\n" not in str(caught.value) and not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_tracenet_takes_any_size(kind, model_folder, photographs, tmp_path):
    folder = export(model_folder, kind, out=tmp_path / kind, calibrate=photographs).folder
    ours = engines.load(folder).model
    theirs = engines.load(model_folder, engine="torch").model
    assert (ours.native, ours.stride, ours.reach) == (True, theirs.stride, theirs.reach)
    for batch, height, width in ((1, 32, 32), (2, 67, 45), (1, 130, 255)):
        images = torch.from_numpy(picture(height, width)).permute(2, 0, 1)[None] / 127.5 - 1
        images = images.expand(batch, -1, -1, -1).contiguous()
        with torch.inference_mode():
            got, expected = ours(images), theirs(images.clone())
        for a, b in zip(got, expected, strict=True):
            assert a.shape == b.shape and torch.allclose(a, b, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "config",
    [
        {"decoder": "conv-20"},
        {"decoder": "linear", "layer": "layer1+layer2"},
        {"decoder": "attention"},
        {"decoder": "attention", "causal": True},
        {"decoder": "gradcam", "gradcam_hidden": 32},
        {"decoder": "conv-4", "backbone": "vit+rn50", "layer": "layer1+layer3"},
        {"decoder": "conv-4", "backbone": "xception", "layer": "layer2"},
    ],
    ids=str,
)
def test_every_declip_model_can_be_exported(kind, config, photographs, tmp_path):
    model = saved(tmp_path / "model", **{**DECLIP, **config})
    if config["decoder"] == "gradcam" and kind == "openvino":
        # OpenVINO computes another map; that is noticed and nothing is written (docs/engines.md).
        with pytest.raises(ModelError, match="does not match"):
            export(model, kind, out=tmp_path / "out", calibrate=photographs, limit=2)
        assert not (tmp_path / "out").exists()
        return
    folder = export(model, kind, out=tmp_path / "out", calibrate=photographs, limit=2).folder
    images = torch.randn(3, 3, 224, 224)
    with torch.inference_mode():
        got = engines.load(folder).model(images)
        expected = engines.load(model, engine="torch").model(images)
    assert torch.allclose(got.mask.sigmoid(), expected.mask.sigmoid(), atol=1e-4)
    assert (got.evidence is None) == (expected.evidence is None)


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["patches", "traces", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_embedder_s_export_embeds(kind, stem, photographs, tmp_path):
    config = {"width": 32, "layers": 3, "heads": 2, "mlp": 64, "stem": stem}
    model = saved(tmp_path / "model", architecture="embedder", **config)
    folder = export(model, kind, out=tmp_path / "out", calibrate=photographs).folder
    ours, theirs = engines.load(folder).model, engines.load(model, engine="torch").model
    assert ours.fingerprint() == theirs.fingerprint()
    for crops in ("centre", "five"):
        a, b = (one.embed(picture(300, 260), crops) for one in (ours, theirs))
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_int8_is_written_where_it_holds_and_refused_where_not(
    kind, photographs, tmp_path, monkeypatch
):
    model = saved(tmp_path / "model", **DECLIP, decoder="conv-4")
    with monkeypatch.context() as stricter:
        stricter.setattr("forgemap.engines.record.LEAST_IOU", 1.1)  # no mask reaches it
        with pytest.raises(ModelError, match="int8 does not match: the mean mask IoU"):
            export(model, kind, "int8", calibrate=photographs, limit=2)
    assert not (model / "exports").exists()
    plain = build({**DECLIP, "decoder": "conv-4"})
    plain.load_state_dict(saved_state(model))
    plain.decoder.head.bias.data -= 3  # all masks are empty, with room to spare
    save_model(plain, model)
    made = export(model, kind, "int8", calibrate=photographs)
    assert made.export.parity.pictures == 4  # those that were not calibrated on
    assert made.export.parity.largest_difference > 0  # it is int8, not a copy
    assert made.folder == model / "exports" / f"{kind}-int8"
    loaded = engines.load(model, engine=kind)
    assert (loaded.engine, loaded.precision) == (kind, "int8")


def saved_state(model: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(model / "model.safetensors"))
