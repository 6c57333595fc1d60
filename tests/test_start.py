"""The start of `forgemap analyze` with the bundled models: nothing is loaded for nothing."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from forgemap.cli.start import quickly
from forgemap.detector import Detector
from forgemap.model_folder import WEIGHTS
from forgemap.models.bare import build_bare
from forgemap.models.build import build
from forgemap.models.checkpoint import load_model, save_model

# What the default path needs, with what these bring along. A name that comes new costs every start.
NEEDED = {
    *("forgemap", "numpy", "safetensors", "PIL", "cv2", "typing_extensions"),
    *("typer", "shellingham", "rich", "annotated_doc"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),  # typer's
    *("jinja2", "markupsafe"),  # the report
}
# Of the interpreter and its virtual environment.
PYTHON = {"__main__", "__mp_main__", "_distutils_hack", "sitecustomize", "usercustomize"}
#: Forgemap's own packages that have no part in judging a picture.
IDLE = {"train", "synth", "data", "evaluate", "matrix", "serve", "scan", "export", "parity"}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What `forgemap analyze` of a photograph with both bundled models loads besides torch."""
    from PIL import Image

    from .conftest import picture

    folder = tmp_path_factory.mktemp("start")
    Image.fromarray(picture(96, 128)).save(folder / "small.jpg")
    code = (
        "import atexit, json, sys\n"
        "import torch\n"
        "before = {*sys.modules}\n"
        "def say(): print('modules', json.dumps([*({*sys.modules} - before)]), file=sys.stderr)\n"
        "atexit.register(say)\n"
        "from forgemap.cli import main\n"
        "main()"
    )
    command = ["analyze", str(folder / "small.jpg"), "--out", str(folder / "out")]
    run = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert run.returncode in (0, 1), run.stderr
    assert (folder / "out" / "report.html").is_file()
    report = json.loads((folder / "out" / "report.json").read_text())[0]
    assert report["generated"]["verdict"] and report["verdict"]  # both models were asked
    line = next(line for line in run.stderr.splitlines() if line.startswith("modules "))
    return set(json.loads(line.removeprefix("modules ")))


def test_the_default_path_loads_what_it_needs_and_no_other_library(loaded):
    foreign = {
        name.partition(".")[0]
        for name in loaded
        if name.partition(".")[0] not in sys.stdlib_module_names
    }
    rest = {name for name in foreign - PYTHON if not name.startswith(("_sysconfigdata", "__ed"))}
    assert rest - NEEDED == set()
    assert {"forgemap", "safetensors", "jinja2"} <= rest


def test_it_loads_no_more_of_torch_than_torch_itself_and_no_idle_part_of_forgemap(loaded):
    assert {name for name in loaded if name.partition(".")[0] == "torch"} == set()
    own = {name.split(".")[1] for name in loaded if name.startswith("forgemap.")}
    assert own & IDLE == set()
    engines = {name for name in loaded if name.startswith("forgemap.engines.")}
    assert not any(name.endswith(("onnx_engine", "openvino_engine", "graph")) for name in engines)


def test_the_collector_is_as_before_after_quick_imports():
    before = gc.isenabled()
    with quickly():
        assert not gc.isenabled()
    assert gc.isenabled() is before is True
    gc.disable()
    try:
        with quickly():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


@pytest.mark.parametrize("name", ["default", "embedder"])
def test_a_model_is_read_without_drawing_weights_first(name):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model, config = load_model(WEIGHTS / name)
    assert torch.rand(1) == expected  # not one random number was drawn
    other = build(config["model"])
    assert all(p.device.type == "cpu" and p.requires_grad for p in model.parameters())
    kinds = {key: (value.shape, value.dtype) for key, value in other.state_dict().items()}
    assert {k: (v.shape, v.dtype) for k, v in model.state_dict().items()} == kinds
    buffers = dict(model.named_buffers())  # those that are not saved, too
    assert {k for k, _ in other.named_buffers()} == buffers.keys()
    assert not any(value.is_meta for value in buffers.values())


def test_what_is_read_is_the_model_s_own(tmp_path: Path):
    """Replacing the file leaves a loaded model as it was."""
    config = {"architecture": "embedder", "width": 32, "layers": 2, "heads": 2, "mlp": 32}
    folder = save_model(build(config).eval(), tmp_path / "model")
    model, _ = load_model(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = folder / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.is_meta for p in build_bare(config).parameters())


def test_the_second_model_is_loaded_once(monkeypatch):
    import forgemap.models.checkpoint as checkpoint

    read = []
    real = checkpoint.read_safetensors
    monkeypatch.setattr(
        checkpoint, "read_safetensors", lambda path: (read.append(path), real(path))[1]
    )
    Detector.load()
    assert sorted(path.parent.name for path in read) == ["default", "embedder"]
