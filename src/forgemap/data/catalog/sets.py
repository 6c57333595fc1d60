"""sets.py: the names of the sets, how a copy is recognised, and the one way to open any data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ...errors import DataError
from ..masks import check_masks
from ..records import MANIFEST, SPLITS, UNTOUCHED, Record, read_manifest
from . import classic, general, inpainted
from .found import Found, child, folders


@dataclass(frozen=True)
class DataSet:
    """A published set, or a layout.

    Attributes:
        reader: root -> what is found there; its docstring draws the tree and names the trap.
        signs: names that its root holds; "a|b" = either.
        counts: pictures of a complete copy, by method; "edited" = all that are not untouched.
    """

    reader: Callable[[Path], Found]
    signs: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def tree(self) -> str:
        """The reader's docstring: layout and traps."""
        return self.reader.__doc__ or ""


SETS: dict[str, DataSet] = {
    "dolos": DataSet(inpainted.dolos, ("celebahq|ffhq|fake",)),
    "autosplice": DataSet(
        inpainted.autosplice,
        ("Mask", "Forged_JPEG75|Forged_JPEG90|Forged_JPEG100"),
        {UNTOUCHED: 2273} | {f"autosplice_jpeg{quality}": 3621 for quality in (75, 90, 100)},
    ),
    "coco-sd": DataSet(general.coco_sd, (MANIFEST,)),
    "cocoglide": DataSet(
        inpainted.cocoglide, ("fake", "mask|masks"), {UNTOUCHED: 512, "glide": 512}
    ),
    "casia-v2": DataSet(
        classic.casia_v2,
        ("Tp", "CASIA 2 Groundtruth|Groundtruth|Gt|masks"),
        {UNTOUCHED: 7491, "edited": 5123},
    ),
    "columbia": DataSet(classic.columbia, ("4cam_splc",), {UNTOUCHED: 183, "splice": 180}),
    "coverage": DataSet(
        classic.coverage, ("image|images", "mask|masks"), {UNTOUCHED: 100, "copy_move": 100}
    ),
    "nist16": DataSet(classic.nist16, ("reference|*/reference",), {UNTOUCHED: 560, "edited": 564}),
    "imdl-folder": DataSet(general.imdl_folder, ("Tp", "Gt")),
    "imdl-json": DataSet(general.imdl_json),
    "pairs": DataSet(general.pairs, ("images|image", "masks|mask|gt")),
    "generated": DataSet(general.generated),
    "manifest": DataSet(general.manifest, (MANIFEST,)),
}


class Named(NamedTuple):
    """What ``NAME[/METHOD]:ROOT`` says."""

    name: str
    method: str | None
    root: Path


def parse(text: str) -> Named | None:
    """``NAME[/METHOD]:ROOT`` taken apart; None for a plain path.

    Raises:
        DataError: it looks like a named set, but there is none of that name.
    """
    head, colon, root = text.partition(":")
    if not colon or Path(text).exists():
        return None
    name, slash, method = head.partition("/")
    if name in SETS and root:
        return Named(name, method if slash else None, Path(root))
    if Path(head).parent == Path(".") and len(head) > 1 and root:  # C:\… is a path
        raise DataError(f"Unknown data set {name!r} in {text!r}: use one of {', '.join(SETS)}.")
    return None


