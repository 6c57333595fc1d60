"""metadata.read_metadata: what a file says of itself, from files that real programs would write."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from PIL import PngImagePlugin

from forgemap.image import load_image
from forgemap.metadata import Metadata, read_metadata

from .conftest import picture

PHOTO = picture(240, 320, seed=5)


def read(data: bytes) -> Metadata:
    found = load_image(data, metadata=True).metadata
    assert found is not None
    return found


def jpeg(pixels: np.ndarray = PHOTO, **options: object) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def png(pixels: np.ndarray = PHOTO, **texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def camera(**more: object) -> PILImage.Exif:
    exif = PILImage.Exif()
    exif[271], exif[272] = "Canon", "Canon EOS R5"
    exif.get_ifd(0x8769)[0x9003] = "2026:05:01 10:20:30"
    for tag, value in more.items():
        exif[int(tag[1:])] = value
    return exif


def thumbnailed(pixels: np.ndarray, small: np.ndarray, orientation: int = 1) -> bytes:
    """A JPEG with an EXIF thumbnail of 160 x 120, black bars where the aspect differs."""
    thumb = PILImage.fromarray(small)
    thumb.thumbnail((160, 120))
    canvas = PILImage.new("RGB", (160, 120))
    canvas.paste(thumb, ((160 - thumb.width) // 2, (120 - thumb.height) // 2))
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=60)
    raw = buffer.getvalue()
    tiff = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, orientation, 26)
    tiff += struct.pack("<HHHIIHHII", 2, 513, 4, 1, 56, 514, 4, 1, len(raw)) + bytes(4)
    return jpeg(pixels, exif=b"Exif\0\0" + tiff + raw)


def test_a_plain_file_says_nothing() -> None:
    assert read(png()) == Metadata()


def test_camera_date_and_software_are_read_and_places_are_not_repeated() -> None:
    exif = camera(_305="Adobe Photoshop 26.1", _306="2026:05:03 08:00:00")
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 29.9)
    found = read(jpeg(exif=exif))
    assert found.camera == "Canon EOS R5"
    assert found.taken == "2026:05:01 10:20:30"
    assert found.software == "Adobe Photoshop 26.1"
    assert found.gps
    assert "48" not in str(found.to_dict())
    words = " ".join(found.findings)
    assert "editing program" in words and "later day" in words


def test_a_photo_straight_from_a_camera_has_no_findings() -> None:
    found = read(jpeg(exif=camera(_305="Ver. 1.2.0", _306="2026:05:01 10:20:30")))
    assert found.findings == []


def test_what_image_generators_leave_is_found() -> None:
    assert "generators keep" in read(png(parameters="a cat, Steps: 20")).findings[0]
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description Iptc4xmpExt:DigitalSourceType='
        b'"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia" '
        b'xmp:CreatorTool="Some Tool"/></x:xmpmeta>'
    )
    found = read(jpeg(xmp=xmp))
    assert "generative model" in (found.source_type or "")
    assert "generative model" in found.findings[0]
    assert found.software == "Some Tool"


SETTINGS = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"


@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + SETTINGS.encode("utf-16-be"),
        b"UNICODE\0" + SETTINGS.encode("utf-16-le"),
        b"ASCII\0\0\0" + SETTINGS.encode(),
        b"UNICODE\0" + '{"sui_image_params": {"prompt": "a cat"}}'.encode("utf-16-be"),
        b'ASCII\0\0\0{"3": {"class_type": "KSampler", "inputs": {}}}',
    ],
)
def test_what_generators_leave_in_comments_of_jpegs_and_webps_is_found(comment: bytes) -> None:
    exif = PILImage.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    webp = io.BytesIO()
    PILImage.fromarray(PHOTO).save(webp, "WebP", exif=exif)
    for data in (jpeg(exif=exif), webp.getvalue()):
        (finding,) = read(data).findings
        assert "image generators leave" in finding
        assert "cat" not in finding


def test_a_workflow_in_the_place_of_the_camera_is_no_camera() -> None:
    exif = PILImage.Exif()
    exif[271], exif[272] = 'workflow:{"nodes": []}', 'prompt:{"3": {}}'
    found = read(jpeg(exif=exif))
    assert found.camera is None
    assert "image generators leave" in found.findings[0]


def test_settings_in_xmp_are_found() -> None:
    value = "{&quot;3&quot;: {&quot;class_type&quot;: &quot;KSampler&quot;}}"
    packet = f'<rdf:Description xmlns:exif="exif" exif:UserComment="{value}"/>'
    assert "image generators leave" in read(jpeg(xmp=packet.encode())).findings[0]


def test_a_generators_job_is_found_in_a_description() -> None:
    job = "a cat --v 6 Job ID: 0f4a1c9e-12ab-4c3d-9e8f-001122334455"
    (finding,) = read(png(Description=job)).findings
    assert "image generators leave" in finding


@pytest.mark.parametrize(
    "words", ["Steps: 200 down to the sea", "Job ID: 4711", "My prompt: a walk {with the dog}"]
)
def test_comments_of_people_are_no_settings(words: str) -> None:
    exif = camera(_270=words)
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + words.encode()
    assert read(jpeg(exif=exif)).findings == []


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_thumbnail_of_the_same_picture_agrees_and_of_another_does_not(orientation: int) -> None:
    wide = picture(200, 320, seed=8)  # 16:10 in a thumbnail of 4:3: bars above and below
    same = read(thumbnailed(wide, wide, orientation)).thumbnail
    assert same is not None and (same.width, same.height) == (160, 120)
    assert not same.differs
    edited = wide.copy()
    edited[60:140, 40:140] = picture(80, 100, seed=21)
    found = read(thumbnailed(edited, wide, orientation))
    assert found.thumbnail is not None and found.thumbnail.differs
    assert "earlier one" in found.findings[0]


def test_a_tone_curve_is_no_difference() -> None:
    brighter = (255 * (PHOTO / 255) ** 0.8).astype(np.uint8)
    found = read(thumbnailed(PHOTO, brighter)).thumbnail
    assert found is not None and not found.differs


def test_content_credentials_are_found_where_the_standard_puts_them() -> None:
    box = b"JP\0\1\0\0\0\1" + struct.pack(">I", 60) + b"jumb" + b"\0\0\0\x25jumdc2pa" + bytes(40)
    segment = b"\xff\xeb" + struct.pack(">H", len(box) + 2) + box
    plain = jpeg()
    assert read(plain).c2pa is None
    assert "not verified" in (read(plain[:2] + segment + plain[2:]).c2pa or "")

    chunk = b"caBX" + b"jumb" * 4
    chunk = struct.pack(">I", 16) + chunk + struct.pack(">I", zlib.crc32(chunk))
    plain = png()
    assert read(plain[:33] + chunk + plain[33:]).c2pa is not None

    buffer = io.BytesIO()
    PILImage.fromarray(PHOTO).save(buffer, "WebP")
    webp = buffer.getvalue() + b"C2PA" + struct.pack("<I", 4) + b"jumb"
    webp = webp[:4] + struct.pack("<I", len(webp) - 8) + webp[8:]
    assert read_metadata(webp, "WebP", PHOTO, 1).c2pa is not None


@given(st.binary(max_size=300), st.sampled_from(["exif", "xmp"]))
@settings(max_examples=60, deadline=None)
def test_any_bytes_as_metadata_are_survived(noise: bytes, where: str) -> None:
    prefix = b"Exif\0\0II*\0\x08\0\0\0" if where == "exif" else b""
    found = read(jpeg(PHOTO[:32, :32], **{where: prefix + noise}))
    assert found.to_dict()["gps"] in (True, False)


@given(st.binary(min_size=1, max_size=80), st.integers(0, 600))
@settings(max_examples=60, deadline=None)
def test_any_damage_to_a_file_is_survived(noise: bytes, at: int) -> None:
    data = thumbnailed(PHOTO, PHOTO)
    damaged = data[:at] + noise + data[at + len(noise) :]
    for format in ("JPEG", "PNG", "WebP", "HEIC", "AVIF", "TIFF", "GIF", "BMP"):
        assert isinstance(read_metadata(damaged, format, PHOTO, 1), Metadata)


def test_it_stands_in_the_json_of_the_command(model_folder: Path, tmp_path: Path) -> None:
    import forgemap

    (tmp_path / "a.jpg").write_bytes(jpeg(exif=camera()))
    report = forgemap.load(model_folder).analyze(tmp_path / "a.jpg")
    assert report.to_dict()["metadata"]["camera"] == "Canon EOS R5"
    assert forgemap.load(model_folder).analyze(PHOTO).to_dict()["metadata"] is None
