"""embed.py: pictures -> their embeddings in a Parquet file; a stopped run goes on.

embed(Model.load("code"), "d3-test", "d3.parquet")
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from ..classifiers import Source
from ..engines import Computed, load_embedder
from ..errors import DataError, ForgemapError, ModelError
from ..image import DEFAULT_MAX_PIXELS
from ..models.checkpoint import CONFIG, find_folder
from ..models.crops import CROPS
from ..models.embedder import Embedder
from . import facts as facts_of
from .embeddings import Embeddings, Row, join_files, read_embeddings, write_rows
from .robustness import variants
from .views import TRANSFORMED, View, Views, name_of, open_pictures

PART = 2048  # pictures between two savings


@dataclass(frozen=True, eq=False)
class Model:
    """An embedder in eval mode, and its identity."""

    network: Embedder
    source: Source
    folder: Path
    computed: Computed = field(default_factory=Computed)

    @classmethod
    def load(
        cls, name: str | Path, device: str = "cpu", *, engine: str = "auto", precision: str = "auto"
    ) -> Model:
        """ModelError: no such embedder, engine or export, or a device that is not here."""
        try:
            loaded = load_embedder(name, engine=engine, precision=precision, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"{device!r} cannot be used ({str(error).splitlines()[0]}).") from None
        network = loaded.model
        source = Source(str(name), network.fingerprint(), network.width)
        return cls(network, source, find_folder(name), loaded.computed)


def is_embedder(name: str | Path) -> bool:
    """Whether a model's config.json says that it is an embedder; False where there is none."""
    try:
        config = json.loads((find_folder(name) / CONFIG).read_text(encoding="utf-8"))
        return "model_type" in config or config["model"]["architecture"] == "embedder"
    except (ForgemapError, OSError, ValueError, KeyError, TypeError):
        return False  # whoever loads it says what is wrong


def _as_list(views: list[View]) -> list[View]:
    return views


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def embed(
    model: Model,
    data: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    recompress: Sequence[int] = (),
    robustness: bool = False,
    transforms: bool = False,
    crops: str = "centre",
    seed: int = 0,
    workers: int = 0,
    batch: int = 64,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: bool = True,
) -> Embeddings:
    """Embed every picture of a data set and keep the embeddings in a Parquet file.

    Args:
        data: folder, manifest or shards of real and generated pictures; see `views.open_pictures`.
        out: the file. A run that was stopped goes on; a file of the same run is only read.
        recompress, robustness, transforms: more variants of every picture: JPEG qualities, all
            `robustness.GRIDS`, and 0 to 2 of CoDE's transforms.
        crops: a key of `models.crops.CROPS`.
        workers: processes that read and decode; 0 = this one.
        batch: pictures at a time.
        max_pixels: larger pictures are not decoded and count as failures.

    Raises:
        DataError: no such data, a file of another run at `out`, or no picture that can be read.
    """
    out = Path(out)
    if crops not in CROPS:
        raise ModelError(f"unknown crops {crops!r}; valid: {', '.join(CROPS)}.")
    chosen = variants(list(recompress), robustness) + ([TRANSFORMED] if transforms else [])
    pictures = open_pictures(data, split, limit, seed)
    plan = {
        "fingerprint": model.source.fingerprint,
        "data_sha256": pictures.digest,
        "variants": [name_of(variant) for variant in chosen],
        "crops": crops,
        "seed": seed,
        "max_pixels": max_pixels,
    }
    if model.computed.precision != "fp32":  # other numbers than float32's
        plan["precision"] = model.computed.precision
    facts = {"plan": plan, "data": str(data), **facts_of.machine()}
    if out.is_file():
        found = read_embeddings(out, model.source)
        _same(out, found.facts.get("plan"), plan)
        return found
    parts = out.with_name(out.name + ".parts")
    views = Views(pictures, chosen, model.network, crops, seed, max_pixels)
    try:
        parts.mkdir(parents=True, exist_ok=True)
        at = parts / "plan.json"
        if at.is_file():
            _same(out, json.loads(at.read_text(encoding="utf-8")), plan)
        else:
            at.write_text(json.dumps(plan), encoding="utf-8")
        files = _write_parts(model, views, parts, facts, workers, batch, progress)
        join_files(files, out, model.source, facts)
        shutil.rmtree(parts)
    except (OSError, ValueError) as error:
        raise DataError(f"{out} cannot be written: {error}.") from None
    found = read_embeddings(out, model.source)
    if not len(found):
        out.unlink()
        raise DataError(f"No picture could be embedded. The first: {found.errors[0][1]}")
    return found


def _same(out: Path, earlier: Any, plan: dict[str, Any]) -> None:
    if earlier != plan:
        changed = [n for n in plan if not isinstance(earlier, dict) or earlier.get(n) != plan[n]]
        raise DataError(
            f"{out} is of a different run (another {' and '.join(changed)}): give another name."
        )


def _write_parts(
    model: Model,
    views: Views,
    parts: Path,
    facts: dict[str, Any],
    workers: int,
    batch: int,
    progress: bool,
) -> list[Path]:
    """The files of all parts; those that are there already are not made again."""
    total = -(-len(views) // PART)
    files = [parts / f"{number:06d}.parquet" for number in range(total)]
    done = next((n for n, file in enumerate(files) if not file.is_file()), total)
    left = range(done * PART, len(views))
    loader: DataLoader[View] = DataLoader(
        views,
        batch,
        sampler=left,
        num_workers=workers,
        collate_fn=_as_list,
        worker_init_fn=_one_thread,
    )
    console = Console(stderr=True, quiet=not progress)
    shown = track(
        _rows(model, views, loader),
        "Embedding",
        total=len(left),
        console=console,
        disable=not progress,
    )
    for file in files[done:]:
        rows = [row for some_rows in islice(shown, PART) for row in some_rows]
        write_rows(file, model.source, facts, rows)
    return files


@torch.inference_mode()
def _rows(model: Model, views: Views, loader: DataLoader[View]) -> Iterator[list[Row]]:
    """For each picture and variant its rows: one per crop, or one with the error."""
    device = model.network.class_token.device
    for together in loader:
        sound = [view.crops for view in together if view.crops is not None]
        vectors: Iterator[np.ndarray] = iter(())
        if sound:
            answer = model.network(torch.cat(sound).to(device)).float().cpu().numpy()
            vectors = iter(answer)
        for view in together:
            name, maker = views.pictures.names[view.place], views.pictures.generators[view.place]
            fixed = (name, maker, view.key, view.group, view.split, view.variant)
            if view.crops is None:
                yield [Row(*fixed, 0, view.error, None)]
            else:
                yield [Row(*fixed, n, "", next(vectors)) for n in range(len(view.crops))]
