"""export.py: `forgemap export`: a model for an engine or precision, proved on pictures first."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import engines
from .classifiers import KINDS
from .cores import available
from .engines.exported import open_export
from .engines.formats import LADDER, check_format, steps, write_files
from .engines.fronts import cut, traits_of
from .engines.graph import quiet, write_graph
from .engines.packed import has_bf16
from .engines.record import EXPORTS, RECORD, Export, Parity
from .errors import ModelError
from .image import Image
from .model_folder import WEIGHTS
from .models.checkpoint import CARD, CONFIG, find_folder, load_model, weights_sha256
from .models.embedder import Embedder
from .models.ledger import sha256_of
from .parity import calibration_inputs, compare, measure_speed, real_pictures

MOST = 64
"""Pictures that are compared, unless told otherwise."""


class Made(NamedTuple):
    """What `export` wrote."""

    folder: Path
    export: Export


def export(
    model: str | Path = "default",
    kind: str = "onnx",
    precision: str = "fp32",
    *,
    out: str | Path | None = None,
    calibrate: str | Path | None = None,
    limit: int = MOST,
    say: Callable[[str], None] = lambda line: None,
) -> Made:
    """Write a model for another engine, if its answers on pictures are those of torch.

    The folder holds the graph, config.json (with the preprocessing and the thresholds), a card
    and export.json with the comparison; it appears in one step, or not at all.

    Args:
        model: as for `Detector.load`, or an embedder's folder.
        kind: "onnx" or "openvino"; or "torch", for which the comparison alone is written.
        precision: "fp32", "bf16" (openvino, torch) or "int8".
        out: the folder; default: beside the weights, where `--engine auto` finds it.
        calibrate: a folder of pictures for the comparison and the calibration of int8; default:
            scikit-image's photographs. Pictures that cannot be read are left out.
        limit: pictures that are used at most, spread evenly over the folder.
        say: told what is being done, line by line.

    Raises:
        ModelError: a library that is missing (its extra is named), a model that cannot be
            exported, an export that does not match (nothing is left behind), or a folder that
            cannot be written.
    """
    if kind == "torch":
        _check_torch(precision, out)
    else:
        check_format(kind, precision)
    folder = find_folder(WEIGHTS / "default" if model == "default" else model)
    if (folder / RECORD).is_file():
        raise ModelError(f"{folder}: is an export already; name the model that it was made of.")
    target = Path(out) if out else folder / EXPORTS / f"{kind}-{precision}"
    _check_target(target)
    network, config = _load(folder)
    pictures = real_pictures(calibrate, limit)
    source = f"{calibrate or 'scikit-image'}: {len(pictures)} pictures"
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "graph").mkdir(parents=True)
        if kind == "torch":
            return _prove_torch(folder, target, partial, network, config, pictures, source, say)
        say("Tracing the model ...")
        parts = cut(network)
        graph = partial / "graph" / "model.onnx"
        write_graph(parts, _example(network), graph)
        reason = ""
        for skip in steps(precision):
            say(f"Writing {kind} in {precision}; left in float32: {LADDER[skip]} ...")
            files = partial / "files"
            shutil.rmtree(files, ignore_errors=True)
            files.mkdir()
            feeds = calibration_inputs(parts.front, network, pictures)
            with quiet():
                write_files(graph, files, kind, precision, parts.front.inputs, feeds, skip)
            draft = Export(
                format=kind,
                precision=precision,
                weights_sha256=weights_sha256(folder),
                files={file.name: sha256_of(file) for file in sorted(files.iterdir())},
                parity=Parity(0, source, float("inf")),
                speed=1.0,
                skipped="" if not skip else LADDER[skip],
                made=_made(),
                traits=traits_of(network),
            )
            stand_in = open_export(files, draft, network.preprocess)
            checked = pictures
            if precision == "int8" and len(pictures) >= 8:
                checked = pictures[1::2]  # others than those that set the ranges
            say(f"Comparing it with torch on {len(checked)} pictures ...")
            parity = compare(network, stand_in, config, checked, source)
            reason = parity.misses(precision) or ""
            if not reason:
                speed = measure_speed(network, stand_in, checked)
                made = replace(draft, parity=parity, speed=speed)
                _finish(files, folder, config, network, made)
                _replace(files, target)
                return Made(target, made)
        raise ModelError(f"{folder}: the {kind} export in {precision} does not match: {reason}.")
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if not out and not any(target.parent.glob("*")):
            shutil.rmtree(target.parent, ignore_errors=True)


def _check_torch(precision: str, out: str | Path | None) -> None:
    if precision != "bf16":
        raise ModelError(
            f"torch needs no export in {precision}; what is proved of it is --precision bf16."
        )
    if out is not None:
        raise ModelError("what proves torch in bf16 lies beside the weights: leave --out out.")
    if not has_bf16():
        raise ModelError(
            "this processor has no bfloat16 (avx512_bf16 or amx), so that torch in bf16 cannot be "
            "checked here."
        )


def _prove_torch(
    folder: Path,
    target: Path,
    partial: Path,
    network: Any,
    config: dict[str, Any],
    pictures: list[Image],
    source: str,
    say: Callable[[str], None],
) -> Made:
    """The record of torch in bfloat16, beside the weights that it is of; no second copy of them."""
    loaded = engines.load(folder, engine="torch", precision="bf16")
    say(f"Comparing bf16 with float32 on {len(pictures)} pictures ...")
    parity = compare(network, loaded.model, config, pictures, source)
    traits = traits_of(network)
    made = Export(
        *("torch", "bf16", loaded.weights_sha256, {}, parity),
        speed=measure_speed(network, loaded.model, pictures),
        skipped=loaded.note,
        made=_made(),
        traits=traits,
    )
    if reason := parity.misses("bf16"):
        raise ModelError(f"{folder}: torch in bf16 does not match: {reason}.")
    files = partial / "files"
    files.mkdir()
    _describe(files, folder, made)
    _replace(files, target)
    return Made(target, made)


def _load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The torch model and its config.json, of our own folders and of published embedders."""
    from .models.huggingface import load_embedder

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None  # `load_model` says it in one sentence
    if isinstance(config, dict) and "model_type" in config:
        embedder, _ = load_embedder(folder)
        own = {"model": embedder.config, "preprocess": embedder.preprocess.to_dict()}
        return embedder, own | {k: config[k] for k in ("generated",) if k in config}
    return load_model(folder)


