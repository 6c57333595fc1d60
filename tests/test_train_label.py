"""Training an embedder by the class of a picture and its twin: what is learned from, and how."""

from __future__ import annotations

import csv
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from safetensors.torch import load_file

from forgemap.classifiers import Source
from forgemap.classifiers import load as load_classifier
from forgemap.data.contrast import ViewSettings
from forgemap.data.generated import FolderPairs, Labelled, Pair, read_generated
from forgemap.data.twins import SAME, ProcessedDataset
from forgemap.errors import DataError, ForgemapError
from forgemap.models.huggingface import load_embedder
from forgemap.synth.benign import sometimes
from forgemap.train.embedder import EmbedderConfig, train
from forgemap.train.embedder_data import read_material
from forgemap.train.losses import label_loss

from .conftest import picture
from .test_train_embedder import generated, killed_and_resumed, small  # noqa: F401

LABEL: dict[str, object] = {"objective": "label", "twins": True, "augment": 0.5, "graphics": 0.2}


def test_labels_are_learned_and_the_classifiers_find_them(
    generated: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    changes: dict[str, object] = {**LABEL, "augment": 0.0, "epochs": 40, "validate_every": 20}
    train(small(generated, tmp_path / "run", **changes, lr=0.01), progress=False)
    losses = [float(r["loss"]) for r in csv.DictReader((tmp_path / "run/loss.csv").open())]
    assert losses[-1] < 0.6 * losses[0]
    rows = list(csv.DictReader((tmp_path / "run/validation.csv").open()))
    assert float(rows[-1]["linear/balanced"]) > 0.9


def test_the_best_checkpoint_is_the_best_by_the_measure_that_was_asked_for(
    generated: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    for measure in ("balanced", "auc"):
        out = tmp_path / measure
        train(small(generated, out, epochs=2, validate_every=1, measure=measure), progress=False)
        for row in csv.DictReader((out / "validation.csv").open()):
            assert row["choice"] == row[f"linear/{measure}"]


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_model_in_16_bits_is_half_the_file_is_what_was_validated_and_leaves_training_as_it_is(
    generated: Path,  # noqa: F811
    tmp_path: Path,
    average: float,
) -> None:
    changes: dict[str, object] = {**LABEL, "epochs": 8, "average": average, "validate_every": 4}
    whole, half = (
        train(small(generated, tmp_path / str(bits), **changes, half=bits), progress=False)
        for bits in (False, True)
    )
    exact, kept = (load_file(folder / "model.safetensors") for folder in (whole, half))
    for name, tensor in exact.items():
        small_kept = tensor.half() if tensor.ndim >= 2 else tensor
        assert torch.equal(kept[name], small_kept) and kept[name].dtype == small_kept.dtype
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    network, _ = load_embedder(half)
    load_classifier(half / "linear.safetensors", Source("x", network.fingerprint(), network.width))
    assert (tmp_path / "True/loss.csv").read_text() == (tmp_path / "False/loss.csv").read_text()


@pytest.mark.slow
def test_a_killed_run_by_labels_ends_as_an_uninterrupted_one(
    generated: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    changes: dict[str, object] = {**LABEL, "epochs": 40, "average": 0.9, "validate_every": 0}
    whole = train(small(generated, tmp_path / "whole", **changes), progress=False)
    resumed = killed_and_resumed(small(generated, tmp_path / "killed", **changes), 120)
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_fixed_classifier_asks_for_even_channels_of_what_was_generated() -> None:
    real, fake = torch.tensor([[-3.0, 3.0] * 4]), torch.tensor([[3.0, -3.0] * 4])
    right = label_loss(torch.cat([real, fake]), torch.tensor([0, 1]))
    wrong = label_loss(torch.cat([real, fake]), torch.tensor([1, 0]))
    undecided = label_loss(torch.zeros(2, 8), torch.tensor([0, 1]))
    assert right < 1e-4 < undecided < wrong
    assert undecided == pytest.approx(np.log(2), abs=1e-6)


def test_twins_show_one_photograph_and_mostly_one_crop_of_it(
    generated: Path,  # noqa: F811
) -> None:
    pictures = [p for p in read_generated(generated) if p.split == "train"]
    pairs = FolderPairs(pictures, seed=1, twins=True)
    for n in range(40):
        pair = pairs[n]
        assert pair.real.key == pair.fake.key and pair.fake.fake
    assert {pairs[n].fake.generator for n in range(40)} == {"checks", "lines"}
    plain = FolderPairs(pictures, seed=1)
    assert [plain[n].real for n in range(40)] == [pairs[n].real for n in range(40)]

    class Same:
        """Pairs of a picture and itself, so that only the draws tell its crops apart."""

        def __len__(self) -> int:
            return 1

        def __getitem__(self, n: int) -> tuple[Labelled, Labelled]:
            return Pair(pictures[n % 8], pictures[n % 8])

    settings = ViewSettings(side=32, augment=1.0, encodings="none")
    data = ProcessedDataset(Same(), settings, 5)  # type: ignore[arg-type]
    samples = [data[n] for n in range(60)]
    alike = [torch.equal(s.real, s.fake) for s in samples]
    assert abs(np.mean(alike) - SAME) < 0.2, "most pairs, and not all, get the same draws"
    assert samples[0].real.shape == (1, 3, 32, 32)
    again = ProcessedDataset(Same(), settings, 5)[7]  # type: ignore[arg-type]
    assert torch.equal(again.fake, samples[7].fake), "sample n is a function of the seed and n"


def test_processing_changes_crops_and_none_leaves_them(generated: Path) -> None:  # noqa: F811
    pictures = [p for p in read_generated(generated) if p.split == "train"]
    pairs = FolderPairs(pictures, seed=1, twins=True)

    def levels(**settings: object) -> list[int]:
        views = ViewSettings(side=48, encodings="none", **settings)  # type: ignore[arg-type]
        crops = (ProcessedDataset(pairs, views, 3)[n].real for n in range(12))
        return [int((crop.float() - crop.float().mean()).abs().sum()) for crop in crops]

    plain, processed = levels(), levels(augment=1.0)
    assert sum(a != b for a, b in zip(plain, processed, strict=True)) > 6
    honest = levels(honest=partial(sometimes, share=1.0))
    assert sum(a != b for a, b in zip(plain, honest, strict=True)) > 6
    drawn = levels(graphics=1.0)
    assert sum(a != b for a, b in zip(plain, drawn, strict=True)) > 6


def test_a_share_of_the_pictures_goes_through_one_honest_processing_twins_alike() -> None:
    pixels = picture(64, 64)
    changed = [
        not np.array_equal(sometimes(pixels, np.random.default_rng(i), 0.4), pixels)
        for i in range(200)
    ]
    assert 0.2 < np.mean(changed) < 0.45, "a few kinds leave a picture as it is"
    twin = 255 - pixels
    for i in range(30):
        before, after = np.random.default_rng(i), np.random.default_rng(i)
        a, b = sometimes(pixels, before, 1.0), sometimes(twin, after, 1.0)
        assert a.shape == b.shape
        assert before.random() == after.random(), "draws do not depend on what is shown"
    settings = EmbedderConfig.of(data=["x"], **LABEL, benign=0.4).views(32, ())
    assert settings.honest is not None
    assert EmbedderConfig.of(data=["x"], **LABEL).views(32, ()).honest is None


def test_a_real_picture_without_its_twin_is_named(tmp_path: Path) -> None:
    for name, count in (("real", 4), ("checks", 3)):
        (tmp_path / "set/train" / name).mkdir(parents=True)
        for i in range(count):
            PILImage.fromarray(picture()).save(tmp_path / "set/train" / name / f"{i}.png")
    config = small(tmp_path / "set", tmp_path / "run", **LABEL)
    with pytest.raises(DataError, match=r"real.3: checks has no picture of that name") as caught:
        train(config, progress=False)
    assert os.linesep not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objective": "regression"}, "unknown objective 'regression'; valid: contrast, label"),
        (
            {"objective": "contrast"},
            "augment, graphics and benign process the crops of --objective label",
        ),
        ({"native": True}, "native is for --objective contrast"),
        ({"window": 0}, "window is for --objective contrast"),
        ({"measure": "loss"}, "unknown measure 'loss'; valid: balanced, auc"),
        ({"augment": 1.5}, "augment is 1.5; it must be between 0 and 1"),
        ({"benign": -0.1}, "benign is -0.1; it must be between 0 and 1"),
    ],
)
def test_an_impossible_setting_is_one_sentence(
    generated: Path,  # noqa: F811
    tmp_path: Path,
    changes: dict[str, object],
    sentence: str,
) -> None:
    with pytest.raises(ForgemapError, match=sentence):
        train(small(generated, tmp_path / "run", **{**LABEL, **changes}), progress=False)


def test_twins_can_be_contrasted_too(generated: Path, tmp_path: Path) -> None:  # noqa: F811
    config = small(generated, tmp_path / "run", twins=True)
    pair = read_material(config).pairs[0]
    assert pair.real.key == pair.fake.key
