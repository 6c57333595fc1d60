"""decode.py: the bytes of a picture file -> pixels and notes. For ``image.py`` and ``metadata.py``.

Pillow reads; its process-wide settings are neither changed nor relied on: its readers are called
one by one, chosen by the file's first bytes, so that neither a file's name nor Pillow's list of
forty formats decides what code sees the bytes. HEIC goes to pillow-heif, imported only then, and
TIFFs that Pillow cannot hold (floats in colour, planes of 16 bits, wide or signed integers) to
tifffile.

Of several frames or pages the first is taken, of an MPO or HEIC the main picture; the notes say so.
Colour and depth follow the rule in ``pixels.py``.
"""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as PILImage
from PIL import ImageFile, TiffImagePlugin

from .errors import ImageError
from .jpeg import jpeg_quality, luminance_table
from .pixels import array_pixels, srgb_pixels

# Format -> the extensions under which it travels.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WebP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "AVIF": (".avif", ".heif", ".hif"),
    "HEIC": (".heic", ".heif", ".hif"),
}

LOSSY_FORMATS = frozenset({"JPEG", "WebP", "AVIF", "HEIC"})
"""Those that discard detail: JPEG always, the others nearly always."""

_MAGIC = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # the last two: BigTIFF
}
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}

# EXIF and TIFF tags (TIFF 6.0; EXIF 2.32).
_BITS, _COMPRESSION, _ORIENTATION, _PLANAR, _SAMPLE_FORMAT, _ICC = 258, 259, 274, 284, 339, 34675


class Decoded(NamedTuple):
    """``image.Image`` without the name and the hash."""

    pixels: np.ndarray
    format: str
    orientation: int
    notes: tuple[str, ...]
    jpeg_quality: int | None
    unmanaged: np.ndarray | None = None
    table: tuple[int, ...] | None = None


