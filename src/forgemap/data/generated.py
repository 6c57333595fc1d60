"""generated.py: real and wholly generated pictures, wherever they lie: folders, manifests, pairs.

read_generated("d3-test")       # any known layout -> one list of `Labelled`
of_split(pictures, "train")     # a part of it: as folders say, else by a hash of the names
FolderPairs(pictures, seed=0)   # the endless stream of (real, generated) to learn from

Anything that gives `Labelled` pictures can be evaluated, and anything that is `Pairs` can be
trained on: shards implement the same two.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ..errors import DataError
from ..image import find_images
from .records import MANIFEST, read_manifest, split_of

REAL = "real"  # the "generator" of a photograph

# What folders are called. Case does not matter.
_REALS = ("real", "0_real", "nature")  # ours and D3, UnivFD, GenImage
_FAKES = ("fake", "1_fake", "ai")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_VARIANTS = ("augm", "no_augm")


@dataclass(frozen=True)
class Labelled:
    """One picture, real or generated as a whole.

    Attributes:
        image: the picture's file, or the bytes of one.
        generator: "real", or the name of the generator; never only "fake".
        key: its name in its set; pictures made from one photo (or its caption) share it.
        split: "train", "val" or "test", or "" where nothing says it: see `of_split`.
        group: of a real picture, the one generator that it is to be compared with (UnivFD and
            GenImage give every generator its own real pictures); "" = all of them.
        variant: "augm" or "no_augm" in D3's test set, else "".
    """

    image: Path | bytes
    generator: str
    key: str
    split: str = ""
    group: str = ""
    variant: str = ""

    @property
    def fake(self) -> bool:
        """Whether it was generated: fake = 1, as everywhere."""
        return self.generator != REAL


class Pair(NamedTuple):
    """What one step of contrastive training takes of each class."""

    real: Labelled
    fake: Labelled


class Pairs(Protocol):
    """An endless, reproducible stream of pairs.

    Pair n is a function of n alone (n = 0, 1, … without end), so that a run that stopped after n
    pairs goes on with pair n, and any number of workers or processes sees the same stream.
    """

    def __len__(self) -> int:
        """Pairs of one epoch."""

    def __getitem__(self, n: int) -> Pair:
        """Pair n."""


def read_generated(path: str | Path) -> list[Labelled]:
    """All pictures of a folder or manifest, in the order of their names.

    Folders below ``path`` say what a picture is; these layouts, with or without folders
    train / val / test (anywhere) and further folders inside:

    - ``{real,<generator>…}``, ``{real,fake/<generator>…}``, D3's ``{augm,no_augm}/{real,gen_0…}``
    - ``<generator>/[<class>/]{0_real,1_fake}`` (UnivFD, ForenSynths), or one such generator alone
    - ``<generator>/…/{train,val}/{nature,ai}`` (GenImage), or one such generator alone

    In a manifest, a picture that was generated as a whole (``marks: whole``) has its method as its
    generator; pictures edited in a part are neither and are left out.

    Raises:
        DataError: nothing there, a picture whose folder says nothing, or only one of the classes.
    """
    path = Path(path)
    if path.is_file() or (path / MANIFEST).is_file():
        pictures = _from_manifest(path)
    elif path.is_dir():
        pictures = [_labelled(file, path) for file in find_images([path]).files]
    else:
        raise DataError(f"{path}: no such folder; give one with real and generated pictures in it.")
    if not pictures:
        raise DataError(f"{path}: there is no picture in it.")
    if not any(p.fake for p in pictures):
        raise DataError(f"{path}: all pictures are real; generated ones go beside {REAL}/.")
    if all(p.fake for p in pictures):
        raise DataError(
            f"{path}: no picture is real; they go into a folder {', '.join(_REALS[:-1])} or "
            f"{_REALS[-1]}."
        )
    return pictures


def of_split(pictures: Iterable[Labelled], split: str) -> list[Labelled]:
    """The pictures of "train", "val" or "test"; where nothing says it, a hash of the key does.

    The rule of `records.split_of`, about 80 / 10 / 10 %: pictures of one name stay together.
    """

    def belongs(picture: Labelled) -> str:
        key = os.fsencode(picture.key)
        return picture.split or split_of(hashlib.sha256(key).hexdigest())

    return [picture for picture in pictures if belongs(picture) == split]


def generators(pictures: Iterable[Labelled]) -> dict[str, list[Labelled]]:
    """The generated pictures by generator, names in order."""
    groups: dict[str, list[Labelled]] = {}
    for picture in pictures:
        if picture.fake:
            groups.setdefault(picture.generator, []).append(picture)
    return dict(sorted(groups.items()))


class FolderPairs:
    """Pairs from a list: photos in a new order each time round, generators in equal shares.

    An epoch is one time round the photos. Each class goes through its own pictures without
    repetition until all were seen, however unequal the classes are; in every round of as many pairs
    as there are generators each of them comes once, and each goes through its own pictures. Those
    named in ``often`` come so many times in a round, which is so much longer. With ``twins`` the
    generated picture of a pair is the one of the real picture's own photo: the file of that name in
    the generator's folder beside ``real``.
    """

    def __init__(
        self,
        pictures: Sequence[Labelled],
        seed: int,
        often: Mapping[str, int] | None = None,
        twins: bool = False,
    ) -> None:
        self.real = [p for p in pictures if not p.fake]
        self.fake = generators(pictures)
        self.often = {name: (often or {}).get(name, 1) for name in self.fake}
        self.names = [(name, k) for name, times in self.often.items() for k in range(times)]
        self.seed = seed
        if not self.real or not self.fake:
            raise DataError("Training needs real and generated pictures: one of them is missing.")
        for name, group in self.fake.items():
            if len(group) < 2:
                raise DataError(
                    f"The generator {name} has one picture to train on, which would come again and "
                    "again: add some, or leave the generator out."
                )
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        self.twins = self._twins() if twins else {}

    def _twins(self) -> dict[str, dict[tuple[Path, str], Labelled]]:
        """Each generator's pictures by the set's folder and the file's name."""
        found = {name: {_place(p): p for p in group} for name, group in self.fake.items()}
        for name, group in found.items():
            if lonely := [p for p in self.real if _place(p) not in group]:
                folder, stem = _place(lonely[0])
                raise DataError(
                    f"{folder / lonely[0].generator / stem}: {name} has no picture of that name "
                    "beside it; pairs of twins need every real picture from every generator "
                    "(`forgemap synth --whole` makes them so)."
                )
        return found

    def __len__(self) -> int:
        return len(self.real)

    def __getitem__(self, n: int) -> Pair:
        turn, place = divmod(n, len(self.names))
        name, again = self.names[self._pick(1, turn, len(self.names), place)]
        group = self.fake[name]
        real = self._pick(0, *_turn(n, len(self.real)))
        if self.twins:
            return Pair(self.real[real], self.twins[name][_place(self.real[real])])
        number = turn * self.often[name] + again
        fake = self._pick(2 + list(self.fake).index(name), *_turn(number, len(group)))
        return Pair(self.real[real], group[fake])

    def _pick(self, stream: int, turn: int, size: int, place: int) -> int:
        """Place ``place`` of the order in which a stream goes through ``size`` things this turn."""
        known, order = self._orders.get(stream, (-1, np.zeros(0, int)))
        if known != turn:
            order = np.random.default_rng([self.seed, stream, turn]).permutation(size)
            self._orders[stream] = (turn, order)
        return int(order[place])


