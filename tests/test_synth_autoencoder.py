"""synth/autoencoder.py: any size of picture, strict weights, one sentence for what is missing."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from forgemap.errors import ModelError
from forgemap.synth import autoencoder as module
from forgemap.synth.autoencoder import TAEF2_FILES, Autoencoder, load_autoencoder
from forgemap.synth.taef2 import taef2_decoder, taef2_encoder

from .conftest import picture

PUBLISHED = Path(__file__).parents[2] / "shared/data/taef2"


def save_taef2(folder: Path, width: int = 8, latents: int = 4) -> Path:
    """A small TAEF2 of random weights, stored in half precision like the published one."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in zip(TAEF2_FILES, (taef2_encoder, taef2_decoder), strict=True):
        state = {key: value.half() for key, value in build(width, latents).state_dict().items()}
        torch.save(state, folder / name)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_taef2(tmp_path_factory.mktemp("autoencoder"))


def exact() -> Autoencoder:
    """8 x 8 pixels to 192 latents and back without loss."""
    return Autoencoder(
        lambda images: F.pixel_unshuffle(images, 8), lambda z: F.pixel_shuffle(z, 8), "exact"
    )


def test_latents_are_eight_times_smaller_a_side(folder: Path) -> None:
    autoencoder = load_autoencoder(folder)
    latents = autoencoder.encode(torch.rand(2, 3, 64, 96))
    assert autoencoder.stride == 8
    assert latents.shape == (2, 4, 8, 12)
    images = autoencoder.decode(latents * 100)
    assert images.shape == (2, 3, 64, 96)
    assert 0 <= images.min() <= images.max() <= 1


@pytest.mark.parametrize("shape", [(64, 64), (65, 90), (3, 200), (1, 1)])
def test_any_size_of_picture_comes_back_in_its_own_size(
    folder: Path, shape: tuple[int, int]
) -> None:
    pixels = picture(*shape)
    assert load_autoencoder(folder).reconstruct(pixels).shape == pixels.shape
    assert np.array_equal(exact().reconstruct(pixels), pixels)


def test_a_read_only_picture_is_left_alone(folder: Path) -> None:
    pixels = picture(64, 64)
    pixels.setflags(write=False)
    before = pixels.copy()
    load_autoencoder(folder).reconstruct(pixels)
    assert np.array_equal(pixels, before)


def test_tiles_of_a_large_picture_agree_with_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = Autoencoder(
        lambda images: F.pixel_unshuffle(F.avg_pool2d(images, 5, 1, 2), 8),
        lambda latents: F.avg_pool2d(F.pixel_shuffle(latents, 8), 5, 1, 2),
        "smooth",
    )
    pixels = picture(232, 328)
    whole = smooth.reconstruct(pixels)
    monkeypatch.setattr(module, "TILE", 16)
    monkeypatch.setattr(module, "OVERLAP", 6)
    tiled = smooth.reconstruct(pixels)
    assert np.abs(tiled.astype(int) - whole).max() <= 1  # rounding
    assert np.array_equal(exact().reconstruct(pixels), pixels)


def test_no_tile_of_a_large_picture_exceeds_the_limit() -> None:
    seen: list[int] = []

    def encoder(images: torch.Tensor) -> torch.Tensor:
        seen.append(max(images.shape[-2:]))
        return F.pixel_unshuffle(images, 8)

    Autoencoder(encoder, lambda z: z, "watched").encode_pixels(picture(1100, 2100))
    assert max(seen) <= module.TILE * 8


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the published TAEF2 in ../shared/data")
def test_published_taef2_reconstructs_a_picture() -> None:
    autoencoder = load_autoencoder(PUBLISHED)
    pixels = picture(128, 128)
    error = np.mean((autoencoder.reconstruct(pixels).astype(float) - pixels) ** 2)
    assert 10 * np.log10(255**2 / error) > 25  # dB
    assert autoencoder.encode_pixels(pixels).shape == (32, 16, 16)


def test_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"No autoencoder at .*taef2_encoder\.pth.*hub id"):
        load_autoencoder(tmp_path / "nothing" / "there")


def test_weights_are_loaded_strictly(tmp_path: Path) -> None:
    save_taef2(tmp_path)
    file = tmp_path / TAEF2_FILES[1]
    state = torch.load(file, weights_only=True)
    del state["8.conv.2.bias"]
    torch.save(state, file)
    with pytest.raises(ModelError, match=r"taef2_decoder.pth.*8\.conv\.2\.bias"):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps(Path("/tmp"), 2)])
def test_a_file_that_is_no_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    save_taef2(tmp_path)
    (tmp_path / TAEF2_FILES[0]).write_bytes(content)
    with pytest.raises(ModelError, match=r"taef2_encoder\.pth is damaged"):
        load_autoencoder(tmp_path)


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    save_taef2(tmp_path)
    torch.save([torch.zeros(3)], tmp_path / TAEF2_FILES[0])
    with pytest.raises(ModelError, match="does not hold TAEF2's weights"):
        load_autoencoder(tmp_path)


def test_missing_diffusers_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ModelError, match=r"pip install 'forgemap\[diffusers\]'"):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderKL"])
def test_a_folder_saved_by_diffusers_is_read(tmp_path: Path, kind: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    four = (8, 8, 8, 8)
    if kind == "AutoencoderTiny":
        model = diffusers.AutoencoderTiny(
            encoder_block_out_channels=four, decoder_block_out_channels=four
        )
    else:
        model = diffusers.AutoencoderKL(
            block_out_channels=four,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4,
        )
    model.save_pretrained(tmp_path)
    autoencoder = load_autoencoder(tmp_path)
    pixels = picture(70, 100)
    assert autoencoder.encode_pixels(pixels).shape == (4, 9, 13)
    assert np.array_equal(autoencoder.reconstruct(pixels), autoencoder.reconstruct(pixels))
