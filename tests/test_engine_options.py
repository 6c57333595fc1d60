"""--engine and --precision wherever they are accepted; the second model; the proof of bf16."""

from __future__ import annotations

import io
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import nn

from forgemap import classifiers, engines
from forgemap.detector import Detector
from forgemap.engines.packed import has_bf16
from forgemap.engines.record import RECORD, Parity, read_export
from forgemap.errors import ForgemapError, ModelError
from forgemap.export import export
from forgemap.generated import GenerationDetector
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model, weights_sha256
from forgemap.models.embedder import STEMS, Embedder

from .conftest import picture

DECLIP = {"architecture": "declip", "width": 32, "layers": 3, "heads": 2, "layer": "layer1"}
DECLIP |= {"decoder": "conv-4", "channels": [8, 8, 8, 8], "backbone": "vit"}
SIZES = {"width": 16, "layers": 2, "heads": 2, "mlp": 32, "image_size": 32}

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor has no bfloat16")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real pictures and two generated ones, as `forgemap embed` reads them."""
    root = tmp_path_factory.mktemp("photographs") / "set"
    for place, name in enumerate(("real", "sdxl")):
        (root / name).mkdir(parents=True)
        for n in range(2):
            pixels = picture(60, 72, seed=10 * place + n)
            PILImage.fromarray(pixels).save(root / name / f"{n}.png")
    return root


def localizer(folder: Path) -> Path:
    """A small DeCLIP whose masks are empty, with room to spare."""
    torch.manual_seed(1)
    model = build(DECLIP).eval()
    with torch.no_grad():
        model.decoder.head.bias -= 3
    return save_model(model, folder)


def embedder(folder: Path, stem: str = "patches") -> Path:
    """A small embedder and a linear classifier of its embeddings."""
    torch.manual_seed(2)
    network = Embedder(**SIZES, stem=stem).eval()
    save_model(network, folder)
    rng = np.random.default_rng(0)
    source = classifiers.Source("small", network.fingerprint(), SIZES["width"])
    fitted = classifiers.fit("linear", rng.normal(size=(40, 16)), np.arange(40) % 2, source)
    classifiers.save(fitted, folder / "linear.safetensors")
    return folder


def in_transformers_format(folder: Path) -> Path:
    """The same kind of network as published: transformers' names, and pickled weights alone."""
    torch.manual_seed(3)
    tensors = {}
    for name, value in Embedder(**SIZES).state_dict().items():
        number, _, part = name.removeprefix("blocks.").partition(".")
        base = f"encoder.layer.{number}"
        kind = name.rpartition(".")[2].removeprefix("in_proj_")
        if "in_proj" in name:
            for which, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                tensors[f"{base}.attention.attention.{which}.{kind}"] = third.clone()
            continue
        spelling = {
            "self_attn.out_proj": "attention.output.dense",
            "linear1": "intermediate.dense",
            "linear2": "output.dense",
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
        }.get(part.rpartition(".")[0])
        outside = {
            "class_token": "embeddings.cls_token",
            "positions": "embeddings.position_embeddings",
            f"patches.{kind}": f"embeddings.patch_embeddings.projection.{kind}",
            f"norm.{kind}": f"layernorm.{kind}",
        }.get(name)
        tensors[outside or f"{base}.{spelling}.{kind}"] = value
    config = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 2, "intermediate_size": 32, "image_size": 32}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def proof(folder: Path, speed: float, parity: Parity | None = None) -> Path:
    """A record of torch in bf16 for a model's weights, as `forgemap export` writes it."""
    beside = folder / "exports" / "torch-bf16"
    beside.mkdir(parents=True, exist_ok=True)
    parity = parity or Parity(400, "photos", 0.02, 0.99, 1)
    made = engines.record.Export("torch", "bf16", weights_sha256(folder), {}, parity, speed)
    (beside / RECORD).write_text(made.to_json())
    return beside


