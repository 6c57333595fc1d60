"""checkpoint.py: a model <-> its folder (config.json, model.safetensors, README.md), strictly."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from ..errors import ModelError
from ..preprocess import Preprocess
from .bare import build_bare
from .build import BUILDERS
from .home import offline
from .ledger import sha256_of
from .published import read_published
from .strict import load_strictly, read_safetensors
from .zoo import ZOO, ready_folder

__all__ = ["find_folder", "load_model", "read_published", "save_model", "weights_sha256"]

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PICKLED = "pytorch_model.bin"
"""Weights of published folders, where they have no safetensors; read as data (see `strict`)."""


def save_model(
    model: nn.Module,
    folder: str | Path,
    *,
    extra: Mapping[str, Any] | None = None,
    card: str | None = None,
    half: bool = False,
) -> Path:
    """Write `model` as a folder that `load_model` reads, and that can be pushed to a hub as it is.

    The folder appears in one step: a crash leaves the one before or the new one, never half of
    one and never nothing. Other files in an existing model folder are kept.

    Args:
        model: any model of `build.BUILDERS` (it carries ``config`` and ``preprocess``).
        folder: where to; made with its parents. An existing model folder is replaced.
        extra: more JSON-able entries of config.json, such as ``decision`` or ``training``.
        card: the text of README.md, the model card; a two-line one if None.
        half: keep matrices in 16 bits (see `in_half`).

    Returns:
        The folder.

    Raises:
        ModelError: the folder cannot be written, or holds something that is not a model.
    """
    described: Any = model  # every model carries its config and preprocess
    made_of, state = described.config, model.state_dict()
    if hasattr(model, "portable"):  # some learn in another form than they are used in
        made_of, state = described.portable()
    config = {
        "forgemap": _forgemap_version(),
        "model": made_of,
        "preprocess": described.preprocess.to_dict(),
    }
    if described.config.get("architecture") not in BUILDERS:
        raise ModelError(f"{folder}: the model's config does not say how to build it again.")
    if taken := sorted(config.keys() & (extra or {}).keys()):
        raise ModelError(f"{folder}: extra may not replace {', '.join(taken)} of {CONFIG}.")
    if card is None:
        name = Path(folder).resolve().name
        card = f"# {name}\n\nA model of Forgemap: `forgemap analyze --model {name}`.\n"
    state = in_half(state) if half else state
    return write_folder(folder, {**config, **(extra or {})}, state, card)


def in_half(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices and filters in float16, half the bytes; vectors, such as variances, as they are."""
    return {
        name: t.half() if t.is_floating_point() and t.ndim >= 2 else t
        for name, t in tensors.items()
    }


