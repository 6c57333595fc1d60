"""record.py: export.json, what an export is, of which weights, and how it was proved equal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..models.ledger import sha256_of

RECORD = "export.json"
#: Where a model folder keeps its exports, one folder each.
EXPORTS = "exports"

LARGEST_DIFFERENCE = 1e-3
"""Of a probability, that a float32 export may have."""
LEAST_IOU = 0.98
"""Mean IoU of the masks with float32's, that a reduced precision must reach."""
MOST_FLIPS = 0.005
"""Share of the verdicts that a reduced precision may change."""
LEAST_COSINE = 0.999
"""Between an embedding and float32's of the same picture, for a reduced precision."""


@dataclass(frozen=True)
class Parity:
    """How an export compared with torch in float32, picture by picture."""

    #: Pictures that were compared.
    pictures: int
    #: Where they came from.
    source: str
    #: Largest difference of a probability (a localizer); of a component of an embedding, as a
    #: share of the largest component (an embedder).
    largest_difference: float
    #: Mean IoU of the masks with float32's, both empty = 1; None for an embedder.
    mask_iou: float | None = None
    #: Verdicts that differ from float32's; None for an embedder.
    verdict_flips: int | None = None
    #: Smallest cosine with float32's embedding; None for a localizer.
    cosine: float | None = None

    def misses(self, precision: str) -> str | None:
        """None if the limits of `precision` hold, else the clause that says what does not."""
        if precision == "fp32":
            if not self.largest_difference <= LARGEST_DIFFERENCE:
                return f"probabilities differ by up to {self.largest_difference:.2g}, " + (
                    f"more than {LARGEST_DIFFERENCE:g}"
                )
            return None
        if self.cosine is not None:
            fine = self.cosine >= LEAST_COSINE
            return None if fine else f"the cosine falls to {self.cosine:.4f}, below {LEAST_COSINE}"
        if self.mask_iou is None or not self.mask_iou >= LEAST_IOU:
            return f"the mean mask IoU with float32 is {self.mask_iou:.3f}, below {LEAST_IOU}"
        flips = self.verdict_flips or 0
        if not flips <= MOST_FLIPS * self.pictures:
            return f"{flips} of {self.pictures} verdicts differ, more than {MOST_FLIPS:.1%}"
        return None


@dataclass(frozen=True)
class Export:
    """One export: `export.json` beside its files."""

    #: "onnx" or "openvino"; "torch" where there is nothing but this proof.
    format: str
    #: "fp32", "bf16" or "int8".
    precision: str
    #: Of the model's weights that it was made of, hex.
    weights_sha256: str
    #: SHA-256 (hex) of each of its files, by name.
    files: Mapping[str, str]
    #: The comparison with torch in float32.
    parity: Parity
    #: CPU seconds of torch in float32 for one picture, divided by the export's, in one run.
    speed: float
    #: Which layers stayed in float32, or could not be packed; empty if none was left out.
    skipped: str = ""
    #: Versions of the libraries, the machine, the date.
    made: Mapping[str, Any] = field(default_factory=dict)
    #: How the model sees the world: {"native", "stride", "reach", "outputs", ...}.
    traits: Mapping[str, Any] = field(default_factory=dict)

    def proved(self) -> bool:
        """Whether the limits of its precision hold in its own comparison."""
        return self.parity.pictures > 0 and self.parity.misses(self.precision) is None

    def to_json(self) -> str:
        """Text of export.json."""
        return json.dumps(asdict(self), indent=2) + "\n"


def read_export(folder: Path) -> Export:
    """Strictly; a ModelError in one sentence if the record is damaged."""
    path = folder / RECORD
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if set(data) != {f.name for f in fields(Export)}:
            raise ValueError("its entries are not those of an export")
        made = Export(**{**data, "parity": Parity(**data["parity"])})
        made.proved()  # every number is of the right kind
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: damaged ({error}); export the model again.") from error
    return made


def check_files(folder: Path, export: Export) -> None:
    """A ModelError if a file of the export is missing or not what was proved."""
    for name, expected in export.files.items():
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: no such file; export the model again.")
        if sha256_of(folder / name) != expected:
            raise ModelError(f"{folder / name}: corrupt; export the model again.")


def exports_of(folder: Path, weights_sha256: str) -> list[tuple[Path, Export]]:
    """The exports beside a model's weights that were made of these very weights."""
    found = []
    for path in sorted((folder / EXPORTS).glob(f"*/{RECORD}")):
        export = read_export(path.parent)
        if export.weights_sha256 == weights_sha256:
            found.append((path.parent, export))
    return found
