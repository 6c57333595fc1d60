"""embeddings.py: a Parquet file of embeddings: one row per crop, with the model that made it.

Columns: path, generator, label (0 real, 1 generated), key, group, split, variant (what was done to
the picture), crop, error (of a picture that could not be read: then there is no embedding), model,
model_hash, embedding (float32, of the model's width). Any tool that knows Parquet reads them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..classifiers import Source
from ..errors import DataError
from ..files import whole

METADATA = b"forgemap.embeddings"
SUFFIX = ".parquet"
TEXTS = ("path", "generator", "key", "group", "split", "variant", "error")


@dataclass(frozen=True)
class Row:
    """One crop of a picture, or a picture that could not be read.

    Attributes:
        path: of the picture, relative to its data set.
        generator: what made it, "real" for a photograph.
        key, group, split: as in `data.generated.Labelled`.
        variant: what was done to it, "as is" if nothing.
        crop: number of the crop, from 0.
        error: why there is no embedding, else "".
        vector: (D,) float32, or None.
    """

    path: str
    generator: str
    key: str
    group: str
    split: str
    variant: str
    crop: int
    error: str
    vector: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What an embedding file holds, as columns of equal length N.

    Attributes:
        source: the model that made them.
        facts: how (data, crops, seed, date, versions); JSON-able.
        vectors: (N, D) float32.
        columns: name -> (N,) strings, the names those of `Row`; "label" and "crop" are integers.
        errors: path and reason of pictures that could not be read; not among the columns.
    """

    source: Source
    facts: dict[str, Any]
    vectors: np.ndarray
    columns: dict[str, np.ndarray]
    errors: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def where(self, chosen: np.ndarray) -> Embeddings:
        """Only the rows that a boolean array (N,) chooses."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return replace(self, vectors=self.vectors[chosen], columns=columns)


def write_rows(path: Path, source: Source, facts: dict[str, Any], rows: Sequence[Row]) -> None:
    """A Parquet file of rows; whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(source, facts)
    columns: list[Any] = [[getattr(row, name) for row in rows] for name in TEXTS]
    columns += [[int(row.generator != "real") for row in rows], [row.crop for row in rows]]
    columns += [[source.model] * len(rows), [source.fingerprint] * len(rows)]
    columns.append([row.vector for row in rows])
    names = [*TEXTS, "label", "crop", "model", "model_hash", "embedding"]
    arrays = [pa.array(c, schema.field(n).type) for n, c in zip(names, columns, strict=True)]
    with whole(path) as beside:
        pq.write_table(pa.table(dict(zip(names, arrays, strict=True)), schema=schema), beside)


def join_files(parts: Iterable[Path], path: Path, source: Source, facts: dict[str, Any]) -> None:
    """One file of many, a part at a time in memory; whole or not at all."""
    import pyarrow.parquet as pq

    schema = _schema(source, facts)
    with whole(path) as beside, pq.ParquetWriter(beside, schema) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part).replace_schema_metadata(schema.metadata))


def is_embeddings(path: str | Path) -> bool:
    """Whether it is the name of an embedding file."""
    return str(path).endswith(SUFFIX) and not Path(path).is_dir()


def read_embeddings(path: str | Path, source: Source | None = None) -> Embeddings:
    """Read an embedding file.

    Args:
        path: a file of `forgemap embed`.
        source: the model that it is going to be used with.

    Raises:
        DataError: no such file, another kind of one or a damaged one, or embeddings of another
            model than ``source``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such embedding file; make one with `forgemap embed`.")
    try:
        file = pq.ParquetFile(path)
        stored = (file.schema_arrow.metadata or {}).get(METADATA)
        if stored is None:
            raise DataError(
                f"{path} holds no embeddings of Forgemap: make them with `forgemap embed`."
            )
        facts = json.loads(stored)
        own = Source(**{f.name: facts["source"][f.name] for f in fields(Source)})
        if source is not None and source.fingerprint != own.fingerprint:
            raise DataError(
                f"{path} holds embeddings of {own.model} ({own.fingerprint[:12]}), not of "
                f"{source.model} ({source.fingerprint[:12]}): embed the pictures anew."
            )
        table = file.read()
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is cut short, damaged or no Parquet file ({str(error).splitlines()[0]}): "
            "make it again with `forgemap embed`."
        ) from None
    texts = {n: np.array(table.column(n).to_pylist(), dtype=object) for n in TEXTS}
    sound = texts["error"] == ""
    errors = tuple(zip(texts["path"][~sound], texts["error"][~sound], strict=True))
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    vectors = np.asarray(flat, np.float32).reshape(-1, own.width)
    if len(vectors) != sound.sum() or not np.isfinite(vectors).all():
        raise DataError(f"{path} holds embeddings that are not whole: make it again.")
    numbers = {n: np.asarray(table.column(n).to_pylist(), int)[sound] for n in ("label", "crop")}
    columns = {**{n: column[sound] for n, column in texts.items() if n != "error"}, **numbers}
    return Embeddings(own, facts, vectors, columns, errors)


def _schema(source: Source, facts: dict[str, Any]) -> Any:
    import pyarrow as pa

    names = pa.dictionary(pa.int32(), pa.string())
    repeated = ("generator", "group", "split", "variant", "error", "model", "model_hash")
    kinds = {n: names if n in repeated else pa.string() for n in (*TEXTS, "model", "model_hash")}
    kinds |= {"label": pa.int8(), "crop": pa.int16()}
    kinds["embedding"] = pa.list_(pa.float32(), source.width)
    text = json.dumps({"source": asdict(source), **facts})
    order = [*TEXTS, "label", "crop", "model", "model_hash", "embedding"]
    return pa.schema([(n, kinds[n]) for n in order], metadata={METADATA: text.encode()})
