"""features.py: what a frozen backbone makes of pictures, computed once, then read by every epoch.

Nothing in the cache can be stale: what features depend on (weights, preprocessing, perturbation,
a picture's bytes, this package's code, a library's version) is part of their file's name.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from lightning_fabric import Fabric
from rich.progress import Progress
from safetensors.torch import save
from torch import nn
from torch.utils.data import Dataset, default_collate

from ..data.masks import load_mask
from ..data.records import Record
from ..data.views import View, WholeDataset, perturbed
from ..errors import DataError, ForgemapError
from ..image import load_image
from ..models.output import Features
from .config import LocalizerConfig
from .shelf import Shelf, Wanted, digests, entries, in_use, make_room, on_disk, readable, write
from .state import fingerprint
from .validation import Held

# Arguments of `declip` that say nothing about the backbone; any other takes part in the key.
DECODER_ONLY = {
    *("decoder", "channels", "skip_upsampling", "decoder_heads", "causal", "gradcam_hidden")
}
LIBRARIES = ("torch", "transformers", "numpy", "pillow", "opencv-contrib-python-headless")


def frozen(backbone: nn.Module) -> bool:
    """Whether training changes nothing in a backbone and chance has no part in its answer."""
    learns = any(p.requires_grad for p in backbone.parameters())
    return not learns and not any(module.training for module in backbone.modules())


class FeatureCache:
    """The features that one run needs.

    Args:
        config: of the run, with its ``cache`` and ``cache_limit``.
        network: in train mode, as the run starts with it.
        records, held_out: the pictures to train and to validate on.

    Raises:
        ForgemapError: a backbone that learns; a limit or a disk that is too small. Nothing has
            been written then.
        DataError: a picture that cannot be read.
    """

    def __init__(
        self,
        config: LocalizerConfig,
        network: nn.Module,
        records: Sequence[Record],
        held_out: Sequence[Record],
    ) -> None:
        backbone = getattr(network, "backbone", None)
        if backbone is None or not frozen(backbone):
            raise ForgemapError(
                f"{config.cache}: features can be kept of a frozen backbone alone, and this one "
                "learns; train without --cache."
            )
        self.network: Any = network
        self.root = Path(config.cache)
        self.limit = int(config.cache_limit * 1e9)
        self.settings = settings(config, network)
        text = json.dumps(self.settings, sort_keys=True)
        self.folder = self.root / hashlib.sha256(text.encode()).hexdigest()
        files = digests({record.image for record in (*records, *held_out)})
        self.shelf = Shelf(self.folder, files, config.seed)
        train = [
            Wanted(record, config.perturb, number)
            for record in records
            for number in range(config.views or 1)
        ]
        held = [Wanted(record, "none", 0) for record in held_out]
        self.wanted = {self.shelf.path(w): w for w in (*train, *held)}
        self._check_size()

    def fill(self, fabric: Fabric, batch: int, bar: Progress, interrupted: threading.Event) -> None:
        """Compute what is missing, every process its share, until it is complete or interrupted.

        Only one run fills a cache at a time; others wait, and then find what it has made. What was
        made stays, whatever ends the run.
        """
        lock = FileLock(self.root / "cache.lock")
        try:
            missing: list[str] = []
            if fabric.is_global_zero:
                with on_disk(self.root):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    lock.acquire()
                missing = self._plan()
            missing = fabric.broadcast(missing)
            mine = missing[fabric.global_rank :: fabric.world_size]
            task = bar.add_task("features", total=len(mine), loss="", visible=bool(mine))
            for done in range(0, len(mine), batch):
                if interrupted.is_set():
                    break
                names = mine[done : done + batch]
                self._compute(fabric, [Path(name) for name in names])
                bar.advance(task, len(names))
            fabric.barrier()
        finally:
            lock.release()

    def held(self, records: Sequence[Record]) -> Iterator[Held]:
        """Held-out pictures for `validate`, as features, one by one, on the network's device."""
        device = next(self.network.parameters()).device
        for record in records:
            features, shape = self.shelf.read(Wanted(record, "none", 0))
            grid, summary = (None if t is None else t[None].to(device) for t in features)
            assert grid is not None
            yield Held(record, Features(grid, summary), load_mask(record, shape))

    def _check_size(self) -> None:
        """Whether everything that is wanted will fit."""
        size = self.network.preprocess.size
        device = next(self.network.backbone.parameters()).device
        with torch.inference_mode():
            features = self.network.backbone(torch.zeros(1, 3, size, size, device=device))
        one = 512 + sum(t.numel() * t.element_size() for t in features if t is not None)
        total = one * len(self.wanted)
        if total > self.limit:
            raise ForgemapError(
                f"{self.root}: this run needs {total / 1e9:.3g} GB of features, and --cache-limit "
                f"is {self.limit / 1e9:.3g}; raise it, lower --views or train without --cache."
            )
        missing = one * sum(not path.exists() for path in self.wanted)
        others = sum(file.stat().st_size for file in entries(self.root) if file not in self.wanted)
        folder = self.root.absolute()
        while not folder.exists():
            folder = folder.parent
        if missing > (free := shutil.disk_usage(folder).free + others):
            raise ForgemapError(
                f"{self.root}: {missing / 1e9:.3g} GB of features are to be added, but at most "
                f"{free / 1e9:.3g} GB can be had on its disk; free some or lower --views."
            )
        self.one = one

    def _plan(self) -> list[str]:
        """With the lock held: take a reader's place, make room, list what is missing."""
        with on_disk(self.root):
            readers = self.root / "readers"
            readers.mkdir(exist_ok=True)
            busy = in_use(readers)
            name = f"{self.folder.name}-{os.getpid()}-{secrets.token_hex(4)}.lock"
            self.reader = FileLock(readers / name)  # until the process ends
            self.reader.acquire()
            write(self.folder / "settings.json", json.dumps(self.settings, indent=2).encode())
            for left in self.root.glob("*/*/.*.tmp"):  # of a killed run: no other is writing
                left.unlink(missing_ok=True)
            missing = []
            for path in self.wanted:
                if readable(path):
                    os.utime(path)  # used just now: the last to be evicted
                else:
                    missing.append(str(path))
            make_room(self.root, len(missing) * self.one, self.limit, self.wanted, busy)
        return missing

    @torch.inference_mode()
    def _compute(self, fabric: Fabric, paths: Sequence[Path]) -> None:
        """The features of some views, written one by one."""
        images, shapes = [], []
        for path in paths:
            record, perturb, number = self.wanted[path]
            image = load_image(record.image)
            if image.sha256 != self.shelf.digests[record.image]:
                raise DataError(f"{record.image}: has changed since the run began; start it again.")
            preprocess = self.network.preprocess
            images.append(perturbed(image, preprocess, perturb, self.shelf.seed, number))
            shapes.append(image.pixels.shape[:2])
        batch = torch.stack(images).contiguous(memory_format=torch.channels_last)
        with fabric.autocast():
            features = self.network.backbone(batch.to(fabric.device))
        for i, path in enumerate(paths):
            named = zip(Features._fields, features, strict=True)
            tensors = {n: t[i].cpu().contiguous() for n, t in named if t is not None}
            height, width = map(str, shapes[i])
            with on_disk(self.root):
                write(path, save(tensors, metadata={"height": height, "width": width}))


