"""The generators that ship, those that anyone can train, and whole pictures made with them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch.nn import functional as F

from forgemap.data.masks import load_mask
from forgemap.data.records import read_manifest, split_of
from forgemap.errors import DataError, ForgemapError, ModelError
from forgemap.image import load_image
from forgemap.models.build import build
from forgemap.models.generators import (
    GENERATORS,
    INPAINTER,
    UPSAMPLING,
    bundled_generator,
    load_generator,
    save_generator,
    smooth_fill,
)
from forgemap.synth import synthesize
from forgemap.synth.autoencoder import load_autoencoder
from forgemap.synth.edit import Context
from forgemap.synth.learned import fill, load_inpainter
from forgemap.synth.methods import METHODS

from .conftest import picture

SHIPPED = (*UPSAMPLING, INPAINTER)
TINY = {"latents": 4, "width": 8, "widths": [8, 8, 4], "blocks": 1}


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Three photographs of about 256 x 256 pixels that no generator was trained on."""
    data = pytest.importorskip("skimage.data", reason="needs the extra `synth`")
    return [
        np.ascontiguousarray(data.astronaut()[:256, 100:356]),
        np.ascontiguousarray(data.chelsea()[20:276, 100:356]),
        np.ascontiguousarray(data.coffee()[100:356, 200:456]),
    ]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(one.astype(float) - other).mean()))


# What ships.


@pytest.mark.parametrize("name", SHIPPED)
def test_each_ships_small_with_a_card_that_states_sources_and_licence(name: str) -> None:
    folder = bundled_generator(name)
    assert (folder / "model.safetensors").stat().st_size <= 2 * 2**20
    card = (folder / "README.md").read_text()
    for word in ("license: apache-2.0", "BSDS500", "COCO", "ImageNet", "seed", "PSNR"):
        assert word in card, word
    config = json.loads((folder / "config.json").read_text())
    assert config["generator"]["architecture"] == name
    assert str(config["training"]["step"]) in card.replace(",", "")
    assert not any(parameter.isnan().any() for parameter in load_generator(folder).parameters())


@pytest.mark.parametrize("name", UPSAMPLING)
def test_pictures_come_back_better_than_from_an_eighth_of_the_size(
    name: str, photographs: list[np.ndarray]
) -> None:
    autoencoder = load_autoencoder(name)
    assert autoencoder.stride == 8
    for pixels in photographs:
        images = torch.from_numpy(np.moveaxis(pixels, -1, 0).copy())[None].float()
        small = F.interpolate(images, scale_factor=1 / 8, mode="area")
        trivial = F.interpolate(small, size=images.shape[-2:], mode="bicubic").clamp(0, 255)
        trivial = np.moveaxis(trivial[0].numpy(), 0, -1)
        assert psnr(autoencoder.reconstruct(pixels), pixels) > psnr(trivial, pixels) + 2
        again = load_autoencoder(name).reconstruct(pixels)
        assert np.array_equal(again, autoencoder.reconstruct(pixels))


def signature(autoencoder: object, pixels: np.ndarray) -> np.ndarray:
    """Log power of what the autoencoder changed, over all frequencies, without its level."""
    residual = autoencoder.reconstruct(pixels).astype(float) - pixels  # type: ignore[attr-defined]
    power = np.abs(np.fft.fft2(residual.mean(-1) * np.hanning(256)[:, None] * np.hanning(256))) ** 2
    blocks = np.log(power.reshape(32, 8, 32, 8).mean((1, 3)))
    return blocks - blocks.mean()


def test_decoders_leave_spectra_of_their_own(photographs: list[np.ndarray]) -> None:
    kinds = [load_autoencoder(name) for name in UPSAMPLING]
    spectra = np.array([[signature(kind, pixels) for pixels in photographs] for kind in kinds])
    spectra -= spectra.mean(axis=0)  # what all of them share: the photograph
    for left_out in range(len(photographs)):
        others = np.delete(spectra, left_out, axis=1).mean(axis=1)
        for kind in range(len(kinds)):
            distances = np.square(others - spectra[kind, left_out]).mean(axis=(1, 2))
            assert distances.argmin() == kind, UPSAMPLING[kind]


