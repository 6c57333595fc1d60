"""What is installed: the wheel holds every module, the weights, the templates and the licence."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import forgemap

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "forgemap"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel, built offline with the setuptools of this environment."""
    pytest.importorskip("setuptools", minversion="77")
    tree, out = (tmp_path_factory.mktemp(name) for name in ("tree", "wheel"))
    for path in ("pyproject.toml", "README.md", "LICENSE", "src"):
        # Links, because building writes beside the sources.
        copy_as_links(ROOT / path, tree / path)
    build = (
        "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", build, out], cwd=tree, check=True, capture_output=True, timeout=100
    )
    return zipfile.ZipFile(next(out.glob("*.whl")))


def copy_as_links(source: Path, target: Path) -> None:
    if source.is_file():
        target.symlink_to(source)
        return
    if source.suffix == ".egg-info" or source.name == "__pycache__":
        return
    target.mkdir()
    for child in source.iterdir():
        copy_as_links(child, target / child.name)


def test_wheel_holds_every_module_template_and_weight(wheel):
    inside = set(wheel.namelist())
    for path in SOURCE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            assert path.relative_to(SOURCE.parent).as_posix() in inside


def test_wheel_has_type_marker_licence_and_command(wheel):
    inside = wheel.namelist()
    assert "forgemap/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    (points,) = [name for name in inside if name.endswith("entry_points.txt")]
    assert "forgemap = forgemap.cli:main" in wheel.read(points).decode()


def test_wheel_metadata_states_version_licence_and_extras(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    metadata = wheel.read(name).decode()
    assert f"Version: {forgemap.__version__}\n" in metadata
    assert "License-Expression: Apache-2.0\n" in metadata
    extras = set(re.findall(r"^Provides-Extra: (\S+)$", metadata, re.M))
    models = {"clip", "lora", "diffusers", "train", "classify", "evaluate", "onnx", "openvino"}
    assert extras == models | {"synth", "shards", "embed", "scan", "ray", "serve", "dev", "all"} | {
        "credentials"
    }


def test_command_is_installed():
    (command,) = [p for p in entry_points(group="console_scripts") if p.name == "forgemap"]
    assert callable(command.load())


def test_constraints_pin_every_requirement_and_name_no_host():
    constraints = (ROOT / "constraints.txt").read_text()
    lines = [line for line in constraints.splitlines() if line and not line.startswith("#")]
    assert all(re.match(r"[a-z0-9-]+==[\w.]+( ; python_version >= \"3\.1\d\")?$", n) for n in lines)
    assert "://" not in constraints
    pinned = {line.split("==")[0] for line in lines}
    text = (ROOT / "pyproject.toml").read_text()
    project = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    required = re.findall(r"\"([A-Za-z0-9_.-]+)(?:[><=]|\")", project)
    assert {name.lower().replace("_", "-") for name in required} <= pinned


def test_licence_is_apache():
    assert "Apache License" in (ROOT / "LICENSE").read_text()
