"""Published checkpoints become model folders: nothing in them is run, misfits are named."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import forgemap
from forgemap.cli import app
from forgemap.errors import ForgemapError, ModelError
from forgemap.models.checkpoint import load_model, read_published
from forgemap.models.convert import convert
from forgemap.models.torchscript import is_torchscript, read_torchscript
from forgemap.models.zoo import ZOO

from .published_files import (
    RN50_WIDTH,
    VIT_WIDTH,
    State,
    checkpoint,
    decoder_tensors,
    rn50_tensors,
    save_torchscript,
    vit_tensors,
)
from .test_golden_declip import golden_images

FUSED = VIT_WIDTH + 16 * RN50_WIDTH


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what this machine has downloaded, or has a network."""
    monkeypatch.setenv("FORGEMAP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FORGEMAP_OFFLINE", "1")


@pytest.fixture(scope="module")
def vit() -> State:
    torch.manual_seed(1)
    return vit_tensors(blocks=4)


@pytest.fixture(scope="module")
def rn50() -> State:
    torch.manual_seed(2)
    return rn50_tensors()


@pytest.fixture(scope="module")
def decoder() -> State:
    torch.manual_seed(3)
    return decoder_tensors(VIT_WIDTH, fusion=False)


@pytest.fixture
def whole(vit: State, decoder: State, tmp_path: Path) -> Path:
    """A checkpoint that holds its ViT and CLIP's text tower."""
    state = {f"model.{name}": tensor for name, tensor in vit.items()}
    torch.save(checkpoint(state | decoder, "layer2"), tmp_path / "whole.pth")
    return tmp_path / "whole.pth"


