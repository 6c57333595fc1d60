"""engine_sides.py: the literal DeCLIP's tensors as our model, and its exports, kept.

What is made is kept in a folder, each part whole or not at all, so that a run may be stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.literal_declip import LiteralDeclip
from forgemap.engines.exported import Exported, open_export
from forgemap.engines.formats import write_files
from forgemap.engines.fronts import cut, traits_of
from forgemap.engines.graph import write_graph
from forgemap.engines.packed import accelerate, has_bf16
from forgemap.engines.record import Export, Parity
from forgemap.engines.samples import sample_photos
from forgemap.image import load_image
from forgemap.models.checkpoint import load_model, save_model
from forgemap.models.ledger import sha256_of
from forgemap.models.published import read_published

QUICK = {"width": 128, "blocks": 4, "heads": 2, "layer": 2, "channels": (16, 16, 8, 8), "depth": 1}
EXPORTS = (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))
CPU = torch.device("cpu")


def original(quick: bool) -> LiteralDeclip:
    """The literal network, the same tensors at every call."""
    torch.manual_seed(0)
    return LiteralDeclip(**(QUICK if quick else {})).eval()


def prepare(folder: Path, quick: bool, exports: Sequence[tuple[str, str]] = EXPORTS) -> None:
    """Ours of the literal network's tensors, and its exports, each in its folder; once.

    Each of them appears whole, so that a run that was stopped goes on after the last one.
    """
    left = [one for one in exports if not (folder / "-".join(one)).is_dir()]
    if not left and (folder / "model").is_dir():
        return
    if not (folder / "model").is_dir():
        literal = original(quick)
        published = read_published(literal.checkpoint(), heads=literal.sizes["heads"]).eval()
        save_model(published, folder / "model")
        del literal, published
    model: Any = load_model(folder / "model")[0]
    parts = cut(model)
    graph = folder / "graph" / "model.onnx"
    if not graph.parent.is_dir():
        with whole(graph.parent) as partial:
            write_graph(parts, torch.randn(2, 3, 224, 224), partial / graph.name)
    photos = [model.preprocess(load_image(path).pixels).numpy() for path in sample_photos()]
    config = (folder / "model" / "config.json").read_text()
    for kind, precision in left:
        with whole(folder / f"{kind}-{precision}") as target:
            feeds = ([photo] for photo in photos)
            write_files(graph, target, kind, precision, parts.front.inputs, feeds, "")
            files = {file.name: sha256_of(file) for file in target.iterdir()}
            # Random weights: what a record would prove of them means nothing, so none is claimed.
            unproved = Parity(0, "random weights", 0.0)
            made = Export(kind, precision, "", files, unproved, 1.0, traits=traits_of(model))
            (target / "export.json").write_text(made.to_json())
            (target / "config.json").write_text(config)


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to be filled, which takes its name when that is done."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    partial.rename(folder)


def engines_of(
    folder: Path, exports: Sequence[tuple[str, str]] = EXPORTS
) -> dict[str, Callable[[Tensor], Any]]:
    """Every engine's model by name."""
    models: dict[str, Callable[[Tensor], Any]] = {
        "21 blocks, SDPA, torch fp32": load_model(folder / "model")[0],
        "the same, packed linear layers": accelerate(load_model(folder / "model")[0], "fp32", CPU),
    }
    if has_bf16():
        models["torch bf16"] = accelerate(load_model(folder / "model")[0], "bf16", CPU)
    for kind, precision in exports:
        models[f"{kind} {precision}"] = opened(folder / f"{kind}-{precision}")
    return models


def opened(folder: Path) -> Exported:
    """An export without the check of its files, which is not what is measured."""
    from forgemap.engines.record import read_export
    from forgemap.preprocess import Preprocess

    config = json.loads((folder / "config.json").read_text())
    return open_export(folder, read_export(folder), Preprocess.from_dict(config["preprocess"]))
