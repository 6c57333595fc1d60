"""synth/camera.py: every demosaicing gives the colours back, and nothing of a JPEG stays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from forgemap.data.records import read_manifest
from forgemap.encode import decode, encode_jpeg
from forgemap.image import load_image
from forgemap.synth import synthesize
from forgemap.synth.benign import BENIGN
from forgemap.synth.camera import DEMOSAICINGS, demosaiced, developed, exposed, mosaic

from .conftest import picture

PHASES = [(row, column) for row in (0, 1) for column in (0, 1)]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("way", DEMOSAICINGS)
def test_what_a_sensor_saw_comes_back_in_its_colours(way: str, phase: tuple[int, int]) -> None:
    soft = cv2.GaussianBlur(picture(96, 120), (0, 0), 3).astype(np.float32) / 255
    seen = mosaic(soft, phase)
    found = demosaiced(seen, phase, way)
    inside = np.s_[6:-6, 6:-6]
    assert np.abs(found - soft)[inside].max() < 0.05
    row, column = phase
    # What was measured stays as it was measured.
    assert np.abs(found[row::2, column::2, 0] - seen[row::2, column::2])[3:-3, 3:-3].max() < 1e-4


def test_a_mosaic_takes_one_colour_of_each_pixel() -> None:
    colours = np.zeros((4, 6, 3), np.float32)
    colours[:] = (1, 2, 3)
    assert mosaic(colours, (0, 1)).tolist() == [[2, 1] * 3, [3, 2] * 3] * 2


def test_noise_is_that_of_light_and_readout() -> None:
    for level in (0.0, 0.5):
        light = np.full((200, 200, 3), level, np.float32)
        spread = float(exposed(light, 1000, 10, np.random.default_rng(0)).std())
        assert spread == pytest.approx((level / 1000 + 0.01**2) ** 0.5, rel=0.03)


def rhythm(pixels: np.ndarray, period: int) -> float:
    """How much larger steps between columns are at the strongest of `period` phases."""
    steps = np.abs(np.diff(pixels[..., 1].astype(float), 2, axis=1)).mean(0)
    phases = [steps[k::period].mean() for k in range(period)]
    return max(phases) / float(np.mean(phases))


def test_the_grid_of_a_jpeg_goes() -> None:
    once = decode(encode_jpeg(cv2.GaussianBlur(picture(900, 1200), (0, 0), 2), 40))
    assert rhythm(once, 8) > 1.5
    for seed in range(6):
        done = developed(once, np.zeros(once.shape[:2], np.uint8), np.random.default_rng(seed))
        assert rhythm(done.pixels, 8) < 1.15
        assert max(done.pixels.shape) <= 0.61 * 1200


def test_an_edit_comes_after_the_camera_and_takes_its_material_from_one(tmp_path: Path) -> None:
    """Never after the edit, which would be photographed too; and donors come from a camera."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(8):
        flat = np.full((600, 640, 3), (40 + 20 * seed, 200 - 20 * seed, 90), np.uint8)
        Image.fromarray(flat).save(photos / f"{seed}.png")
    manifest = synthesize(
        photos, tmp_path / "out", methods=["splice"], untouched=True, progress=False,
        benign=1.0, processing=["developed"],
    )  # fmt: skip
    records = read_manifest(manifest)
    assert {r.benign for r in records} == {"developed"}
    assert BENIGN["developed"].family == "origin"
    edited = [r for r in records if r.manipulated]
    assert edited and len(records) == 2 * len(edited)
    looked_at = 0
    for record in edited:
        assert "benign_after" not in record.parameters
        assert record.parameters["benign_before"]["name"] == "developed"
        pixels = load_image(record.image).pixels
        assert max(pixels.shape) <= 0.61 * 640
        mask = np.asarray(Image.open(record.mask))  # type: ignore[arg-type]
        inside = cv2.erode(mask, np.ones((9, 9), np.uint8)) > 0
        # Only a sensor gives a flat colour noise.
        if inside.any():
            looked_at += 1
            assert pixels[inside].std(0).max() > 0.2
    assert looked_at
