"""regions.py: what is to be redrawn: an object of COCO, a part of a face, a given mask."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from forgemap.data.masks import read_mask, size
from forgemap.errors import DataError
from forgemap.image import find_images

# Parts of a face in a picture that is aligned as those of CelebA-HQ and FFHQ are (eyes level, a
# little above the middle): ellipses by centre (x, y) and half-axes, as shares of width and height.
FACE_PARTS: dict[str, tuple[float, float, float, float]] = {
    "eyes": (0.5, 0.48, 0.27, 0.085),
    "nose": (0.5, 0.59, 0.1, 0.12),
    "mouth": (0.5, 0.72, 0.17, 0.085),
    "hair": (0.5, 0.14, 0.42, 0.17),
    "face": (0.5, 0.57, 0.3, 0.38),
}
JITTER = 0.03  # how far a part is moved at most, as a share of the side


@dataclass(frozen=True)
class Region:
    """A photo and the part of it that is to be redrawn.

    Attributes:
        path: the photo.
        name: of the files made from it, unique in the run.
        label: COCO's category, the part of the face, or "face" for a given mask.
        width: of the photo, displayed.
        height: of the photo, displayed.
        shape: COCO's segmentation (polygons or run lengths), (part, shift x, shift y), or the path
            of a mask file.
    """

    path: str
    name: str
    label: str
    width: int
    height: int
    shape: Any

    def mask(self) -> np.ndarray:
        """(H, W) bool, at the photo's size.

        Raises:
            DataError: a segmentation or mask file that cannot be read, or of another size.
        """
        shape = (self.height, self.width)
        if isinstance(self.shape, str):
            mask = read_mask(Path(self.shape)) > 0
        elif isinstance(self.shape, tuple):
            mask = _ellipse(self.shape, shape)
        else:
            mask = _decoded(self.shape, shape, self.path)
        if mask.shape != shape:
            raise DataError(
                f"{self.shape if isinstance(self.shape, str) else 'The annotation'}: the mask is "
                f"{mask.shape[1]}x{mask.shape[0]} pixels, but its picture {self.path} is "
                f"{self.width}x{self.height}."
            )
        return mask


def _ellipse(moved: tuple[str, float, float], shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    part, x, y = moved
    cx, cy, rx, ry = FACE_PARTS[part]
    rows = ((np.arange(height) + 0.5) / height - cy - y)[:, None] / ry
    columns = ((np.arange(width) + 0.5) / width - cx - x)[None] / rx
    return np.asarray(rows**2 + columns**2 <= 1)


def _decoded(segmentation: Any, shape: tuple[int, int], path: str) -> np.ndarray:
    """COCO's polygons, run lengths, or compressed run lengths."""
    from pycocotools import mask as coco

    height, width = shape
    try:
        if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
            runs = segmentation
        else:
            runs = coco.frPyObjects(segmentation, height, width)
        if isinstance(runs, list):
            runs = coco.merge(runs)
        return np.asarray(coco.decode(runs)) > 0
    except Exception as error:  # pycocotools raises all sorts of errors on odd input
        raise DataError(f"The annotation of {path} is no polygon and no RLE: {error}.") from None


def coco_regions(root: Path, area: tuple[float, float], seed: int) -> Iterator[Region]:
    """One object of every picture of COCO that has one of fitting size, in a random order.

    Args:
        root: the folder with ``annotations/instances_SPLIT.json`` and ``SPLIT/`` (train2017/ …) or
            ``images/SPLIT/``. All that are there are used.
        area: smallest and largest share of the picture, by COCO's own figures. Crowds are left out.
        seed: decides which object of a picture is taken, by the picture's name alone.

    Raises:
        DataError: no annotations, not COCO's, or no folder of pictures beside them.
    """
    files = sorted((root / "annotations").glob("instances_*.json"))
    if not files:
        raise DataError(
            f"{root} is no copy of COCO: there is no annotations/instances_….json, such as "
            "annotations/instances_val2017.json."
        )
    beside = {file: _coco_pictures(root, file) for file in files}
    if not any(beside.values()):
        raise DataError(
            f"{files[0]} has no pictures: there is no folder {root / _coco_split(files[0])}."
        )
    for file, folder in beside.items():
        if folder is None:
            continue
        split = _coco_split(file)
        try:
            listed = json.loads(file.read_bytes())
            names = {c["id"]: c["name"] for c in listed["categories"]}
            objects: dict[Any, list[dict[str, Any]]] = {}
            for one in listed["annotations"]:
                if not one.get("iscrowd"):
                    objects.setdefault(one["image_id"], []).append(one)
            images = sorted(listed["images"], key=lambda image: image["file_name"])
            order = np.random.default_rng(seed).permutation(len(images))
            for image in (images[i] for i in order):
                whole = image["width"] * image["height"]
                low, high = area
                fitting = [
                    o for o in objects.get(image["id"], [])
                    if low <= o["area"] / whole <= high and o["segmentation"]
                ]  # fmt: skip
                if fitting:
                    name = f"{split}-{Path(image['file_name']).stem}"
                    pick = fitting[int(_rng(seed, name).integers(len(fitting)))]
                    yield Region(
                        str(folder / image["file_name"]), name, names[pick["category_id"]],
                        image["width"], image["height"], pick["segmentation"],
                    )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise DataError(f"{file} is not COCO's instance annotations: {reason}.") from None


