"""general.py: readers of layouts that hold any data: IMDL-BenCo, folder pairs, manifests, …"""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import DataError
from ..generated import read_generated
from ..records import UNTOUCHED, read_manifest
from .found import (
    SPLIT_NAMES,
    Found,
    bare,
    by_bare_stem,
    by_stem,
    child,
    match,
    pictures,
    pictures_below,
)


def manifest(root: Path) -> Found:
    """A manifest of ours, as `forgemap synth` and `forgemap data manifest` write it.

    ::

        manifest.jsonl    images/…    masks/…

    One object a line: image, mask (null = untouched), source, method, split, parameters, seed, and
    for masks that are not white = manipulated how they say it (marks).
    """
    return Found(read_manifest(root))


def coco_sd(root: Path) -> Found:
    """COCO-SD (DeCLIP, WACV 2025): objects of COCO redrawn by Stable Diffusion; built here.

    ::

        manifest.jsonl    images/{ldm,ldm_clean,ldm_real,none}/NAME.png    masks/NAME.png

    Trap: the authors' copy is not published; `forgemap data build coco-sd` makes one, in which the
    split follows the photograph and the mask is COCO's outline of the object. In ``ldm_real`` the
    marked region is the real part, see Dolos.
    """
    return Found(read_manifest(root))


def imdl_folder(root: Path) -> Found:
    """A folder in the layout of IMDL-BenCo (Ma et al., 2024).

    ::

        Tp/NAME.jpg    Gt/NAME.png or NAME_gt.png    (Au/… is read too)

    Trap: IMDL-BenCo sorts both folders and pairs the n-th with the n-th: one file too many in
    either, or names that sort differently, and all that follow have the wrong masks. Here names
    must agree; where the order would have paired otherwise a note says so.
    """
    found = Found()
    images, masks = pictures(child(root, "Tp")), pictures(child(root, "Gt"))
    found.add_untouched(pictures(child(root, "Au")))
    forged = (lambda image: image.stem, lambda mask: f"{bare(mask.stem)}t")  # COVERAGE's 1t.tif
    keys = ((by_stem, by_stem), (by_stem, by_bare_stem), forged)
    here = Found()
    pairs = match(images, masks, *keys, found=here)
    if images and masks and not pairs:
        found.problems.append(
            f"{root}: no picture of Tp has the name of a mask of Gt, so that their pairing by "
            "sorted order cannot be checked: rename the masks, or list the pairs in a JSON file "
            "(imdl-json)."
        )
        return found
    found.problems += here.problems
    if len(images) != len(masks):
        found.problems.append(f"{root}: Tp holds {len(images)} pictures, Gt {len(masks)} masks.")
    by_order = dict(zip(sorted(images), sorted(masks), strict=False))
    other = [(image, mask) for image, mask in pairs if by_order.get(image) != mask]
    if other:
        image, mask = other[0]
        wrong = by_order.get(image)
        found.notes.append(
            f"Sorted order, which IMDL-BenCo goes by, pairs {len(other)} pictures wrongly: "
            f"{image.name} with {wrong.name if wrong else 'nothing'} instead of {mask.name}."
        )
    for image, mask in pairs:
        found.add(image, mask, "edited", image.stem)
    return found


def imdl_json(root: Path) -> Found:
    """A list of pairs in the JSON format of IMDL-BenCo; ``root`` is the file.

    ::

        [["Tp/6.jpg", "Gt/6.png"], ["Tp/8.jpg", "Negative"], …]

    Traps: "Negative" in place of a mask means authentic; paths are relative to wherever IMDL-BenCo
    was started. Here they are looked for beside the file first, then in the current folder.
    """
    found = Found()
    try:
        rows = json.loads(root.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{root} cannot be read: {error}.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{root} is not JSON: {error}.") from None
    if not isinstance(rows, list):
        raise DataError(f'{root} must be a list of pairs: [["image", "mask"], …].')
    for number, row in enumerate(rows, start=1):
        if not (isinstance(row, list) and len(row) == 2 and all(isinstance(p, str) for p in row)):
            raise DataError(f'{root}: entry {number} is not a pair ["image", "mask"].')
        image = _beside(root, row[0])
        mask = None if row[1].lower() == "negative" else _beside(root, row[1])
        gone = [path for path in (image, mask) if path is not None and not path.is_file()]
        if gone:
            found.problems.append(f"{root}: entry {number} names {gone[0]}, which does not exist.")
        else:
            found.add(image, mask, UNTOUCHED if mask is None else "edited", image.stem)
    return found


def _beside(file: Path, name: str) -> Path:
    near = file.parent / name
    return near if near.is_file() or not Path(name).is_file() else Path(name)


def pairs(root: Path) -> Found:
    """Any folder of pictures with a folder of masks of the same names.

    ::

        images/…/NAME.jpg    masks/…/NAME.png (or NAME_mask.png, NAME_gt.png)
        real/…               (or authentic/: untouched pictures, where there are any)

    Folders inside are kept: one called train, val (valid) or test is the split, what remains of
    the path is the method, "edited" where nothing remains. Masks must be white = manipulated; the
    check looks at how plausible that is.
    """
    found = Found()
    top, under = child(root, "images", "image"), child(root, "masks", "mask", "gt")
    for image in pictures_below(child(root, "real", "authentic")):
        found.add(image, None, UNTOUCHED, image.stem, _split_in(image.relative_to(root)))
    if top is None or under is None:  # the signs of the set promise both
        raise DataError(f"{root} needs the folders images and masks.")
    bases = {top: top, under: under}

    def place(path: Path) -> str:
        base = next(b for b in bases if path.is_relative_to(b))
        return str(path.relative_to(base).with_suffix(""))

    def bare_place(path: Path) -> str:
        return bare(place(path))

    images, masks = pictures_below(top), pictures_below(under)
    for image, mask in match(images, masks, (place, place), (place, bare_place), found=found):
        inner = image.relative_to(top).parent
        method = "-".join(part for part in inner.parts if part not in SPLIT_NAMES)
        found.add(image, mask, method or "edited", image.stem, _split_in(inner))
    return found


def generated(root: Path) -> Found:
    """Real pictures beside pictures that generators made as a whole; D3's test set too.

    ::

        real/…      fake/GENERATOR/…      or       real/…      GENERATOR/…  (gen_0, gen_1, …)
        GENERATOR/…/0_real/…  1_fake/…    or       GENERATOR/{train,val}/{nature,ai}/…

    Trap: pooled generators hide that one of them is never found: each is a method of its own. In
    sets that redraw a photo its copies share the photo's name, and so its split; a folder inside
    called train, val or test decides the split instead. D3's test set holds every picture twice
    (augm/, no_augm/): give one of them. There are no masks: all of a generated picture counts as
    manipulated.
    """
    found = Found()
    for one in read_generated(root):
        if isinstance(one.image, Path):
            method, marks = (one.generator, "whole") if one.fake else (UNTOUCHED, "white")
            found.add(one.image, None, method, one.key, one.split or None, marks=marks)
    if stray := [r for r in found.records if r.method == "fake"]:
        found.problems.append(
            f"{stray[0].image.parent} holds {len(stray)} pictures of an unnamed generator: put "
            "them into a folder of its name."
        )
    return found


def _split_in(path: Path) -> str | None:
    return next((SPLIT_NAMES[part] for part in path.parts if part in SPLIT_NAMES), None)
