"""What is loaded when: slow and optional libraries stay off the path of a plain analysis."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "forgemap"

HEAVY = {
    *("transformers", "diffusers", "lightning", "torchvision", "torchmetrics", "tensorboard"),
    *("skimage", "sklearn", "scipy", "matplotlib", "pandas", "yaml"),
    *("onnx", "onnxruntime", "onnxscript", "openvino", "nncf"),
}

# Module (or package) -> what of forgemap it may import, besides errors, files, cores and itself.
ALLOWED = {
    "cores": set(),
    "entries": set(),
    "answers": set(),
    "preprocess": set(),
    "pooling": set(),
    "compression": {"jpeg"},
    "familiarity": {"compression", "entries", "scoring"},
    "confidence": {"entries"},
    "outlines": set(),
    "copies": {"outlines"},
    "recompression": {"image", "models", "outlines", "pixels"},
    "report": {"confidence", "copies", "drawing", "outlines"},
    "report_html": {"drawing", "report"},
    "image": {"decode", "jpeg", "metadata", "pixels"},
    "credentials": {"decode"},
    "metadata": {"credentials", "decode", "pixels"},
    "models": {"preprocess"},
    "tiling": {"preprocess"},
    "windows": {"tiling"},
    "scoring": {"entries", "pooling"},
    "generated": {"classifiers", "engines", "entries", "image", "models", "scoring"},
    "model_folder": {"confidence", "engines", "familiarity", "models", "scoring"},
    "detector": {
        *(
            "answers",
            "compression",
            "confidence",
            "copies",
            "engines",
            "familiarity",
            "generated",
            "image",
            "model_folder",
            "pooling",
            "preprocess",
            "recompression",
            "report",
            "scoring",
            "tiling",
            "windows",
        ),
    },
    "engines": {"models", "preprocess"},
    "parity": {"detector", "engines", "image", "models", "scoring"},
    "export": {
        *("classifiers", "detector", "engines", "image", "model_folder", "models", "parity"),
    },
    "analysis": {"detector", "image", "report", "report_html"},
    "encode": set(),
    "data": {"encode", "image", "preprocess"},
    "neighbours": set(),
    "classifiers": {"neighbours"},
    "unpickle": {"classifiers", "neighbours"},
    "serve": {
        *("__version__", "decode", "detector", "generated", "image", "models"),
        *("report", "report_html"),
    },
    "client": {"copies", "report"},
    "scan": {"decode", "detector", "image", "report"},
}


def loaded_after(code: str) -> set[str]:
    """The names of all modules that a fresh interpreter has loaded after `code`."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=240
    )
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_import_forgemap_loads_nothing_else():
    loaded = loaded_after("import forgemap; forgemap.__version__; dir(forgemap)")
    assert {name for name in loaded if name.startswith("forgemap")} == {"forgemap"}
    assert loaded & {"torch", "numpy", "cv2", "PIL", "rich", "typer"} == set()


def test_analyze_loads_no_slow_or_optional_library(model_folder, photos, tmp_path):
    code = (
        "import sys; from forgemap.cli import app\n"
        f"sys.argv = ['forgemap', 'analyze', {str(photos)!r}, '--model', {str(model_folder)!r}, "
        f"'--out', {str(tmp_path / 'out')!r}]\n"
        "try: app()\n"
        "except SystemExit as end: assert end.code in (0, 1), end.code"
    )
    loaded = loaded_after(code)
    assert "forgemap.detector" in loaded
    assert {name.split(".")[0] for name in loaded} & HEAVY == set()
    inner = {name.split(".")[1] for name in loaded if name.startswith("forgemap.")}
    assert inner & {"train", "synth", "data", "evaluate"} == set()


def test_every_module_begins_by_saying_what_it_is_for():
    for path in SOURCE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize("name", ALLOWED)
def test_arrows_between_modules_point_one_way(name):
    own = SOURCE / name
    for path in own.rglob("*.py") if own.is_dir() else [own.with_suffix(".py")]:
        package = ("forgemap", *path.relative_to(SOURCE).parts[:-1])
        imported = {target.split(".")[1] for target in imports(path, package)}
        assert imported - ALLOWED[name] - {"errors", "files", "cores", name} == set(), path


def imports(path: Path, package: tuple[str, ...]) -> set[str]:
    """What of forgemap a module imports anywhere, as "forgemap.<module>…"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names = (alias.name for alias in node.names)
            found |= {f"forgemap.{n}" for n in names} if module == "forgemap" else {module}
    return {name for name in found if name.startswith("forgemap.")}