def read_set(name: str, root: str | Path) -> Found:
    """Read a copy of a set by names alone; problems are listed, not raised.

    Raises:
        DataError: an unknown name, or a root that is not such a set at all.
    """
    root = Path(root)
    if name not in SETS:
        raise DataError(f"Unknown data set {name!r}: use one of {', '.join(SETS)}.")
    chosen = SETS[name]
    if not root.exists():
        raise DataError(f"{root} does not exist: give the folder of the {name} data.")
    if name == "imdl-json" and root.is_dir():
        raise DataError(f"{root} is a folder: give the JSON file that lists the pairs.")
    if root.is_dir() and (gone := _missing(chosen, root)):
        others = [n for n, s in SETS.items() if s.signs and s != chosen and not _missing(s, root)]
        hint = f"; it looks like {others[0]}" if others else ""
        raise DataError(
            f"{root} is no copy of {name}: there is no {gone.replace('|', ' or ')} in it{hint}. "
            f"`forgemap data list {name}` draws what it should hold."
        )
    if root.is_file() and name not in ("imdl-json", "manifest", "coco-sd"):
        raise DataError(f"{root} is a file: give the folder of the {name} data.")
    found = chosen.reader(root)
    if not found.records and not found.problems and not found.gaps:
        raise DataError(f"{root} holds no pictures where {name} has them.")
    return found


def _missing(chosen: DataSet, root: Path) -> str | None:
    """The first sign that the root lacks."""

    def there(sign: str) -> bool:
        if sign.startswith("*/"):
            return any(child(inner, sign[2:]) for inner in folders(root))
        return child(root, sign) is not None

    return next((s for s in chosen.signs if not any(map(there, s.split("|")))), None)


def open_data(text: str | Path, split: str | None = None) -> list[Record]:
    """The records of any data that a command is given.

    Args:
        text: a manifest, a folder that holds one, or ``NAME:ROOT`` with a name from `SETS`;
            ``NAME/METHOD:ROOT`` keeps the untouched pictures and those of one method.
        split: only "train", "val" or "test".

    Raises:
        DataError: no such data, or a copy with faults. Pictures without masks, masks of another
            size and the like are refused here, before long work; `check` lists all of them.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"Unknown split {split!r}: use one of {', '.join(SPLITS)}.")
    named = parse(str(text))
    if named is None:
        return [r for r in read_manifest(text) if split in (None, r.split)]
    found = read_set(named.name, named.root)
    remedy = (
        f"`forgemap data check {named.name} {named.root}` lists all faults, `forgemap data "
        "manifest … --leave-out` writes a manifest without the faulty pictures."
    )
    if found.problems:
        more = f" ({len(found.problems)} faults in all)" if len(found.problems) > 1 else ""
        raise DataError(f"{found.problems[0]}{more} {remedy}")
    records = keep_method(found.records, named)
    records = [r for r in records if split in (None, r.split)]
    if not records:
        where = "" if split is None else f" in the split {split!r}"
        raise DataError(f"{named.root} holds no pictures{where}. {remedy}")
    try:
        check_masks(records)
    except DataError as error:
        raise DataError(f"{error} {remedy}") from None
    return records


def keep_method(records: list[Record], named: Named) -> list[Record]:
    """The untouched records and those of the method that was asked for."""
    methods = sorted({r.method for r in records if r.manipulated})
    if named.method is None:
        return records
    if named.method not in methods:
        raise DataError(
            f"{named.root} has no method {named.method!r}; it has {', '.join(methods) or 'none'}."
        )
    return [r for r in records if r.method in (UNTOUCHED, named.method)]


def root_of(text: str | Path) -> Path:
    """The folder that the pictures of `open_data` lie in, to name them relative to it."""
    named = parse(str(text))
    path = Path(text) if named is None else named.root
    return path if path.is_dir() else path.parent


def digest_of(text: str | Path, records: list[Record]) -> str:
    """A hash of what lists the records: the manifest's bytes; of a named set names and sizes."""
    if parse(str(text)) is None:
        path = Path(text)
        return sha256((path / MANIFEST if path.is_dir() else path).read_bytes()).hexdigest()
    root = root_of(text).resolve()
    lines = []
    for record in records:
        for file in filter(None, (record.image, record.mask)):
            whole = file.resolve()
            name = whole.relative_to(root) if whole.is_relative_to(root) else whole
            lines.append(f"{name}\0{file.stat().st_size}\0{record.method}\0{record.marks}\n")
    return sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
