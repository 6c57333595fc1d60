"""Training an embedder: views that know no class, the published recipe, runs that are killed."""

from __future__ import annotations

import csv
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from safetensors.torch import load_file

from forgemap.classifiers import load as load_classifier
from forgemap.data import transforms
from forgemap.data.contrast import (
    FITS,
    ViewDataset,
    ViewSettings,
    encoded,
    four_views,
    jpeg_qualities,
    native_crop,
    resized_crop,
)
from forgemap.data.generated import FolderPairs, Labelled, imbalance, of_split, read_generated
from forgemap.errors import DataError, ForgemapError
from forgemap.image import load_image
from forgemap.models.checkpoint import load_model
from forgemap.models.embedder import Embedder
from forgemap.models.huggingface import load_embedder
from forgemap.train.embedder import (
    BUNDLED,
    EmbedderConfig,
    learning_rate,
    new_network,
    new_optimizer,
    others,
    train,
)
from forgemap.train.embedder_data import spread

from .conftest import picture

SMALL = {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "patch": 8, "image_size": 32}
TRACES = {"width": 16, "layers": 1, "heads": 2, "mlp": 16, "image_size": 32, "stem": "traces"}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures as real ones and two "generators": greenish checks, greenish stripes."""
    root = tmp_path_factory.mktemp("generated")
    for split, count in (("train", 10), ("val", 6)):
        for name in ("real", "checks", "lines"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = picture(48, 56, seed=1000 * (split == "val") + i).astype(int)
                if name != "real":
                    y, x = np.mgrid[:48, :56]
                    pattern = (x + y if name == "checks" else x) % 2
                    pixels[..., 1] += 60 + 40 * pattern
                    pixels[..., 2] -= 60
                file = root / split / name / f"{i}.png"
                PILImage.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return root


def small(root: Path, out: Path, **changes: object) -> EmbedderConfig:
    values: dict[str, object] = {
        "data": [str(root)],
        "out": str(out),
        "model": SMALL,
        "batch": 4,
        "epochs": 4,
        "epoch_steps": 3,
        "warmup_epochs": 1.0,
        "workers": 0,
        "validate_every": 2,
        "checkpoint_every": 3,
        "accelerator": "cpu",
    }
    return EmbedderConfig(**{**values, **changes})  # type: ignore[arg-type]


def test_training_separates_the_classes_and_keeps_the_classifiers(
    generated: Path, tmp_path: Path
) -> None:
    changes: dict[str, object] = {"epochs": 40, "lr": 0.01, "transforms": 0, "validate_every": 20}
    model = train(small(generated, tmp_path / "run", **changes), progress=False)
    losses = [float(r["loss"]) for r in csv.DictReader((tmp_path / "run/loss.csv").open())]
    assert losses[-1] < 0.5 * losses[0]
    rows = list(csv.DictReader((tmp_path / "run/validation.csv").open()))
    assert [row["step"] for row in rows] == ["60", "120"]
    assert {"linear/real", "linear/checks", "linear/lines", "one-class/auc"} <= rows[0].keys()
    assert float(rows[-1]["linear/balanced"]) > 0.9

    network, config = load_embedder(model)
    assert config["training"]["data"] == [generated.name] and network.width == 16
    for kind in ("linear", "nearest", "one-class"):
        classifier = load_classifier(model / f"{kind}.safetensors")
        assert classifier.source.fingerprint == network.fingerprint()


def killed_and_resumed(config: EmbedderConfig, steps: int) -> Path:
    """Train in another process, kill it after its first checkpoint, go on here."""
    program = (
        "from forgemap.train.embedder import EmbedderConfig, train\n"
        "import sys, json; train(EmbedderConfig(**json.loads(sys.argv[1])), progress=False)"
    )
    arguments = [sys.executable, "-c", program, json.dumps(vars(config))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    checkpoint = Path(config.out) / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < step < steps, "the kill must fall inside the run"
    return train(config, progress=False)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    generated: Path, tmp_path: Path
) -> None:
    changes: dict[str, object] = {"epochs": 40, "average": 0.9, "validate_every": 20}
    changes |= {"model": {**SMALL, "dropout": 0.1}}
    train(small(generated, tmp_path / "whole", **changes), progress=False)
    killed_and_resumed(small(generated, tmp_path / "killed", **changes), 120)
    whole, resumed = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "killed")
    )
    for part in ("network", "average"):
        assert all(torch.equal(whole[part][n], resumed[part][n]) for n in whole[part])
    a, b = (load_file(tmp_path / n / "model/model.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    rows = list(csv.DictReader((tmp_path / "killed/validation.csv").open()))
    assert [row["step"] for row in rows] == ["60", "120"], "no validation is written twice"


def test_the_recipe_holds_the_published_values() -> None:
    config = EmbedderConfig.of(recipe="code", data=["x"])
    config.check()
    assert (config.lr, config.weight_decay, config.temperature) == (2e-3, 2e-5, 0.1)
    assert (config.epochs, config.epoch_steps, config.warmup_epochs) == (150, 1700, 5)
    assert config.batch // config.devices == 256 and config.devices == 4
    assert (config.global_area, config.local_area) == ([0.4, 1.0], [0.05, 0.4])
    assert config.transforms == 2 and config.fit_on == 9600 and not config.gather
    assert config.precision == "bf16-mixed" and config.betas == [0.9, 0.999]
    network = new_network(EmbedderConfig.of(recipe="code", model={"layers": 1}))
    assert (network.width, network.image_size, network.config["patch"]) == (192, 224, 16)
    assert EmbedderConfig.of(recipe="code", lr=0.5).lr == 0.5


def test_the_learning_rate_rises_then_falls_by_a_cosine() -> None:
    rates = [learning_rate(step, 100, 10, 2.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0) and rates[100] == pytest.approx(0)
    assert learning_rate(0, 5, 0, 1.0) == 1.0


def test_biases_norms_and_tokens_are_not_decayed(tmp_path: Path) -> None:
    network = new_network(small(tmp_path, tmp_path))
    decayed, plain = new_optimizer(network, small(tmp_path, tmp_path)).param_groups
    assert decayed["weight_decay"] == 2e-5 and plain["weight_decay"] == 0
    assert all(p.ndim >= 2 for p in decayed["params"])
    names = {id(p): name for name, p in network.named_parameters()}
    assert {"class_token", "positions", "norm.weight"} <= {names[id(p)] for p in plain["params"]}
    assert len(names) == len(decayed["params"]) + len(plain["params"])


def test_positives_are_other_pictures() -> None:
    for seed in range(20):
        order = others(5, torch.Generator().manual_seed(seed))
        assert sorted(order.tolist()) == list(range(5))
        assert all(a != b for a, b in enumerate(order.tolist()))


@pytest.mark.parametrize("name", transforms.TRANSFORMS)
def test_a_transform_takes_any_picture_and_repeats_itself(name: str) -> None:
    transform = transforms.TRANSFORMS[name]
    for shape in [(8, 300), (64, 64), (90, 33)]:
        pixels = picture(*shape, seed=7)
        before = pixels.copy()
        for seed in range(4):
            result = transform(pixels, np.random.default_rng(seed))
            again = transform(pixels, np.random.default_rng(seed))
            assert result.dtype == np.uint8 and result.ndim == 3 and result.shape[2] == 3
            assert min(result.shape[:2]) >= 1 and np.array_equal(result, again)
        assert np.array_equal(pixels, before), "the picture itself must not change"


def test_the_nineteen_transforms_do_something() -> None:
    assert len(transforms.TRANSFORMS) == 19
    pixels = picture(80, 100, seed=3)
    for name, transform in transforms.TRANSFORMS.items():
        results = [transform(pixels, np.random.default_rng(seed)) for seed in range(3)]
        changed = [r.shape != pixels.shape or not np.array_equal(r, pixels) for r in results]
        assert any(changed), name


def test_transforms_stay_in_their_published_ranges() -> None:
    pixels = np.full((100, 80, 3), 100, np.uint8)
    for seed in range(30):
        rng = np.random.default_rng
        bright = int(transforms.brightness(pixels, rng(seed))[0, 0, 0])
        assert 50 <= bright <= 200
        height, width = transforms.aspect(pixels, rng(seed)).shape[:2]
        assert 0.73 <= width / height <= 2.05 and height * width == pytest.approx(8000, rel=0.05)
        side = transforms.resize(pixels, rng(seed)).shape
        assert side[0] == side[1] and 64 <= side[0] <= 512
        assert 64 <= transforms.crop(pixels, rng(seed)).shape[0] <= 512
        assert 50 <= transforms.scale(pixels, rng(seed)).shape[0] <= 150
        padded = transforms.pad(pixels, rng(seed)).shape
        assert 102 <= padded[0] <= 150 and 82 <= padded[1] <= 120
        shown = (transforms.stripes(pixels, rng(seed)) == 255).all(axis=2).mean()
        assert 0.02 <= shown <= 0.42
        moved = transforms.shuffle(
            np.arange(30000).reshape(100, 100, 3).astype(np.uint8), rng(seed)
        )
        assert moved.shape == (100, 100, 3)


def test_a_turned_picture_has_no_border() -> None:
    pixels = np.full((60, 90, 3), 200, np.uint8)
    for seed in range(20):
        turned = transforms.rotate(pixels, np.random.default_rng(seed))
        assert turned[1:-1, 1:-1].min() >= 190 and min(turned.shape[:2]) > 15


def test_each_view_gets_up_to_two_transforms_equally_often() -> None:
    drawn: list[list[str]] = []
    original = dict(transforms.TRANSFORMS)
    try:
        for name in original:
            transforms.TRANSFORMS[name] = lambda p, rng, name=name: drawn[-1].append(name) or p
        rng = np.random.default_rng(0)
        for _ in range(3000):
            drawn.append([])
            transforms.some(np.zeros((4, 4, 3), np.uint8), rng)
    finally:
        transforms.TRANSFORMS.update(original)
    counts = np.bincount([len(d) for d in drawn], minlength=3)
    assert len(counts) == 3 and counts.min() > 900
    used = np.array([sum(name in d for d in drawn) for name in original])
    assert used.min() > 110 and used.max() < 210
    assert all(d == sorted(d, key=list(original).index) and len({*d}) == len(d) for d in drawn)


def test_views_do_not_know_the_class(generated: Path) -> None:
    """Swapping the labels of two pictures changes nothing but which is which."""
    assert set(inspect.signature(four_views).parameters) == {"pixels", "settings", "rng"}
    pictures = of_split(read_generated(generated), "train")
    settings = ViewSettings(side=32, qualities=(75, 90))
    dataset = ViewDataset(FolderPairs(pictures, 0), settings, seed=1)
    real = next(p for p in pictures if not p.fake)
    as_fake = Labelled(real.image, "checks", real.key)
    assert torch.equal(dataset.views(real, 5, 0), dataset.views(as_fake, 5, 0))
    assert not torch.equal(dataset.views(real, 5, 0), dataset.views(real, 5, 1))


def test_sample_n_depends_on_the_seed_and_n_alone(generated: Path) -> None:
    pictures = of_split(read_generated(generated), "train")

    def fresh() -> ViewDataset:
        return ViewDataset(FolderPairs(pictures, 0), ViewSettings(side=32), seed=1)

    a, b = fresh(), fresh()
    for n in (0, 31, 7):
        assert torch.equal(a[n].real, b[n].real) and torch.equal(a[n].fake, b[n].fake)
    assert a[0].real.shape == (4, 3, 32, 32) and a[0].real.dtype == torch.uint8
    assert not torch.equal(a[0].real, a[10].real)


def test_crops_cover_their_share_of_the_area() -> None:
    """A picture of its own coordinates tells how large the part was."""
    y, x = np.mgrid[:200, :200]
    pixels = np.stack([y, x, 0 * x], axis=2).astype(np.uint8)
    for bounds in ((0.4, 1.0), (0.05, 0.4)):
        shares = []
        for seed in range(60):
            part = resized_crop(pixels, 64, bounds, np.random.default_rng(seed)).astype(float)
            spans = [np.ptp(part[..., axis]) + 200 / 64 for axis in (0, 1)]
            shares.append(spans[0] * spans[1] / 200**2)
        assert bounds[0] * 0.75 < min(shares) and max(shares) < bounds[1] * 1.15
        assert max(shares) - min(shares) > 0.5 * (bounds[1] - bounds[0])


def test_native_crops_resample_nothing_and_cover_their_share_of_the_view() -> None:
    """Every 2 x 2 pixels of a picture of its own coordinates stay neighbours of the picture."""
    y, x = np.mgrid[:200, :200]
    pixels = np.stack([y, x, 0 * x], axis=2).astype(np.uint8)
    for bounds in ((0.4, 1.0), (0.05, 0.4)):
        shares = []
        for seed in range(60):
            view = native_crop(pixels, 64, bounds, np.random.default_rng(seed)).astype(int)
            assert view.shape == (64, 64, 3)
            for axis in (0, 1):  # mirrored: a step up, or the same step down
                assert (np.abs(np.diff(view[..., axis], axis=axis)) == 1).all()
            sides = [np.ptp(view[..., axis]) + 1 for axis in (0, 1)]
            shares.append(sides[0] * sides[1] / 64**2)
        assert bounds[0] * 0.8 < min(shares) and max(shares) < bounds[1] * 1.15
        assert max(shares) - min(shares) > 0.5 * (bounds[1] - bounds[0])
    narrow = native_crop(pixels[:9], 64, (0.4, 1.0), np.random.default_rng(0))
    assert narrow.shape == (64, 64, 3), "a picture that is narrower than the crop"


def test_native_views_of_a_picture_are_not_resized() -> None:
    """Noise that is 0 or 255 everywhere stays so; resizing makes greys of it."""
    noise = np.random.default_rng(0).integers(0, 2, (90, 90, 3)).astype(np.uint8) * 255
    for native in (True, False):
        settings = ViewSettings(side=64, transforms=0, native=native)
        views = four_views(noise, settings, np.random.default_rng(1))
        assert [view.shape for view in views] == [(64, 64, 3)] * 4
        greys = [bool(((view > 0) & (view < 255)).any()) for view in views]
        assert greys == [False, False, not native, not native]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(8, 9), (20, 300), (300, 200)])
def test_views_have_one_size_whatever_the_picture(fit: str, shape: tuple[int, int]) -> None:
    settings = ViewSettings(side=32, fit=fit, window=64)
    for seed in range(6):
        views = four_views(picture(*shape), settings, np.random.default_rng(seed))
        assert [view.shape for view in views] == [(32, 32, 3)] * 4


def test_encodings_do_not_tell_the_class(tmp_path: Path) -> None:
    """PNG fakes beside JPEG photos: both have passed a JPEG of the same qualities."""
    for i, quality in enumerate((60, 75, 95)):
        PILImage.fromarray(picture(seed=i)).save(tmp_path / f"{i}.jpg", quality=quality)
    PILImage.fromarray(picture(seed=9)).save(tmp_path / "fake.png")
    photos = [Labelled(tmp_path / f"{i}.jpg", "real", str(i)) for i in range(3)]
    qualities = jpeg_qualities(photos)
    assert qualities == (60, 75, 95)

    lossless, photo = load_image(tmp_path / "fake.png"), load_image(photos[0].image)
    match = ViewSettings(qualities=qualities)
    seen = {encoded(lossless, match, np.random.default_rng(s)).tobytes() for s in range(40)}
    assert len(seen) == 3, "each quality of the photos comes up"
    assert lossless.pixels.tobytes() not in seen
    assert encoded(photo, match, np.random.default_rng(0)) is photo.pixels
    again = ViewSettings(qualities=qualities, encodings="again")
    assert not np.array_equal(encoded(photo, again, np.random.default_rng(1)), photo.pixels)
    none = ViewSettings(qualities=qualities, encodings="none")
    assert encoded(lossless, none, np.random.default_rng(0)) is lossless.pixels


def test_generators_take_turns_and_no_photo_comes_twice_in_an_epoch() -> None:
    pictures = [Labelled(Path(f"{i}"), "real", str(i)) for i in range(7)]
    pictures += [Labelled(Path(f"a{i}"), "a", str(i)) for i in range(2)]
    pictures += [Labelled(Path(f"b{i}"), "b", str(i)) for i in range(50)]
    pairs = FolderPairs(pictures, seed=3)
    stream = [pairs[n] for n in range(140)]
    assert len(pairs) == 7 and len({p.real.key for p in stream[7:14]}) == 7
    assert all({p.fake.generator for p in stream[n : n + 2]} == {"a", "b"} for n in (0, 2, 80))
    assert len({p.fake.image for p in stream if p.fake.generator == "b"}) == 50
    assert [p.real.key for p in stream[:7]] != [p.real.key for p in stream[7:14]]
    assert stream[60] == FolderPairs(pictures, seed=3)[60]


def test_a_generator_named_in_often_comes_so_many_times_a_round() -> None:
    pictures = [Labelled(Path(f"{i}"), "real", str(i)) for i in range(7)]
    pictures += [Labelled(Path(f"{g}{i}"), g, str(i)) for g in "abc" for i in range(12)]
    pairs = FolderPairs(pictures, seed=3, often={"b": 3})
    for turn in range(4):
        fakes = [pairs[n].fake for n in range(5 * turn, 5 * turn + 5)]
        assert sorted(p.generator for p in fakes) == ["a", "b", "b", "b", "c"]
    ofb = [pairs[n].fake.image for n in range(20) if pairs[n].fake.generator == "b"]
    assert len({*ofb}) == 12, "and none of its pictures twice before all were seen"
    fitted = [p.generator for p in spread(pictures, 10, {"b": 3})]
    assert [fitted.count(name) for name in ("real", "a", "b", "c")] == [5, 1, 3, 1]
    plain = FolderPairs(pictures, seed=3)
    assert [plain[n] for n in range(30)] == [FolderPairs(pictures, 3, {})[n] for n in range(30)]


LAYOUTS = {
    "ours": (["real/a.png", "sd/b.png"], {"sd"}, {""}),
    "fake": (["real/a.png", "fake/ldm/b.png", "fake/sd/x/c.png"], {"ldm", "sd"}, {""}),
    "d3": (["augm/real/a.png", "no_augm/gen_0/b.png"], {"gen_0"}, {""}),
    "univfd": (["progan/cat/0_real/a.png", "progan/cat/1_fake/b.png"], {"progan"}, {"progan"}),
    "one univfd": (["0_real/a.png", "1_fake/b.png"], {"set"}, {"set"}),
    "genimage": (["SD14/x/val/nature/a.png", "SD14/x/val/ai/b.png"], {"SD14"}, {"SD14"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_layouts_are_read(layout: str, tmp_path: Path) -> None:
    files, names, groups = LAYOUTS[layout]
    for file in files:
        (tmp_path / "set" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / file).touch()
    pictures = read_generated(tmp_path / "set")
    assert {p.generator for p in pictures if p.fake} == names
    assert {p.group for p in pictures if not p.fake} == groups and len(pictures) == len(files)
    assert {p.split for p in pictures} == ({"val"} if layout == "genimage" else {""})
    assert {p.variant for p in pictures} == ({"augm", "no_augm"} if layout == "d3" else {""})


def test_pictures_of_one_name_share_their_split() -> None:
    pictures = [
        Labelled(Path(f"{g}/{i}.png"), g, str(i)) for g in ("real", "x") for i in range(200)
    ]
    parts = {split: of_split(pictures, split) for split in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == 400 and len(parts["train"]) > 280
    for part in parts.values():
        assert {p.key for p in part if p.fake} == {p.key for p in part if not p.fake}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "there is no picture"),
        (["real/a.png"], "all pictures are real"),
        (["sd/a.png"], "no picture is real"),
        (["a.png", "real/b.png"], r"a\.png: its folder does not say"),
    ],
)
def test_a_folder_that_says_nothing_is_one_sentence(
    files: list[str], words: str, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(DataError, match=words):
        read_generated(tmp_path)


def test_imbalance_is_said_in_one_sentence() -> None:
    real, fake = Labelled(Path("r"), "real", "r"), Labelled(Path("f"), "sd", "f")
    assert imbalance([real] * 3 + [fake] * 30) == ""
    assert imbalance([real] * 3 + [fake] * 31).startswith("3 real pictures against 31 generated")


def test_a_generator_with_one_picture_is_refused(generated: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "more/train/lonely"
    lonely.mkdir(parents=True)
    (tmp_path / "more/train/real").mkdir()
    for folder in (lonely, lonely.parent / "real"):
        PILImage.fromarray(picture()).save(folder / "1.png")
    config = small(generated, tmp_path / "run", data=[str(generated), str(tmp_path / "more")])
    with pytest.raises(DataError, match="generator lonely has one picture"):
        train(config, progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": []}, "at least one folder"),
        ({"data": ["nowhere"]}, "nowhere: no such folder"),
        ({"leave_out": ["midjourney"]}, "no generator midjourney; there are checks, lines"),
        ({"batch": 1}, "at least 2 pairs"),
        ({"choice": "nearest", "classifiers": ["linear"]}, "unknown choice 'nearest'"),
        ({"classifiers": ["forest"], "choice": "forest"}, "unknown classifier 'forest'"),
        ({"local_area": [0.5, 0.1]}, "the smaller first"),
        ({"encodings": "gif"}, "valid: none, match, again"),
        ({"model": {"width": 17}}, "no network has these sizes"),
        ({"stem_weights": "default"}, "for a new network with --model '{stem: traces}' or"),
        ({"stem_weights": "nowhere", "model": TRACES}, "nowhere: no such model folder"),
        ({"spectra_weights": "x", "model": TRACES}, "spectra_weights is for a new network with"),
        ({"stem_frozen": True, "model": TRACES}, "stem_frozen needs stem_weights or init"),
        ({"often": {"midjourney": 2}}, "often: there is no generator midjourney; there are checks"),
        ({"often": {"checks": 0}}, "often: checks must be a whole number of times, at least 1"),
    ],
)
def test_an_impossible_setting_is_one_sentence(
    generated: Path, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ForgemapError, match=sentence):
        train(small(generated, tmp_path / "run", **changes), progress=False)
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ForgemapError, match="valid: default, code"):
        EmbedderConfig.of(recipe="simclr")


def test_a_damaged_picture_is_named_in_one_sentence(generated: Path, tmp_path: Path) -> None:
    root = tmp_path / "set/train"
    for name in ("real", "sd"):
        (root / name).mkdir(parents=True)
        for i in range(3):
            PILImage.fromarray(picture()).save(root / name / f"{i}.png")
    data = (root / "sd/1.png").read_bytes()
    (root / "sd/1.png").write_bytes(data[: len(data) // 2])
    config = small(root.parent, tmp_path / "run", workers=1, encodings="none")
    with pytest.raises(ForgemapError, match=r"1\.png") as raised:
        train(config, progress=False)
    assert "\n" not in str(raised.value) and "Traceback" not in str(raised.value)


def test_left_out_generators_are_validated_and_not_trained_on(
    generated: Path, tmp_path: Path
) -> None:
    from forgemap.train.embedder_data import read_material

    material = read_material(small(generated, tmp_path, leave_out=["lines"]))
    assert {material.pairs[n].fake.generator for n in range(20)} == {"checks"}
    assert {p.generator for p in material.fit} == {"real", "checks"}
    assert {p.generator for p in material.held} == {"real", "checks", "lines"}


def test_shards_can_be_trained_on(generated: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    from forgemap.data.shards import Settings, open_source, write_shards

    shards = tmp_path / "shards"
    write_shards(open_source(generated), shards, Settings(per_shard=4), progress=False)
    config = small(shards, tmp_path / "run", epochs=1, workers=1, validate_every=1)
    model = train(config, progress=False)
    row = next(csv.DictReader((tmp_path / "run/validation.csv").open()))
    assert {"linear/real", "linear/checks", "linear/lines"} <= row.keys()
    assert (model / "linear.safetensors").exists()
    with pytest.raises(DataError, match="leave_out works on folders"):
        train(small(shards, tmp_path / "other", leave_out=["lines"]), progress=False)


def test_the_shorter_side_is_resized_as_published() -> None:
    view = FITS["resize"](picture(100, 150), 90, np.random.default_rng(0))
    whole = PILImage.fromarray(picture(100, 150)).resize((150, 100), PILImage.Resampling.BICUBIC)
    assert np.array_equal(view, np.array(whole)[5:95, 30:120])


def test_bf16_trains(generated: Path, tmp_path: Path) -> None:
    config = small(generated, tmp_path / "run", precision="bf16-mixed", epochs=1)
    weights = load_file(train(config, progress=False) / "model.safetensors")
    assert all(w.dtype == torch.float32 and w.isfinite().all() for w in weights.values())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_stem_of_traces_starts_as_the_bundled_localizer_and_learns_unless_frozen(
    generated: Path, tmp_path: Path, frozen: bool
) -> None:
    values: dict[str, object] = {"model": TRACES, "stem_weights": "default", "epochs": 1}
    config = small(generated, tmp_path / "run", **values, stem_frozen=frozen)
    localizer = load_model(BUNDLED)[0].state_dict()
    begun = new_network(config).state_dict()
    folder = train(config, progress=False)
    ended = load_file(folder / "model.safetensors")
    # A weight and a statistic of the encoder.
    for name in ("down3.0.conv1.0.weight", "stem.1.running_mean"):
        assert torch.equal(begun[f"patches.{name}"], localizer[name])
        assert torch.equal(ended[f"patches.{name}"], localizer[name]) == frozen
    for name in ("patches.tokens.weight", "patches.standard.running_mean", "class_token"):
        assert not torch.equal(ended[name], begun[name]), "the rest learns either way"
    assert load_embedder(folder)[1]["training"]["stem_weights"] == "default"


def test_an_embedder_on_both_starts_as_a_trained_one_of_each(
    generated: Path, tmp_path: Path
) -> None:
    def begun_with(stem: str) -> Path:
        config = small(generated, tmp_path / stem, model=TRACES | {"stem": stem}, epochs=1)
        return train(config, progress=False)

    traces, spectra = begun_with("traces"), begun_with("spectra")
    values: dict[str, object] = {
        "model": TRACES | {"stem": "both", "spectra_layers": 1},
        "stem_weights": str(traces),
        "spectra_weights": str(spectra),
    }
    config = small(generated, tmp_path / "run", **values, stem_frozen=True, epochs=1)
    begun = new_network(config).state_dict()
    folder = train(config, progress=False)
    ended = load_file(folder / "model.safetensors")
    training = load_embedder(folder)[1]["training"]
    assert training["stem_weights"] == training["spectra_weights"] == "model", "no machine's folder"
    for source, prefix in ((traces, ""), (spectra, "spectra.")):
        weights = load_file(source / "model.safetensors")
        assert all(torch.equal(begun[prefix + name], value) for name, value in weights.items())
    for name in ("down3.0.conv1.0.weight", "stem.1.running_mean"):
        assert torch.equal(ended[f"patches.{name}"], begun[f"patches.{name}"]), "frozen"
    for name in ("patches.tokens.weight", "spectra.patches.tokens.weight", "spectra.class_token"):
        assert not torch.equal(ended[name], begun[name]), "the rest learns"
    alone = small(generated, tmp_path / "alone", model=TRACES, stem_weights=str(traces))
    with pytest.raises(ForgemapError, match="is no TraceNet"):  # one on traces goes on by init
        new_network(alone)


def test_neither_class_token_nor_positions_are_decayed() -> None:
    network = Embedder(**TRACES | {"stem": "both"})  # type: ignore[arg-type]
    config = EmbedderConfig.of(data=["x"], weight_decay=0.5)
    groups = new_optimizer(network, config).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    names = {name for name, p in network.named_parameters() if id(p) in decayed}
    assert names and not [n for n in names if n.endswith(("class_token", "positions", "bias"))]


def test_what_a_frozen_stem_keeps_must_be_one_of_traces(generated: Path, tmp_path: Path) -> None:
    patches = train(small(generated, tmp_path / "one", epochs=1), progress=False)
    config = small(generated, tmp_path / "two", init=str(patches), stem_frozen=True)
    with pytest.raises(ForgemapError, match="stem_frozen is for a stem of traces; it has none"):
        train(config, progress=False)


@pytest.mark.slow
def test_a_killed_run_with_a_frozen_stem_ends_as_an_uninterrupted_one(
    generated: Path, tmp_path: Path
) -> None:
    """Checkpoints lack what is frozen; the run's start brings it again."""
    changes: dict[str, object] = {"model": TRACES, "stem_weights": "default", "stem_frozen": True}
    changes |= {"epochs": 16, "average": 0.9, "validate_every": 0}
    whole = train(small(generated, tmp_path / "whole", **changes), progress=False)
    resumed = killed_and_resumed(small(generated, tmp_path / "killed", **changes), 48)
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.distributed
def test_two_processes_train_one_model(generated: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "forgemap", "train", "embedder", "--data", str(generated)]
    command += ["--out", str(out), "--model", json.dumps(SMALL), "--batch", "4", "--epochs", "2"]
    command += ["--epoch-steps", "2", "--workers", "0", "--devices", "2", "--gather"]
    done = subprocess.run([*command, "--accelerator", "cpu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "model/linear.safetensors").exists()
    rows = list(csv.DictReader((out / "validation.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4"], "one process of the two writes the curves"


@pytest.mark.distributed
def test_fsdp_takes_the_steps_of_ddp_and_goes_on_from_it(generated: Path, tmp_path: Path) -> None:
    """Two processes either way: each has its own negatives, so one alone does other steps."""

    def run(out: Path, strategy: str, epochs: int) -> dict[str, torch.Tensor]:
        command = [sys.executable, "-m", "forgemap", "train", "embedder", "--data", str(generated)]
        command += ["--out", str(out), "--model", json.dumps(SMALL), "--batch", "4"]
        command += ["--epoch-steps", "2", "--epochs", str(epochs), "--workers", "0"]
        command += ["--warmup-epochs", "0", "--devices", "2", "--accelerator", "cpu"]
        done = subprocess.run(
            [*command, "--strategy", strategy, "--validate-every", "0"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return load_file(out / "model/model.safetensors")

    whole = run(tmp_path / "ddp", "ddp", 2)
    shared = run(tmp_path / "fsdp", "fsdp", 2)
    assert whole.keys() == shared.keys()
    for name, tensor in whole.items():
        assert torch.allclose(tensor, shared[name], atol=2e-5), name


def test_opencv_is_as_expected() -> None:
    """`convertScaleAbs` and `addWeighted` clip, they do not wrap around."""
    level = np.full((2, 2, 3), 200, np.uint8)
    assert cv2.convertScaleAbs(level, alpha=2.0).max() == 255
    assert cv2.addWeighted(level, 2.0, level, -0.1, 0).max() == 255