@pytest.fixture
def run() -> Callable[..., Any]:
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def mask(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(golden_images(batch=1)).mask


def refused(match: str, call: Callable[[], object]) -> None:
    with pytest.raises(ModelError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


# TorchScript, as OpenAI publishes CLIP


def test_a_torchscript_archive_gives_the_tensors_that_torch_would(
    rn50: State, tmp_path: Path
) -> None:
    mixed = {
        **rn50,
        "halved": torch.randn(3).half(),
        "turned": torch.randn(4, 3).t(),
        "nothing": torch.zeros(0, 2),
        "flags": torch.tensor([True, False]),
    }
    save_torchscript(mixed, tmp_path / "x.pt")
    assert is_torchscript(tmp_path / "x.pt")
    found = read_torchscript(tmp_path / "x.pt")
    expected = torch.jit.load(tmp_path / "x.pt").state_dict()
    assert found.keys() == expected.keys() == mixed.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_views_of_one_storage_are_told_apart(tmp_path: Path) -> None:
    class Views(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            base = torch.arange(12.0)
            self.register_buffer("rows", base.view(3, 4)[1:])
            self.register_buffer("every_second", base[::2])
            self.sizes = [1, 2]
            self.name = "a name"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.save(torch.jit.script(Views()), tmp_path / "x.pt")
    found = read_torchscript(tmp_path / "x.pt")
    assert found["rows"].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert found["every_second"].tolist() == [0, 2, 4, 6, 8, 10]


class Hostile:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def archive(path: Path, content: bytes, **members: bytes) -> Path:
    """An archive that says it is TorchScript, with this data.pkl."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", content)
        file.writestr("x/constants.pkl", b"\x80\x02).")
        for name, body in members.items():
            file.writestr(f"x/{name.replace('__', '/')}", body)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_an_archive_is_refused_and_never_run(protocol: int, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    content = pickle.dumps({"weight": Hostile(trap)}, protocol=protocol)
    path = archive(tmp_path / "x.pt", content)
    refused("x.pt: (not as TorchScript|a damaged)", lambda: read_torchscript(path))
    assert not trap.exists()
    pickle.loads(content)  # it is a trap indeed
    assert trap.exists()


def test_damaged_archives_are_refused(rn50: State, tmp_path: Path) -> None:
    save_torchscript(rn50, tmp_path / "good.pt")
    content = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    refused("cut.pt: corrupt", lambda: read_published(tmp_path / "cut.pt"))
    at = content.index(rn50["visual.conv1.weight"].numpy().tobytes())
    (tmp_path / "bit.pt").write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    refused("bit.pt: a damaged TorchScript", lambda: read_torchscript(tmp_path / "bit.pt"))
    for bad in (b"", b"\x80\x02", b"\x80\x02.", b"\x80\x02}q\x01\x8c", b"\x80\x02(u."):
        path = archive(tmp_path / "x.pt", bad)
        refused("x.pt: ", lambda path=path: read_torchscript(path))  # type: ignore[misc]


def test_any_changed_byte_is_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    save_torchscript({"a.weight": torch.arange(6.0), "b": torch.ones(2, 3)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good:
        (name,) = [n for n in good.namelist() if n.endswith("/data.pkl")]
        content = good.read(name)
        data = {f"data__{n}": good.read(name.replace("data.pkl", f"data/{n}")) for n in (0, 1)}
    random = np.random.default_rng(0)
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] = random.integers(256)
        path = archive(tmp_path / "x.pt", bytes(changed), **data)
        with suppress(ModelError):  # and nothing else
            read_torchscript(path)


def test_a_tensor_may_not_reach_beyond_its_numbers(tmp_path: Path) -> None:
    save_torchscript({"weight": torch.arange(6.0)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good:
        (name,) = [n for n in good.namelist() if n.endswith("/data.pkl")]
        content = good.read(name)
        numbers = good.read(name.replace("data.pkl", "data/0"))
    # BININT1 6 is the storage's count, then MARK BININT1 6 TUPLE the tensor's shape.
    for old, new in ((b"(K\x06t", b"(K\x07t"), (b"(K\x01t", b"(K\x02t"), (b"K\x06tQ", b"K\x60tQ")):
        assert content.count(old) == 1
        path = archive(tmp_path / "x.pt", content.replace(old, new), data__0=numbers)
        refused("x.pt: ", lambda path=path: read_torchscript(path))  # type: ignore[misc]
    whole = archive(tmp_path / "x.pt", content, data__0=numbers)
    assert read_torchscript(whole)["weight"].tolist() == [0, 1, 2, 3, 4, 5]


# Conversion


def test_a_whole_file_becomes_a_folder_that_gives_the_same_answer(
    whole: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    result = run("convert", whole, "--out", tmp_path / "model")
    assert result.exit_code == 0, result.exception
    assert result.stdout.split() == [str(tmp_path / "model")]
    model, config = load_model(tmp_path / "model")
    assert torch.equal(mask(model), mask(read_published(whole)))
    assert config["published"]["file"] == "whole.pth"
    assert {f.name for f in (tmp_path / "model").iterdir()} == {
        "config.json", "model.safetensors", "README.md"
    }  # fmt: skip


def test_the_folder_judges_pictures(
    whole: Path, tmp_path: Path, photos: Path, run: Callable[..., Any]
) -> None:
    convert(whole, tmp_path / "model")
    result = run("analyze", photos / "a.png", "--model", tmp_path / "model", "--json", "--no-files")
    (report,) = json.loads(result.stdout)
    assert report["error"] is None and 0 <= report["score"] <= 1
    assert forgemap.load(tmp_path / "model").name == report["model"]


def test_backbones_may_be_given_in_any_published_form(
    vit: State, rn50: State, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    file = tmp_path / "fusion.pth"
    torch.save(checkpoint(decoder_tensors(FUSED, fusion=True), "layer2"), file)
    save_torchscript(vit, tmp_path / "vit.pt")
    save_torchscript(rn50, tmp_path / "rn50.pt")
    save_file(vit, tmp_path / "vit.safetensors")
    torch.save(rn50, tmp_path / "rn50.pth")
    one = convert(file, tmp_path / "a", backbones=[tmp_path / "vit.pt", tmp_path / "rn50.pt"])
    two = convert(
        file, tmp_path / "b", backbones=[tmp_path / "rn50.pth", tmp_path / "vit.safetensors"]
    )
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    model, config = load_model(one)
    assert config["model"]["backbone"] == "vit+rn50"
    assert torch.equal(mask(model), mask(read_published(file, backbones=[vit, rn50])))


@pytest.mark.parametrize(
    ("inputs", "layer", "needed"),
    [
        (2048, "layer20", "clip-vit-l14 clip-rn50"),
        (1024, "layer20", "clip-vit-l14"),
        (1024, "layer3", "clip-rn50"),
    ],
)
def test_a_decoder_alone_says_which_weights_it_needs(
    inputs: int, layer: str, needed: str, tmp_path: Path, run: Callable[..., Any]
) -> None:
    state = decoder_tensors(inputs, fusion=inputs == 2048)
    torch.save(checkpoint(state, layer), tmp_path / "decoder.pth")
    result = run("convert", tmp_path / "decoder.pth", "--out", tmp_path / "model")
    assert isinstance(result.exception, ModelError)
    assert f"run `forgemap models download {needed}`" in str(result.exception)
    assert "--backbone" in str(result.exception)
    assert not (tmp_path / "model").exists()


def test_a_file_is_known_by_its_published_name(whole: Path, tmp_path: Path) -> None:
    entry = ZOO["declip-vit-l14-coco-sd"]
    named = whole.rename(tmp_path / entry.file)
    folder = convert(named, tmp_path / "model")
    facts = json.loads((folder / "config.json").read_text())["published"]
    assert facts["name"] == entry.name and facts["licence"] == "CC BY-NC-SA 4.0"
    card = (folder / "README.md").read_text()
    assert entry.training in card and "license: cc-by-nc-sa-4.0" in card


SPOIL: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (lambda s: s.pop("fc.4.weight"), r"missing fc\.4\.weight"),
    "left over": (lambda s: s.update({"fc.0.mask": torch.ones(1)}), r"unexpected fc\.0\.mask"),
    "of another part": (lambda s: s.update({"head.bias": torch.ones(1)}), r"unexpected head\.bias"),
    "mis-shaped": (
        lambda s: s.update({"model.visual.ln_pre.bias": torch.ones(3)}),
        r"mis-shaped visual\.ln_pre\.bias is \(3,\), not \(64,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", SPOIL)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    fault: str, vit: State, decoder: State, tmp_path: Path, run: Callable[..., Any]
) -> None:
    spoil, said = SPOIL[fault]
    state = {f"model.{name}": tensor for name, tensor in vit.items()} | decoder
    spoil(state)
    torch.save(checkpoint(state, "layer2"), tmp_path / "x.pth")
    refused(said, lambda: convert(tmp_path / "x.pth", tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_that_needs_code_is_refused_with_the_reason(
    whole: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    content = torch.load(whole, weights_only=True) | {"share": Fraction(1, 2)}
    torch.save(content, tmp_path / "x.pth")
    result = run("convert", tmp_path / "x.pth", "--out", tmp_path / "model")
    assert isinstance(result.exception, ForgemapError)
    assert "without running code (fractions.Fraction)" in str(result.exception)


def test_wrong_calls_are_one_sentence(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    refused("is not a model folder", lambda: convert(whole, tmp_path / "taken"))
    assert os.listdir(tmp_path / "taken") == ["mine.txt"]
    refused("give the folder to write by --out", lambda: convert(whole))
    refused("missing.pth: no such file", lambda: convert("missing.pth", tmp_path / "model"))
    refused("holds its own backbone", lambda: convert(whole, tmp_path / "m", backbones=[whole]))
    refused("nothing to convert", lambda: convert("clip-rn50"))
    refused(
        "run: forgemap models download declip-vit-l14-ldm", lambda: convert("declip-vit-l14-ldm")
    )
    torch.save(checkpoint(decoder_tensors(8, fusion=False)), tmp_path / "d.pth")
    for backbone in ("nothing.pt", "no/where.pt"):
        refused(
            f"{backbone}: no such file",
            lambda backbone=backbone: convert(  # type: ignore[misc]
                tmp_path / "d.pth", tmp_path / "m", backbones=[backbone]
            ),
        )
    refused(
        "not to be had|is to be had",  # offline, as the fixture says
        lambda: convert(tmp_path / "d.pth", tmp_path / "m", backbones=["openai/no-such-model"]),
    )
