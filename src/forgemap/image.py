"""image.py: a path, bytes, PIL image or array -> one RGB picture, or one sentence on why not.

image = load_image("photo.jpg")     # pixels (H, W, 3) uint8 sRGB, upright, and their history
to_stored(mask, image.orientation)  # a map of the upright picture, laid out as in the file
find_images(["photos", "*.png"])    # files, folders and globs -> files and problems
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image as PILImage

from . import decode
from .errors import ImageError
from .metadata import Metadata, read_metadata
from .pixels import stored_view

DEFAULT_MAX_PIXELS = 100_000_000

EXTENSIONS = frozenset(extension for known in decode.FORMATS.values() for extension in known)


@dataclass(frozen=True, eq=False)
class Image:
    """A decoded picture and what was done to read it."""

    pixels: np.ndarray
    """(H, W, 3) uint8, sRGB, as it is displayed (EXIF orientation applied)."""
    name: str
    """The path as it was given, or "<bytes>", "<array>", "<PIL image>"."""
    sha256: str
    """Of the file's bytes; for arrays and PIL images of ``pixels``."""
    format: str
    """ "JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF", "AVIF", "HEIC", or "array"."""
    orientation: int
    """EXIF orientation that was applied, 1..8; 1 = none."""
    notes: tuple[str, ...]
    """What was changed or left out on the way, e.g. "alpha channel dropped"."""
    jpeg_quality: int | None
    """1..100, estimated from the quantisation tables; None where that is not possible."""
    metadata: Metadata | None = None
    """What the file says of itself; None unless asked for, and for arrays and PIL images."""
    unmanaged: np.ndarray | None = None
    """``pixels`` before a colour profile was converted to sRGB; None where that changed nothing."""
    table: tuple[int, ...] | None = None
    """The 64 luminance steps of a JPEG, row by row; None of other files."""

    @property
    def lossy(self) -> bool:
        """Whether saving the file discarded detail, as JPEG does; False for arrays."""
        return self.format in decode.LOSSY_FORMATS

    @property
    def samples(self) -> np.ndarray:
        """(H, W, 3) uint8, upright, as the file stores them: what networks see.

        Traces of compression do not survive a change of colours, and the published code of DeCLIP
        and CoDE leaves profiles aside too.
        """
        return self.pixels if self.unmanaged is None else self.unmanaged


def load_image(
    source: str | Path | bytes | BinaryIO | PILImage.Image | np.ndarray,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    metadata: bool = False,
) -> Image:
    """Read one picture.

    ``source`` is a path, the bytes of a file, an open binary file, a PIL image, or an array (H, W),
    (H, W, 3) or (H, W, 4) of bool, uint8, uint16 or float in [0, 1] (taken as sRGB; a uint8
    (H, W, 3) array is not copied). A picture of more than ``max_pixels`` pixels is refused before
    it is decoded. Colour follows one rule, given in ``pixels.py``. ``metadata``: also read what the
    file says of itself. Thread-safe.

    Raises ImageError: one sentence that names the picture and says what to do.
    """
    if max_pixels < 1:
        raise ValueError(f"max_pixels is {max_pixels}: it must be 1 or more")
    if isinstance(source, PILImage.Image):
        decoded = decode.decode_pil(source, "<PIL image>", max_pixels)
        return _finish(decoded, "<PIL image>", _sha256(decoded.pixels))
    if isinstance(source, np.ndarray):
        decoded = decode.decode_array(source, "<array>", max_pixels)
        return _finish(decoded, "<array>", _sha256(decoded.pixels))
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        data = read_file(name, max_pixels)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name, data = "<bytes>", bytes(source)
    elif hasattr(source, "read"):
        name, data = str(getattr(source, "name", "<bytes>")), source.read()
    else:
        raise TypeError(f"a picture cannot be read from a {type(source).__name__}")
    decoded = decode.decode_bytes(data, name, max_pixels)
    notes = decoded.notes + _extension_note(name, decoded.format)
    image = _finish(decoded._replace(notes=notes), name, hashlib.sha256(data).hexdigest())
    if not metadata:
        return image
    read = read_metadata(data, image.format, image.pixels, image.orientation)
    return replace(image, metadata=read)


