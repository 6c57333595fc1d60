"""records.py: one picture and its truth (mask, method, split), and the manifest that lists them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forgemap.errors import DataError
from forgemap.files import write_whole

MANIFEST = "manifest.jsonl"
SPLITS = ("train", "val", "test")
UNTOUCHED = "none"  # the "method" of a picture that was not edited
MARKS = ("white", "black", "green", "whole")  # see Record.marks and masks.py


@dataclass(frozen=True)
class Record:
    """One picture of a data set.

    Attributes:
        image: the picture's file.
        mask: picture file of the picture's size that marks the manipulated pixels; None =
            untouched, or manipulated as a whole.
        source: the photo it was made from, as its maker named it.
        method: name of the edit, "none" for an untouched picture.
        split: "train", "val" or "test"; everything made from one photo shares its split.
        parameters: what the edit drew at random, for tables and for finding outliers.
        seed: the run's seed.
        marks: how the mask says "manipulated": "white" (255, as everywhere here), "black" or
            "green" in sets made by others, or "whole" where there is no mask because all of the
            picture was generated. `masks.load_mask` absorbs it.
        benign: honest processing that the picture went through, edited or not, as
            "tone+messenger"; "" = none. See synth/benign.py.
    """

    image: Path
    mask: Path | None
    source: str
    method: str
    split: str
    parameters: dict[str, Any]
    seed: int
    marks: str = "white"
    benign: str = ""

    @property
    def manipulated(self) -> bool:
        """Whether any pixel was edited."""
        return self.method != UNTOUCHED


def split_of(sha256: str) -> str:
    """The split of a file, from the SHA-256 of its bytes in hex: about 80 / 10 / 10 %.

    The first two hex digits as a number: below 26 "test", below 52 "val", else "train". The rule
    knows nothing but the file, so a photo stays in its split in every experiment and folder.
    """
    first = int(sha256[:2], 16)
    return "test" if first < 26 else "val" if first < 52 else "train"


def read_manifest(path: str | Path) -> list[Record]:
    """The records of a manifest.

    Args:
        path: a JSON-lines file with one object per picture (image, mask, source, method, split,
            parameters, seed, marks, benign), or the folder that holds it as "manifest.jsonl".
            Paths of pictures and masks are relative to the manifest.

    Raises:
        DataError: no such file, a line that is not such an object, or a picture that is not there.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise DataError(
            f"No manifest at {path}: give a folder made by `forgemap synth`, or its {MANIFEST}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The manifest {path} cannot be read: {error}.") from None
    records = [
        _record(line, number, path) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not records:
        raise DataError(f"The manifest {path} lists no pictures.")
    return records


def write_manifest(records: Iterable[Record], path: str | Path) -> Path:
    """Write a manifest that `read_manifest` reads back; whole or not at all.

    Pictures and masks below the manifest's folder are named relative to it, others absolutely.
    """
    path = Path(path)
    folder = path.parent.resolve()

    def name(file: Path | None) -> str | None:
        if file is None:
            return None
        whole = file.resolve()
        return str(whole.relative_to(folder) if whole.is_relative_to(folder) else whole)

    rows = []
    for record in records:
        row = asdict(record) | {"image": name(record.image), "mask": name(record.mask)}
        if record.marks == "white":
            del row["marks"]  # as manifests were before there was a choice
        if not record.benign:
            del row["benign"]
        rows.append(json.dumps(row) + "\n")
    if not rows:
        raise DataError(f"{path}: there is no picture to list.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, "".join(rows))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from None
    return path


def _record(line: str, number: int, path: Path) -> Record:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"Line {number} of {path} is not JSON: {error.msg}.") from None
    try:
        image, mask = path.parent / row["image"], row.get("mask")
        method, split = str(row["method"]), str(row["split"])
        record = Record(
            image=image,
            mask=None if mask is None else path.parent / mask,
            source=str(row.get("source", "")),
            method=method,
            split=split,
            parameters=dict(row.get("parameters") or {}),
            seed=int(row.get("seed", 0)),
            marks=str(row.get("marks", "white")),
            benign=str(row.get("benign", "")),
        )
    except KeyError as error:
        raise DataError(f"Line {number} of {path} has no {error.args[0]!r}.") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"Line {number} of {path} is not a record: {error}.") from None
    if split not in SPLITS:
        raise DataError(
            f"Line {number} of {path} has the split {split!r}: use one of {', '.join(SPLITS)}."
        )
    if record.marks not in MARKS:
        raise DataError(
            f"Line {number} of {path} has the marks {record.marks!r}: use one of "
            f"{', '.join(MARKS)}."
        )
    if record.manipulated and record.mask is None and record.marks != "whole":
        raise DataError(f"Line {number} of {path} has the method {method!r} but no mask.")
    for file in (record.image, record.mask):
        if file is not None and not file.is_file():
            raise DataError(f"Line {number} of {path} names {file}, which does not exist.")
    return record