class FeatureDataset(Dataset[View]):
    """The samples of a `WholeDataset`, with features in the place of images."""

    def __init__(self, samples: WholeDataset, shelf: Shelf) -> None:
        self.samples, self.shelf = samples, shelf

    def __getitem__(self, n: int) -> View:
        index, number = self.samples.pick(n)
        record = self.samples.records[index]
        perturb = self.samples.perturb
        features, shape = self.shelf.read(Wanted(record, perturb, number))
        return View(features, *self.samples.label(record, shape))  # type: ignore[arg-type]

    @staticmethod
    def collate(views: Sequence[View]) -> View:
        """Views -> one of batches; there may be no summaries."""
        grids, summaries = zip(*(view.image for view in views), strict=True)
        summary = None if summaries[0] is None else torch.stack(summaries)
        features = Features(torch.stack(grids), summary)
        masks, edited = (default_collate([view[k] for view in views]) for k in (1, 2))
        return View(features, masks, edited)  # type: ignore[arg-type]


def settings(config: LocalizerConfig, network: Any) -> dict[str, Any]:
    """Everything that features depend on, save the picture and its view."""
    arguments = {k: v for k, v in network.config.items() if k not in DECODER_ONLY}
    return {
        "weights": fingerprint(network.backbone.state_dict()),
        "backbone": arguments,
        "preprocess": network.preprocess.to_dict(),
        "precision": config.precision,
        "device": "cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu",
        "code": code(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def code() -> str:
    """SHA-256 of the sources between a file and its features."""
    package = Path(__file__).parent.parent
    files = [package / "preprocess.py", package / "data" / "views.py", package / "image.py"]
    files += [package / f"{name}.py" for name in ("decode", "pixels", "jpeg")]
    files += sorted((package / "models").glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
