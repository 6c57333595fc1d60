"""parts.py: rows -> Parquet files that appear whole, and which stretches of which unit are there.

A part's name says what it covers, `part-UNIT-START-STOP[-end].parquet`: items START to STOP of that
unit, and whether the unit ends there. The parts of a unit follow each other without a gap; what
lies beyond a gap was left by a run that ended out of order and is removed.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import write_whole
from ..report import Report

METADATA = b"forgemap.scan"
FOLDER = "parts"
MASKS = "masks"
_NAME = re.compile(r"part-(\d{7,})-(\d{8,})-(\d{8,})(-end)?\.parquet")

Row = dict[str, Any]


@dataclass
class Part:
    """Rows of a stretch of one unit.

    Attributes:
        unit, start, stop: items `start` to `stop` of that unit.
        end: the unit ends here.
        rows: one for each item that was not known; see `schema`.
        masks: path below the results' folder -> PNG.
        known: items that an earlier scan had judged, which have no row.
        wall: seconds since the part before.
        busy: of these, seconds in which the network computed.
    """

    unit: int
    start: int
    stop: int
    end: bool = False
    rows: list[Row] = field(default_factory=list)
    masks: dict[str, bytes] = field(default_factory=dict)
    known: int = 0
    wall: float = 0.0
    busy: float = 0.0

    @property
    def name(self) -> str:
        end = "-end" if self.end else ""
        return f"part-{self.unit:07d}-{self.start:08d}-{self.stop:08d}{end}.parquet"


@dataclass(frozen=True)
class Progress:
    """How far a unit is: the item to go on from, and whether there is one."""

    position: int
    done: bool


def schema() -> Any:
    """The columns of a part, as a pyarrow schema; documented in docs/scale.md."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    box, polygon = pa.list_(pa.int32()), pa.list_(pa.list_(pa.int32()))
    region = pa.struct(
        {
            "box": box,
            "polygon": polygon,
            "score": number,
            "area": number,
            "confidence": number,
        }
    )
    copy = pa.struct(
        {
            "score": number,
            "box": box,
            "polygon": polygon,
            "origin_box": box,
            "origin_polygon": polygon,
            "direction": number,
            "degrees": number,
            "scale": number,
            "mirrored": pa.bool_(),
        }
    )
    return pa.schema(
        {
            "source": text,
            "path": text,
            "key": text,
            "sha256": text,
            "width": pa.int32(),
            "height": pa.int32(),
            "verdict": text,
            "score": number,
            "area": number,
            "regions": pa.list_(region),
            "copies": pa.list_(copy),
            "reason": text,
            "notes": pa.list_(text),
            "generated_verdict": text,
            "generated_score": number,
            "mask": text,
            "model": text,
            "weights_sha256": text,
            "error": text,
            "seconds": pa.float32(),
        }
    )


def report_row(report: Report) -> Row:
    """The columns that come from a report."""
    generated = getattr(report, "generated", None)
    if generated is not None and not isinstance(generated, dict):
        generated = vars(generated)
    return {
        "sha256": report.sha256,
        "width": report.width,
        "height": report.height,
        "verdict": report.verdict,
        "score": report.score,
        "area": report.area,
        "regions": [asdict(region) | {"box": list(region.box)} for region in report.regions],
        "copies": [copy.to_dict() for copy in report.copies],
        "reason": report.reason,
        "notes": list(report.notes),
        "generated_verdict": None if generated is None else generated.get("verdict"),
        "generated_score": None if generated is None else generated.get("score"),
    }


def write_part(out: Path, part: Part) -> Path:
    """Write a part and its masks; each file whole or not at all, the part last.

    Raises:
        OSError: the disk is full, or the folder may not be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, png in part.masks.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(out / name, png)
    facts = {n: getattr(part, n) for n in ("unit", "start", "stop", "end", "known", "wall", "busy")}
    table = pa.Table.from_pylist(part.rows, schema=schema())
    table = table.replace_schema_metadata({METADATA: json.dumps(facts).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    path = out / FOLDER / part.name
    write_whole(path, buffer.getbuffer(), sync=True)
    return path


def read_progress(out: Path) -> dict[int, Progress]:
    """How far each unit is that was begun. Removes half-written files and parts beyond a gap."""
    for name in os.listdir(out / FOLDER):
        if name.endswith(".tmp"):
            (out / FOLDER / name).unlink(missing_ok=True)
    progress, beyond = _chains(out)
    for name in beyond:
        (out / FOLDER / name).unlink(missing_ok=True)
    return progress


def read_progress_of(out: Path) -> dict[int, Progress]:
    """The same without touching anything."""
    return _chains(out)[0]


def _chains(out: Path) -> tuple[dict[int, Progress], list[str]]:
    found: dict[int, list[tuple[int, int, bool, str]]] = {}
    for file in part_files(out):
        match = _NAME.fullmatch(file.name)
        assert match is not None
        unit, start, stop = (int(text) for text in match.groups()[:3])
        found.setdefault(unit, []).append((start, stop, match[4] is not None, file.name))
    progress, beyond = {}, []
    for unit, spans in found.items():
        position, done = 0, False
        for start, stop, end, name in sorted(spans):
            if done or start != position:
                beyond.append(name)
            else:
                position, done = stop, end
        progress[unit] = Progress(position, done)
    return progress, beyond


def part_files(out: Path) -> list[Path]:
    """All parts, in the order of the listing."""
    try:
        return sorted(file for file in (out / FOLDER).iterdir() if _NAME.fullmatch(file.name))
    except OSError:
        return []


def read_parts(out: Path, columns: list[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each part as a pyarrow table of these columns, with its facts (unit, start, wall …).

    Raises:
        DataError: a part is damaged.
    """
    import pyarrow.parquet as pq

    for file in part_files(out):
        try:
            table = pq.read_table(file, columns=columns, partitioning=None)
            facts = json.loads((table.schema.metadata or {})[METADATA])
        except Exception as error:
            text = str(error).strip().split("\n")[0]
            raise DataError(
                f"{file} is damaged ({text}): remove it and run the same scan again, which makes "
                "it anew."
            ) from None
        yield table, facts
