"""The embedder: transformers' own numbers, crops without resizing, published and own folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from forgemap.errors import ModelError
from forgemap.models.build import build
from forgemap.models.checkpoint import load_model, save_model
from forgemap.models.crops import AGGREGATIONS, CROPS, aggregate, cut
from forgemap.models.embedder import CODE, NATIVE_SCALE, Embedder
from forgemap.models.huggingface import load_embedder
from forgemap.models.tracenet import TraceNet
from forgemap.preprocess import NATIVE, Preprocess

from .conftest import picture

SMALL = {"width": 24, "layers": 2, "heads": 3, "mlp": 48, "patch": 8, "image_size": 32}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers itself wrote, as the published encoder's was; random weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("published")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        patch_size=8,
        image_size=32,
        initializer_range=0.3,  # large weights show what small ones hide
    )
    torch.manual_seed(0)
    model = transformers.ViTModel(config, add_pooling_layer=False)
    with torch.no_grad():  # biases and norms are constants at first
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def images(count: int = 3, side: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def theirs(folder: Path) -> torch.Tensor:
    import transformers

    model = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.inference_mode():
        return model(images()).last_hidden_state[:, 0]


def test_a_published_folder_gives_the_embedding_of_transformers(published: Path) -> None:
    model, config = load_embedder(published)
    assert config["model_type"] == "vit" and not model.training
    with torch.inference_mode():  # the fast path of PyTorch's layers …
        fast = model(images())
    slow = model(images())  # … and the one with gradients
    expected = theirs(published)
    assert expected.std() > 0.1
    torch.testing.assert_close(fast, expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(slow.detach(), expected, atol=2e-5, rtol=1e-5)


def variant(published: Path, folder: Path, change: str) -> Path:
    """The same weights as other folders spell them."""
    tensors = load_file(published / "model.safetensors")
    config = json.loads((published / "config.json").read_text())
    folder.mkdir()
    if change == "pickled":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif change == "prefixed, with a head":
        tensors = {f"vit.{k}": v for k, v in tensors.items()}
        tensors |= {"classifier.weight": torch.zeros(2, 24), "vit.pooler.dense.bias": torch.ones(1)}
    elif change == "new names":
        renamed = {
            "attention.attention.query": "attention.q_proj",
            "attention.attention.key": "attention.k_proj",
            "attention.attention.value": "attention.v_proj",
            "attention.output.dense": "attention.o_proj",
            "intermediate.dense": "mlp.fc1",
            "output.dense": "mlp.fc2",
            "encoder.layer": "layers",
        }
        for old, new in renamed.items():
            tensors = {k.replace(old, new): v for k, v in tensors.items()}
    elif change == "no qkv bias":
        config["qkv_bias"] = False
        three = (".query.bias", ".key.bias", ".value.bias")
        tensors = {k: v for k, v in tensors.items() if not k.endswith(three)}
    if change != "pickled":
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("change", ["pickled", "prefixed, with a head", "new names"])
def test_other_spellings_hold_the_same_network(
    published: Path, tmp_path: Path, change: str
) -> None:
    with torch.inference_mode():
        expected = load_embedder(published)[0](images())
        found = load_embedder(variant(published, tmp_path / "other", change))[0](images())
    assert torch.equal(found, expected)


def test_the_fingerprint_is_the_networks_and_not_the_files(published: Path, tmp_path: Path) -> None:
    model = load_embedder(published)[0]
    other = load_embedder(variant(published, tmp_path / "other", "pickled"))[0]
    ours = load_embedder(save_model(model, tmp_path / "ours"))[0]
    assert model.fingerprint() == other.fingerprint() == ours.fingerprint()
    with torch.no_grad():
        model.norm.bias[0] += 1e-3
    assert model.fingerprint() != other.fingerprint()


def test_a_network_without_qkv_bias_is_that_of_transformers(
    published: Path, tmp_path: Path
) -> None:
    folder = variant(published, tmp_path / "other", "no qkv bias")
    with torch.inference_mode():
        found = load_embedder(folder)[0](images())
    torch.testing.assert_close(found, theirs(folder), atol=2e-5, rtol=1e-5)


def test_a_picture_is_embedded_as_the_published_code_does(published: Path) -> None:
    """Centre crop without resizing, ImageNet's mean and std, class token after the last norm."""
    model, _ = load_embedder(published)
    pixels = picture(47, 60, seed=4)
    crop = pixels[8:40, 14:46]  # round(7.5) = 8, round(14) = 14
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    inputs = ((torch.from_numpy(crop.copy()) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = model(inputs)
    torch.testing.assert_close(model.embed(pixels), expected, atol=1e-5, rtol=1e-5)


def test_a_preprocessor_file_decides_about_mean_and_std(published: Path, tmp_path: Path) -> None:
    folder = variant(published, tmp_path / "other", "pickled")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    assert load_embedder(folder)[0].preprocess.mean == (0.5, 0.5, 0.5)
    assert load_embedder(folder)[0].preprocess.std == (0.229, 0.224, 0.225)


def test_a_small_picture_is_padded_with_black_and_says_so() -> None:
    pixels = np.full((20, 31, 3), 200, np.uint8)
    (view,), notes = cut(pixels, 32)
    assert notes == ("smaller than 32 x 32: padded with black",)
    assert view.shape == (32, 32, 3) and (view[6:26, :31] == 200).all()
    assert view.sum() == pixels.sum(), "all else is black"
    assert cut(np.zeros((32, 32, 3), np.uint8), 32).notes == ()


@pytest.mark.parametrize("shape", [(10, 10), (32, 32), (33, 90), (100, 70), (700, 500)])
@pytest.mark.parametrize("crops", CROPS)
def test_every_crop_is_a_part_of_the_picture(shape: tuple[int, int], crops: str) -> None:
    index = np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape)
    pixels = np.stack([index >> 16, index >> 8, index], axis=2).astype(np.uint8)
    views, _ = cut(pixels, 32, crops)
    assert all(view.shape == (32, 32, 3) and view.dtype == np.uint8 for view in views)
    assert len(views) == {"centre": 1, "five": 5}.get(crops, len(views)) <= 25
    if crops == "grid" and max(shape) <= 5 * 32:  # no pixel is left out
        seen = np.concatenate([v.reshape(-1, 3) for v in views]).astype(np.uint32)
        numbers = (seen[:, 0] << 16) + (seen[:, 1] << 8) + seen[:, 2]
        assert set(range(index.size)) <= set(numbers.tolist())


def test_aggregations_agree_on_one_crop_and_keep_their_names_promise() -> None:
    def score(e: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-e.sum(axis=1)))

    one, several = np.ones((1, 3)), np.array([[0.0], [0.0], [9.0]])
    assert len({aggregate(one, score, how) for how in AGGREGATIONS}) == 1
    assert aggregate(several, score, "max-score") == pytest.approx(score(several)[2])
    assert aggregate(several, score, "median-score") == 0.5
    assert aggregate(several, score, "mean-embedding") == pytest.approx(score(np.array([[3.0]]))[0])
    with pytest.raises(ModelError, match="mean-embedding, mean-score"):
        aggregate(one, score, "sum")


