"""metadata.py: what a picture file says of itself, as far as it matters to a judgement.

found = read_metadata(data, "JPEG", pixels, orientation)   # a Metadata; never an exception
found.findings                                             # what to look at, in words

Everything here can be forged or stripped; it is told beside the verdict and does not enter it. GPS
co-ordinates are reported as present and never repeated.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from html import unescape
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags
from PIL import Image as PILImage

from .credentials import Credentials, read_credentials
from .decode import TiffFile, open_header
from .pixels import stored_view

# Tags of TIFF 6.0 and EXIF 2.32.
_MAKE, _MODEL, _SOFTWARE, _CHANGED, _THUMB_AT, _THUMB_SIZE = 271, 272, 305, 306, 513, 514
_EXIF, _GPS, _TAKEN, _LENS = 0x8769, 0x8825, 0x9003, 0xA434
_DESCRIPTION, _COMMENT = 270, 0x9286

_MOST = 200  # characters of any one entry that are repeated
_MOST_XMP = 2**20

_EDITORS = (
    *("photoshop", "lightroom", "gimp", "affinity", "snapseed", "pixelmator", "paint.net"),
    *("picsart", "canva", "facetune", "meitu", "luminar", "capture one", "darktable", "krita"),
    *("imagemagick", "faceapp", "vsco", "acorn", "pixlr", "photopea", "paintshop", "corel"),
)
_GENERATORS = (
    *("stable diffusion", "midjourney", "dall-e", "dall·e", "openai", "firefly", "comfyui"),
    *("invokeai", "automatic1111", "novelai", "imagen", "ideogram", "flux", "leonardo.ai"),
)
_PROMPT_KEYS = {
    *("parameters", "prompt", "workflow", "invokeai_metadata", "sd-metadata", "dream"),
    *("fooocus_scheme", "sui_image_params", "generation_data"),
}
# The same where a format has no named entries: in EXIF's comments, descriptions, even the camera.
_PROMPT = re.compile(
    r"Steps: \d+,.{0,300}\b(Sampler|CFG scale|Seed): "  # Stable Diffusion's web interfaces
    r"|\b(prompt|workflow): ?\{\s*[\"}]"  # ComfyUI, in the names of camera and maker
    r'|"class_type" ?: ?"'  # ComfyUI, as it is
    r'|"sui_image_params"'  # SwarmUI
    r"|\bJob ID: [0-9a-f]{8}-[0-9a-f]{4}-",  # Midjourney
    re.IGNORECASE | re.DOTALL,
)

# IPTC's digital source types that say more than "a camera took it", in words.
_SOURCE_TYPES = {
    "trainedAlgorithmicMedia": "made by a generative model, says the file",
    "compositeWithTrainedAlgorithmicMedia": "edited with a generative model, says the file",
    "algorithmicMedia": "made by an algorithm, says the file",
    "compositeSynthetic": "composed with synthetic parts, says the file",
    "compositeCapture": "composed of several captures, says the file",
    "digitalCapture": "captured by a camera, says the file",
    "humanEdits": "edited by a person, says the file",
    "minorHumanEdits": "slightly edited by a person, says the file",
}


@dataclass(frozen=True)
class Thumbnail:
    """The small copy that a camera puts into EXIF, and that many editors forget to renew."""

    width: int
    """In pixels."""
    height: int
    """In pixels."""
    difference: float
    """Largest difference from the picture anywhere, after blurring, from 0 to 1."""
    differs: bool
    """Is that more than compression explains?"""


@dataclass(frozen=True)
class Metadata:
    """What the file says of itself; None where it says nothing."""

    camera: str | None = None
    """Maker and model."""
    lens: str | None = None
    """As the camera names it."""
    software: str | None = None
    """What wrote the file last, as it says."""
    taken: str | None = None
    """When the picture was taken, as the camera's clock said: YYYY:MM:DD HH:MM:SS."""
    modified: str | None = None
    """When the file was changed, as the editor's clock said."""
    gps: bool = False
    """Does the file hold GPS co-ordinates? They are not repeated here."""
    source_type: str | None = None
    """IPTC's digital source type, in words."""
    c2pa: str | None = None
    """Content credentials: who signed, with what, and whether the signature fits the file."""
    thumbnail: Thumbnail | None = None
    """The copy inside EXIF."""
    findings: list[str] = field(default_factory=list)
    """What an analyst should look at, a sentence each."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def read_metadata(data: bytes, format: str, pixels: np.ndarray, orientation: int) -> Metadata:
    """Read the metadata of a file.

    Args:
        data: the file's bytes.
        format: as in ``Image.format``.
        pixels: (H, W, 3) uint8, the displayed picture, for comparison with the thumbnail.
        orientation: EXIF orientation that was applied, 1..8.
    """
    signed = read_credentials(data, format)
    try:
        im = TiffFile(io.BytesIO(data)) if format == "TIFF" else open_header(data, format)
        exif = im.getexif()
        details = dict(exif.get_ifd(_EXIF))
        gps = any(tag in (2, 4) for tag in exif.get_ifd(_GPS))
    except Exception:  # metadata is a heap of bytes from anywhere; the picture itself was read
        damaged = ["The metadata are damaged.", *_of_credentials(signed)]
        return Metadata(c2pa=signed.text if signed else None, findings=damaged)
    xmp = _xmp(im)
    texts = {str(k): str(v) for k, v in im.info.items() if isinstance(v, str)}
    notes = [exif.get(tag) for tag in (_MAKE, _MODEL, _DESCRIPTION)]
    notes += [details.get(_COMMENT), im.info.get("comment"), unescape(xmp), *texts.values()]
    prompted = any(_PROMPT.search(_comment(note)) for note in notes)
    cameras = (_text(exif.get(tag)) for tag in (_MAKE, _MODEL))
    maker, model = (None if name and "{" in name else name for name in cameras)
    if maker and model and model.lower().startswith(maker.lower().split()[0]):
        maker = None  # "Canon" and "Canon EOS R5"
    software = (
        _text(exif.get(_SOFTWARE)) or _tag(xmp, "xmp:CreatorTool") or _text(texts.get("Software"))
    )
    kind = (re.search(r"digitalsourcetype/(\w{1,60})", xmp) or [None, None])[1]
    kind = kind or (signed.kind if signed else None)
    found = Metadata(
        camera=" ".join(filter(None, (maker, model))) or None,
        lens=_text(details.get(_LENS)),
        software=software or _text(texts.get("Software")),
        taken=_date(details.get(_TAKEN)) or _tag(xmp, "photoshop:DateCreated"),
        modified=_date(exif.get(_CHANGED)) or _tag(xmp, "xmp:ModifyDate"),
        gps=gps,
        source_type=_SOURCE_TYPES.get(kind, kind) if kind else None,
        c2pa=signed.text if signed else None,
        thumbnail=_thumbnail(im, pixels, orientation),
    )
    found.findings.extend(_findings(found, texts, xmp, kind, prompted))
    found.findings.extend(_of_credentials(signed))
    return found


def _of_credentials(signed: Credentials | None) -> Iterator[str]:
    if signed is not None and signed.sound is False:
        yield (
            "Its content credentials do not fit the picture: it was changed after it was signed, "
            "or they were taken from another."
        )


def _findings(
    found: Metadata, texts: dict[str, str], xmp: str, kind: str | None, prompted: bool
) -> Iterator[str]:
    """Sentences on what is out of the ordinary."""
    named = (found.software or "").lower()
    if prompts := sorted(_PROMPT_KEYS & {key.lower() for key in texts}):
        yield f"It holds the entry “{prompts[0]}”, in which image generators keep their prompts."
    elif prompted:
        yield "A comment in it reads as the settings that image generators leave there."
    if kind and "lgorithmicMedia" in kind:
        yield "It declares that a generative model made or edited it."
    elif any(name in named for name in _GENERATORS):
        yield f"It names an image generator as its software: {found.software}."
    elif any(name in named for name in _EDITORS):
        yield f"It was saved by an editing program: {found.software}."
    if found.thumbnail is not None and found.thumbnail.differs:
        yield "The thumbnail inside it does not show the same picture: it may be the earlier one."
    if (
        found.taken
        and found.modified
        and found.modified[:10].replace("-", ":") > found.taken[:10].replace("-", ":")
    ):
        yield f"It was changed on a later day than it was taken: {found.modified}."
    if "photoshop:DocumentAncestors" in xmp or "xmpMM:Ingredients" in xmp:
        yield "Its history names other documents that went into it."


def _text(value: Any) -> str | None:
    """A printable, short string, or None."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    kept = "".join(c if c.isprintable() else " " for c in value.split("\0")[0])
    return " ".join(kept.split())[:_MOST] or None


