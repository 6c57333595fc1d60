"""The recipes: DeCLIP's published values, weak supervision, Grad-CAM, and what cannot work."""

from __future__ import annotations

import csv
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from forgemap.cli.flags import read_config
from forgemap.data.records import read_manifest
from forgemap.data.views import PERTURBATIONS, WholeDataset
from forgemap.detector import Detector
from forgemap.errors import DataError, ForgemapError
from forgemap.models.build import build
from forgemap.models.checkpoint import load_model
from forgemap.models.gradcam import GradCamDecoder
from forgemap.models.output import Features
from forgemap.preprocess import CLIP
from forgemap.train.config import LocalizerConfig
from forgemap.train.localizer import train
from forgemap.train.losses import image_logit, image_loss
from forgemap.train.recipes import RECIPES
from forgemap.train.schedules import Plateau, Timetable
from forgemap.train.setup import new_network

from .edited_set import TINY, write_edited_set


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_edited_set(tmp_path_factory.mktemp("edited"))


def tiny(edited: Path, out: Path, **changes: Any) -> LocalizerConfig:
    values = {**TINY, "recipe": "declip", "data": [str(edited)], "out": str(out), "batch": 4}
    values |= {"epochs": 2, "workers": 0, "accelerator": "cpu"}
    return LocalizerConfig.of(**{**values, **changes})


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


# --- values ---------------------------------------------------------------------------------------


def test_the_declip_recipe_has_the_published_values() -> None:
    config = LocalizerConfig.of(recipe="declip", data=["x"])
    published = {
        "architecture": "declip",
        "decoder": "conv-20",
        "lr": 1e-3,
        "betas": [0.9, 0.999],
        "weight_decay": 0,
        "batch": 64,
        "patience": 5,
        "tolerance": 0.001,
        "lr_factor": 0.1,
        "lr_floor": 1e-6,
        "choice": "iou",
        "validate_every": 0,
        "samples": "whole",
        "decoder_init": "published",
        # Cross-entropy and nothing else: no Dice, no clipping, no average, no warm-up.
        "dice": 0,
        "image": 0,
        "clip": 0,
        "average": 0,
        "warmup": 0,
    }
    assert {name: getattr(config, name) for name in published} == published
    config.check()


def test_every_recipe_can_be_used_and_every_value_overridden() -> None:
    for name in RECIPES:
        LocalizerConfig.of(recipe=name, data=["x"]).check()
    flags = {"recipe": "declip", "data": ["x"], "batch": 8, "perturb": "all", "seed": None}
    config = read_config(LocalizerConfig, None, flags)
    assert (config.batch, config.perturb, config.lr_floor) == (8, "all", 1e-6)
    assert read_config(LocalizerConfig, None, {"data": ["x"]}) == LocalizerConfig(data=["x"])
    with pytest.raises(ForgemapError, match="unknown recipe 'declib'; valid: default, declip"):
        LocalizerConfig.of(recipe="declib")


def test_image_labels_choose_by_average_precision_unless_told_otherwise() -> None:
    config = LocalizerConfig.of(recipe="declip", data=["x"], supervision="image")
    assert config.choice == "ap"
    assert config == LocalizerConfig.of(recipe="declip", data=["x"], **RECIPES["declip-weak"])