def to_stored(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Map a (H, W, ...) map of the displayed picture to the layout in which the file stores it.

    ``orientation`` is ``Image.orientation``; for 5..8 height and width change places.
    """
    if orientation not in range(1, 9):
        raise ValueError(f"orientation is {orientation}: EXIF knows 1 to 8")
    return np.ascontiguousarray(stored_view(mask, orientation))


class FoundImages(NamedTuple):
    """What ``find_images`` found, and what it could not make sense of."""

    files: list[Path]
    """Sorted, no file twice. A file that was named outright is kept even if it does not exist:
    ``load_image`` then says what is wrong with it."""
    problems: list[tuple[str, str]]
    """(argument or folder, sentence) for each glob without a match, folder without pictures,
    and folder that cannot be opened."""


def find_images(paths: Iterable[str | Path]) -> FoundImages:
    """Turn files, folders and globs into a list of picture files.

    Folders are searched recursively for names with a known picture extension; hidden files and
    folders inside them are left out and links to folders are not followed. A glob (``*``, ``?``,
    ``[...]``, ``**``) is expanded here when the shell did not; its matches count as if named.
    """
    found: dict[str, Path] = {}
    problems: list[tuple[str, str]] = []
    for argument in (os.fspath(path) for path in paths):
        matches = [argument]
        if not os.path.lexists(argument) and glob.has_magic(argument):
            matches = glob.glob(argument, recursive=True)
            if not matches:
                problem = f"{decode.shown(argument)} matches no file: check the pattern"
                problems.append((argument, problem))
        for match in matches:
            files = [match]
            if os.path.isdir(match):
                files, unreadable = _pictures_under(match)
                problems += unreadable
                if not files and not unreadable:
                    problem = f"{decode.shown(match)} is a folder without pictures: name another"
                    problems.append((match, problem))
            for file in files:
                found.setdefault(os.path.abspath(file), Path(file))
    return FoundImages(sorted(found.values()), problems)


def _pictures_under(folder: str) -> tuple[list[str], list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []

    def failed(error: OSError) -> None:
        name = str(error.filename)
        reason = error.strerror or "unknown error"
        problems.append(
            (name, f"{decode.shown(name)} cannot be opened ({reason}): check its permissions")
        )

    files = []
    for root, folders, names in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [
            os.path.join(root, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS
        ]
    return files, problems


def read_file(path: str, max_pixels: int) -> bytes:
    """The file's bytes, read once; everything that is not a readable picture file is refused."""
    name = decode.shown(path)
    try:
        # Looked at before it is opened: opening a pipe would wait for ever.
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            raise ImageError(f"{name} is a folder: name a picture in it")
        if not stat.S_ISREG(kind):
            raise ImageError(f"{name} is not a regular file (a pipe or device): name a picture")
        with open(path, "rb") as file:
            # A film or a disk image is turned away by its first bytes, not after reading it all.
            head = file.read(4096)
            decode.sniff(head, name)
            size = os.fstat(file.fileno()).st_size
            if size > 16 * max_pixels + 2**26:  # 4 channels of 32 bits, and 64 MiB of metadata
                raise ImageError(
                    f"{name} is {size / 2**20:.0f} MiB, more than {max_pixels:,} pixels can need:"
                    " raise the pixel limit (max_pixels) or shrink the picture"
                )
            return head + file.read()
    except FileNotFoundError:
        if os.path.islink(path):
            raise ImageError(
                f"{name} is a link to a file that does not exist: mend the link"
            ) from None
        raise ImageError(f"{name} does not exist: check the path") from None
    except PermissionError:
        raise ImageError(f"{name} may not be read: give yourself read permission") from None
    except ValueError:  # a NUL in the path
        raise ImageError(f"{name} is not a valid path: check the name") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(f"{name} cannot be read ({reason}): check the path and the disk") from None


def _finish(decoded: decode.Decoded, name: str, sha256: str) -> Image:
    return Image(name=name, sha256=sha256, **decoded._asdict())


def _sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def _extension_note(name: str, format: str) -> tuple[str, ...]:
    """A picture whose name promises another format was renamed or converted: worth a line."""
    extension = os.path.splitext(name)[1].lower()
    if extension not in EXTENSIONS or extension in decode.FORMATS[format]:
        return ()
    return (f"the name ends in {extension} but the file is {format}",)