def test_a_filled_region_changes_nothing_outside_and_repeats_with_its_seed(
    photographs: list[np.ndarray],
) -> None:
    network = load_inpainter()
    mask = np.zeros((256, 256), bool)
    mask[90:150, 80:170] = True
    for pixels in photographs:
        filled = fill(network, pixels, mask, seed=1)
        assert np.array_equal(filled[~mask], pixels[~mask])
        assert np.array_equal(filled, fill(network, pixels, mask, seed=1))
        assert not np.array_equal(filled, fill(network, pixels, mask, seed=2))
        hidden = np.where(mask[..., None], np.uint8(255) - pixels, pixels)
        assert np.array_equal(filled, fill(network, hidden, mask, seed=1))


def test_a_filled_region_is_nearer_to_the_photograph_than_its_mean_colour(
    photographs: list[np.ndarray],
) -> None:
    network = load_inpainter()
    mask = np.zeros((256, 256), bool)
    mask[100:130, 100:140] = True
    gains = []
    for pixels in photographs:
        mean = np.broadcast_to(pixels[~mask].mean(axis=0), pixels[mask].shape)
        filled = fill(network, pixels, mask, seed=0)[mask]
        gains.append(psnr(filled, pixels[mask]) - psnr(mean, pixels[mask]))
    assert np.mean(gains) > 3  # dB


def test_large_regions_are_filled_too(photographs: list[np.ndarray]) -> None:
    pixels = np.tile(photographs[0], (2, 3, 1))[:401, :603]  # odd, wider than LARGE
    mask = np.zeros(pixels.shape[:2], bool)
    mask[50:350, 100:500] = True
    filled = fill(load_inpainter(), pixels, mask, seed=0)
    assert np.array_equal(filled[~mask], pixels[~mask])
    assert np.abs(filled[mask].mean(0) - pixels[~mask].mean(0)).max() < 60
    everything = fill(load_inpainter(), pixels[:64, :64], np.ones((64, 64), bool), seed=0)
    assert everything.shape == (64, 64, 3)


# The networks.


def test_smooth_fill_keeps_what_is_known_and_spreads_it() -> None:
    images = torch.full((1, 3, 21, 34), 0.25)
    masks = torch.zeros(1, 1, 21, 34)
    masks[..., 5:18, 3:30] = 1
    garbage = torch.where(masks > 0, torch.rand(1, 3, 21, 34), images)
    assert torch.allclose(smooth_fill(garbage, masks), images)
    assert torch.equal(smooth_fill(images, torch.zeros_like(masks)), images)
    assert smooth_fill(images, torch.ones_like(masks)).isfinite().all()


@pytest.mark.parametrize("name", UPSAMPLING)
def test_any_size_and_gradients_everywhere(name: str) -> None:
    network = build({"architecture": name, **TINY}, GENERATORS)
    images = torch.rand(2, 3, 40, 24)
    assert network(images).shape == images.shape
    assert network.encode(images).shape == (2, 4, 5, 3)
    network(images).square().sum().backward()
    # A residual's first convolution learns once its second, zero at first, has moved.
    assert all(
        p.grad is not None and (p.grad != 0).any()
        for n, p in network.named_parameters()
        if ".first." not in n
    )


@pytest.mark.parametrize("name", ["transposed", "shuffle"])
def test_solved_weights_reach_the_best_linear_code(name: str) -> None:
    from forgemap.train.solve import principal, solve

    torch.manual_seed(0)
    pictures = np.stack([picture(64, 64, seed=s) for s in range(8)])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    network = build({"architecture": name, "width": 64, "latents": 24}, GENERATORS)
    solve(network, images)
    axes = principal(images - 0.5, 8)[0][:24]
    patches = F.pixel_unshuffle(images - 0.5, 8).transpose(0, 1).flatten(1)
    best = (patches - axes.T @ (axes @ patches)).square().mean()
    assert (network(images) - images).square().mean() < 1.1 * best


def test_weights_are_loaded_strictly(tmp_path: Path) -> None:
    network = build({"architecture": "shuffle", **TINY}, GENERATORS)
    folder = save_generator(network, tmp_path / "mine", {})
    assert load_autoencoder(folder).reconstruct(picture(50, 70)).shape == (50, 70, 3)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"width": 8', '"width": 16'))
    with pytest.raises(ModelError, match=r"do not fit.*mis-shaped"):
        load_autoencoder(folder)
    config.write_text('{"generator": {"architecture": "bicubic"}}')
    with pytest.raises(ModelError, match=r"'bicubic'.*nearest, bilinear, transposed, shuffle"):
        load_autoencoder(folder)
    with pytest.raises(ModelError, match="holds an inpainting network"):
        load_autoencoder(bundled_generator(INPAINTER))
    with pytest.raises(ModelError, match="holds an autoencoder"):
        load_inpainter(bundled_generator("nearest"))


