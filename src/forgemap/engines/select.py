"""select.py: from a folder, an engine's name and a precision to what computes the model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..cores import keep_to_them
from ..errors import ModelError
from ..models import huggingface
from ..models.checkpoint import CONFIG, find_folder, load_model, weights_sha256
from ..models.embedder import Embedder
from ..preprocess import Preprocess
from .devices import usable
from .names import RUNTIMES, Computed, check_names, installed, require
from .record import RECORD, Export, check_files, exports_of, read_export

PUBLISHED = "transformers"
"""What `_kind` says of an embedder's folder in transformers' format."""


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
    #: See `Computed`.
    note: str = ""

    @property
    def computed(self) -> Computed:
        """How it is computed."""
        return Computed(self.engine, self.precision, self.note)


def load(
    folder: str | Path,
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str | torch.device = "cpu",
    strict: bool = True,
) -> Loaded:
    """A model by the engine that was asked for, or by the fastest that is proved.

    Args:
        folder: a model folder (or what `find_folder` knows), or one that `forgemap export` wrote.
        engine: a key of `ENGINES`. "auto" takes an export only if its own record shows that it is
            equal to torch for these very weights (see `record`) and faster; otherwise torch.
        precision: a key of `PRECISIONS`. "auto" goes below float32 only for an export, or for
            torch in bfloat16, that is proved in that precision and was faster.
        device: exports run on the CPU alone.
        strict: False: where this model cannot be had so, it is taken as with "auto".

    Raises:
        ModelError: an unknown name; an engine that is not installed (the extra is named); no such
            export; a corrupt one; a device that this machine lacks; all that `load_model` raises.
    """
    check_names(engine, precision)
    device = usable(device)
    keep_to_them()
    path = find_folder(folder)
    if (path / RECORD).is_file():
        free = ("auto", "auto") if not strict else (engine, precision)
        return _export_folder(path, *free, device)
    if engine in RUNTIMES and strict:
        require(engine)
        if device.type != "cpu":
            raise ModelError(f"the engine {engine} runs on the CPU; leave --device {device} out.")
    sha256 = weights_sha256(path)
    found = None
    if device.type == "cpu" and (engine != "torch" or precision == "auto"):
        exports = exports_of(path, sha256)
        found = _best(exports, engine, precision)
        if found is None and not strict:
            found = _best(exports, "auto", "auto")
    if found is not None and found[1].format != "torch":
        return _open(*found)
    if found is None and strict and engine in RUNTIMES:
        asked = "" if precision == "auto" else f" --precision {precision}"
        wanted = "" if precision == "auto" else f" in {precision}"
        raise ModelError(
            f"{path}: has no {engine} export of these weights{wanted}; make one: "
            f"forgemap export {folder} --format {engine}{asked}"
        )
    numbers = "fp32" if precision == "auto" else precision
    if found is not None:
        numbers = found[1].precision
    elif not strict and not _torch_computes(numbers, device):
        numbers = "fp32"
    return _with_torch(path, sha256, numbers, device)


def load_embedder(
    folder: str | Path,
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str | torch.device = "cpu",
    strict: bool = True,
) -> Loaded:
    """As `load`, of an embedder's folder (ours or a published one); a ModelError if it is none."""
    path = find_folder(folder)
    kind = _kind(path)
    if kind not in ("embedder", PUBLISHED, ""):
        raise ModelError(f"{path}: is a {kind}, which localizes edits; give an embedder's folder.")
    return load(path, engine=engine, precision=precision, device=device, strict=strict)


def _torch_computes(precision: str, device: torch.device) -> bool:
    from .packed import has_bf16

    return precision == "fp32" or (precision == "bf16" and (device.type != "cpu" or has_bf16()))


def _with_torch(path: Path, sha256: str, precision: str, device: torch.device) -> Loaded:
    from .lean import load_lean
    from .packed import accelerate, unpacked

    kind = _kind(path)
    network: Any
    if kind == PUBLISHED:
        network, config = huggingface.load_embedder(path, device)
    elif precision == "bf16" and device.type == "cpu" and kind != "embedder":
        network, config = load_lean(path)
    else:
        network, config = load_model(path, device)
    # Of the weights as they are stored: in another precision they are others.
    mark = network.fingerprint() if isinstance(network, Embedder) else None
    model: Any = accelerate(network, precision, device)
    if mark is not None:
        model.fingerprint = lambda: mark
    note = unpacked(model, device)
    if note:
        logging.getLogger("forgemap").warning("%s: %s, which is slower.", path, note)
    return Loaded(model, config, sha256, "torch", precision, note)


def _kind(path: Path) -> str:
    """The architecture that a config.json names; `PUBLISHED`; "" where whoever reads it objects."""
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        return PUBLISHED if "model_type" in config else str(config["model"]["architecture"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _best(
    exports: list[tuple[Path, Export]], engine: str, precision: str
) -> tuple[Path, Export] | None:
    """The fastest proved export; what was asked for by name need not be faster than torch."""
    fit = [
        (folder, export)
        for folder, export in exports
        if engine in ("auto", export.format)
        and precision in ("auto", export.precision)
        and _usable(export)
        and export.proved()
        and (engine in RUNTIMES or export.speed > 1)
    ]
    return max(fit, key=lambda one: one[1].speed, default=None)


def _usable(export: Export) -> bool:
    """Whether this machine has what it needs; torch's bfloat16 needs the processor's."""
    if export.format == "torch":
        return _torch_computes(export.precision, torch.device("cpu"))
    return export.format in RUNTIMES and installed(export.format)


def _export_folder(path: Path, engine: str, precision: str, device: torch.device) -> Loaded:
    export = read_export(path)
    if export.format == "torch":
        raise ModelError(
            f"{path}: proves torch in {export.precision} and holds no model; name the model's own "
            f"folder with --engine torch --precision {export.precision}."
        )
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
    model.config = dict(config.get("model", {}))
    return Loaded(model, config, export.weights_sha256, export.format, export.precision)
