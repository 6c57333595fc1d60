"""convert.py: a published checkpoint -> a model folder that every command reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .checkpoint import save_model, weights_sha256
from .download import trusted_file
from .home import offline
from .ledger import read_record, sha256_of, write_record
from .localizer import Localizer
from .published import BackboneMissing, read_published
from .zoo import LICENCES, ZOO, Published, file_of, folder_of

Get = Callable[[str], Path]


def convert(
    source: str | Path,
    out: str | Path | None = None,
    *,
    backbones: Sequence[str | Path] = (),
    layer: str | None = None,
    heads: int | None = None,
    get: Get = trusted_file,
) -> Path:
    """Write a published checkpoint as a model folder with safetensors.

    Args:
        source: a .pth or .safetensors file, or the name of a published model that was downloaded.
        out: the folder; None for a published model: its own, where `forgemap.load` finds it.
        backbones: CLIP's weights for a file that holds the decoder alone: files (OpenAI's .pt, a
            state dict, or safetensors with the names of OpenAI or transformers) or ids of the
            Hugging Face hub. Empty: those of `zoo.ZOO` that the file needs.
        layer, heads: as in `read_published`.
        get: finds a published file by its name; the default takes those that are on this machine.

    Returns:
        The folder.

    Raises:
        ModelError: a file is missing or is not what it should be, CLIP's weights are needed and
            not here, a tensor does not fit (it is named), or the folder cannot be written.
    """
    entry = ZOO.get(str(source)) if not Path(source).exists() else None
    if entry is not None and entry.kind == "backbone":
        raise ModelError(f"{entry.name}: holds CLIP's weights and no decoder; nothing to convert.")
    target = out or (folder_of(entry) if entry else None)
    if target is None:
        raise ModelError(f"{source}: give the folder to write by --out.")
    path = get(entry.name) if entry else Path(source)
    known = entry or _by_file_name(path)
    given = [_file(backbone) for backbone in backbones]
    if not given and entry is not None and not entry.whole:
        given = [get(name) for name in entry.backbones]
    try:
        model = read_published(path, backbones=given, layer=layer, heads=heads)
    except BackboneMissing as missing:
        given = _needed(missing, known, get)
        model = read_published(path, backbones=given, layer=layer, heads=heads)

    source_facts = _facts(path, known, given)
    folder = save_model(
        model,
        target,
        extra={"published": source_facts},
        card=_card(model, path, known, source_facts),
    )
    if entry is not None and folder == folder_of(entry).resolve():
        write_record(entry, {**read_record(entry), "weights_sha256": weights_sha256(folder)})
    return folder


def _needed(missing: BackboneMissing, known: Published | None, get: Get) -> list[Path]:
    """The CLIP weights that fit a decoder alone, if they are here."""
    if known is not None:
        names = known.backbones
    elif missing.channels == 2048:  # 1024 of ViT-L/14 and as many of RN50's layer3
        names = ("clip-vit-l14", "clip-rn50")
    elif re.fullmatch(r"layer[1-4]", missing.layer):  # a ResNet's; few take a ViT's so early
        names = ("clip-rn50",)
    else:
        names = ("clip-vit-l14",)
    try:
        return [get(name) for name in names]
    except ModelError as error:
        if all(file_of(ZOO[name]).is_file() for name in names):
            raise  # they are here, and something is wrong with one
        commands = f"forgemap models download {' '.join(names)}"
        raise ModelError(
            f"{missing} It needs {' and '.join(names)}: run `{commands}`, or name the files by "
            "--backbone."
        ) from error


def _file(backbone: str | Path) -> Path:
    """A file as given, or the safetensors of a model of the Hugging Face hub."""
    if Path(backbone).is_file():
        return Path(backbone)
    if str(backbone) in ZOO:
        return trusted_file(str(backbone))
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(backbone)) or Path(backbone).suffix:
        raise ModelError(f"{backbone}: no such file.")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(backbone), "model.safetensors", local_files_only=offline()))
    except Exception as error:  # offline, unknown, private: many classes, one remedy
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{backbone}: no such file, and no model.safetensors of this name is to be had from "
            f"the Hugging Face hub ({reason})."
        ) from error


def _by_file_name(path: Path) -> Published | None:
    """The entry whose published file has this name."""
    for entry in ZOO.values():
        if entry.file == path.name and entry.kind == "localizer":
            return entry
    return None


def _facts(path: Path, known: Published | None, backbones: Sequence[Path]) -> dict[str, Any]:
    """Where the weights come from, for config.json."""
    facts: dict[str, Any] = {"file": path.name, "sha256": sha256_of(path)}
    if known is not None:
        licence = LICENCES[known.licence]
        facts |= {"name": known.name, "address": known.address, "licence": licence.name}
    facts["backbones"] = [{"file": file.name, "sha256": sha256_of(file)} for file in backbones]
    return facts


def _card(model: Localizer, path: Path, known: Published | None, facts: dict[str, Any]) -> str:
    """The model card."""
    config = model.config
    title = known.name if known else path.stem
    lines = []
    if known and known.licence == "cc-by-nc-sa-4.0":
        lines += ["---", "license: cc-by-nc-sa-4.0", "pipeline_tag: image-segmentation", "---"]
    lines += [
        f"# {title}",
        "",
        "A DeCLIP network (Smeu, Oneata and Oneata, WACV 2025, arXiv 2409.08849), converted by "
        f"Forgemap from the published file `{path.name}` (SHA-256 `{facts['sha256']}`).",
        "",
        f"- backbone {config['backbone']}, features of {config['layer']}, "
        f"decoder {config['decoder']}",
    ]
    for backbone in facts["backbones"]:
        lines.append(f"- backbone's weights: `{backbone['file']}` (SHA-256 `{backbone['sha256']}`)")
    if known:
        licence = LICENCES[known.licence]
        lines += [
            f"- trained on {known.training}",
            f"- use: {known.use}",
            f"- licence: {licence.name} ({licence.address}): {licence.summary}",
            f"- published at {known.address}",
        ]
    lines += [
        "",
        "Its verdict is the published one, the mean probability against one half, and is not "
        "calibrated: on mixed pictures the mean is a poor score. `forgemap calibrate` sets "
        "thresholds on pictures of your own. Pictures are resized to "
        f"{config['image_size']} x {config['image_size']}, so small edits can vanish.",
        "",
    ]
    return "\n".join(lines)
