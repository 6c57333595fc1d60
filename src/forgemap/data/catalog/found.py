"""found.py: what a reader finds in a copy of a data set, and the steps that readers share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from ...errors import DataError
from ...image import EXTENSIONS
from ..records import UNTOUCHED, Record, split_of

# What people call the splits -> what they are called here.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass
class Found:
    """A copy of a data set, read by names alone: no picture is opened.

    Attributes:
        records: every picture whose truth is known.
        problems: what is wrong with the copy, a sentence each.
        gaps: folders of a published split that are missing or empty, a sentence each.
        notes: what is worth knowing and not wrong.
        originals: an edited picture -> the picture it was made from, where the set has it.
    """

    records: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    originals: dict[Path, Path] = field(default_factory=dict)

    def add(
        self,
        image: Path,
        mask: Path | None,
        method: str,
        source: str,
        split: str | None = None,
        *,
        marks: str = "white",
        original: Path | None = None,
    ) -> None:
        """One record; without a published ``split`` it follows from the name of the source."""
        split = split or split_by_name(source)
        self.records.append(Record(image, mask, source, method, split, {}, 0, marks))
        if original is not None:
            self.originals[image] = original

    def add_untouched(self, images: Iterable[Path], split: str | None = None) -> None:
        """Untouched pictures that are their own source."""
        for image in images:
            self.add(image, None, UNTOUCHED, image.stem, split)


def split_by_name(source: str) -> str:
    """The split of everything made from ``source``: `split_of` the SHA-256 of its name.

    For sets that publish no split. Not of the file's bytes, as for photos that we edit ourselves:
    a set of a million pictures must open without reading them.
    """
    return split_of(sha256(source.encode("utf-8", "surrogateescape")).hexdigest())


def child(folder: Path, *names: str) -> Path | None:
    """The first of these that is in ``folder``, in any upper or lower case."""
    try:
        inside = {path.name.lower(): path for path in sorted(folder.iterdir())}
    except OSError:
        return None
    return next((inside[name.lower()] for name in names if name.lower() in inside), None)


def folders(folder: Path | None) -> list[Path]:
    """The folders in a folder, sorted, hidden ones left out; none where there is no such folder."""
    return [path for path in _listed(folder) if path.is_dir()]


def pictures(folder: Path | None) -> list[Path]:
    """The picture files in a folder, sorted; none where there is no such folder."""
    known = [path for path in _listed(folder) if path.suffix.lower() in EXTENSIONS]
    return [path for path in known if not path.is_dir()]


def pictures_below(folder: Path | None) -> list[Path]:
    """The picture files in a folder and all folders in it, sorted."""
    found = pictures(folder)
    for inner in folders(folder):
        found += pictures_below(inner)
    return sorted(found)


def _listed(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be opened: {error.strerror or error}.") from None


SUFFIX = re.compile(r"[-_ ]?(gt\d*|edgemask|masks?|groundtruth|forged|label)$", re.IGNORECASE)


def bare(name: str) -> str:
    """A mask's name without the ending that says that it is one: ``photo_gt`` -> ``photo``."""
    return SUFFIX.sub("", name) or name


def last_number(path: Path) -> str:
    """The last number in a file's name as written: ``glide_val2017_12_up.png`` -> ``12``."""
    numbers = re.findall(r"\d+", path.stem)
    return numbers[-1] if numbers else path.stem


Key = Callable[[Path], str]


def match(
    images: Sequence[Path],
    masks: Sequence[Path],
    *keys: tuple[Key, Key],
    found: Found,
    shared: bool = False,
) -> list[tuple[Path, Path]]:
    """(image, mask) pairs by name; every image or mask left over becomes a problem of ``found``.

    Args:
        keys: pairs of functions (of an image, of a mask) whose answers must agree; the next pair is
            asked only for what the one before left open. Where a key fits several masks, or several
            images one mask, it decides nothing.
        shared: whether one mask may serve several images.
    """
    pairs: dict[Path, Path] = {}
    for of_image, of_mask in keys:
        taken = set() if shared else set(pairs.values())
        by_key: dict[str, list[Path]] = {}
        for mask in masks:
            if mask not in taken:
                by_key.setdefault(of_mask(mask), []).append(mask)
        asking: dict[str, list[Path]] = {}
        for image in images:
            if image not in pairs:
                asking.setdefault(of_image(image), []).append(image)
        for key, these in asking.items():
            if len(by_key.get(key, [])) == 1 and (shared or len(these) == 1):
                pairs |= dict.fromkeys(these, by_key[key][0])
    for image in images:
        if image not in pairs:
            found.problems.append(f"{image} has no mask: find it, or leave the picture out.")
    for mask in sorted(set(masks) - set(pairs.values())):
        found.problems.append(f"{mask} is a mask without a picture: find it, or delete the mask.")
    return [(image, pairs[image]) for image in images if image in pairs]


def by_stem(path: Path) -> str:
    """The name without its extension."""
    return path.stem


def by_bare_stem(path: Path) -> str:
    """The name without its extension and without ``_gt``, ``_mask`` and the like."""
    return bare(path.stem)
