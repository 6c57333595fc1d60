"""Shared by the tests of scan: pictures in every kind of container, and rows to compare."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from forgemap.scan import Settings
from forgemap.scan.parts import part_files, read_parts, schema

from .photographs import wide_gamut

BAD = b"\xff\xd8\xffno picture"


def png(seed: int, height: int = 40, width: int = 48) -> bytes:
    """An encoded picture of noise; another seed, another picture, every third with a profile."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    profile = {"icc_profile": wide_gamut()} if seed % 3 == 1 else {}
    PILImage.fromarray(pixels).save(stream, "PNG", **profile)
    return stream.getvalue()


def write_pictures(folder: Path, number: int, first: int = 0) -> Path:
    """So many pictures of three sizes; the fourth is damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(number):
        data = BAD if n == 3 else png(first + n, 40 + n % 3)
        (folder / f"{n:04d}.png").write_bytes(data)
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]], rows: int = 4) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


def write_mix(root: Path, number: int = 12) -> list[str]:
    """A folder, a tar shard and a Parquet file, each with bad pictures among good ones."""
    folder = write_pictures(root / "folder", number)
    members = {f"{n}.png": BAD if n == 2 else png(100 + n) for n in range(number)}
    tar = write_tar(root / "shard.tar", members | {"0.txt": b"a caption"})
    column = [BAD if n == 5 else png(200 + n) for n in range(number)]
    parquet = write_parquet(root / "table.parquet", {"image": column})
    return [str(folder), str(tar), str(parquet)]


def settings(model: Path, **changed: Any) -> Settings:
    """For tiny pictures: small parts, one decoding process, no second question."""
    usual = {"options": (("detector", None),), "workers": 1, "batch": 2, "part_rows": 5}
    return Settings(model=str(model), **{**usual, **changed})


def rows(out: Path) -> list[dict[str, Any]]:
    """All rows without what a clock says, sorted by what they are of."""
    names = [name for name in schema().names if name != "seconds"]
    found = [row for table, _ in read_parts(out, names) for row in table.to_pylist()]
    return sorted(found, key=lambda row: (row["path"], len(row["key"] or ""), row["key"] or ""))


def leftovers(out: Path) -> list[str]:
    """Files below a folder of results that are neither rows nor masks nor of the run."""
    whole = {*part_files(out), out / "journal.json", out / ".lock"}
    files = {path for path in out.rglob("*") if path.is_file()}
    return sorted(
        str(path.relative_to(out))
        for path in files - whole
        if path.parent.name != "listing" and path.parent.parent.name != "masks"
    )


if __name__ == "__main__":
    sys.exit("a module of the tests")