# Training.


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of 150 x 140 pixels: four of the split "train", two of "val"."""
    folder, wanted, seed = tmp_path_factory.mktemp("camera"), {"train": 4, "val": 2, "test": 0}, 0
    while any(wanted.values()):
        path = folder / f"{seed}.png"
        PILImage.fromarray(picture(150, 140, seed=seed)).save(path)
        split = split_of(hashlib.sha256(path.read_bytes()).hexdigest())
        if wanted[split]:
            wanted[split] -= 1
        else:
            path.unlink()
        seed += 1
    return folder


def trainer(name: str, camera: Path, out: Path, steps: int, **values: object) -> Path:
    pytest.importorskip("lightning_fabric", reason="needs the extra `train`")
    from forgemap.train import autoencoder, inpainter

    sizes = {"width": 4, "deep": 8, "dilations": [1, 2]} if name == INPAINTER else TINY
    common = {
        "data": [str(camera)],
        "out": str(out),
        "steps": steps,
        "decay": 0.0,
        "warmup": 0,
        "crop": 32,
        "each": 1,
        "batch": 2,
        "validate_on": 2,
        "model": sizes,
        "accelerator": "cpu",
        **values,
    }
    if name == INPAINTER:
        config = inpainter.InpainterConfig(**common)  # type: ignore[arg-type]
        return inpainter.train(config, progress=False)
    config = autoencoder.AutoencoderConfig(architecture=name, **common)  # type: ignore[arg-type]
    return autoencoder.train(config, progress=False)


@pytest.mark.parametrize("name", ["bilinear", INPAINTER])
def test_an_interrupted_run_ends_with_the_same_weights(
    name: str, camera: Path, tmp_path: Path
) -> None:
    whole = trainer(name, camera, tmp_path / "whole", 6)
    trainer(name, camera, tmp_path / "halves", 3)
    halves = trainer(name, camera, tmp_path / "halves", 6, cache=str(tmp_path / "cache"))
    one, other = (load_generator(folder).state_dict() for folder in (whole, halves))
    assert all(torch.equal(one[key], other[key]) for key in one)
    config = json.loads((whole / "config.json").read_text())
    assert config["training"]["step"] == 6 and config["validation"]["psnr"] > 10


def test_a_run_from_before_an_option_existed_goes_on_with_its_default(
    camera: Path, tmp_path: Path
) -> None:
    trainer("nearest", camera, tmp_path / "run", 1)
    config = tmp_path / "run" / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("texture:")))
    with pytest.raises(ForgemapError, match=r"holds a run with texture = 0\.0, not 0\.5"):
        trainer("nearest", camera, tmp_path / "run", 2, texture=0.5)
    trainer("nearest", camera, tmp_path / "run", 2)
    assert "texture: 0.0" in config.read_text()


def test_training_improves_what_was_solved(camera: Path, tmp_path: Path) -> None:
    for steps in (1, 60):
        trainer("nearest", camera, tmp_path / "run", steps, lr=0.01, average=0.9)
    rows = (tmp_path / "run" / "validation.csv").read_text().splitlines()[1:]
    first, last = (float(row.split(",")[1]) for row in rows)
    assert last > first + 0.3  # dB


def test_texture_is_what_a_blur_lacks_and_other_grain_does_not() -> None:
    from forgemap.train.autoencoder import texture_loss

    rng = torch.Generator().manual_seed(1)
    ramp = torch.linspace(0.2, 0.8, 64).expand(1, 3, 64, 64)
    grain, other = (0.03 * torch.randn(1, 3, 64, 64, generator=rng) for _ in range(2))
    blurred = F.avg_pool2d(ramp + grain, 5, 1, 2, count_include_pad=False)
    assert texture_loss(ramp + grain, ramp + grain) == 0
    # The blur has the smaller error of pixels, the other grain the smaller one of texture.
    assert F.l1_loss(blurred, ramp + grain) < F.l1_loss(ramp + other, ramp + grain)
    assert texture_loss(blurred, ramp + grain) > 5 * texture_loss(ramp + other, ramp + grain)


def test_a_weight_of_texture_is_learned(camera: Path, tmp_path: Path) -> None:
    def graininess(weight: float) -> float:
        folder = trainer("nearest", camera, tmp_path / f"{weight}", 40, texture=weight, lr=0.01)
        images = torch.from_numpy(picture(64, 64, seed=5)).permute(2, 0, 1)[None] / 255
        with torch.inference_mode():
            given = load_generator(folder)(images)
            return float((given - F.avg_pool2d(given, 3, 1, 1)).abs().mean())

    assert graininess(1.0) > 1.1 * graininess(0.0)


def test_trained_networks_serve_synth(camera: Path, tmp_path: Path) -> None:
    autoencoder = trainer("shuffle", camera, tmp_path / "mine", 1)
    inpainter = trainer(INPAINTER, camera, tmp_path / "filler", 1)
    manifest = synthesize(
        camera, tmp_path / "out", methods=["inpaint_learned", "autoencoder_paste"], per_photo=2,
        autoencoder=autoencoder, inpainter=inpainter, progress=False,
    )  # fmt: skip
    records = read_manifest(manifest)
    assert {r.method for r in records} == {"inpaint_learned", "autoencoder_paste"}
    used = {r.parameters["autoencoder"] for r in records if r.method == "autoencoder_paste"}
    assert used == {"mine"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"crop": 100}, "crop = 100 cannot work: a multiple of 8"),
        ({"data": []}, "name photographs"),
        ({"gradient": -1.0}, "gradient = -1.0"),
        ({"texture": -1.0}, "texture = -1.0"),
        ({"model": {"depth": 3}}, "unknown argument 'depth'"),
    ],
)
def test_values_that_cannot_work_are_named(
    camera: Path, tmp_path: Path, values: dict[str, object], said: str
) -> None:
    with pytest.raises(ForgemapError, match=said):
        trainer("nearest", camera, tmp_path / "run", 1, **values)
    assert not (tmp_path / "run").exists()


def test_photographs_too_small_or_of_no_use_are_said(tmp_path: Path) -> None:
    for seed in range(20):
        PILImage.fromarray(picture(64, 64, seed=seed)).save(tmp_path / f"{seed}.png")
    with pytest.raises(DataError, match="has 128 pixels a side"):
        trainer("nearest", tmp_path, tmp_path / "run", 1)
    with pytest.raises(DataError, match="no photograph of the split"):
        trainer("nearest", tmp_path / "0.png", tmp_path / "run", 1)


# Whole pictures, and several autoencoders.


def test_whole_pictures_lie_in_a_folder_for_each_generator(camera: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = {"whole": True, "crop": 64, "per_photo": 2, "vary": True, "progress": False}
    records = read_manifest(synthesize(camera, out, **options))  # type: ignore[arg-type]
    names = {path.name for path in out.iterdir() if path.is_dir()}
    assert names == {"real", *UPSAMPLING}
    assert len(records) == len(list(out.rglob("*/*"))) == 6 * 2 * 5
    for record in records:
        real = record.image.parent.name == "real"
        assert record.method == ("none" if real else record.image.parent.name)
        assert record.manipulated is not real
        size = PILImage.open(record.image).size[::-1]
        assert set(np.unique(load_mask(record, size))) == {0 if real else 255}
        twin = out / "real" / record.image.name
        assert twin.is_file()
        assert real or record.image.read_bytes() != twin.read_bytes()
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*/*")}
    synthesize(camera, out, **options)  # type: ignore[arg-type]
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*/*")}


def test_noise_on_latents_changes_half_of_what_is_generated_and_nothing_real(
    camera: Path, tmp_path: Path
) -> None:
    made = {}
    for noise in (0.0, 0.3):
        out = tmp_path / str(noise)
        options = {"whole": True, "autoencoder": "shuffle", "crop": 64, "per_photo": 3}
        records = read_manifest(
            synthesize(camera, out, latent_noise=noise, progress=False, **options)  # type: ignore[arg-type]
        )
        made[noise] = {(r.method, r.image.name): r for r in records}
    changed = []
    for key, record in made[0.3].items():
        same = record.image.read_bytes() == made[0.0][key].image.read_bytes()
        noisy = record.parameters.get("latent_noise", 0)
        assert 0 <= noisy <= 0.3 and same == (record.method == "none" or not noisy)
        changed += [] if record.method == "none" else [not same]
    assert 0.2 < np.mean(changed) < 0.8, "half of 18"


def test_noise_on_weights_makes_another_decoder_for_each_picture_and_changes_nothing_real(
    camera: Path, tmp_path: Path
) -> None:
    made = {}
    for noise in (0.0, 0.1):
        out = tmp_path / str(noise)
        options = {"whole": True, "autoencoder": "shuffle", "crop": 64, "per_photo": 2}
        records = read_manifest(
            synthesize(camera, out, weight_noise=noise, progress=False, **options)  # type: ignore[arg-type]
        )
        made[noise] = {(r.method, r.image.name): r for r in records}
    shares = []
    for key, record in made[0.1].items():
        share = record.parameters["weight_noise"]
        assert 0 < share <= 0.1
        same = record.image.read_bytes() == made[0.0][key].image.read_bytes()
        assert same == (record.method == "none")
        if record.method != "none":
            one, other = (load_image(made[n][key].image).pixels.astype(float) for n in (0.0, 0.1))
            shares.append((share, np.abs(one - other).mean()))
    assert np.corrcoef(np.array(shares).T)[0, 1] > 0.5, "more noise, more change"


def test_a_shaken_decoder_is_itself_again_afterwards() -> None:
    network = load_autoencoder("shuffle")
    latents = torch.randn(1, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    before = network.decode(latents)
    shaken = []
    for seed in (1, 1, 2):
        with network.shaken(0.05, np.random.default_rng(seed)):
            shaken.append(network.decode(latents))
        assert torch.equal(network.decode(latents), before)
    first, again, other = shaken
    assert torch.equal(first, again)
    assert not torch.equal(first, before) and not torch.equal(first, other)


def test_an_interrupted_whole_run_goes_on(camera: Path, tmp_path: Path) -> None:
    options = {"whole": True, "autoencoder": "shuffle,nearest", "progress": False}
    for out in ("one", "two"):
        synthesize(camera, tmp_path / out, **options)  # type: ignore[arg-type]
    lost = next((tmp_path / "two" / "nearest").iterdir())
    content = lost.read_bytes()
    lost.unlink()
    synthesize(camera, tmp_path / "two", **options)  # type: ignore[arg-type]
    assert lost.read_bytes() == content
    one, two = ((tmp_path / out / "manifest.jsonl").read_text() for out in ("one", "two"))
    assert one == two


def test_several_autoencoders_are_drawn_from(camera: Path, tmp_path: Path) -> None:
    records = read_manifest(
        synthesize(
            camera,
            tmp_path,
            methods=["autoencoder_paste"],
            autoencoder="nearest, shuffle",
            per_photo=4,
            crop=64,
            progress=False,
        )
    )
    assert {r.parameters["autoencoder"] for r in records} == {"nearest", "shuffle"}


def test_what_whole_pictures_cannot_be_made_with_is_said(camera: Path, tmp_path: Path) -> None:
    def run(**options: object) -> None:
        synthesize(camera, tmp_path / "out", whole=True, progress=False, **options)  # type: ignore[arg-type]

    with pytest.raises(DataError, match="leave out --methods"):
        run(methods=["blur"])
    with pytest.raises(DataError, match="a share from 0 to 1, not 2"):
        run(latent_noise=2)
    with pytest.raises(DataError, match="noise on weights is a share from 0 to 1, not -1"):
        run(weight_noise=-1)
    with pytest.raises(DataError, match="on the weights is for whole pictures"):
        synthesize(camera, tmp_path / "out", weight_noise=0.1, progress=False)
    with pytest.raises(DataError, match="for whole pictures: add --whole"):
        synthesize(camera, tmp_path / "out", latent_noise=0.1, progress=False)
    with pytest.raises(DataError, match="called 'nearest' could not be told"):
        run(autoencoder="nearest,nearest")
    with pytest.raises(ModelError, match="No autoencoder at bicubic: give nearest"):
        run(autoencoder="nearest,bicubic")
    assert not (tmp_path / "out").exists()


def test_inpaint_learned_marks_exactly_what_it_filled() -> None:
    pixels = picture(80, 120, seed=3)
    edit = METHODS["inpaint_learned"](pixels, np.random.default_rng(0), Context())
    changed = (edit.pixels != pixels).any(axis=-1)
    assert not changed[edit.mask == 0].any()
    assert changed[edit.mask > 0].mean() > 0.5
