"""demo.py: edits real photographs, and generates some anew; measures what Forgemap finds in them.

The photographs come inside scikit-image and scikit-learn, so nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from .analysis import analyze_files, with_progress, write_json
from .detector import Detector
from .errors import ForgemapError
from .evaluate.metrics import iou
from .image import load_image
from .report import Report
from .report_html import ReportWriter
from .synth.autoencoder import load_autoencoder
from .synth.edit import Context
from .synth.methods import METHODS

PHOTOS = {
    "astronaut.png": "skimage/data",
    "chelsea.png": "skimage/data",
    "coffee.png": "skimage/data",
    "rocket.jpg": "skimage/data",
    "china.jpg": "sklearn/datasets/images",
    "flower.jpg": "sklearn/datasets/images",
}
"""File name -> folder inside the installed packages."""

EDITS = ("splice", "copy_move", "inpaint_telea", "inpaint_ns", "splice_poisson")
EDITS_PER_PHOTO = 2
GENERATORS = ("nearest", "bilinear", "transposed", "shuffle")
"""Bundled autoencoders: what they give back of a photograph is a picture that a network made."""
AREA = (0.02, 0.15)
"""Smallest and largest edited share of a picture."""


@dataclass(frozen=True)
class Example:
    """A picture of the demo; `mask` is None for an untouched photograph and a generated picture."""

    image: Path
    photo: str
    method: str
    """Which edit; or none, or generated and by which network."""
    mask: Path | None

    @property
    def generated(self) -> bool:
        """Was the whole picture made by a network?"""
        return self.method.startswith("generated")


def run(out: Path, *, model: str = "default", seed: int = 0) -> list[Report]:
    """Makes the pictures, analyses them, prints what came out and where the report is.

    Args:
        out: folder for `photos/` (untouched), `edited/`, `masks/` (the truth), `generated/` and
            `report/`.
        model: as in `Detector.load`.
        seed: another seed edits other regions.

    Returns:
        One report for each picture: the untouched ones first, the generated ones last.
    """
    detector = Detector.load(model)
    print("Editing real photographs in known ways, and generating some anew ...", flush=True)
    examples = make_examples(out, seed)
    print("Analysing them as `forgemap analyze` does ...", flush=True)
    folder, files = out / "report", [example.image for example in examples]
    settings = {"seed": seed, "edits": ", ".join(EDITS), "generators": ", ".join(GENERATORS)}
    with ReportWriter(folder / "report.html", title="Forgemap demo", settings=settings) as page:
        analysed = analyze_files(detector, files, folder, page=page)
        reports = with_progress(analysed, len(files))
    write_json(reports, folder / "report.json")
    print_results(examples, reports)
    print(f"Report: {page.path.resolve()}")
    return reports


def make_examples(out: Path, seed: int) -> list[Example]:
    """Copies the photographs, writes the edited ones with their masks, and the generated ones."""
    sources = {name: path for name in PHOTOS if (path := _installed(name)) is not None}
    if len(sources) < 2:
        raise ForgemapError(
            "The demo's photographs are missing from this installation of scikit-image and "
            'scikit-learn: pip install --force-reinstall "forgemap[synth]"'
        )
    try:
        for name in ("photos", "edited", "masks", "generated"):
            (out / name).mkdir(parents=True, exist_ok=True)
        untouched = []
        for name, source in sources.items():
            copy = out / "photos" / name
            copy.write_bytes(source.read_bytes())
            untouched.append(Example(copy, name, "none", None))
        methods = cycle(EDITS)
        edited = [
            _edit(example.image, untouched, next(methods), out, seed)
            for _ in range(EDITS_PER_PHOTO)
            for example in untouched
        ]
        generated = [
            _generate(example.image, name, out)
            for example, name in zip(untouched, GENERATORS, strict=False)
        ]
    except OSError as error:
        raise ForgemapError(f"{out}: cannot be written ({error.strerror}).") from error
    return untouched + edited + generated


def _generate(photo: Path, generator: str, out: Path) -> Example:
    """The photograph as a bundled autoencoder gives it back, saved as the photograph was."""
    image = out / "generated" / f"{photo.stem}-{generator}{photo.suffix}"
    pixels = load_autoencoder(generator).reconstruct(load_image(photo).pixels)
    PILImage.fromarray(pixels).save(image, quality=95)
    return Example(image, photo.name, f"generated: {generator}", None)


def _edit(photo: Path, photos: list[Example], method: str, out: Path, seed: int) -> Example:
    """One edited picture, saved as the photograph was: PNG, or JPEG at quality 95."""
    others = [other.image for other in photos if other.image != photo]

    def donor(random: np.random.Generator) -> tuple[str, np.ndarray]:
        path = others[random.integers(len(others))]
        return path.name, load_image(path).pixels

    # A seed of its own for each picture, so that adding one changes no other.
    digest = hashlib.sha256(f"{seed} {photo.name} {method}".encode()).digest()
    random = np.random.default_rng(list(digest))
    edit = METHODS[method](load_image(photo).pixels, random, Context(donor=donor, area=AREA))
    stem = f"{photo.stem}-{method}"
    image, mask = out / "edited" / f"{stem}{photo.suffix}", out / "masks" / f"{stem}.png"
    PILImage.fromarray(edit.pixels).save(image, quality=95)
    PILImage.fromarray(edit.mask).save(mask)
    return Example(image, photo.name, method, mask)


def _installed(name: str) -> Path | None:
    """The photograph's file in the package that brings it; None if it is not there."""
    package, _, folder = PHOTOS[name].partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / folder / name
    return path if path.is_file() else None


