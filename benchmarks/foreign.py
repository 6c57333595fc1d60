"""foreign.py: pictures that neither synth nor a model's maker made: python -m benchmarks.foreign.

A model is good at the pictures of the program that made its training data; what it does with those
of others is the question. Here the photographs come with scikit-image and scikit-learn (and from
PHOTOS, of one split), the edits are made with scikit-image and Pillow in ways that synth does not
know, and the files are saved with quantization tables, encoders and sizes that synth does not have:

    python -m benchmarks.foreign PHOTOS... --out foreign
    forgemap evaluate default foreign --out results          # all; or foreign/web.jsonl, ...
    python -m benchmarks.foreign PHOTOS... --origin camera --out raw    # never a JPEG

Each picture comes edited and untouched, saved in the same way. The same seed gives the same
pictures.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFilter
from skimage import color, exposure, restoration, transform

from forgemap.data.records import MANIFEST, UNTOUCHED, Record, write_manifest
from forgemap.errors import ForgemapError
from forgemap.image import load_image
from forgemap.synth.masks import random_mask

from .foreign_origins import ORIGINS, photographs, shown

Pixels = np.ndarray
"""(H, W, 3) uint8."""
Edit = Callable[[Pixels, np.ndarray, Pixels, np.random.Generator], Pixels]
"""(photo, region (H, W) bool, another photo, chance) -> the edited photo."""


def feathered(region: np.ndarray, radius: float) -> np.ndarray:
    """(H, W) bool -> (H, W, 1) weights in [0, 1], soft at the edge and zero outside."""
    soft = Pillow.fromarray(region.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(radius))
    return (2 * (np.asarray(soft) / 255.0 - 0.5)).clip(0, 1)[..., None]


def blend(photo: Pixels, other: np.ndarray, weights: np.ndarray) -> Pixels:
    """`other` (floats, 0-255) over the photo."""
    return np.rint(photo * (1 - weights) + other.clip(0, 255) * weights).astype(np.uint8)


def window(region: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The region's bounding box, larger by a margin."""
    ys, xs = np.nonzero(region)
    rows = slice(max(0, int(ys.min()) - margin), int(ys.max()) + 1 + margin)
    return rows, slice(max(0, int(xs.min()) - margin), int(xs.max()) + 1 + margin)


