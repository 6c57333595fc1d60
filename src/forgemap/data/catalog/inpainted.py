"""inpainted.py: readers of sets whose edits a generative model painted: Dolos, AutoSplice, …"""

from __future__ import annotations

from pathlib import Path

from ..records import UNTOUCHED
from .found import (
    SPLIT_NAMES,
    Found,
    by_stem,
    child,
    folders,
    last_number,
    match,
    pictures,
)

DOLOS_SPLITS = ("train", "valid", "test")


def dolos(root: Path) -> Found:
    """Dolos (Țânțaru et al., WACV 2024; DeCLIP, WACV 2025): faces of CelebA-HQ and FFHQ.

    ::

        celebahq/fake/lama/images/{train,valid,test}/ID.png   lama, ldm, ldm_clean, ldm_real,
                          masks/{train,valid,test}/ID.png     pluralistic, repaint-p2(-9k)
                 fake/p2/{train,valid,test}/ID.png            generated as a whole: no masks
                 real/{train,valid,test}/ID.png
        ffhq/…                                                the same

    Trap: masks are inverted, 0 = fake and 255 = real, in three equal channels. In ``ldm_real`` the
    marked region is the *real* part of a decoded picture: the published code reads its masks like
    the others', and so does this reader, so that its figures compare. The folder that is named in
    DeCLIP's detection paths as fake is the real one, and the reverse.

    The method is the generator's name; of FFHQ ``ffhq-`` and that name. ``root`` may also be
    ``celebahq`` itself.
    """
    found = Found()
    bases = [base for name in ("celebahq", "ffhq") if (base := child(root, name)) is not None]
    for base in bases or [root]:
        prefix = "ffhq-" if base.name.lower() == "ffhq" else ""
        reals = {}
        for folder in folders(child(base, "real")):
            # real/train, or one level deeper, as DeCLIP's paths have it: real/lama/train
            for inner in [folder] if folder.name in SPLIT_NAMES else folders(folder):
                if split := SPLIT_NAMES.get(inner.name):
                    for image in pictures(inner):
                        reals[split, image.stem] = image
                        found.add(image, None, UNTOUCHED, f"{base.name}/{image.stem}", split)
        for generator in folders(child(base, "fake")):
            _dolos_generator(generator, prefix + generator.name, base.name, reals, found)
    return found


def _dolos_generator(
    folder: Path, method: str, faces: str, reals: dict[tuple[str, str], Path], found: Found
) -> None:
    images, masks = child(folder, "images"), child(folder, "masks")
    whole = images is None and masks is None
    for name in DOLOS_SPLITS:
        split = SPLIT_NAMES[name]
        here = child(folder if whole else images or folder, name, split)
        files = pictures(here)
        if not files:
            place = here or (folder if whole else folder / "images") / name
            found.gaps.append(f"{place} holds no pictures: the split {split!r} is empty.")
        if whole:
            for image in files:
                found.add(image, None, method, f"{faces}/{image.stem}", split, marks="whole")
            continue
        gone = masks is None or (there := child(masks, name, split)) is None
        if gone and files:
            found.problems.append(f"{folder / 'masks' / name} is missing: {here} has no masks.")
        if gone:
            continue
        for image, mask in match(files, pictures(there), (by_stem, by_stem), found=found):
            found.add(
                image, mask, method, f"{faces}/{image.stem}", split,
                marks="black", original=reals.get((split, image.stem)),
            )  # fmt: skip


def autosplice(root: Path) -> Found:
    """AutoSplice (Jia et al., CVPR workshops 2023): news photographs edited by DALL-E 2.

    ::

        Authentic/ID.jpg
        Forged_JPEG75/ID_N.jpg    Forged_JPEG90/    Forged_JPEG100/
        Mask/ID_mask.png

    Trap: the mask of ``ID_N.jpg`` is ``ID_mask.png``, all up to the *last* ``_`` (an ID may hold
    one too); several pictures share a mask. Authentic pictures are JPEG 75: against JPEG 90 or 100
    a detector can win by the compression alone.

    The methods are ``autosplice_jpeg75``, ``…90`` and ``…100``. No split is published.
    """
    found = Found()
    authentic = {image.stem: image for image in pictures(child(root, "Authentic"))}
    found.add_untouched(authentic.values())
    masks = pictures(child(root, "Mask"))
    stray = set(masks)
    for folder in folders(root):
        if not folder.name.lower().startswith("forged_jpeg"):
            continue
        method = f"autosplice_jpeg{folder.name[len('forged_jpeg') :]}"
        here = Found()
        names = (lambda image: f"{_before(image)}_mask", by_stem)
        for image, mask in match(pictures(folder), masks, names, found=here, shared=True):
            source = _before(image)
            found.add(image, mask, method, source, original=authentic.get(source))
            stray.discard(mask)
        if not pictures(folder):
            found.problems.append(f"{folder} holds no pictures.")
        # A mask without a picture is one that no folder has a picture for.
        found.problems += [p for p in here.problems if "is a mask without" not in p]
    for mask in sorted(stray):
        found.problems.append(f"{mask} is a mask without a picture: find it, or delete the mask.")
    found.notes.append(
        "Authentic pictures are JPEG 75: compare them with autosplice_jpeg75 alone, or a score "
        "measures the compression."
    )
    return found


def _before(image: Path) -> str:
    """All of a name up to its last ``_``; the whole name where it has none."""
    return image.stem.rpartition("_")[0] or image.stem


def cocoglide(root: Path) -> Found:
    """CocoGlide (Guillaro et al., TruFor, CVPR 2023): objects of COCO val2017 redrawn by GLIDE.

    ::

        fake/glide_inpainting_val2017_ID_up.png
        mask/CATEGORY_ID_mask.png        real/… ID …

    Trap: picture and mask share nothing but COCO's number; a category may hold a blank.

    A benchmark: all of it is "test".
    """
    found = Found()
    real = {last_number(image): image for image in pictures(child(root, "real"))}
    for number, image in real.items():
        found.add(image, None, UNTOUCHED, number, "test")
    fakes, masks = pictures(child(root, "fake")), pictures(child(root, "mask", "masks"))
    for image, mask in match(fakes, masks, (last_number, last_number), found=found):
        number = last_number(image)
        found.add(image, mask, "glide", number, "test", original=real.get(number))
    return found