def _place(picture: Labelled) -> tuple[Path, str]:
    """The folder that holds a picture's class's folder, and the file's name without suffix."""
    if isinstance(picture.image, bytes):
        raise DataError("Twins are found by the names of files; shards have none.")
    return picture.image.parent.parent, picture.image.stem


def imbalance(pictures: Iterable[Labelled]) -> str:
    """One sentence if one class has over ten times the pictures of the other, else ""."""
    kinds = [p.fake for p in pictures]
    fake, real = sum(kinds), len(kinds) - sum(kinds)
    if min(fake, real) * 10 >= max(fake, real):
        return ""
    few, many = ("real", "generated") if real < fake else ("generated", "real")
    return (
        f"{min(fake, real)} {few} pictures against {max(fake, real)} {many} ones: each of the few "
        "comes more than ten times as often; add some if you can."
    )


def _turn(n: int, size: int) -> tuple[int, int, int]:
    """How often ``size`` was gone through before n, ``size``, and the place in this turn."""
    return n // size, size, n % size


def _labelled(file: Path, root: Path) -> Labelled:
    folders = file.relative_to(root).parts[:-1]
    lower = [name.lower() for name in folders]
    split = next((_SPLITS[name] for name in lower if name in _SPLITS), "")
    variant = next((name for name in lower if name in _VARIANTS), "")
    marks = [i for i, name in enumerate(lower) if name in (*_REALS, *_FAKES)]
    mark = marks[0] if marks else len(folders)

    def names(among: range) -> list[str]:
        return [folders[i] for i in among if lower[i] not in (*_SPLITS, *_VARIANTS)]

    before, after = names(range(mark)), names(range(mark + 1, len(folders)))
    group = ""
    if not marks:
        generator = before[0] if before else ""
    elif lower[mark] in _REALS:
        generator = REAL
        group = before[0] if before else "" if lower[mark] == REAL else root.resolve().name
    elif before:
        generator = before[0]
    elif lower[mark] == "fake":
        generator = after[0] if after else "fake"
    else:  # one generator's folder was named itself
        generator = root.resolve().name
    if not generator:
        raise DataError(
            f"{file}: its folder does not say whether it is real; expected real/ and a folder for "
            "each generator, 0_real/ and 1_fake/, or nature/ and ai/."
        )
    return Labelled(file, generator, file.stem, split, group, variant)


def _from_manifest(path: Path) -> list[Labelled]:
    pictures = []
    for record in read_manifest(path):
        generator = record.method if record.manipulated else REAL
        if not record.manipulated or record.marks == "whole":
            key = record.source or record.image.stem
            pictures.append(Labelled(record.image, generator, key, record.split))
    return pictures