def test_our_folder_keeps_the_network(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = build({"architecture": "embedder", **SMALL})
    folder = save_model(model, tmp_path / "model")
    again, config = load_embedder(folder)
    assert isinstance(again, Embedder) and config["model"] == model.config
    assert load_model(folder)[0].config == model.config
    assert again.fingerprint() == model.fingerprint()
    with torch.inference_mode():
        assert torch.equal(again(images()), model.eval()(images()))


def test_the_default_is_the_published_size() -> None:
    model = Embedder()
    assert sum(p.numel() for p in model.parameters()) == 5_524_416
    assert model.config["heads"] == 3 and model.image_size == 224 and model.width == 192


def broken(published: Path, folder: Path, fault: str) -> Path:
    folder = variant(published, folder, "")
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    if fault == "another model":
        config["model_type"] = "clip"
    elif fault == "sizes":
        config["hidden_size"] = 25
    elif fault == "activation":
        config["hidden_act"] = "swish7"
    elif fault == "truncated":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif fault == "no weights":
        (folder / "model.safetensors").unlink()
    elif fault == "missing":
        del tensors["encoder.layer.1.attention.attention.key.weight"]
    elif fault == "unexpected":
        tensors["encoder.layer.0.lora.weight"] = torch.zeros(1)
    if fault in ("missing", "unexpected"):
        save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("another model", "is a clip, not a vit"),
        ("sizes", "no network has these sizes"),
        ("activation", "unknown hidden_act 'swish7'; valid: gelu"),
        ("truncated", "not a readable safetensors file"),
        ("no weights", "no such file"),
        ("missing", r"missing .*in_proj_weight \(of k\)"),
        ("unexpected", r"unexpected encoder\.layer\.0\.lora\.weight"),
    ],
)
def test_a_broken_folder_is_one_sentence(
    published: Path, tmp_path: Path, fault: str, words: str
) -> None:
    with pytest.raises(ModelError, match=words) as raised:
        load_embedder(broken(published, tmp_path / "broken", fault))
    assert "\n" not in str(raised.value) and "broken" in str(raised.value)