class TiffFile(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF reader, without the process-wide pixel limit: ours was checked already."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = PILImage.new(self.mode, self._tile_size).im
        ImageFile.ImageFile.load_prepare(self)


def shown(name: str) -> str:
    """A file name that is safe to print: escaped if it holds control characters or bad UTF-8."""
    return name if name.isprintable() else repr(name)


def sniff(head: bytes, name: str) -> str:
    """The format (a key of ``FORMATS``) of a file that begins with ``head``; ImageError if none."""
    if not head:
        raise ImageError(f"{shown(name)} is empty: get a complete copy")
    for format, magic in _MAGIC.items():
        if head.startswith(magic):
            return format
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":  # ISO base media: the brands say whose
        box = head[8 : min(int.from_bytes(head[:4], "big"), 256)]
        brands = {box[i : i + 4] for i in range(0, len(box), 4) if i != 4}  # 4..8 is a version
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & _HEIC_BRANDS:
            return "HEIC"
    raise ImageError(f"{shown(name)} is not a picture: give a file that is {', '.join(FORMATS)}")


def decode_bytes(data: bytes, name: str, max_pixels: int) -> Decoded:
    """Decode the whole content of a file. Raises ImageError."""
    format = sniff(data, name)
    _silence_metadata_remarks()
    try:
        if format == "TIFF":
            return _decode_tiff(data, name, max_pixels)
        im = open_header(data, format)
        decoded = _decode(im, format, name, max_pixels)
        if format == "PNG" and b"IEND\xaeB`\x82" not in data:  # a cut that Pillow lets pass
            raise EOFError
        return decoded
    except Exception as error:  # on damaged bytes the readers raise nearly every class there is
        raise _image_error(name, format, error) from error


def decode_pil(im: PILImage.Image, name: str, max_pixels: int) -> Decoded:
    """Decode a PIL image, its current frame, leaving the image itself as it was."""
    _silence_metadata_remarks()
    try:
        return _decode(im, im.format or "array", name, max_pixels, frames=False)
    except Exception as error:  # the image may be a file that Pillow decodes only now
        raise _image_error(name, im.format or "PIL image", error) from error


def decode_array(array: np.ndarray, name: str, max_pixels: int) -> Decoded:
    """Check an array and bring it to (H, W, 3) uint8."""
    channels = array.shape[2:]
    if array.ndim not in (2, 3) or channels not in ((), (1,), (3,), (4,)) or 0 in array.shape:
        raise ImageError(f"{name} has the shape {array.shape}: give (H, W), (H, W, 3) or (H, W, 4)")
    if array.dtype.kind not in "buif":
        raise ImageError(f"{name} holds {array.dtype}: give uint8, uint16 or float in [0, 1]")
    _check_size(array.shape[1], array.shape[0], name, max_pixels)
    notes: list[str] = []
    return Decoded(array_pixels(array, notes), "array", 1, tuple(notes), None)


def open_header(data: bytes, format: str) -> ImageFile.ImageFile:
    """Parse the header with the reader of that one format; nothing is decoded yet."""
    module, reader = {
        # Not Pillow's JPEG factory: it may return a reader of several frames, with other rules.
        "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
        "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
        "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
        "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
        "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
        "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
        "HEIC": ("pillow_heif", "HeifImageFile"),
    }[format]
    return getattr(importlib.import_module(module), reader)(io.BytesIO(data))


def _decode(
    im: PILImage.Image, format: str, name: str, max_pixels: int, *, frames: bool = True
) -> Decoded:
    """Decode what ``open_header`` or a caller opened; ``frames``: count them, take the first."""
    _check_size(*im.size, name, max_pixels)
    notes = _frame_notes(im, format) if frames else []
    if _is_deep(im):
        notes.append("more than 8 bits per sample reduced to 8")
    im.load()
    _check_size(*im.size, name, max_pixels)  # HEIC learns its true size when it is decoded
    # HEIC has been turned by its library, which resets the tag: that is part of its decoding.
    orientation = _exif_orientation(im, notes)
    pixels, unmanaged = srgb_pixels(im, orientation, notes)
    quality = jpeg_quality(getattr(im, "quantization", None))
    table = luminance_table(im)
    return Decoded(pixels, format, orientation, tuple(notes), quality, unmanaged, table)


def _decode_tiff(data: bytes, name: str, max_pixels: int) -> Decoded:
    try:
        im = TiffFile(io.BytesIO(data))
    except SyntaxError:  # "unknown pixel mode", or damaged
        return _decode_wide_tiff(data, name, max_pixels)
    _check_size(*im.size, name, max_pixels)
    bits = max(im.tag_v2.get(_BITS, (1,)))
    signed_or_float = im.tag_v2.get(_SAMPLE_FORMAT, (1,))[0] in (2, 3, 5, 6)
    if bits > 16 or signed_or_float or (bits > 8 and im.tag_v2.get(_PLANAR, 1) == 2):
        return _decode_wide_tiff(data, name, max_pixels)
    if im.tag_v2.get(_COMPRESSION, 1) != 1 and _ends_early(im.tag_v2, len(data)):
        raise EOFError  # before libtiff finds out and prints its own lines to the terminal
    notes: list[str] = []
    orientation = _valid_orientation(im.tag_v2.get(_ORIENTATION, 1), notes)
    # Pillow's TIFF reader turns the picture itself and then drops the tag: nothing is left to do.
    decoded = _decode(im, "TIFF", name, max_pixels)
    return decoded._replace(orientation=orientation, notes=(*decoded.notes, *notes))


def _ends_early(tags: TiffImagePlugin.ImageFileDirectory_v2, size: int) -> bool:
    """Whether a strip (tags 273, 279) or tile (324, 325) lies beyond the end of the file."""
    offsets = tags.get(273) or tags.get(324) or ()
    counts = tags.get(279) or tags.get(325) or ()
    return any(o + n > size for o, n in zip(offsets, counts, strict=False))


def _decode_wide_tiff(data: bytes, name: str, max_pixels: int) -> Decoded:
    import tifffile

    notes: list[str] = []
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        _check_size(page.imagewidth, page.imagelength, name, max_pixels)
        planes = page.samplesperpixel
        kind = page.photometric.name
        colours = {"MINISWHITE": 1, "MINISBLACK": 1, "RGB": 3}.get(kind, 9)
        if page.imagedepth != 1 or not colours <= planes <= 8 or page.dtype.kind not in "buif":
            raise ImageError(f"{shown(name)} is a TIFF of an unusual kind: save it as 8-bit RGB")
        notes += [f"first of {len(file.pages)} pages"] if len(file.pages) > 1 else []
        try:
            array = page.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise ImageError(
                f"{shown(name)} is a {page.dtype} TIFF with {page.compression.name} compression:"
                " save it uncompressed, or install the package imagecodecs"
            ) from None
        if planes > 1 and page.planarconfig.name == "SEPARATE":
            array = np.moveaxis(array, 0, -1)
        if kind == "MINISWHITE" and array.dtype.kind == "u":
            array = np.iinfo(array.dtype).max - array
        orientation = _valid_orientation(page.tags.valueof(_ORIENTATION, 1), notes)
        profile = page.tags.valueof(_ICC)
    if planes > colours:
        notes.append("alpha channel dropped" if planes == colours + 1 else "extra channels dropped")
        array = array[..., :colours]
    im = PILImage.fromarray(array_pixels(array, notes))
    im.info["icc_profile"] = profile
    pixels, unmanaged = srgb_pixels(im, orientation, notes)
    return Decoded(pixels, "TIFF", orientation, tuple(notes), None, unmanaged)


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{shown(name)} has no pixels: get a complete copy")
    if width * height > max_pixels:
        raise ImageError(
            f"{shown(name)} has {width} x {height} pixels, over the limit of {max_pixels:,}:"
            " raise the pixel limit (max_pixels) or shrink the picture"
        )


def _image_error(name: str, format: str, error: Exception) -> ImageError:
    """One sentence for whatever a reader raised."""
    text = str(error).lower()
    if isinstance(error, ImageError):
        return error
    if isinstance(error, MemoryError):
        why = "does not fit into memory: shrink it"
    elif isinstance(error, PILImage.DecompressionBombError):
        why = f"has more pixels than the {format} reader takes: shrink it"
    elif isinstance(error, EOFError) or "truncat" in text or "end of" in text or "eof" in text:
        why = f"is truncated (its {format} data end too early): get a complete copy"
    else:
        why = f"is damaged or truncated (not valid {format} data): get an intact copy"
    return ImageError(f"{shown(name)} {why}")


def _silence_metadata_remarks() -> None:
    """Keep what the readers say of odd metadata ("Corrupt EXIF data") off the user's terminal.

    A filter on one category of one package, added once rather than swapped in and out, since
    ``warnings.catch_warnings`` is not thread-safe; Pillow's decompression-bomb and deprecation
    warnings are of other categories and stay. Logging stays as the application configured it.
    """
    pattern = r"PIL\."
    if not any(getattr(entry[3], "pattern", None) == pattern for entry in warnings.filters):
        warnings.filterwarnings("ignore", category=UserWarning, module=pattern)
    for logger in (logging.getLogger("PIL"), logging.getLogger("tifffile")):
        if not logger.handlers:  # without any, Python prints errors to the terminal
            logger.addHandler(logging.NullHandler())


def _frame_notes(im: PILImage.Image, format: str) -> list[str]:
    if format == "JPEG" and "mp" in im.info:
        return ["the main one of several pictures (MPO)"]
    count = getattr(im, "n_frames", 1)
    words = {"HEIC": "the main one of {} pictures", "TIFF": "first of {} pages"}
    return [words.get(format, "first of {} frames").format(count)] if count > 1 else []


def _is_deep(im: PILImage.Image) -> bool:
    """Whether the file has more than 8 bits per sample, as far as Pillow lets one see."""
    if im.format in ("PNG", "TIFF"):  # elsewhere ";16" is a packing, as in 16-bit BMP
        return im.mode.startswith("I;16") or any(
            ";16" in str(tile) or ";12" in str(tile) for tile in getattr(im, "tile", ())
        )
    return im.mode.startswith("I;16") or im.info.get("bit_depth", 8) > 8


def _valid_orientation(value: Any, notes: list[str]) -> int:
    if isinstance(value, int) and 1 <= value <= 8:
        return value
    if value not in (0, None):  # 0 is what some cameras write for "unknown"
        notes.append("unknown EXIF orientation ignored")
    return 1


def _exif_orientation(im: PILImage.Image, notes: list[str]) -> int:
    try:
        return _valid_orientation(im.getexif().get(_ORIENTATION, 1), notes)
    except Exception:  # EXIF is a heap of bytes from anywhere; the picture itself is fine
        notes.append("unreadable EXIF data ignored")
        return 1