@needs_bf16
def test_auto_takes_bf16_in_torch_only_with_a_proof_where_it_was_faster(tmp_path, monkeypatch):
    folder = localizer(tmp_path / "model")

    def taken(**asked: str) -> tuple[str, str]:
        loaded = engines.load(folder, **asked)
        return loaded.engine, loaded.precision

    assert taken() == ("torch", "fp32")
    proof(folder, 1.7)
    assert taken() == taken(engine="torch") == ("torch", "bf16")
    assert taken(precision="fp32") == ("torch", "fp32")
    with monkeypatch.context() as other:
        other.setattr("forgemap.engines.packed.has_bf16", lambda: False)
        assert taken() == ("torch", "fp32")  # this processor would not compute it
    proof(folder, 0.8)
    assert taken() == taken(engine="torch") == ("torch", "fp32")
    assert taken(precision="bf16") == ("torch", "bf16")  # asked for by name
    proof(folder, 1.7, Parity(400, "photos", 0.02, 0.97, 0))
    assert taken() == ("torch", "fp32")
    proof(folder, 1.7)
    other_weights = build(DECLIP)
    save_model(other_weights, folder)  # keeps what else lies in the folder
    assert (folder / "exports" / "torch-bf16" / RECORD).is_file()
    assert taken() == ("torch", "fp32")


@needs_bf16
def test_the_proof_is_written_beside_the_weights_without_a_copy_of_them(tmp_path, photographs):
    folder = localizer(tmp_path / "model")
    made = export(folder, "torch", "bf16", calibrate=photographs)
    assert made.folder == folder / "exports" / "torch-bf16"
    assert {path.name for path in made.folder.iterdir()} == {RECORD, "README.md"}
    record = read_export(made.folder)
    assert record.proved() and record.parity.pictures == 4 and record.parity.verdict_flips == 0
    assert record.parity.largest_difference > 0  # it was bf16 that was compared
    assert record.weights_sha256 == weights_sha256(folder)
    with pytest.raises(ModelError, match="proves torch in bf16 and holds no model") as caught:
        engines.load(made.folder)
    assert "\n" not in str(caught.value)


@needs_bf16
def test_bf16_that_does_not_match_leaves_nothing(tmp_path, photographs, monkeypatch):
    folder = localizer(tmp_path / "model")
    monkeypatch.setattr("forgemap.engines.record.LEAST_IOU", 1.1)  # no mask reaches it
    with pytest.raises(ModelError, match="torch in bf16 does not match: the mean mask IoU"):
        export(folder, "torch", "bf16", calibrate=photographs, limit=1)
    assert not (folder / "exports").exists()


def test_what_cannot_be_proved_of_torch_is_one_sentence(tmp_path, photographs, monkeypatch):
    folder = localizer(tmp_path / "model")
    for message, arguments in (
        ("torch needs no export in fp32", {"precision": "fp32"}),
        ("torch needs no export in int8", {"precision": "int8"}),
        ("leave --out out", {"precision": "bf16", "out": tmp_path / "out"}),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            export(folder, "torch", calibrate=photographs, **arguments)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("forgemap.export.has_bf16", lambda: False)
    with pytest.raises(ModelError, match="has no bfloat16"):
        export(folder, "torch", "bf16", calibrate=photographs)
    assert not (tmp_path / "out").exists() and not (folder / "exports").exists()


def test_layers_that_could_not_be_packed_are_told(tmp_path, monkeypatch, caplog):
    folder = localizer(tmp_path / "model")
    plain = engines.load(folder, engine="torch", precision="fp32")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING, "forgemap"):
        loaded = engines.load(folder, engine="torch", precision="fp32")
    assert any(type(module) is nn.Linear for module in loaded.model.modules())
    assert "linear layers not packed" in loaded.note and loaded.note in str(loaded.computed)
    assert loaded.note in caplog.text and str(folder) in caplog.text
    if plain.note:
        pytest.skip("this torch has no oneDNN at all")
    assert str(plain.computed) == "torch in fp32"