def _example(network: Any) -> Tensor:
    """What the model is traced with: its own size, or an odd one that fixes nothing."""
    torch.manual_seed(0)
    if isinstance(network, Embedder):
        return torch.randn(2, 3, network.image_size, network.image_size)
    side = network.preprocess.size
    return torch.randn(2, 3, side, side) if side else torch.rand(2, 3, 74, 90) * 2 - 1


def _made() -> dict[str, Any]:
    names = ("torch", "onnx", "onnxruntime", "openvino", "nncf")
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except ImportError:
            continue
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {available()} cores",
        "threads": torch.get_num_threads(),
        **found,
    }


def _finish(files: Path, folder: Path, config: dict[str, Any], network: Any, made: Export) -> None:
    (files / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if isinstance(network, Embedder):  # its classifiers take the export's embeddings
        for name in KINDS:
            if (folder / f"{name}.safetensors").is_file():
                shutil.copyfile(folder / f"{name}.safetensors", files / f"{name}.safetensors")
    _describe(files, folder, made)


def _describe(files: Path, folder: Path, made: Export) -> None:
    """The card and the record."""
    parity = made.parity
    lines = [
        f"# {folder.resolve().name}, for {made.format} in {made.precision}",
        "",
        f"Written by `forgemap export`; made of the weights {made.weights_sha256[:12]}.",
        f"Compared with torch in float32 on {parity.pictures} pictures ({parity.source}): largest",
        f"difference {parity.largest_difference:.2g}"
        + ("" if parity.mask_iou is None else f", mean mask IoU {parity.mask_iou:.4f}")
        + ("" if parity.verdict_flips is None else f", {parity.verdict_flips} verdicts differ")
        + ("" if parity.cosine is None else f", smallest cosine {parity.cosine:.5f}")
        + ".",
        f"Left in float32: {made.skipped or 'nothing'}." if made.precision == "int8" else "",
    ]
    (files / CARD).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (files / RECORD).write_text(made.to_json(), encoding="utf-8")


def _check_target(target: Path) -> None:
    if target.is_dir() and any(target.iterdir()) and not (target / RECORD).is_file():
        raise ModelError(f"{target}: holds something that is no export; give a new folder.")
    if target.exists() and not target.is_dir():
        raise ModelError(f"{target}: is a file; give a new folder.")


def _replace(files: Path, target: Path) -> None:
    previous = target.with_name(f".{target.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        os.rename(target, previous)
    os.rename(files, target)
    shutil.rmtree(previous, ignore_errors=True)