def print_results(examples: list[Example], reports: list[Report]) -> None:
    """A line for each picture, then the sums."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, justify in (
        ("picture", "left"),
        ("edit", "left"),
        ("verdict", "left"),
        ("score", "right"),
        ("area", "right"),
        ("IoU", "right"),
        ("as a whole", "left"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    ious, alarms, caught, found_whole, false_whole = [], 0, 0, 0, 0
    for example, report in zip(examples, reports, strict=True):
        overlap = ""
        if example.mask is not None and report.mask is not None:
            found, truth = (_read_mask(path) for path in (Path(report.mask), example.mask))
            ious.append(iou(found, truth))
            overlap = f"{ious[-1]:.2f}"
        flagged = report.verdict == "manipulated"
        caught += flagged and example.mask is not None
        alarms += flagged and example.mask is None and not example.generated
        right = flagged == (example.mask is not None) or example.generated
        verdict = f"[{'green' if right else 'red'}]{_short(report.verdict)}[/]"
        whole = (report.generated or {}).get("verdict", "")
        called = whole == "generated"
        found_whole += called and example.generated
        false_whole += called and not example.generated
        table.add_row(
            example.photo,
            {"none": "untouched"}.get(example.method, example.method.partition(":")[0]),
            verdict,
            f"{report.score:.3f}",
            f"{report.area:.1%}",
            overlap,
            f"[{'green' if called == example.generated else 'red'}]{_short(whole)}[/]",
        )
    console = Console(highlight=False)
    console.print(table)
    generated = sum(example.generated for example in examples)
    untouched = len(reports) - len(ious) - generated
    console.print(
        f"Edits judged manipulated: {caught} of {len(ious)}, mean IoU {np.mean(ious):.2f}. "
        f"Untouched photographs judged manipulated: {alarms} of {untouched}."
    )
    console.print(
        f"Generated pictures judged generated as a whole: {found_whole} of {generated}. Others "
        f"judged so: {false_whole} of {len(reports) - generated}."
    )


def _short(verdict: str | None) -> str:
    """A verdict that fits into 80 columns beside all the others."""
    return "no sign" if (verdict or "").startswith("no sign") else verdict or ""


def _read_mask(path: Path) -> np.ndarray:
    with PILImage.open(path) as picture:
        return np.asarray(picture.convert("L")) > 127
