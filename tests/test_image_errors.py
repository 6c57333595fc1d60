"""image.py: what cannot be read is refused in one sentence that names it, and nothing hangs."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from forgemap.errors import ImageError
from forgemap.image import load_image

from .test_image import HEIGHT, WIDTH, as_nobody, encode, picture, tiff

FILES = {
    "jpg": encode("JPEG"),
    "progressive.jpg": encode("JPEG", progressive=True),
    "png": encode("PNG"),
    "webp": encode("WEBP"),
    "lossless.webp": encode("WEBP", lossless=True),
    "tif": encode("TIFF"),
    "lzw.tif": encode("TIFF", compression="tiff_lzw"),
    "float.tif": tiff(np.random.default_rng(0).random((HEIGHT, WIDTH, 3)).astype(np.float32)),
    "deflate.tif": tiff(np.asarray(picture()), photometric="rgb", compression="zlib"),
    "bmp": encode("BMP"),
    "gif": encode("GIF"),
    "avif": encode("AVIF"),
    "heic": encode("HEIF"),
}


def refusal(source: object, **options: int) -> str:
    """The sentence with which ``load_image`` refuses."""
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 300
    return sentence


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_refused(
    name: str, share: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = FILES[name]
    path = written(tmp_path / f"cut.{name}", data[: max(20, int(share * len(data)))])
    sentence = refusal(path)
    assert sentence.startswith(str(path))
    assert "truncated" in sentence or "not a picture" in sentence
    assert "get a" in sentence or "give a" in sentence
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("name", FILES)
def test_damaged_bytes_give_a_picture_or_a_refusal_and_nothing_else(name: str) -> None:
    rng = random.Random(name)
    for _ in range(25):
        data = bytearray(FILES[name])
        for _ in range(rng.choice([1, 3, 20])):
            data[rng.randrange(rng.choice([60, len(data)]))] = rng.randrange(256)
        with contextlib.suppress(ImageError):
            assert load_image(bytes(data), max_pixels=10**6).pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\0", "not a picture"),
        (b"hello, this is text\n" * 50, "not a picture"),
        (b"%PDF-1.7\n" + bytes(500), "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(500), "not a picture"),
        (b"\xff\xd8\xff\xe0" + bytes(500), "JPEG data"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "PNG data"),
        (b"GIF89a" + bytes(500), "GIF"),
        (b"II*\0" + bytes(500), "TIFF"),
        (b"BM" + bytes(500), "BMP data"),
    ],
)
def test_what_is_no_picture_is_refused_whatever_its_name(
    content: bytes, words: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "photo.jpg", content)
    sentence = refusal(path)
    assert sentence.startswith(f"{path} ")
    assert words in sentence


def test_missing_files_folders_and_dead_links_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.jpg") == f"{tmp_path}/gone.jpg does not exist: check the path"
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert "link to a file that does not exist" in refusal(tmp_path / "link.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert "loop.jpg cannot be read" in refusal(tmp_path / "loop.jpg")
    assert "not a valid path" in refusal("a\0b.jpg")


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "photo.jpg", FILES["jpg"])
    assert "cannot be read (Not a directory)" in refusal(path / "more.jpg")


def test_pipes_sockets_and_devices_are_refused_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    os.mkfifo("pipe.jpg")
    assert "not a regular file" in refusal("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert "not a regular file" in refusal("socket.jpg")
    assert "not a regular file" in refusal("/dev/zero")
    assert time.monotonic() - start < 1


def test_a_file_without_read_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(Path("secret.jpg"), FILES["jpg"]).chmod(0)
    with as_nobody():
        sentence = refusal("secret.jpg")
    assert sentence == "secret.jpg may not be read: give yourself read permission"


def test_names_that_would_disturb_a_terminal_are_escaped(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a\nb\x1b[31m.jpg").startswith("'/")
    bad = os.fsdecode(b"caf\xe9.jpg")  # Latin-1 in a UTF-8 file system
    assert "caf\\udce9.jpg" in refusal(bad)


# ---------------------------------------------------------------------------------- too large


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_header_that_promises_billions_of_pixels_is_refused_at_once() -> None:
    start = time.monotonic()
    sentence = refusal(png_header(60_000, 60_000))
    assert "60000 x 60000 pixels, over the limit of 100,000,000" in sentence
    assert "max_pixels" in sentence
    # Each format's own header, with its two sizes overwritten.
    gif = FILES["gif"][:6] + struct.pack("<HH", 60_000, 60_000) + FILES["gif"][10:]
    bmp = FILES["bmp"][:18] + struct.pack("<ii", 60_000, 60_000) + FILES["bmp"][26:]
    assert "over the limit" in refusal(gif)
    assert "over the limit" in refusal(bmp)
    jpg = bytearray(FILES["jpg"])
    frame = jpg.index(b"\xff\xc0")
    jpg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    assert "over the limit" in refusal(bytes(jpg))
    webp = bytearray(FILES["lossless.webp"])
    webp[21:25] = struct.pack("<I", 16_382 | 16_382 << 14)
    assert "pixels" in refusal(bytes(webp))
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("name", FILES)
def test_the_pixel_limit_holds_for_every_format_and_can_be_set(name: str) -> None:
    pixels = HEIGHT * WIDTH
    assert load_image(FILES[name], max_pixels=pixels).pixels.shape == (HEIGHT, WIDTH, 3)
    assert f"{WIDTH} x {HEIGHT} pixels" in refusal(FILES[name], max_pixels=pixels - 1)


def test_the_pixel_limit_holds_for_arrays_pil_images_and_many_frames() -> None:
    assert "over the limit" in refusal(np.zeros((20, 20, 3), np.uint8), max_pixels=399)
    assert "over the limit" in refusal(picture(), max_pixels=399)
    frames = encode("GIF", save_all=True, append_images=[picture().rotate(180)] * 3)
    assert "over the limit" in refusal(frames, max_pixels=HEIGHT * WIDTH - 1)


def test_the_limit_may_exceed_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 100)
    for name in FILES:
        if "webp" not in name:  # Pillow's WebP reader asks it itself
            assert load_image(FILES[name]).pixels.shape == (HEIGHT, WIDTH, 3)
    assert "shrink it" in refusal(FILES["webp"])


def test_a_file_far_larger_than_its_pixels_can_need_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "padded.jpg"
    with path.open("wb") as file:
        file.write(FILES["jpg"])
        file.truncate(2**31)  # sparse: takes no room
    start = time.monotonic()
    assert "2048 MiB" in refusal(path)
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 5, 2), (3, 20, 20), (5,), (1, 5, 5, 3)])
def test_arrays_of_the_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    assert "shape" in refusal(np.zeros(shape, np.uint8))


def test_what_is_no_picture_source_at_all_is_a_type_error() -> None:
    assert "complex128" in refusal(np.zeros((4, 4), complex))
    with pytest.raises(TypeError, match="NoneType"):
        load_image(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_pixels"):
        load_image(FILES["png"], max_pixels=0)


@pytest.mark.slow
def test_a_100_megapixel_jpeg_is_held_about_twice(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    PILImage.effect_mandelbrot((10_000, 10_000), (-2, -1, 1, 1), 10).convert("RGB").save(path)
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom forgemap.image import load_image\n"
        "print(load_image(sys.argv[1]).pixels.shape)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s*(\\d+)', status)[1]) / 1024)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    shape, peak = run.stdout.splitlines()
    assert shape == "(10000, 10000, 3)"
    assert float(peak) < 900  # MiB: 300 of ours, 400 of Pillow's, 35 of libraries, the file
