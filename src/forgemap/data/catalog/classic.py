"""classic.py: readers of sets edited by hand: CASIA v2, Columbia, COVERAGE, NIST16."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from ...errors import DataError
from ..records import UNTOUCHED
from .found import Found, by_bare_stem, by_stem, child, folders, match, pictures


def casia_v2(root: Path) -> Found:
    """CASIA v2 (Dong et al., 2013) with the masks of Pham et al. (2019).

    ::

        Au/Au_ani_00001.jpg
        Tp/Tp_D_CRN_S_N_cha00063_art00014_11818.jpg        .tif, .bmp and .jpg mixed
        CASIA 2 Groundtruth/Tp_D_…_11818_gt.png            also Gt/, groundtruth/

    ``Tp_D`` is a splice (the region of cha00063 pasted into art00014), ``Tp_S`` a copy-move.

    Traps: some 40 pictures bear another name than their masks, which were made for the corrected
    names; the number at the end still pairs them. Three pictures have no mask. Some 17 masks are
    turned or of another size. ``gt`` may be ``gt3``. No split is published: it follows the picture
    that was pasted into, with its authentic original.
    """
    found = Found()
    originals = {}
    for image in pictures(child(root, "Au")):
        if parts := re.fullmatch(r"Au_([a-z]+)_?(\d+)", image.stem, re.IGNORECASE):
            originals["".join(parts.groups())] = image
    for name, image in originals.items():
        found.add(image, None, UNTOUCHED, name)
    named = set(originals.values())
    found.add_untouched(image for image in pictures(child(root, "Au")) if image not in named)
    masks = pictures(child(root, "CASIA 2 Groundtruth", "Groundtruth", "Gt", "masks"))
    exact = (by_stem, by_bare_stem)
    numbered = (_tampering, lambda mask: _tampering(mask.with_stem(by_bare_stem(mask))))
    for image, mask in match(pictures(child(root, "Tp")), masks, exact, numbered, found=found):
        if by_bare_stem(mask) != image.stem:
            found.notes.append(f"{image.name} is paired by its number with {mask.name}.")
        words = image.stem.split("_")
        source = words[-2] if len(words) > 2 else image.stem
        method = "copy_move" if len(words) > 1 and words[1] == "S" else "splice"
        found.add(image, mask, method, source, original=originals.get(source))
    return found


def _tampering(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def columbia(root: Path) -> Found:
    """Columbia Uncompressed Image Splicing (Hsu and Chang, 2006): two cameras in one picture.

    ::

        4cam_auth/canong3_02_sub_01.tif
        4cam_splc/canong3_canonxt_sub_01.tif
                  edgemask/canong3_canonxt_sub_01_edgemask.jpg

    Trap: masks are coloured JPEGs, red for one camera and green for the spliced one, both brighter
    along the seam; as grey levels they are all "black" or noise. ``4cam_auth`` has an ``edgemask``
    of its own, which marks nothing spliced.

    A benchmark: all of it is "test".
    """
    found = Found()
    for image in pictures(child(root, "4cam_auth")):
        found.add(image, None, UNTOUCHED, image.stem, "test")
    spliced = child(root, "4cam_splc") or root
    keys = (by_stem, by_bare_stem)
    masks = pictures(child(spliced, "edgemask"))
    for image, mask in match(pictures(spliced), masks, keys, found=found):
        found.add(image, mask, "splice", image.stem, "test", marks="green")
    return found


def coverage(root: Path) -> Found:
    """COVERAGE (Wen et al., ICIP 2016): copy-moves over look-alike objects.

    ::

        image/1.tif  1t.tif                       the second one tampered
        mask/1copy.tif  1forged.tif  1paste.tif   what was copied, what is forged, the look-alike

    Traps: three masks a picture, of which ``forged`` is the truth; nine pictures have masks of
    another size.

    A benchmark: all of it is "test".
    """
    found = Found()
    plain, tampered = {}, []
    for image in pictures(child(root, "image", "images")):
        if image.stem.endswith("t"):
            tampered.append(image)
        else:
            plain[image.stem] = image
            found.add(image, None, UNTOUCHED, image.stem, "test")
    masks = [m for m in pictures(child(root, "mask", "masks")) if m.stem.endswith("forged")]
    keys = (lambda image: image.stem[:-1], lambda mask: mask.stem[: -len("forged")])
    for image, mask in match(tampered, masks, keys, found=found):
        source = image.stem[:-1]
        found.add(image, mask, "copy_move", source, "test", original=plain.get(source))
    return found


# In the reference table: the column that names a manipulation -> what it is called here.
NIST_TYPES = {
    "IsManipulationTypeRemoval": "removal",
    "IsManipulationTypeSplice": "splice",
    "IsManipulationTypeCopyClone": "copy_move",
}


def nist16(root: Path) -> Found:
    """NIST Nimble 2016 (NC2016): splices, removals and copies by professionals.

    ::

        probe/NC2016_0128.jpg        world/NC2016_3272.jpg
        reference/manipulation/NC2016-manipulation-ref.csv       also splice/, remove/ (removal/)
                               mask/NC2016_3942.png

    Traps: pictures and masks are joined by the table alone (columns divided by ``|``:
    ``ProbeFileName``, ``ProbeMaskFileName``, ``BaseFileName``, ``IsTarget``), their numbers have
    nothing in common; the folder that it names may have been renamed; masks are inverted, black =
    manipulated; pictures of one base share a scene.

    A benchmark: all of it is "test". ``root`` may also be the folder above.
    """
    found = Found()
    if child(root, "reference") is None:
        root = next((f for f in folders(root) if child(f, "reference")), root)
    reference = child(root, "reference")
    tables = sorted(
        (file for folder in folders(reference) for file in sorted(folder.glob("*-ref.csv"))),
        key=lambda file: "manipulation" not in file.name,  # it lists all; the others repeat
    )
    if not tables:
        raise DataError(
            f"{root / 'reference'} holds no …-ref.csv, such as "
            "manipulation/NC2016-manipulation-ref.csv: without it pictures have no masks."
        )
    masks: dict[str, list[Path]] = {}
    for folder in folders(reference):
        for mask in pictures(child(folder, "mask")):
            masks.setdefault(mask.name, []).append(mask)
    seen: set[str] = set()
    for table in tables:
        for row in _nist_rows(table):
            probe = row["ProbeFileName"]
            if probe not in seen:
                seen.add(probe)
                _nist_record(root, table, row, masks, found)
    return found


def _nist_rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="|"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a table: {error}.") from None
    for column in ("ProbeFileName", "ProbeMaskFileName", "IsTarget"):
        if rows and column not in rows[0]:
            raise DataError(f"{table} has no column {column!r}: its columns are divided by '|'.")
    return [{key: value or "" for key, value in row.items() if key} for row in rows]


def _nist_record(
    root: Path, table: Path, row: dict[str, str], masks: dict[str, list[Path]], found: Found
) -> None:
    image, base = root / row["ProbeFileName"], row.get("BaseFileName", "")
    source = Path(base or row["ProbeFileName"]).stem
    if not image.is_file():
        found.problems.append(f"{table} names {image}, which does not exist.")
    elif row["IsTarget"].upper() != "Y":
        found.add(image, None, UNTOUCHED, source, "test")
    else:
        mask = root / row["ProbeMaskFileName"]
        if not row["ProbeMaskFileName"] or not mask.is_file():
            elsewhere = masks.get(mask.name, [])
            if len(elsewhere) != 1:
                found.problems.append(f"{image} has no mask: {mask} does not exist.")
                return
            mask = elsewhere[0]
        types = [name for column, name in NIST_TYPES.items() if row.get(column, "").upper() == "Y"]
        original = root / base if base and (root / base).is_file() else None
        found.add(
            image, mask, types[0] if types else "manipulation", source, "test",
            marks="black", original=original,
        )  # fmt: skip