def test_a_localizer_is_not_an_embedder(model_folder: Path) -> None:
    with pytest.raises(ModelError, match="is a tracenet, which localizes edits"):
        load_embedder(model_folder)


def test_code_hidden_in_a_weights_file_is_refused(published: Path, tmp_path: Path) -> None:
    folder = variant(published, tmp_path / "evil", "pickled")
    torch.save({"x": Path("/tmp")}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be read without running code"):
        load_embedder(folder)


def spectra() -> Embedder:
    torch.manual_seed(0)
    return Embedder(width=24, layers=1, heads=3, mlp=48, image_size=64, stem="spectra").eval()


def test_the_stem_of_spectra_makes_a_token_of_every_half_overlapping_block() -> None:
    model = spectra()
    assert model.patches(images(2, 64)).shape == (2, 24, 3, 3)
    assert model(images(2, 64)).shape == (2, 24)


def test_the_stem_of_spectra_sees_upsampling_and_not_brightness() -> None:
    """A block's mean is taken out; a picture that was enlarged lacks its highest frequencies."""
    stem, picture_ = spectra().patches, images(1, 64)
    assert torch.allclose(stem(picture_), stem(picture_ + 0.7), atol=1e-3)
    enlarged = torch.nn.functional.interpolate(images(1, 32), scale_factor=2, mode="bilinear")
    assert (stem(picture_) - stem(enlarged)).abs().mean() > 0.1


def test_the_stem_of_spectra_is_saved_loaded_and_refused_by_name(tmp_path: Path) -> None:
    model = spectra()
    model.patches.standard.running_mean += 1.0  # statistics are part of the network
    again, _ = load_embedder(save_model(model, tmp_path / "m"))
    assert torch.equal(again(images(2, 64)), model(images(2, 64)))
    assert again.fingerprint() == model.fingerprint() != spectra().fingerprint()
    with pytest.raises(ModelError, match="blocks of 32 pixels"):
        Embedder(stem="spectra", patch=8)
    with pytest.raises(ModelError, match="unknown stem"):
        Embedder(stem="wavelets")


def traces(**sizes: int) -> Embedder:
    torch.manual_seed(0)
    sizes = {"width": 24, "layers": 1, "heads": 3, "mlp": 48, "image_size": 64, **sizes}
    return Embedder(**sizes, stem="traces").eval()  # type: ignore[arg-type]


def test_the_stem_of_traces_makes_a_token_of_every_16_pixels_and_a_summary() -> None:
    model = traces()
    tokens, summary = model.patches(images(2, 64))
    assert tokens.shape == (2, 24, 4, 4) and summary.shape == (2, 24)
    assert model(images(2, 64)).shape == (2, 24)
    assert model.preprocess == NATIVE, "TraceNet's own: [-1, 1] at native resolution"


def test_the_stem_of_traces_starts_as_a_localizers_encoder() -> None:
    """Its tokens are of TraceNet's own features, found here by running TraceNet itself."""
    torch.manual_seed(5)
    localizer = TraceNet(colours=True).eval()
    with torch.no_grad():  # statistics, too, are part of what is taken over
        for name, value in localizer.state_dict().items():
            if "running" in name:
                value.add_(torch.rand_like(value))
    model, maps, seen = traces(), {}, {}
    before = model.patches.tokens.weight.clone()
    model.patches.copy_encoder(localizer, "it")
    for name in ("down1", "down2", "down3"):
        layer = getattr(localizer, name)
        layer.register_forward_hook(lambda *made, name=name: maps.update({name: made[2]}))
    for name in ("standard", "standard_whole"):
        layer = getattr(model.patches, name)
        layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    inputs = images(2, 64).clamp(-1, 1)
    with torch.no_grad():
        localizer(inputs)
        model(inputs)
    # By hand: mean and standard deviation in the second cell of the first row, and of it all.
    for name, expected in (
        ("standard", [m[:, :, : m.shape[2] // 4, m.shape[3] // 4 :][..., : m.shape[3] // 4]
                      for m in maps.values()]),
        ("standard_whole", list(maps.values())),
    ):  # fmt: skip
        means = [m.mean((2, 3)) for m in expected]
        spreads = [m.std((2, 3), correction=0).clamp(min=1e-3) for m in expected]
        found = seen[name][..., 0, 1] if name == "standard" else seen[name]
        torch.testing.assert_close(found, torch.cat(means + spreads, 1), atol=1e-3, rtol=1e-3)
    assert torch.equal(model.patches.tokens.weight, before), "the rest stays its own"
    with pytest.raises(ModelError, match="it: is no TraceNet"):
        model.patches.copy_encoder(spectra(), "it")
    with pytest.raises(ModelError, match="it: is a TraceNet of other sizes"):
        model.patches.copy_encoder(TraceNet(widths=(8, 8, 8, 8, 8)), "it")


def test_the_stem_of_traces_is_saved_loaded_and_refused_by_name(tmp_path: Path) -> None:
    model = traces()
    model.patches.standard.running_mean += 1.0
    again, _ = load_embedder(save_model(model, tmp_path / "m"))
    assert torch.equal(again(images(2, 64)), model(images(2, 64)))
    assert again.preprocess == NATIVE
    assert again.fingerprint() == model.fingerprint() != traces().fingerprint()
    with pytest.raises(ModelError, match="16 x 16 pixels"):
        traces(patch=8)
    with pytest.raises(ModelError, match="patches, spectra, traces, both"):
        Embedder(stem="wavelets")


def both(**sizes: int) -> Embedder:
    torch.manual_seed(1)
    sizes = {"width": 24, "layers": 1, "heads": 3, "mlp": 48, "image_size": 64, **sizes}
    return Embedder(**sizes, spectra_layers=2, stem="both").eval()  # type: ignore[arg-type]


def test_an_embedder_on_both_says_what_one_on_traces_and_one_on_spectra_say() -> None:
    """Its embedding is theirs, one after the other; each may bring its weights."""
    torch.manual_seed(7)
    sizes = {"width": 24, "heads": 3, "mlp": 48, "image_size": 64}
    seen = Embedder(**sizes, layers=2, stem="spectra").eval()  # type: ignore[arg-type]
    known, model = traces(), both()
    inputs = images(2, 64).clamp(-1, 1)
    model.begin_as("traces", known, "it")
    assert torch.equal(model(inputs)[:, :24], known(inputs))
    assert not torch.allclose(model(inputs)[:, 24:], seen(inputs * NATIVE_SCALE), atol=1e-3)
    model.begin_as("spectra", seen, "it")
    assert torch.equal(model(inputs)[:, :24], known(inputs))
    assert torch.equal(model(inputs)[:, 24:], seen(inputs * NATIVE_SCALE))
    assert model(inputs).shape == (2, model.width) == (2, 48) and model.preprocess == NATIVE
    # spectra() has one layer, this one two.
    wrong = [("spectra", spectra()), ("traces", traces(width=48)), ("traces", both())]
    for part, other in [*wrong, ("traces", seen), ("spectra", known)]:
        with pytest.raises(ModelError, match=f"it: as the part on {part} of an embedder on both"):
            model.begin_as(part, other, "it")
    with pytest.raises(ModelError, match="it: as the part on traces of an embedder on both"):
        traces().begin_as("traces", known, "it")


def test_pictures_reach_spectra_about_as_imagenets_statistics_have_them() -> None:
    levels = images(1, 64).clamp(0, 1)

    def normalised(by: Preprocess) -> torch.Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (by.mean, by.std))
        return (levels - mean) / std

    native, code = normalised(NATIVE), normalised(CODE)
    stem = spectra().patches.spectra
    assert (stem(native * NATIVE_SCALE) - stem(code)).abs().mean() < 0.1
    assert (stem(native) - stem(code)).abs().mean() > 1


def test_an_embedder_on_both_is_saved_loaded_and_needs_blocks_of_spectra(tmp_path: Path) -> None:
    model = both()
    assert model.spectra is not None
    model.spectra.patches.standard.running_mean += 1.0
    again, _ = load_embedder(save_model(model, tmp_path / "m"))
    assert torch.equal(again(images(2, 64)), model(images(2, 64)))
    assert again.fingerprint() == model.fingerprint() != both().fingerprint()
    assert again.embed(picture(80, 90), "five").shape == (5, 48)
    with pytest.raises(ModelError, match="a stem of both takes blocks of 32 pixels"):
        both(image_size=16)
    with pytest.raises(ModelError, match="0 layers make no network"):
        Embedder(stem="both", spectra_layers=0)
    assert "spectra_layers" not in spectra().config, "an argument of those that have both alone"
