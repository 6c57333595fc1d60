"""Model folders: what is saved comes back, strictly, and is never half there."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from forgemap.errors import ModelError
from forgemap.models.checkpoint import find_folder, load_model, save_model, weights_sha256
from forgemap.models.localizer import Localizer, declip


def small(seed: int = 0) -> Localizer:
    torch.manual_seed(seed)
    return declip("xception", "layer1", "linear", xception_channels=[2, 2, 4])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(small(), tmp_path / "model")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.ones(1, 3, 224, 224)).mask


def test_a_folder_is_a_config_weights_and_a_card(tmp_path: Path) -> None:
    decision = {"threshold": 0.5}
    model = small().eval()
    folder = save_model(model, tmp_path / "a" / "b", extra={"decision": decision}, card="# Mine\n")

    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    again, config = load_model(folder)
    assert not again.training
    assert torch.equal(logits(again), logits(model))
    assert config["decision"] == decision
    assert config["preprocess"] == model.preprocess.to_dict()
    assert again.preprocess == model.preprocess
    assert (folder / "README.md").read_text() == "# Mine\n"
    assert "\n  " in (folder / "config.json").read_text()  # for people, too
    assert len({p.stat().st_mode for p in folder.iterdir()}) == 1  # no file is private


def test_preprocessing_is_the_folders_own(folder: Path) -> None:
    edit_config(folder, lambda config: config["preprocess"].update(interpolation="bicubic"))
    assert load_model(folder)[0].preprocess.interpolation == "bicubic"


def test_the_hash_is_that_of_the_weights(folder: Path, tmp_path: Path) -> None:
    same = save_model(small(), tmp_path / "same", extra={"training": 1}, card="other words")
    other = save_model(small(seed=1), tmp_path / "other")
    assert weights_sha256(folder) == weights_sha256(same) != weights_sha256(other)
    assert len(weights_sha256(folder)) == 64


def test_saving_again_replaces_the_model_and_keeps_other_files(folder: Path) -> None:
    (folder / "logs").mkdir()
    (folder / "logs" / "loss.csv").write_text("1,2\n")
    log = (folder / "logs" / "loss.csv").open("a")

    save_model(small(seed=1), folder)
    log.write("3,4\n")  # by who had it open all along
    log.close()

    assert torch.equal(logits(load_model(folder)[0]), logits(small(seed=1).eval()))
    assert (folder / "logs" / "loss.csv").read_text() == "1,2\n3,4\n"
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_model(folder: Path) -> None:
    before = weights_sha256(folder)
    broken = small(seed=1)
    broken.extra = torch.nn.Parameter(torch.empty(3, device="meta"))  # cannot be written
    with pytest.raises((ModelError, NotImplementedError)):
        save_model(broken, folder)
    with pytest.raises(TypeError):
        save_model(small(seed=1), folder, extra={"not": {"for JSON"}})
    assert weights_sha256(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_save_killed_between_its_renames_is_mended(folder: Path) -> None:
    before = weights_sha256(folder)
    folder.rename(folder.with_name(".model.previous"))
    folder.with_name(".model.partial").mkdir()
    assert weights_sha256(folder) == before  # the old one is still read
    save_model(small(seed=1), folder)
    assert weights_sha256(folder) != before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


@pytest.mark.slow
def test_killed_at_any_moment_a_model_is_left(folder: Path) -> None:
    code = (
        "import sys; from tests.test_checkpoint import save_model, small\n"
        "models = [small(0), small(1)]; print('ready', flush=True)\n"
        "while True: [save_model(model, sys.argv[1]) for model in models]"
    )
    for trial in range(6):
        process = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.02 + 0.011 * trial)
        process.send_signal(signal.SIGKILL)
        process.wait()
        load_model(folder)


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"photos: exists and is not a model folder"):
        save_model(small(), tmp_path / "photos")
    with pytest.raises(ModelError, match=r"holiday\.jpg: exists and is not a model folder"):
        save_model(small(), tmp_path / "photos" / "holiday.jpg")
    assert (tmp_path / "photos" / "holiday.jpg").read_bytes() == b"x"
    (tmp_path / "empty").mkdir()
    save_model(small(), tmp_path / "empty")


def test_a_model_that_could_not_be_built_again_is_not_saved(tmp_path: Path) -> None:
    model = small()
    with pytest.raises(ModelError, match="how to build it again"):
        save_model(Localizer(model.backbone, model.decoder), tmp_path / "model")


def test_extra_may_not_replace_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="may not replace model"):
        save_model(small(), tmp_path / "model", extra={"model": {}})


def edit_config(folder: Path, change: Callable[[dict], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"model: no such model folder"),
    "no config": (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
    "config is not JSON": (
        lambda f: (f / "config.json").write_text("{"),
        r"config\.json: not read",
    ),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "no 'model' entry"),
    "no preprocess": (lambda f: edit_config(f, lambda c: c.pop("preprocess")), "no 'preprocess'"),
    "bad preprocess": (
        lambda f: edit_config(f, lambda c: c["preprocess"].update(blur=1)),
        r"config\.json: .*'blur'",
    ),
    "bad architecture": (
        lambda f: edit_config(f, lambda c: c["model"].update(architecture="x")),
        r"config\.json: unknown architecture 'x'; valid: declip, tracenet",
    ),
    "bad argument": (
        lambda f: edit_config(f, lambda c: c["model"].update(colour="red")),
        r"config\.json: declip: unknown argument 'colour'",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: no such"),
    "truncated weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}"),
        r"not a readable safetensors",
    ),
    "missing tensor": (
        lambda f: edit_weights(f, lambda t: t.pop("decoder.linear.bias")),
        r"missing decoder\.linear\.bias\.",
    ),
    "unexpected tensor": (
        lambda f: edit_weights(f, lambda t: t.update(more=torch.ones(1))),
        r"unexpected more\.",
    ),
    "mis-shaped tensor": (
        lambda f: edit_weights(f, lambda t: t.update({"decoder.linear.bias": torch.ones(7)})),
        r"mis-shaped decoder\.linear\.bias is \(7,\), not \(1,\)",
    ),
    "many missing": (
        lambda f: edit_weights(f, lambda t: [t.pop(k) for k in list(t) if "bn" in k]),
        r"missing [^;]* and \d+ more",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_is_one_sentence_naming_the_file(fault: str, folder: Path) -> None:
    spoil, said = BROKEN[fault]
    spoil(folder)
    with pytest.raises(ModelError, match=said) as error:
        load_model(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_a_file_is_not_a_model_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match="is a file"):
        load_model(folder / "config.json")


def test_hub_models_come_from_the_cache_when_offline(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "models--someone--tiny-model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, cached / "snapshots" / ("0" * 40))

    assert weights_sha256("someone/tiny-model") == weights_sha256(folder)
    with pytest.raises(ModelError, match="someone/else: no such folder") as error:
        find_folder("someone/else")
    assert "\n" not in str(error.value)