def test_the_published_start_draws_the_scales_of_the_batchnorms(tmp_path: Path) -> None:
    changes = {"model": {**TINY["model"], "channels": [64] * 4}}  # type: ignore[dict-item]
    scales = {}
    for init in ("published", "kernels"):
        network: Any = new_network(tiny(tmp_path, tmp_path, decoder_init=init, **changes))
        norms = [m for m in network.decoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        scales[init] = torch.cat([norm.weight for norm in norms])
        kernels = torch.cat([p.flatten() for p in network.decoder.parameters() if p.dim() > 1])
        assert kernels.std().item() == pytest.approx(0.02, rel=0.02)
    assert scales["published"].std().item() == pytest.approx(0.02, rel=0.2)
    assert scales["published"].mean().abs() < 0.01
    assert (scales["kernels"] == 1).all()


# --- time -----------------------------------------------------------------------------------------


def plateau(**changes: float) -> Plateau:
    values = {"warmup": 0, "factor": 0.1, "floor": 1e-6, "patience": 5, "tolerance": 0.001}
    return Plateau(1e-3, **{**values, **changes})  # type: ignore[arg-type]


def test_the_rate_falls_tenfold_after_five_epochs_without_improvement_down_to_1e_6() -> None:
    schedule, rates = plateau(), []
    while not schedule.finished:
        rates.append(schedule.rate(len(rates)))
        schedule.observe(0.5)
    # At each rate one epoch sets the mark and five do not surpass it.
    assert rates == pytest.approx([1e-3] * 6 + [1e-4] * 6 + [1e-5] * 6 + [1e-6] * 6)


def test_an_improvement_below_the_tolerance_counts_as_none() -> None:
    small, large = plateau(), plateau()
    for epoch in range(6):
        small.observe(0.5 + 0.0001 * epoch)
        large.observe(0.5 + 0.0011 * epoch)
    assert small.rate(0) == pytest.approx(1e-4) and large.rate(0) == pytest.approx(1e-3)


def test_a_plateau_goes_on_from_its_state() -> None:
    scores = np.random.default_rng(0).uniform(0, 0.01, 40)
    straight, first = plateau(), plateau()
    for score in scores:
        straight.observe(score)
    for score in scores[:17]:
        first.observe(score)
    second = plateau()
    second.restore(first.state())
    for score in scores[17:]:
        second.observe(score)
    assert second == straight


@pytest.mark.parametrize(("pictures", "batch"), [(10, 4), (8, 4), (3, 8)])
def test_each_epoch_ends_with_one_validation(pictures: int, batch: int) -> None:
    steps = -(-6 * pictures // batch)
    timetable = Timetable(steps, batch, pictures, 0)
    ends = [step for step in range(1, steps + 1) if timetable.validates(step)]
    expected = {min(steps, -(-epoch * pictures // batch)) for epoch in range(1, 7)}
    assert ends == sorted(expected)


# --- samples --------------------------------------------------------------------------------------


def whole(edited: Path, **changes: Any) -> WholeDataset:
    records = [r for r in read_manifest(edited) if r.split == "train"]
    values: dict[str, Any] = {"target": 256, "seed": 0, **changes}
    return WholeDataset(records, CLIP, **values)


def test_an_epoch_has_every_picture_once_in_an_order_of_its_own(edited: Path) -> None:
    samples = whole(edited)
    count = len(samples.records)
    epochs = [[samples.pick(e * count + n)[0] for n in range(count)] for e in range(4)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    backwards = whole(edited)  # any process may ask in any order
    assert [backwards.pick(n)[0] for n in range(2 * count, 0, -1)][::-1] == [
        samples.pick(n)[0] for n in range(1, 2 * count + 1)
    ]


@pytest.mark.parametrize("perturb", PERTURBATIONS)
def test_a_view_depends_on_seed_picture_and_number_alone(edited: Path, perturb: str) -> None:
    samples = whole(edited, perturb=perturb, views=2)
    count = len(samples.records)
    fewer = whole(edited, perturb=perturb, views=2)
    fewer.records = fewer.records[:3]

    def views(stream: WholeDataset, epoch: int) -> dict[int, torch.Tensor]:
        numbers = range(epoch * len(stream.records), (epoch + 1) * len(stream.records))
        return {stream.pick(n)[0]: stream[n].image for n in numbers}

    first, second, third = (views(samples, epoch) for epoch in range(3))
    assert len(first) == count and first[0].shape == (3, 224, 224)
    assert all(torch.equal(first[i], third[i]) for i in first), "two views, used in turn"
    assert all(torch.equal(first[i], second[i]) for i in first) == (perturb == "none")
    assert all(torch.equal(image, first[i]) for i, image in views(fewer, 0).items())


def test_masks_shrink_like_their_pictures(edited: Path) -> None:
    samples = whole(edited)
    for n in range(len(samples.records)):
        view = samples[n]
        record = samples.records[samples.pick(n)[0]]
        assert view.mask.shape == (1, 256, 256)
        assert view.edited == float(record.manipulated)
        share = 40 * 50 / (96 * 112) if record.manipulated else 0
        assert view.mask.mean().item() == pytest.approx(share, abs=1e-3)


# --- runs -----------------------------------------------------------------------------------------


def test_declip_trains_as_published_with_all_augmentations(edited: Path, tmp_path: Path) -> None:
    config = tiny(edited, tmp_path / "run", perturb="all", epochs=3)
    start = {name: value.clone() for name, value in new_network(config).state_dict().items()}
    trained = weights(train(config, progress=False))
    changed = {name for name, value in trained.items() if not torch.equal(value, start[name])}
    assert changed and all(name.startswith("decoder.") for name in changed), "frozen means frozen"
    rows = list(csv.DictReader((tmp_path / "run/validation.csv").open()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6], "8 pictures, batches of 4"


def test_a_run_that_goes_on_ends_like_an_uninterrupted_one(edited: Path, tmp_path: Path) -> None:
    changes = {"perturb": "blur", "patience": 1, "lr_factor": 0.5, "validate_every": 1}
    straight = train(tiny(edited, tmp_path / "a", epochs=3, **changes), progress=False)
    train(tiny(edited, tmp_path / "b", epochs=1, **changes), progress=False)
    resumed = train(tiny(edited, tmp_path / "b", epochs=3, **changes), progress=False)
    state = [torch.load(tmp_path / run / "last.ckpt", weights_only=True) for run in "ab"]
    assert state[0]["schedule"] == state[1]["schedule"] and state[0]["schedule"]["drops"] > 0
    assert all(torch.equal(v, weights(resumed)[name]) for name, v in weights(straight).items())
    for name, value in state[0]["network"].items():
        assert torch.equal(value, state[1]["network"][name]), name


def test_training_stops_where_the_rate_would_fall_below_its_floor(
    edited: Path, tmp_path: Path
) -> None:
    config = tiny(edited, tmp_path / "run", epochs=50, patience=1, tolerance=2.0, lr_floor=1e-4)
    train(config, progress=False)
    rows = list(csv.DictReader((tmp_path / "run/validation.csv").open()))
    assert len(rows) == 4, "a mark and a failure at each of 1e-3 and 1e-4"
    again = (tmp_path / "run/model/model.safetensors").stat().st_mtime
    train(config, progress=False)  # nothing is left to do
    assert (tmp_path / "run/model/model.safetensors").stat().st_mtime == again


def test_image_supervision_is_the_mean_of_the_logits_and_reads_no_mask(
    edited: Path, tmp_path: Path
) -> None:
    logits, edited_labels = torch.randn(5, 1, 8, 8), torch.tensor([0.0, 1, 1, 0, 1])
    expected = F.binary_cross_entropy_with_logits(logits.mean(dim=(1, 2, 3)), edited_labels)
    assert image_loss(logits, None, edited_labels) == pytest.approx(expected.item())

    copy = write_edited_set(tmp_path / "data")
    for record in read_manifest(copy):
        if record.mask is not None and record.split == "train":
            record.mask.write_bytes(b"not read")
    config = tiny(copy, tmp_path / "run", recipe="declip-weak", epochs=1)
    model = train(config, progress=False)
    row = next(csv.DictReader((tmp_path / "run/validation.csv").open()))
    assert float(row["choice"]) == float(row["ap"])
    # Validation asks the same question as training did.
    network: Any = load_model(model)[0]
    records = [r for r in read_manifest(copy) if r.split == "val"]
    held = WholeDataset(records, network.preprocess, target=None, seed=0)
    scores = {True: [], False: []}  # type: ignore[var-annotated]
    for n in range(len(records)):
        with torch.inference_mode():
            score = image_logit(network(held[n].image[None]).mask, None)
        scores[bool(held[n].edited)].append(float(score))
    pairs = [(e > u) + 0.5 * (e == u) for e in scores[True] for u in scores[False]]
    assert float(row["auc"]) == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)


@pytest.mark.parametrize("hidden", [0, 5])
def test_the_grad_cam_map_is_the_one_that_gradients_give(hidden: int) -> None:
    torch.manual_seed(3)
    head = GradCamDecoder(6, hidden)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    grid = torch.randn(4, 6, 256, 256, requires_grad=True)  # at the mask's size: no resizing
    mask, evidence = head(Features(grid))
    assert evidence is not None
    (gradient,) = torch.autograd.grad(evidence.sum(), grid)
    importance = gradient.mean(dim=(2, 3), keepdim=True)
    heat = F.relu((importance * grid).sum(dim=1, keepdim=True))
    heat = heat / heat.amax(dim=(2, 3), keepdim=True)
    seen = torch.sigmoid(mask - evidence.clamp(max=0))
    torch.testing.assert_close(seen, heat, atol=2e-4, rtol=0)
    quiet = evidence[:, 0, 0, 0] < -10
    assert not (mask[quiet] > 0).any(), "what is judged untouched is not marked"


def test_grad_cam_learns_from_labels_and_works_like_any_model(edited: Path, tmp_path: Path) -> None:
    changes = {"recipe": "gradcam", "decoder": "gradcam", "epochs": 1}
    changes |= {"model": {"rn50_width": 4, "rn50_layers": [1, 1, 1, 1], "gradcam_hidden": 3}}
    model = train(tiny(edited, tmp_path / "run", **changes), progress=False)
    report = Detector.load(model).analyze(read_manifest(edited)[1].image)
    assert report.heat is not None and report.heat.shape == (96, 112)
    assert json.loads((model / "config.json").read_text())["model"]["decoder"] == "gradcam"


def test_clips_weights_fill_the_backbone_under_a_new_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source: Any = new_network(tiny(tmp_path, tmp_path, seed=5)).backbone
    file = tmp_path / "clip.safetensors"
    save_file(
        {f"visual.{n.removeprefix('stages.')}": t for n, t in source.state_dict().items()}, file
    )
    filled = new_network(tiny(tmp_path, tmp_path, backbone_weights=[str(file)]))
    plain = new_network(tiny(tmp_path, tmp_path)).state_dict()
    for name, tensor in filled.state_dict().items():
        expected = plain[name]
        if name.startswith("backbone."):
            expected = source.state_dict()[name.removeprefix("backbone.")]
        assert torch.equal(tensor, expected), name
    model = {"width": 16, "heads": 2, "layers": 3, "patch": 32}
    changes = {"backbone": "vit", "layer": "layer1", "model": model}
    config = tiny(tmp_path, tmp_path, backbone_weights=[str(file)], **changes)
    with pytest.raises(ForgemapError, match=r"vit cannot be filled from .*\.safetensors \(rn50\)"):
        new_network(config)
    monkeypatch.setenv("FORGEMAP_HOME", str(tmp_path / "home"))
    config = tiny(tmp_path, tmp_path, backbone_weights=["clip-rn50"])
    with pytest.raises(ForgemapError, match="forgemap models download clip-rn50"):
        new_network(config)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"supervision": "image", "choice": "iou"}, "needs --choice ap"),
        ({"decoder": "gradcam"}, "learns by --supervision image"),
        ({"samples": "crops", "supervision": "image"}, "needs --samples whole"),
        ({"architecture": "tracenet"}, "native resolution: use --samples crops"),
        ({"perturb": "fog"}, "unknown perturb 'fog'; valid: none, blur, jitter, jpeg, all"),
        ({"views": 2}, "choose a --perturb"),
        ({"samples": "crops"}, "use --samples whole, or --steps"),
        ({"samples": "crops", "epochs": 0}, "--validate-every must be above 0"),
        ({"cache": "c", "perturb": "jpeg"}, "give their number by --views"),
        ({"schedule": "cosine"}, "valid: trapezoid, plateau"),
        ({"lr_floor": 1.0}, "at most the learning rate"),
        ({"init": "model"}, "add --decoder-init kernels"),
        ({"layer": "layer9"}, "unknown layer 'layer9'"),
        ({"batch": 3, "devices": 2}, "batch 3 cannot be shared by 2 devices"),
    ],
)
def test_what_cannot_work_together_is_one_sentence_before_anything_is_written(
    edited: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ForgemapError, match=sentence) as raised:
        train(tiny(edited, tmp_path / "run", **changes), progress=False)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keep", "changes", "sentence"),
    [
        (lambda row: row["split"] == "val", {}, "the train split holds no picture"),
        (lambda row: row["split"] == "train", {}, "the val split, .* holds no picture"),
        (lambda row: row["method"] == "none", {}, "holds no edited picture"),
        (
            lambda row: row["method"] != "none",
            {"supervision": "image"},
            "no untouched picture, but image labels need both",
        ),
    ],
)
def test_an_empty_split_is_named(
    edited: Path, tmp_path: Path, keep: Any, changes: dict[str, Any], sentence: str
) -> None:
    copy = write_edited_set(tmp_path / "data", pictures=6, held_out=3)
    rows = [json.loads(line) for line in (copy / "manifest.jsonl").read_text().splitlines()]
    kept = "".join(json.dumps(row) + "\n" for row in rows if keep(row))
    (copy / "manifest.jsonl").write_text(kept)
    with pytest.raises(DataError, match=sentence):
        train(tiny(copy, tmp_path / "run", **changes), progress=False)
    assert not (tmp_path / "run").exists()


def test_an_unreadable_picture_is_one_sentence_from_any_process(tmp_path: Path) -> None:
    copy = write_edited_set(tmp_path / "data")
    (copy / "3.png").write_bytes(b"no picture")
    with pytest.raises(ForgemapError, match=r"3\.png") as raised:
        train(tiny(copy, tmp_path / "run", workers=1), progress=False)
    assert "\n" not in str(raised.value)


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_the_last_checkpoint(
    edited: Path, tmp_path: Path
) -> None:
    train(tiny(edited, tmp_path / "run", epochs=1), progress=False)
    before = (tmp_path / "run/last.ckpt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(ForgemapError, match=r"cannot be written.*free some space") as raised:
            train(tiny(edited, tmp_path / "run", epochs=2, validate_every=100), progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(raised.value)
    assert (tmp_path / "run/last.ckpt").read_bytes() == before
    assert not list((tmp_path / "run").glob("*.partial"))


def test_a_checkpoint_holds_no_frozen_weights_and_knows_them(edited: Path, tmp_path: Path) -> None:
    train(tiny(edited, tmp_path / "run", epochs=1), progress=False)
    state = torch.load(tmp_path / "run/last.ckpt", weights_only=True)
    assert state["network"] and all(name.startswith("decoder.") for name in state["network"])
    state["frozen"] = "another"
    torch.save(state, tmp_path / "run/last.ckpt")
    with pytest.raises(ForgemapError, match="frozen weights are not those"):
        train(tiny(edited, tmp_path / "run", epochs=2), progress=False)


def test_features_in_the_place_of_images_give_the_same_answer() -> None:
    torch.manual_seed(0)
    network: Any = build(
        {
            "architecture": "declip",
            **TINY["model"],
            **{  # type: ignore[dict-item]
                key: TINY[key] for key in ("backbone", "layer", "decoder")
            },
        }
    ).eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        features = network.backbone(images)
        assert torch.equal(network(images).mask, network(features).mask)