def write_folder(
    folder: str | Path, config: Mapping[str, Any], state: Mapping[str, torch.Tensor], card: str
) -> Path:
    """Write a folder of config.json, model.safetensors and README.md, as `save_model` promises it.

    Raises:
        ModelError: the folder cannot be written, or holds something that is not a model.
    """
    text = json.dumps(config, indent=2) + "\n"
    folder = Path(folder).resolve()
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.items()}
    fresh = folder.with_name(f".{folder.name}.partial")
    try:
        _check_target(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        (fresh / CONFIG).write_text(text, encoding="utf-8")
        (fresh / CARD).write_text(card, encoding="utf-8")
        save_file(tensors, fresh / WEIGHTS, metadata={"format": "pt"})
        shutil.copymode(fresh / CONFIG, fresh / WEIGHTS)  # save_file's are private
        _put_in_place(fresh, folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot be written ({error}).") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def load_model(
    folder: str | Path, device: str | torch.device = "cpu"
) -> tuple[nn.Module, dict[str, Any]]:
    """Read a model folder.

    Args:
        folder: a folder that `save_model` wrote; or, if there is no such folder, the name of a
            published model that was downloaded before (`zoo.ZOO`), or ``owner/name``, a model of
            the Hugging Face hub, downloaded once and cached.
        device: where the model goes.

    Returns:
        The model in eval mode, and its whole config.json.

    Raises:
        ModelError: a missing folder or file, a corrupt one, or weights with a missing,
            unexpected or mis-shaped tensor, which is named.
    """
    folder = find_folder(folder)
    config = _read_config(folder)
    try:
        model: Any = build_bare(config["model"])
        model.preprocess = Preprocess.from_dict(config["preprocess"])
    except ModelError as error:
        raise ModelError(f"{folder / CONFIG}: {error}") from error
    tensors, _ = read_safetensors(folder / WEIGHTS)
    load_strictly(model, tensors, str(folder / WEIGHTS))
    return model.to(device).eval(), config


def weights_sha256(folder: str | Path) -> str:
    """SHA-256 (hex) of a model folder's weights file: which model made a report.

    Of published folders that have no model.safetensors it is pytorch_model.bin, as they are read.
    """
    path = find_folder(folder) / WEIGHTS
    if not path.is_file() and path.with_name(PICKLED).is_file():
        path = path.with_name(PICKLED)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; the model folder is incomplete.")
    return sha256_of(path)


def find_folder(folder: str | Path) -> Path:
    """The local folder of a model: as given, or the one made of a published model (a name of
    `zoo.ZOO`; never downloaded here), or downloaded if it is a hub id (``owner/name``)."""
    path = Path(folder)
    if path.is_dir():
        return path
    if _previous(path).is_dir():  # a save was killed between its two renames
        return _previous(path)
    if path.exists():
        raise ModelError(f"{path}: is a file; give the model's folder.")
    if str(folder) in ZOO:
        return ready_folder(str(folder))
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(folder)):
        raise ModelError(f"{path}: no such model folder.")
    from huggingface_hub import snapshot_download

    try:
        # Some publish their weights pickled alone; those are read as data (see `strict`).
        names = [CONFIG, "preprocessor_config.json", CARD, WEIGHTS]
        names += ["linear.safetensors", "nearest.safetensors", "one-class.safetensors"]
        for files in (names, [*names, PICKLED]):
            found = Path(
                snapshot_download(str(folder), allow_patterns=files, local_files_only=offline())
            )
            if (found / WEIGHTS).is_file():
                break
        return found
    except Exception as error:  # offline, unknown, private: many classes, one remedy
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{folder}: no such folder, and not to be had from the Hugging Face hub ({reason})."
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: not a model folder, it has no {CONFIG}.") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error}).") from error
    for entry in ("model", "preprocess"):
        if not isinstance(config, dict) or not isinstance(config.get(entry), dict):
            raise ModelError(f"{path}: has no {entry!r} entry; was it written by Forgemap?")
    return config


def _check_target(folder: Path) -> None:
    """Finish what a killed save left undone; refuse to replace what is not a model."""
    if not folder.exists() and _previous(folder).is_dir():
        os.rename(_previous(folder), folder)
    if not folder.exists() or (folder / CONFIG).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise ModelError(f"{folder}: exists and is not a model folder; give a new folder.")


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Make `fresh` the model folder `folder`; what else an older one held is linked into it."""
    if not folder.exists():
        os.rename(fresh, folder)
        return
    previous = _previous(folder)
    shutil.rmtree(previous, ignore_errors=True)
    ours = shutil.ignore_patterns(CONFIG, WEIGHTS, CARD)
    shutil.copytree(folder, fresh, ignore=ours, copy_function=_link, dirs_exist_ok=True)
    os.rename(folder, previous)
    try:
        os.rename(fresh, folder)
    except OSError:
        os.rename(previous, folder)
        raise
    shutil.rmtree(previous, ignore_errors=True)


def _link(source: str, target: str) -> None:
    """Hard link, so that a file that somebody is writing stays that file; copy where it cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _previous(folder: Path) -> Path:
    """Where the old folder waits while the new one takes its name; read if that was interrupted."""
    return folder.with_name(f".{folder.name}.previous")


def _forgemap_version() -> str:
    try:
        return version("forgemap")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
