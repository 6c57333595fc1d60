"""cluster.py: the same scan on a Ray cluster: actors with one model each; the driver writes.

Each task is one unit of the listing; Ray runs it again elsewhere when its actor or node is lost.
What an actor returns are whole parts, so that only the driver writes to the results, and a run may
begin on one machine and end on a cluster, or the other way round. Nodes need Forgemap, the model
and, for sources that are local paths, the same file system.
"""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ForgemapError
from .listing import Unit
from .parts import Part, Progress, schema
from .results import is_known
from .settings import Settings
from .sources import Entry

WAVE = 500  # units handed to Ray at once: their addresses are in the driver's memory
_FACTS = ("unit", "start", "stop", "end", "known", "wall", "busy")


def parts_on_cluster(
    cluster: str,
    out: Path,
    settings: Settings,
    known: np.ndarray | None,
    left: Iterator[int],
    done: dict[int, Progress],
) -> Iterator[Part]:
    """The parts that are missing, in the order in which actors finish them.

    Args:
        cluster: "ray" (the cluster that RAY_ADDRESS names, else a new one of this machine) or
            "ray:ADDRESS" ("ray:auto", "ray:10.0.0.1:6379", "ray:ray://host:10001").
        out, settings: of the scan.
        known: hashes that need no judgement, see `results.known_hashes`.
        left, done: units that are not finished, and how far each is.

    Raises:
        ForgemapError: Ray is not installed or not there, or an actor cannot use the model.
    """
    from .run import units_from

    ray, ours = _start(cluster)
    try:
        hashes = None if known is None else ray.put(known)
        units = units_from(out, left, done)
        clock = time.monotonic()
        while wave := list(islice(units, WAVE)):
            for part in _run(ray, settings, hashes, wave):
                now = time.monotonic()  # actors have clocks of their own, which overlap
                part.wall, clock = now - clock, now
                yield part
    finally:
        if ours:
            ray.shutdown()


def _start(cluster: str) -> tuple[Any, bool]:
    """Ray, and whether it was started here."""
    name, _, address = cluster.partition(":")
    if name != "ray":
        raise ForgemapError(f"--cluster {cluster!r} is unknown: use ray or ray:ADDRESS.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # asks nothing of the network
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes as an exception
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ForgemapError(
            f'--cluster ray needs {error.name}, which is not installed: pip install "forgemap[ray]"'
        ) from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address and not os.environ.get("RAY_ADDRESS"):
        quiet["include_dashboard"] = False
    ours = not ray.is_initialized()
    try:
        if ours:
            ray.init(address=address or None, **quiet)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError …
        raise ForgemapError(
            f"The Ray cluster at {address or 'this machine'} cannot be used "
            f"({_first(error)}): check the address, and that it runs."
        ) from None
    for logger in ("ray", "ray.data"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    return ray, ours


def _run(
    ray: Any, settings: Settings, hashes: Any, units: list[tuple[Unit, int]]
) -> Iterator[Part]:
    """One data set of units -> parts."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Each part is passed on when it is made, not when its task ends.
    context.target_max_block_size = 2**16
    context.target_min_block_size = 1
    tasks = [{"unit": unit.number, "start": start, "entries": _pack(unit)} for unit, start in units]
    gpu = settings.device.startswith("cuda")
    workers = settings.workers or (8 if gpu else 1)
    low, high = settings.actors
    high = min(high, len(tasks))
    data = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
        Judge,
        fn_constructor_args=(replace(settings, workers=workers), hashes),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=min(low, high), max_size=high),
        num_cpus=workers if gpu else 1,
        num_gpus=1 if gpu else None,
    )
    try:
        for table in data.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in table.to_pylist():
                yield _unpack_part(row)
    except (ray.exceptions.RayError, RuntimeError) as error:
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ForgemapError(
            f"The cluster could not go on ({_first(cause)}): what has been written is whole; the "
            "same command goes on from there."
        ) from error


class Judge:
    """An actor: one model, its decoders, and parts for each unit that it is given."""

    def __init__(self, settings: Settings, hashes: Any) -> None:
        from .pipeline import Pipeline

        known = None
        if hashes is not None:
            import ray

            array = ray.get(hashes)
            known = lambda sha256: is_known(array, sha256)  # noqa: E731
        # Without a clock: a unit that is run again must give the same parts.
        self.pipeline = Pipeline(settings.load(), settings, known=known, timed=False)

    def __call__(self, batch: Any) -> Iterator[Any]:
        """A pyarrow table of units -> tables of one row, which holds a whole part."""
        import pyarrow as pa

        for task in batch.to_pylist():
            unit = Unit(task["unit"], _unpack(task["entries"]))
            for part in self.pipeline.run(iter([(unit, task["start"])])):
                yield pa.Table.from_pylist([_pack_part(part)])


def _pack(unit: Unit) -> str:
    return json.dumps([asdict(entry) for entry in unit.entries])


def _unpack(text: str) -> tuple[Entry, ...]:
    return tuple(Entry(**entry) for entry in json.loads(text))


def _pack_part(part: Part) -> dict[str, Any]:
    import pyarrow as pa

    rows = pa.Table.from_pylist(part.rows, schema=schema())
    masks = pa.table(
        {"name": list(part.masks), "png": list(part.masks.values())},
        schema=pa.schema([("name", pa.string()), ("png", pa.binary())]),
    )
    facts = {name: getattr(part, name) for name in _FACTS}
    return {"facts": json.dumps(facts), "rows": _to_bytes(rows), "masks": _to_bytes(masks)}


def _unpack_part(row: dict[str, Any]) -> Part:
    rows, masks = _from_bytes(row["rows"]), _from_bytes(row["masks"])
    return Part(
        **json.loads(row["facts"]),
        rows=rows.to_pylist(),
        masks=dict(zip(*(column.to_pylist() for column in masks.columns), strict=True)),
    )


def _to_bytes(table: Any) -> bytes:
    import pyarrow as pa

    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def _from_bytes(data: bytes) -> Any:
    import pyarrow as pa

    return pa.ipc.open_stream(data).read_all()


def _first(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".")