def _comment(value: Any) -> str:
    """All of a text; EXIF's comments begin with eight bytes that name their encoding."""
    if isinstance(value, bytes):
        value = value[:_MOST_XMP]
        kind, rest = value[:8], value[8:]
        if kind.startswith(b"UNICODE"):  # of either byte order, whatever the file's own is
            order = "utf-16-be" if rest[:2].startswith(b"\0") else "utf-16-le"
            return rest.decode(order, "replace")
        return value.decode("utf-8", "replace")
    return value[:_MOST_XMP] if isinstance(value, str) else ""


def _date(value: Any) -> str | None:
    text = _text(value)
    return (
        text if text and re.fullmatch(r"[\d: /.+TZ-]{8,35}", text) and text[:4] != "0000" else None
    )


def _xmp(im: PILImage.Image) -> str:
    raw = im.info.get("xmp") or im.info.get("XML:com.adobe.xmp") or b""
    raw = raw.encode("utf-8", "replace") if isinstance(raw, str) else raw
    return raw[:_MOST_XMP].decode("utf-8", "replace") if isinstance(raw, bytes) else ""


def _tag(xmp: str, name: str) -> str | None:
    """The first value of an XMP property, written as an attribute or as an element."""
    match = re.search(rf'{name}(?:="([^"<]{{1,500}})"|>([^<]{{1,500}})<)', xmp)
    return _text(match[1] or match[2]) if match else None