def biharmonic(
    photo: Pixels, region: np.ndarray, other: Pixels, rng: np.random.Generator
) -> Pixels:
    """Something removed, the hole filled with a smooth surface and noise from around it."""
    near = window(region, 12)
    hole = (
        transform.resize(region[near].astype(float), [-(-n // 3) for n in region[near].shape]) > 0.2
    )
    small = transform.resize(photo[near] / 255.0, hole.shape)
    filled = transform.resize(
        restoration.inpaint_biharmonic(small, hole, channel_axis=2), region[near].shape
    )
    rest = photo[near] - np.asarray(
        Pillow.fromarray(photo[near]).filter(ImageFilter.GaussianBlur(2))
    ).astype(float)
    noise = rng.permutation(rest[~region[near]])[: int(region[near].sum())]
    result = photo.copy()
    inside = result[near]
    values = filled[region[near]] * 255
    values[: len(noise)] += 0.7 * noise
    inside[region[near]] = np.rint(values.clip(0, 255))
    return result


def clone(photo: Pixels, region: np.ndarray, other: Pixels, rng: np.random.Generator) -> Pixels:
    """A part of the picture once more, turned, scaled and with a soft edge."""
    height, width = region.shape
    ys, xs = np.nonzero(region)
    centre = np.array([xs.mean(), ys.mean()])
    from_ = np.array([rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height])
    turn, scale = rng.uniform(-0.4, 0.4), rng.uniform(0.8, 1.25)
    place = (
        transform.SimilarityTransform(translation=-centre)
        + transform.SimilarityTransform(rotation=turn, scale=scale)
        + transform.SimilarityTransform(translation=from_)
    )
    moved = transform.warp(photo, place, order=3, mode="reflect", preserve_range=True)
    return blend(photo, moved, feathered(region, 2))


def paste(photo: Pixels, region: np.ndarray, other: Pixels, rng: np.random.Generator) -> Pixels:
    """A part of another photograph, resized, its colours matched to the place, with a soft edge."""
    height, width = region.shape
    side = max(height / other.shape[0], width / other.shape[1]) * rng.uniform(1.0, 1.4)
    size = [
        max(n, round(m * side)) for n, m in zip((width, height), other.shape[1::-1], strict=True)
    ]
    large = np.asarray(
        Pillow.fromarray(other).resize((size[0], size[1]), Pillow.Resampling.HAMMING)
    )
    top, left = int(rng.integers(size[1] - height + 1)), int(rng.integers(size[0] - width + 1))
    part, near = large[top : top + height, left : left + width], window(region, 8)
    matched = part.astype(float)
    matched[near] = exposure.match_histograms(part[near], photo[near], channel_axis=2)
    return blend(photo, 0.5 * part + 0.5 * matched, feathered(region, 1.5))


def heal(photo: Pixels, region: np.ndarray, other: Pixels, rng: np.random.Generator) -> Pixels:
    """A healing brush: the texture of a neighbouring place on the brightness of this one's edge."""
    near = window(region, 24)
    height, width = region[near].shape
    top, left = (
        int(rng.integers(0, n - m + 1)) for n, m in zip(region.shape, (height, width), strict=True)
    )
    texture = photo[top : top + height, left : left + width].astype(float)
    soft = [
        np.asarray(Pillow.fromarray(p).filter(ImageFilter.GaussianBlur(9))).astype(float)
        for p in (texture.astype(np.uint8), photo[near])
    ]
    result = photo.copy()
    result[near] = blend(photo[near], texture - soft[0] + soft[1], feathered(region[near], 3))
    return result


def retouch(photo: Pixels, region: np.ndarray, other: Pixels, rng: np.random.Generator) -> Pixels:
    """Skin smoothed: total variation denoising of a region."""
    near = window(region, 8)
    smooth = restoration.denoise_tv_chambolle(
        photo[near] / 255.0, weight=rng.uniform(0.08, 0.2), channel_axis=2
    )
    result = photo.copy()
    result[near] = blend(photo[near], smooth * 255, feathered(region[near], 3))
    return result


def recolour(photo: Pixels, region: np.ndarray, other: Pixels, rng: np.random.Generator) -> Pixels:
    """An object in another colour, its brightness kept."""
    near = window(region, 4)
    hsv = color.rgb2hsv(photo[near])
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(0.2, 0.8)) % 1
    hsv[..., 1] = (hsv[..., 1] * 1.3 + 0.1).clip(0, 1)
    result = photo.copy()
    result[near] = blend(photo[near], color.hsv2rgb(hsv) * 255, feathered(region[near], 1.5))
    return result


EDITS: dict[str, Edit] = {
    "foreign_biharmonic": biharmonic,
    "foreign_clone": clone,
    "foreign_paste": paste,
    "foreign_heal": heal,
    "foreign_retouch": retouch,
    "foreign_recolour": recolour,
}


def tables(strength: float) -> list[list[int]]:
    """Quantization tables for luminance and chroma that are no scaled version of the standard's."""
    order = np.add.outer(np.arange(8), np.arange(8)).ravel()
    bright = np.rint(strength * (1 + 0.45 * order)).clip(1, 255)
    return [bright.astype(int).tolist(), np.rint(bright * 1.6).clip(1, 255).astype(int).tolist()]


def saved(pixels: Pixels, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def as_png(pixels: Pixels, rng: np.random.Generator) -> bytes:
    return saved(pixels, "PNG")


def as_editor(pixels: Pixels, rng: np.random.Generator) -> bytes:
    """An editor's good JPEG: tables of its own, no chroma subsampling."""
    return saved(pixels, "JPEG", qtables=tables(rng.uniform(1, 3)), subsampling=0)


def as_web(pixels: Pixels, rng: np.random.Generator) -> bytes:
    """Shrunk to 55-90 % and saved by a content system: progressive JPEG or WebP, quality 75-88."""
    factor, quality = rng.uniform(0.55, 0.9), int(rng.integers(75, 89))
    picture = Pillow.fromarray(pixels)
    small = picture.resize([round(n * factor) for n in picture.size], Pillow.Resampling.HAMMING)  # type: ignore[arg-type]
    if rng.random() < 0.5:
        return saved(np.asarray(small), "WEBP", quality=quality, method=6)
    return saved(np.asarray(small), "JPEG", quality=quality, progressive=True, optimize=True)


SAVINGS = {"png": as_png, "editor": as_editor, "web": as_web}
SUFFIXES = {b"\x89P": ".png", b"\xff\xd8": ".jpg", b"RI": ".webp"}


def make(
    paths: Sequence[str],
    out: Path,
    *,
    split: str = "test",
    per_photo: int = 3,
    seed: int = 0,
    origin: str = "",
) -> Path:
    """Write pictures, masks, the manifest, and a list for each way of saving.

    With an origin, one of ORIGINS, all are saved as PNG, and small photographs left out.

    Raises:
        DataError: a photograph cannot be read, or none is left.
    """
    photos = photographs(paths, split, origin)
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    records: dict[str, list[Record]] = {name: [] for name in SAVINGS}
    turn = 0
    for n, photo in enumerate(photos):
        for k in range(per_photo):
            method = list(EDITS)[turn % len(EDITS)]
            saving = "png" if origin else list(SAVINGS)[(turn * 7 // 6) % 3]
            turn += 1
            rng = np.random.default_rng([seed, n, k])
            pixels = shown(photo, origin, rng)
            other = shown(photos[int(rng.integers(len(photos)))], origin, rng)
            region = random_mask(pixels, rng, area=(0.01, 0.15))[0]
            edited = EDITS[method](pixels, region, other, rng)
            chance = int(rng.integers(2**32))
            for name, result in ((method, edited), (UNTOUCHED, pixels)):
                data = SAVINGS[saving](result, np.random.default_rng(chance))
                image = out / "images" / f"{n:04}-{k}-{name}{SUFFIXES[data[:2]]}"
                image.write_bytes(data)
                mask = None
                if name == method:
                    mask = out / "masks" / f"{n:04}-{k}-{name}.png"
                    resized(region, load_image(image).pixels.shape[:2]).save(mask)
                source, drawn = str(photo), {"saved": saving}
                records[saving].append(
                    Record(image, mask, source, name, split, drawn, seed, benign=saving)
                )
        print(f"\r{n + 1} of {len(photos)} photographs", end="", file=sys.stderr, flush=True)
    for saving, some in records.items():
        if some:
            write_manifest(some, out / f"{saving}.jsonl")
    return write_manifest([r for some in records.values() for r in some], out / MANIFEST)


def resized(region: np.ndarray, shape: tuple[int, ...]) -> Pillow.Image:
    """The mask of a picture of (height, width), black and white."""
    picture = Pillow.fromarray(region.astype(np.uint8) * 255)
    picture = picture.resize((shape[1], shape[0]), Pillow.Resampling.BOX)
    return picture.point(lambda value: 255 * (value > 127))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.foreign", description=__doc__)
    parser.add_argument(
        "photos", nargs="*", help="photographs or folders; those of the split are used"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--per-photo", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--origin", default="", choices=ORIGINS, help="photographs that never were a JPEG; as PNG"
    )
    given = vars(parser.parse_args(arguments))
    try:
        path = make(given.pop("photos"), given.pop("out"), **given)
    except ForgemapError as error:
        print(f"benchmarks.foreign: {error}", file=sys.stderr)
        return 2
    print(f"\n{path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
