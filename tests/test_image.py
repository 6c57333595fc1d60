"""image.py: every format, mode, depth and orientation gives upright 8-bit sRGB pixels."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as PILImage

from forgemap.image import Image, load_image, to_stored
from forgemap.parity import _quarters

from .photographs import colour_profile, wide_gamut

HEIGHT, WIDTH = 48, 64


def picture(mode: str = "RGB") -> PILImage.Image:
    """A smooth picture whose four corners differ."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([255 * x // (WIDTH - 1), 255 * y // (HEIGHT - 1), 100 + 0 * x], -1)
    return PILImage.fromarray(pixels.astype(np.uint8)).convert(mode)


def encode(format: str, im: PILImage.Image | None = None, **options: object) -> bytes:
    if format == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        buffer = io.BytesIO()
        pillow_heif.from_pillow(im or picture()).save(buffer, **options)
        return buffer.getvalue()
    buffer = io.BytesIO()
    (im or picture()).save(buffer, format, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything: be somebody else for a while, in the current folder."""
    if os.geteuid() != 0:
        yield
        return
    os.chmod(".", 0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def difference(image: Image, expected: PILImage.Image | np.ndarray) -> float:
    """The largest difference of any sample."""
    return float(np.abs(image.pixels.astype(float) - np.asarray(expected)).max())


@pytest.mark.parametrize(
    ("encoder", "format", "extension", "tolerance"),
    [
        ("JPEG", "JPEG", ".jpg", 12),
        ("PNG", "PNG", ".png", 0),
        ("WEBP", "WebP", ".webp", 16),
        ("TIFF", "TIFF", ".tif", 0),
        ("BMP", "BMP", ".bmp", 0),
        ("GIF", "GIF", ".gif", 40),
        ("AVIF", "AVIF", ".avif", 16),
        ("HEIF", "HEIC", ".heic", 16),
    ],
)
def test_each_format_is_read_and_named(
    encoder: str, format: str, extension: str, tolerance: float, tmp_path: Path
) -> None:
    data = encode(encoder)
    path = tmp_path / f"photo{extension}"
    path.write_bytes(data)
    image = load_image(path)
    assert image.pixels.shape == (HEIGHT, WIDTH, 3)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags.c_contiguous
    assert difference(image, picture()) <= tolerance
    assert (image.format, image.orientation, image.notes) == (format, 1, ())
    assert image.name == str(path)
    assert image.sha256 == hashlib.sha256(data).hexdigest()


def test_path_bytes_file_pil_and_array_give_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(encode("PNG"))
    expected = load_image(path).pixels
    with path.open("rb") as file, PILImage.open(path) as im:
        images = [load_image(s) for s in (str(path), path.read_bytes(), file, im, expected)]
    assert all(np.array_equal(image.pixels, expected) for image in images)
    assert [i.name for i in images] == [str(path), "<bytes>", str(path), "<PIL image>", "<array>"]
    assert images[3].sha256 == images[4].sha256 == hashlib.sha256(expected.tobytes()).hexdigest()
    assert [i.format for i in images] == ["PNG", "PNG", "PNG", "PNG", "array"]


def test_a_pil_image_is_left_as_it_was() -> None:
    im = PILImage.open(io.BytesIO(encode("PNG", picture("P"), transparency=3)))
    load_image(im)
    assert im.mode == "P"
    assert im.info["transparency"] == 3


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.float32, np.float64])
def test_arrays_of_every_depth_mean_the_same_picture(dtype: type) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (9, 7, 3))
    full = {"b": 1, "u": np.iinfo(dtype).max if dtype in (np.uint8, np.uint16) else 1, "f": 1.0}
    array = (bits * full[np.dtype(dtype).kind]).astype(dtype)
    assert np.array_equal(load_image(array).pixels, bits * 255)


def test_grey_arrays_are_repeated_and_alpha_is_dropped() -> None:
    grey = np.arange(60, dtype=np.uint8).reshape(6, 10)
    assert np.array_equal(load_image(grey).pixels, np.dstack([grey] * 3))
    rgba = np.dstack([grey] * 3 + [grey * 0])
    assert np.array_equal(load_image(rgba).pixels, rgba[..., :3])
    assert load_image(rgba).notes == ("alpha channel dropped",)


# ------------------------------------------------------------------------------- orientation

# EXIF 2.32, tag 0x0112: where the stored first row's first and last pixel are displayed.
CORNERS = {
    1: ("top left", "top right"),
    2: ("top right", "top left"),
    3: ("bottom right", "bottom left"),
    4: ("bottom left", "bottom right"),
    5: ("top left", "bottom left"),
    6: ("top right", "bottom right"),
    7: ("bottom right", "top right"),
    8: ("bottom left", "top left"),
}
PLACES = {
    "top left": np.s_[:8, :8],
    "top right": np.s_[:8, -8:],
    "bottom left": np.s_[-8:, :8],
    "bottom right": np.s_[-8:, -8:],
}


def marked() -> np.ndarray:
    """A stored picture (48, 64, 3): red first corner, green second, the rest grey."""
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    pixels[PLACES["top left"]] = (255, 0, 0)
    pixels[PLACES["top right"]] = (0, 255, 0)
    return pixels


def exif(orientation: int) -> PILImage.Exif:
    tags = PILImage.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied_and_reported(format: str, orientation: int) -> None:
    options = {"quality": 100, "subsampling": "4:4:4"} if format in ("JPEG", "AVIF") else {}
    options |= {"lossless": True} if format == "WEBP" else {}
    image = load_image(
        encode(format, PILImage.fromarray(marked()), exif=exif(orientation), **options)
    )
    assert image.orientation == orientation
    red, green = (image.pixels[PLACES[place]].mean((0, 1)) for place in CORNERS[orientation])
    assert np.abs(red - (255, 0, 0)).max() < 12
    assert np.abs(green - (0, 255, 0)).max() < 12
    # And back to where the file has it.
    assert np.abs(to_stored(image.pixels, orientation).astype(int) - marked()).max() < 40


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once_which_is_part_of_its_decoding(orientation: int) -> None:
    options = {"exif": exif(orientation).tobytes(), "quality": 95}  # written as "irot", "imir"
    image = load_image(encode("HEIF", PILImage.fromarray(marked()), **options))
    red = image.pixels[PLACES[CORNERS[orientation][0]]].mean((0, 1))
    assert np.abs(red - (255, 0, 0)).max() < 12
    assert image.orientation == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_to_stored_undoes_the_display_of_a_mask(orientation: int) -> None:
    stored = np.arange(6 * 4).reshape(6, 4)
    im = PILImage.fromarray(stored.astype(np.uint8))
    displayed = load_image(encode("TIFF", im, exif=exif(orientation))).pixels[..., 0]
    assert np.array_equal(to_stored(displayed, orientation), stored)


def test_nonsense_orientations_are_ignored_and_said() -> None:
    image = load_image(encode("PNG", exif=exif(11)))
    assert image.orientation == 1
    assert image.notes == ("unknown EXIF orientation ignored",)
    with pytest.raises(ValueError, match="1 to 8"):
        to_stored(np.zeros((2, 2)), 9)


# ----------------------------------------------------------------------------- depth and mode

RAMP = np.tile(np.arange(0, 65536, 257, dtype=np.uint16), (16, 1))  # 0..65535 in 256 steps
RAMPS = np.stack([RAMP, RAMP[:, ::-1], RAMP], -1)


def png16(array: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", array[..., ::-1] if array.ndim == 3 else array)[1].tobytes()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png16(RAMP), RAMP),
        (png16(RAMPS), RAMPS),
        (tiff(RAMP), RAMP),
        (tiff(RAMPS, photometric="rgb"), RAMPS),
        (tiff(RAMPS, photometric="rgb", compression="zlib"), RAMPS),
        (tiff(RAMPS, photometric="rgb", byteorder=">"), RAMPS),
        (tiff(np.moveaxis(RAMPS, -1, 0), photometric="rgb", planarconfig="separate"), RAMPS),
        (tiff(RAMP, photometric="miniswhite"), 65535 - RAMP),
        (tiff(RAMP.astype(np.uint32) * 65537), RAMP),
    ],
    ids=["png grey", "png", "grey", "rgb", "zlib", "big-endian", "planes", "inverted", "32-bit"],
)
def test_16_and_32_bit_samples_keep_their_highest_8_bits(data: bytes, expected: np.ndarray) -> None:
    image = load_image(data)
    top = (expected >> 8).astype(np.uint8)
    assert np.array_equal(image.pixels, np.dstack([top] * 3) if top.ndim == 2 else top)
    assert image.notes == ("more than 8 bits per sample reduced to 8",)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", ["grey", "colour"])
def test_float_tiffs_are_read_as_0_to_1(dtype: type, shape: str) -> None:
    values = np.linspace(0, 1, 256)[None].repeat(8, 0)
    values = values if shape == "grey" else np.stack([values, 1 - values, values], -1)
    image = load_image(tiff(values.astype(dtype)))
    expected = np.rint(values * 255)
    assert difference(image, expected[..., None] if shape == "grey" else expected) <= 1
    assert image.notes == (f"{8 * np.dtype(dtype).itemsize}-bit float samples reduced to 8 bits",)


def test_floats_beyond_0_to_1_and_signed_samples_are_stretched_and_said() -> None:
    values = np.linspace(-10, 990, 256, dtype=np.float32)[None].repeat(8, 0)
    image = load_image(tiff(values))
    assert difference(image, np.arange(256)[None, :, None]) <= 1
    assert image.notes == ("32-bit float samples stretched from -10..990 to 8 bits",)
    signed = np.arange(-128, 128, dtype=np.int8)[None].repeat(8, 0)
    assert difference(load_image(tiff(signed)), np.arange(256)[None, :, None]) <= 1


def test_values_that_are_not_numbers_are_black_and_said() -> None:
    values = np.full((8, 8), 0.5, np.float32)
    values[0, 0], values[1, 1] = np.nan, np.inf
    image = load_image(tiff(values))
    assert "values that are not numbers shown as black" in image.notes
    assert image.pixels[0, 0].tolist() == image.pixels[1, 1].tolist() == [0, 0, 0]
    assert image.pixels[4, 4].tolist() == [128, 128, 128]


def test_grey_and_one_bit_pictures_are_repeated_in_three_channels() -> None:
    grey = load_image(encode("PNG", picture("L")))
    assert difference(grey, picture("L").convert("RGB")) == 0
    bit = picture("L").point(lambda v: 255 * (v > 100), "1")
    for format in ("PNG", "TIFF", "BMP", "GIF"):
        assert difference(load_image(encode(format, bit)), bit.convert("RGB")) == 0


def test_palette_colours_are_looked_up_and_their_transparency_dropped() -> None:
    palette = picture().quantize(16)
    expected = palette.convert("RGB")
    assert difference(load_image(encode("PNG", palette)), expected) == 0
    for transparency in (2, bytes(range(16))):
        image = load_image(encode("PNG", palette, transparency=transparency))
        assert difference(image, expected) == 0
        assert image.notes == ("transparency dropped",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_and_the_colours_below_it_kept(mode: str) -> None:
    im = picture(mode)
    im.putalpha(PILImage.new("L", im.size, 0))  # invisible everywhere
    for format in ("PNG", "TIFF"):
        image = load_image(encode(format, im))
        assert difference(image, picture("L" if mode == "LA" else "RGB").convert("RGB")) == 0
        assert image.notes == ("alpha channel dropped",)


def test_cmyk_without_a_profile_is_converted_and_said() -> None:
    image = load_image(encode("JPEG", picture("CMYK"), quality=95))
    assert difference(image, picture()) < 30
    assert image.notes == ("CMYK without a profile: colours are approximate",)
    assert load_image(encode("TIFF", picture("CMYK"))).pixels.shape == (HEIGHT, WIDTH, 3)


# ---------------------------------------------------------------------------------- profiles


def test_an_srgb_profile_leaves_the_pixels_alone() -> None:
    image = load_image(encode("PNG", icc_profile=colour_profile("sRGB")))
    assert difference(image, picture()) == 0
    assert image.notes == ()


def test_another_profile_is_converted_to_srgb_and_said() -> None:
    image = load_image(encode("PNG", icc_profile=wide_gamut()))
    assert image.notes == ("ICC profile converted to sRGB",)
    exchanged = np.asarray(picture())[..., ::-1]
    assert difference(image, exchanged) <= 2


@pytest.mark.parametrize("orientation", [1, 6])
def test_networks_see_the_samples_as_they_are_stored(orientation: int) -> None:
    options: dict[str, object] = {"quality": 90, "exif": exif(orientation)}
    plain = load_image(encode("JPEG", **options))
    assert plain.unmanaged is None and plain.samples is plain.pixels
    managed = load_image(encode("JPEG", icc_profile=wide_gamut(), **options))
    assert np.array_equal(managed.samples, plain.pixels)
    assert np.abs(managed.pixels[..., ::-1].astype(int) - plain.pixels).max() <= 2
    assert not np.array_equal(managed.pixels, managed.samples)
    quarters = list(_quarters(managed))  # what an export is compared on
    height, width = plain.pixels.shape[:2]
    assert np.array_equal(quarters[0].samples, plain.pixels[: height // 2, : width // 2])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_broken_profile_is_noted_and_not_fatal(format: str) -> None:
    image = load_image(encode(format, icc_profile=b"\0\0\0\x80garbage" * 20))
    assert image.notes == ("broken ICC profile ignored",)
    assert image.pixels.shape == (HEIGHT, WIDTH, 3)


def test_a_profile_of_another_colour_space_is_ignored_and_said() -> None:
    image = load_image(encode("PNG", picture("L"), icc_profile=colour_profile("sRGB")))
    assert image.notes == ("ICC profile of another colour space ignored",)


# ------------------------------------------------------------------------------ frames, JPEG


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_of_several_frames_is_taken_and_said(format: str) -> None:
    others = [picture().rotate(180), PILImage.new("RGB", (WIDTH, HEIGHT), "white")]
    image = load_image(encode(format, save_all=True, append_images=others))
    assert difference(image, picture()) <= 40
    assert image.notes == (f"first of 3 {'pages' if format == 'TIFF' else 'frames'}",)


def test_the_main_picture_of_an_mpo_is_taken_and_said() -> None:
    image = load_image(encode("MPO", save_all=True, append_images=[picture().rotate(180)]))
    assert difference(image, picture()) <= 12
    assert (image.format, *image.notes) == ("JPEG", "the main one of several pictures (MPO)")


@pytest.mark.parametrize("quality", [1, 10, 40, 50, 75, 85, 92, 98, 100])
def test_jpeg_quality_is_read_from_the_tables(quality: int) -> None:
    assert load_image(encode("JPEG", quality=quality)).jpeg_quality == quality


def test_tables_that_no_quality_makes_have_no_estimate() -> None:
    odd = [[200 if i < 8 else 1 for i in range(64)]] * 2
    assert load_image(encode("JPEG", qtables=odd)).jpeg_quality is None
    assert load_image(encode("PNG")).jpeg_quality is None


def test_a_name_that_promises_another_format_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode("PNG"))
    assert load_image(path).notes == ("the name ends in .jpg but the file is PNG",)


# ------------------------------------------------------------------- the rest of the process


def test_odd_metadata_warns_nobody(
    recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    # A JPEG whose EXIF says that its camera's name lies beyond the end of the file.
    broken = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\xff\0\0\0\xf0\xff\0\0\0\0\0\0"
    image = load_image(encode("JPEG", exif=broken))
    assert image.orientation == 1
    assert len(recwarn) == 0
    assert "".join(capfd.readouterr()) == ""


def test_settings_of_the_process_stay_and_threads_do_not_disturb_each_other() -> None:
    before = PILImage.MAX_IMAGE_PIXELS
    files = [encode(f) for f in ("JPEG", "PNG", "TIFF", "WEBP")] * 8
    expected = [load_image(data).pixels for data in files]
    results: dict[int, np.ndarray] = {}

    def work(start: int) -> None:
        for i in range(start, len(files), 4):
            results[i] = load_image(files[i]).pixels

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(results[i], pixels) for i, pixels in enumerate(expected))
    assert before == PILImage.MAX_IMAGE_PIXELS