def _thumbnail(im: PILImage.Image, pixels: np.ndarray, orientation: int) -> Thumbnail | None:
    """The JPEG in EXIF's second directory beside the picture, both as the file lays them out."""
    try:
        raw = im.info.get("exif", b"")
        start = 6 if raw.startswith(b"Exif\0\0") else 0
        directory = im.getexif().get_ifd(ExifTags.IFD.IFD1)
        at, size = directory[_THUMB_AT] + start, directory[_THUMB_SIZE]
        small: Any = open_header(raw[at : at + size], "JPEG")
        if small.width * small.height > 2**20 or min(small.size) < 16:
            return None
        thumb = np.asarray(small.convert("L"), np.float32)
    except Exception:  # none, or a damaged one
        return None
    return _compare(np.ascontiguousarray(stored_view(pixels, orientation)), thumb)


def _compare(stored: np.ndarray, small: np.ndarray) -> Thumbnail:
    """Brought to the same size; black bars that cameras add for another aspect are cut off."""
    height, width = small.shape
    thumb: Any = small
    wide, high = stored.shape[1] / width, stored.shape[0] / height
    if wide > high:  # bars above and below
        rows = min(height, max(1, round(stored.shape[0] / wide)))
        top = (height - rows) // 2
        thumb = thumb[top : top + rows]
    else:
        columns = min(width, max(1, round(stored.shape[1] / high)))
        left = (width - columns) // 2
        thumb = thumb[:, left : left + columns]
    size = thumb.shape[1], thumb.shape[0]
    grey = cv2.cvtColor(stored, cv2.COLOR_RGB2GRAY)
    reduced = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    picture, thumb = (cv2.GaussianBlur(x, (0, 0), 2.5) for x in (reduced, thumb))
    # Cameras make the thumbnail before the last tone curve: brightness and contrast may differ.
    gain, offset = np.polyfit(picture.ravel(), thumb.ravel(), 1) if picture.std() > 1 else (1, 0)
    difference = float(min(1, np.abs(gain * picture + offset - thumb).max() / 255))
    return Thumbnail(width, height, round(difference, 3), bool(difference > DIFFERS))


DIFFERS = 0.1
"""More than tone curves, sharpening and compression of a thumbnail explain: on six photographs with
thumbnails of another tone curve, at JPEG 60, the difference was 0.06 at most."""
