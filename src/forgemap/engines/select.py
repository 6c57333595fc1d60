"""select.py: from a folder, an engine's name and a precision to what computes the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import ModelError
from ..models.checkpoint import CONFIG, find_folder, load_model, weights_sha256
from ..preprocess import Preprocess
from .names import check_names, installed, require
from .record import RECORD, Export, check_files, exports_of, read_export


class Loaded(NamedTuple):
    """A model that is ready to be called, and what it rests on."""

    #: The torch model, or an `exported.Exported` that stands in for it.
    model: Any
    #: The model's config.json.
    config: dict[str, Any]
    #: Of the weights, hex; an export's are those that it was made of.
    weights_sha256: str
    #: "torch", "onnx" or "openvino".
    engine: str
    #: "fp32", "bf16" or "int8".
    precision: str


def load(
    folder: str | Path,
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str | torch.device = "cpu",
) -> Loaded:
    """A model by the engine that was asked for, or by the fastest that is proved.

    Args:
        folder: a model folder (or what `find_folder` knows), or one that `forgemap export` wrote.
        engine: a key of `ENGINES`. "auto" takes an export only if its own record shows that it is
            equal to torch for these very weights (see `record`) and faster; otherwise torch.
        precision: a key of `PRECISIONS`. "auto" goes below float32 only for an export that is
            proved in that precision.
        device: exports run on the CPU alone.

    Raises:
        ModelError: an unknown name; an engine that is not installed (the extra is named); no such
            export; a corrupt one; and all that `load_model` raises.
    """
    check_names(engine, precision)
    device = torch.device(device)
    path = find_folder(folder)
    if (path / RECORD).is_file():
        return _export_folder(path, engine, precision, device)
    if engine in ("onnx", "openvino"):
        require(engine)
        if device.type != "cpu":
            raise ModelError(f"the engine {engine} runs on the CPU; leave --device {device} out.")
    sha256 = weights_sha256(path)
    if engine != "torch" and device.type == "cpu":
        found = _best(exports_of(path, sha256), engine, precision)
        if found is not None:
            return _open(*found)
    if engine in ("onnx", "openvino"):
        asked = "" if precision == "auto" else f" --precision {precision}"
        wanted = "" if precision == "auto" else f" in {precision}"
        raise ModelError(
            f"{path}: has no {engine} export of these weights{wanted}; make one: "
            f"forgemap export {folder} --format {engine}{asked}"
        )
    from .lean import load_lean
    from .packed import accelerate

    numbers = "fp32" if precision == "auto" else precision
    if numbers == "bf16" and device.type == "cpu":
        network, config = load_lean(path)
    else:
        network, config = load_model(path, device)
    return Loaded(accelerate(network, numbers, device), config, sha256, "torch", numbers)


def _best(
    exports: list[tuple[Path, Export]], engine: str, precision: str
) -> tuple[Path, Export] | None:
    """The fastest proved export; what was asked for by name need not be faster than torch."""
    fit = [
        (folder, export)
        for folder, export in exports
        if engine in ("auto", export.format)
        and precision in ("auto", export.precision)
        and installed(export.format)
        and export.proved()
        and (engine != "auto" or export.speed > 1)
    ]
    return max(fit, key=lambda one: one[1].speed, default=None)


def _export_folder(path: Path, engine: str, precision: str, device: torch.device) -> Loaded:
    export = read_export(path)
    for kind, asked, own in (
        ("engine", engine, export.format),
        ("precision", precision, export.precision),
    ):
        if asked not in ("auto", own):
            raise ModelError(
                f"{path}: is an export for {export.format} in {export.precision}; "
                f"{kind} {asked} needs the model's own folder."
            )
    if device.type != "cpu":
        raise ModelError(f"{path}: is an export, which runs on the CPU; leave --device out.")
    return _open(path, export)


def _open(folder: Path, export: Export) -> Loaded:
    from .exported import open_export

    require(export.format)
    check_files(folder, export)
    path = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        preprocess = Preprocess.from_dict(config["preprocess"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged ({error}); export the model again.") from error
    model = open_export(folder, export, preprocess)
    return Loaded(model, config, export.weights_sha256, export.format, export.precision)