def _coco_split(file: Path) -> str:
    return file.stem[len("instances_") :]


def _coco_pictures(root: Path, file: Path) -> Path | None:
    split = _coco_split(file)
    return next((f for f in (root / split, root / "images" / split) if f.is_dir()), None)


def face_regions(folder: Path, masks: Path | None, seed: int) -> Iterator[Region]:
    """One region of every picture of a folder of faces, in a random order.

    Args:
        folder: aligned faces, in it and in folders inside.
        masks: masks with the names of the pictures (white = redraw); None = a part of the face
            from FACE_PARTS, moved a little.
        seed: decides the part, by the picture's name alone.

    Raises:
        DataError: no pictures, or one without a mask.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give a folder of face photographs.")
    files = find_images([folder]).files
    if not files:
        raise DataError(f"{folder} holds no pictures: give a folder of face photographs.")
    given = {} if masks is None else _by_place(masks)
    for i in np.random.default_rng(seed).permutation(len(files)):
        file = files[i]
        place = str(file.relative_to(folder).with_suffix(""))
        shape = size(file)
        if shape is None:
            shape = (0, 0)  # reported when it is read
        name = place.replace("/", "-").replace("\\", "-")
        if masks is not None:
            if place not in given:
                raise DataError(f"{file} has no mask: {masks / place}.png does not exist.")
            yield Region(str(file), name, "face", *shape, str(given[place]))
        else:
            rng = _rng(seed, name)
            part = str(rng.choice(list(FACE_PARTS)))
            x, y = (round(float(v), 4) for v in rng.uniform(-JITTER, JITTER, 2))
            yield Region(str(file), name, part, *shape, (part, x, y))


def _by_place(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give a folder of masks.")
    files: Sequence[Path] = find_images([folder]).files
    return {str(file.relative_to(folder).with_suffix("")): file for file in files}


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, int(sha256(name.encode()).hexdigest()[:16], 16)])


def fitted(pixels: np.ndarray, mask: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mask as the pipeline takes them: `fitted_shape`, by reducing and cropping.

    The reduction is antialiased and keeps the aspect ratio; what the last multiple of 8 leaves over
    is cut off evenly.
    """
    from PIL import Image as PILImage

    height, width = mask.shape
    rows, columns = fitted_shape(height, width, side)
    scale = min(1.0, side / max(height, width))
    if scale < 1:
        to = (max(columns, round(width * scale)), max(rows, round(height * scale)))
        picture = PILImage.fromarray(pixels).resize(to, PILImage.Resampling.LANCZOS)
        pixels = np.asarray(picture)
        reduced = cv2.resize(mask.astype(np.uint8) * 255, to, interpolation=cv2.INTER_AREA)
        mask = reduced >= 128
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    window = np.s_[top : top + rows, left : left + columns]
    return np.ascontiguousarray(pixels[window]), np.ascontiguousarray(mask[window])


def fitted_shape(height: int, width: int, side: int) -> tuple[int, int]:
    """(H, W): the longer side at most ``side``, both multiples of 8, never enlarged."""
    scale = min(1.0, side / max(height, width, 1))
    return int(height * scale + 1e-6) // 8 * 8, int(width * scale + 1e-6) // 8 * 8