def test_the_embedder_follows_where_it_can(tmp_path):
    folder, second = localizer(tmp_path / "model"), embedder(tmp_path / "embedder")
    low = Detector.load(folder, detector=second, precision="bf16" if has_bf16() else "fp32")
    assert low.generation.computed == low.computed
    # It has no export: the localizer's would be asked for in vain, and that is an error of its own.
    judge = GenerationDetector.load(second, engine="onnx", precision="int8")
    assert (judge.computed.engine, judge.computed.precision) == ("torch", "fp32")
    with pytest.raises(ModelError, match=r"forgemap export .* --format"):
        Detector.load(folder, detector=second, engine="onnx")


@needs_bf16
@pytest.mark.parametrize("stem", STEMS)
def test_an_embedder_in_bf16_is_close_and_known_by_its_own_fingerprint(stem, tmp_path):
    folder = embedder(tmp_path / "embedder", stem=stem)
    low = engines.load_embedder(folder, engine="torch", precision="bf16").model
    full = engines.load_embedder(folder, engine="torch", precision="fp32").model
    assert low.fingerprint() == full.fingerprint()
    a, b = (one.embed(picture(50, 60), "five") for one in (low, full))
    length = 32 if stem == "both" else 16
    assert a.dtype == torch.float32 and a.shape == (5, length) and not torch.equal(a, b)
    assert torch.cosine_similarity(a, b).min() > 0.99


def test_a_localizer_is_no_embedder(tmp_path):
    with pytest.raises(ModelError, match="is a declip, which localizes edits"):
        engines.load_embedder(localizer(tmp_path / "model"))


