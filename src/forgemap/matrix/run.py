"""run.py: matrix(config): train on each set, test on each; goes on where it was stopped.

The folder of a matrix:

    sets/NAME.train.jsonl, NAME.test.jsonl   the sets, as they were checked
    runs/[VALUE/]NAME/                       a training as `forgemap train localizer` makes it
    runs/[VALUE/]NAME.json                   its settings and data; its weights once it is finished
    cells/[VALUE/]NAME/PART-HASH/            an evaluation as `forgemap evaluate` makes it
    matrix.json, matrix.md, matrix.png       the result
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from ..detector import Detector
from ..errors import ForgemapError
from ..evaluate import facts
from ..evaluate.benchmark import evaluate
from ..evaluate.results import Row
from ..files import write_whole
from ..models.build import build
from ..models.checkpoint import load_model, weights_sha256
from ..train.config import LocalizerConfig
from ..train.localizer import train
from ..train.schedules import SCHEDULES, Timetable
from ..train.setup import read_data
from . import report
from .cells import Cell, Matrix
from .config import MatrixConfig, Training, changed
from .sets import EditSet, digest, prepare

# Options that do not change what comes out of a training; its data is known by its hash.
FREE = (
    *("recipe", "data", "out", "workers", "checkpoint_every", "cache", "cache_limit"),
    *("devices", "nodes", "strategy"),
)


def matrix(config: MatrixConfig, *, progress: bool = True) -> Matrix:
    """Train on each set, test on each, summarise; writes matrix.json, .md and .png.

    Everything is checked before the first training. Killed at any moment and started again, it goes
    on: finished trainings and cells are kept, a begun training goes on at its last checkpoint.
    Values, sets and tests may be added to a finished matrix.

    Raises:
        ForgemapError: an impossible option, a set that cannot be used, a folder that holds a
            training with other options, or an interrupt during a training.
    """
    begin = time.monotonic()
    config.check()
    out = Path(config.out).resolve()
    console = Console(stderr=True, quiet=not progress, highlight=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
        sets, remarks = prepare(config, out)
        trainings = plan(config, sets, out)
        for remark in remarks:
            console.print(f"Note: {remark}", markup=False, soft_wrap=True)
        cells: list[Cell] = []
        for number, training in enumerate(trainings, start=1):
            named = f"{training.train} ({training.value})" if training.value else training.train
            console.print(f"[{number}/{len(trainings)}] {named}", markup=False, soft_wrap=True)
            model = trained(training, progress)
            for cell in row_of_cells(config, training, model, sets, out, progress):
                cells.append(cell)
                shown = f"  tested on {cell.test}: IoU {cell['iou'].value:.3f}"
                console.print(shown, markup=False, soft_wrap=True)
        described = {
            "axis": config.axis,
            "split": config.split,
            "sets": [
                {"name": s.name, "marking_everything": s.everything, **s.counts} for s in sets
            ],
            "trainings": [_described(t) for t in trainings],
            "remarks": remarks,
            "wall_seconds": round(time.monotonic() - begin, 1),
            **facts.machine(),
        }
        result = Matrix(cells, described, config.seed)
        report.write(result, out)
    except OSError as error:
        raise ForgemapError(f"{out}: cannot be written or read ({error}).") from error
    return result


def plan(config: MatrixConfig, sets: Sequence[EditSet], out: Path) -> list[Training]:
    """Every training, checked: its options, its network, and what its folder holds already."""
    trainings = []
    for value in config.axis_values():
        for one in sets:
            if one.train is not None:
                folder = out / "runs" / value / one.name
                trainings.append(config.training(value, one.name, one.train, folder))
    if not trainings:
        raise ForgemapError("There is no set to train on: name one with --train.")
    checked = []
    for training in trainings:
        options = training.config
        read_data(options)
        if options.init:
            load_model(options.init)
        elif (described := options.model_config()) not in checked:
            with torch.device("meta"):  # shapes without memory: any size is checked at once
                build(described)
            checked.append(described)
        ledger = read_ledger(training)
        for name, now in settings(training).items():
            if ledger and ledger["settings"].get(name) != now:
                raise ForgemapError(
                    f"{options.out} holds a training with {name} = "
                    f"{ledger['settings'].get(name)!r}, not {now!r}: give another --out."
                )
    return trainings


def settings(training: Training) -> dict[str, Any]:
    """What determines a training: its options, and the pictures by the hash of their manifest."""
    config = training.config
    chosen = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in FREE}
    return json.loads(json.dumps({**chosen, "data_sha256": digest(Path(config.data[0]))}))


def ledger_file(training: Training) -> Path:
    return Path(training.config.out + ".json")


def read_ledger(training: Training) -> dict[str, Any] | None:
    """What is known of a training that was begun; None if it was not."""
    file = ledger_file(training)
    if not file.exists():
        return None
    try:
        ledger: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        ledger["settings"].items(), ledger["weights_sha256"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ForgemapError(f"{file} is not what was written here: give another --out.") from None
    return ledger


def trained(training: Training, progress: bool) -> Path:
    """The model folder, trained now unless that is done; the ledger says so.

    Raises:
        ForgemapError: the training was interrupted, or the finished model was replaced.
    """
    config = training.config
    ledger = read_ledger(training)
    model = Path(config.out) / "model"
    if ledger and ledger["weights_sha256"]:
        if weights_sha256(model) != ledger["weights_sha256"]:
            raise ForgemapError(f"{model} is not the model that was trained here: remove it.")
        return model
    write_json(ledger_file(training), {"settings": settings(training), "weights_sha256": None})
    begin = time.monotonic()
    if config.devices > 1:
        # Every further process starts the program's own command again: it must be the training.
        apart(config)
    else:
        model = train(config, progress=progress)
    if not finished(config):
        raise ForgemapError("Interrupted; the same command goes on from there.")
    done = {
        "settings": settings(training),
        "weights_sha256": weights_sha256(model),
        "seconds": round(time.monotonic() - begin, 1),
    }
    write_json(ledger_file(training), done)
    return model


def apart(config: LocalizerConfig) -> None:
    """Train in a process of its own."""
    file = Path(config.out + ".yaml")
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "forgemap", "train", "localizer", "--config", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        try:
            code = child.wait()
        except KeyboardInterrupt:  # the child has it too, and ends with a checkpoint
            code = child.wait()
    if code:
        raise ForgemapError(f"The training {config.out} failed; the reason is above.")


def finished(config: LocalizerConfig) -> bool:
    """Whether a run ended: an interrupt leaves a checkpoint of an earlier step."""
    checkpoint = Path(config.out) / "last.ckpt"
    if not checkpoint.exists():
        return False
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    timetable = Timetable.of(config, len(read_data(config)[0]))
    schedule = SCHEDULES[config.schedule](config, timetable.steps)
    if state["schedule"]:
        schedule.restore(state["schedule"])
    return bool(state["step"] >= timetable.steps or schedule.finished)


def row_of_cells(
    config: MatrixConfig,
    training: Training,
    model: Path,
    sets: Sequence[EditSet],
    out: Path,
    progress: bool,
) -> Iterator[Cell]:
    """One model on every set; untouched pictures that the sets share are judged once."""
    weights = weights_sha256(model)
    wanted = training.config.accelerator
    gpu = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    device = "cuda" if gpu else "cpu"
    # Read once, and only if a cell is missing; several processes read the folder themselves.
    judge = cache(
        lambda: model if config.test_workers > 1 else Detector.load(model, device, detector=None)
    )
    rows: dict[Path, list[Row]] = {}
    for tested in sets:
        for part in tested.parts:
            if part in rows:
                continue
            key = sha256(f"{weights} {digest(part)} {config.seed}".encode()).hexdigest()[:12]
            name = f"{part.name.removesuffix('.test.jsonl')}-{key}"
            folder = out / "cells" / training.value / training.train / name
            rows[part] = (
                finished_rows(folder)
                or evaluate(
                    judge(),
                    part,
                    folder,
                    seed=config.seed,
                    progress=progress,
                    device=device,
                    workers=config.test_workers,
                ).rows
            )
        every = [row for part in tested.parts for row in rows[part]]
        yield Cell(training.value, training.train, tested.name, every, config.seed)


def finished_rows(folder: Path) -> list[Row] | None:
    """The rows of an evaluation that came to its end without a failure; None if there is none."""
    file = folder / "results.json"
    if not file.exists():  # written last, in one step
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return None if found["failed"] else found["rows"]
    except (ValueError, KeyError, TypeError):
        raise ForgemapError(f"{file} is not what was written here: remove its folder.") from None


def _described(training: Training) -> dict[str, Any]:
    """A training for the record: the options that are not at their defaults, weights, time."""
    ledger = read_ledger(training) or {}
    return {
        "value": training.value,
        "train": training.train,
        "options": changed(training.config),
        "weights_sha256": ledger.get("weights_sha256"),
        "seconds": ledger.get("seconds"),
    }


def write_json(file: Path, content: object) -> None:
    """In one step, with the folders above."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(content, indent=1, allow_nan=False) + "\n")