def test_pickled_weights_of_transformers_are_hashed_and_loaded(tmp_path):
    folder = in_transformers_format(tmp_path / "published")
    loaded = engines.load(folder)
    assert loaded.weights_sha256 == weights_sha256(folder)
    assert isinstance(loaded.model, Embedder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors: no such file"):
        weights_sha256(folder)


def test_a_server_s_workers_compute_as_they_are_told(tmp_path, monkeypatch):
    from forgemap.serve import frames, worker

    folder = localizer(tmp_path / "model")
    start = {
        "models": [str(folder)],
        "device": "cpu",
        "detector": "none",
        "classifier": None,
        "copies": True,
    }
    answers = io.BytesIO()
    assert worker._load({**start, "engine": "onnx", "precision": "auto"}, answers) is None
    answers.seek(0)
    said, _ = frames.read(answers)
    assert said["kind"] == "failed" and "forgemap export" in said["error"]
    precision = "bf16" if has_bf16() else "fp32"
    answers = io.BytesIO()
    found = worker._load({**start, "engine": "torch", "precision": precision}, answers)
    assert found[str(folder)].computed.precision == precision
    answers.seek(0)
    (facts,) = frames.read(answers)[0]["models"]
    assert facts["weights_sha256"] == weights_sha256(folder)


def test_serve_takes_both_options_and_no_others():
    from .test_serve_settings import told

    settings = told("--engine", "openvino", "--precision", "int8")
    assert (settings.engine, settings.precision) == ("openvino", "int8")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, photographs) -> tuple[Path, Path]:
    """A localizer and an embedder, each with its ONNX export beside its weights."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    root = tmp_path_factory.mktemp("exported")
    both = localizer(root / "model"), embedder(root / "embedder")
    for folder in both:
        export(folder, "onnx", calibrate=photographs)
    return both


@pytest.mark.slow
def test_both_models_by_the_engine_that_is_named(exported):
    folder, second = exported
    ours = Detector.load(folder, detector=second, engine="onnx")
    theirs = Detector.load(folder, detector=second, engine="torch", precision="fp32")
    assert str(ours.computed) == str(ours.generation.computed) == "onnx in fp32"
    got, expected = (judge.analyze(picture(70, 90)) for judge in (ours, theirs))
    assert np.allclose(got.heat, expected.heat, atol=1e-3)
    assert got.generated["score"] == pytest.approx(expected.generated["score"], abs=1e-3)


@pytest.mark.slow
def test_an_embedder_s_export_brings_its_classifier(exported):
    judge = GenerationDetector.load(exported[1] / "exports" / "onnx-fp32")
    assert str(judge.computed) == "onnx in fp32"
    assert judge.basis["weights_sha256"] == weights_sha256(exported[1])


@pytest.mark.slow
def test_a_published_embedder_with_pickled_weights_alone_is_exported(
    exported, photographs, tmp_path
):
    folder = in_transformers_format(tmp_path / "published")
    made = export(folder, "onnx", out=tmp_path / "out", calibrate=photographs)
    assert made.export.weights_sha256 == weights_sha256(folder)
    ours, theirs = engines.load(made.folder).model, engines.load(folder, engine="torch").model
    a, b = (one.embed(picture(50, 60)) for one in (ours, theirs))
    assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_scan_evaluate_and_embed_compute_as_they_are_told(exported, photographs, tmp_path):
    pytest.importorskip("pyarrow")
    from forgemap.evaluate.benchmark import evaluate
    from forgemap.evaluate.embed import Model, embed
    from forgemap.scan import Settings, scan

    folder, second = map(str, exported)
    asked = {"engine": "onnx", "precision": "fp32"}
    settings = Settings(folder, options=tuple({**asked, "detector": second}.items()), workers=1)
    assert str(settings.load().computed) == "onnx in fp32"
    assert scan([str(photographs)], tmp_path / "scan", settings, progress=False).judged == 4

    results = evaluate(folder, photographs / "real", tmp_path / "results", progress=False, **asked)
    assert json.loads((tmp_path / "results" / "results.json").read_text())
    assert results.facts["computed"] == "onnx in fp32"

    pairs = []
    for engine in ("onnx", "torch"):
        model = Model.load(second, engine=engine, precision="fp32")
        assert model.computed.engine == engine
        out = tmp_path / f"{engine}.parquet"
        pairs.append(embed(model, photographs, out, progress=False).vectors)
    assert np.allclose(*pairs, atol=1e-4)


@pytest.mark.slow
def test_a_server_s_worker_runs_an_export(exported):
    from forgemap.serve import frames, worker

    folder, second = map(str, exported)
    start = {
        "models": [folder],
        "device": "cpu",
        "detector": second,
        "classifier": None,
        "copies": True,
    }
    answers = io.BytesIO()
    (judge,) = worker._load({**start, "engine": "onnx", "precision": "auto"}, answers).values()
    assert str(judge.computed) == "onnx in fp32"
    answers.seek(0)
    (facts,) = frames.read(answers)[0]["models"]
    assert facts["architecture"] == "declip" and facts["input_size"] == 224
    assert facts["engine"] == "onnx" and facts["precision"] == "fp32"


@needs_bf16
def test_a_scan_does_not_go_on_in_another_precision(tmp_path, photographs):
    pytest.importorskip("pyarrow")
    from forgemap.scan import Settings, scan

    folder = localizer(tmp_path / "model")
    settings = Settings(str(folder), options=(("detector", None),), workers=1)
    scan([str(photographs)], tmp_path / "out", settings, progress=False)
    proof(folder, 1.7)  # from now on auto would take bf16
    with pytest.raises(ForgemapError, match="precision"):
        scan([str(photographs)], tmp_path / "out", settings, progress=False)
    pinned = replace(settings, options=(*settings.options, ("precision", "fp32")))
    scan([str(photographs)], tmp_path / "out", pinned, progress=False)
    shutil.rmtree(folder / "exports")
    scan([str(photographs)], tmp_path / "out", settings, progress=False)
