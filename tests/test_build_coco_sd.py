"""synth/coco_sd.py: sets by inpainting, with a real diffusers pipeline of tiny random weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

pytest.importorskip("diffusers")
pytest.importorskip("pycocotools")

from forgemap.data.records import read_manifest, split_of
from forgemap.errors import DataError, ForgemapError, ModelError
from forgemap.synth import redraw
from forgemap.synth.coco_sd import build
from forgemap.synth.inpaint import VARIANTS, Inpainter
from forgemap.synth.regions import FACE_PARTS, Region, coco_regions, fitted, fitted_shape

from .conftest import picture

QUICK: dict[str, Any] = {"steps": 2, "size": 64, "batch": 2, "progress": False}


def save_pipeline(folder: Path) -> Path:
    """A StableDiffusionInpaintPipeline as published, all but the sizes; as safetensors."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionInpaintPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    text = CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16, bos_token_id=len(words),
        eos_token_id=len(words) + 1, pad_token_id=len(words) + 1,
    )  # fmt: skip
    pipeline = StableDiffusionInpaintPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16),
        unet=UNet2DConditionModel(
            sample_size=8, in_channels=9, out_channels=4, layers_per_block=1,
            block_out_channels=(8, 16), norm_num_groups=4, cross_attention_dim=16,
            attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        ),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_pipeline(tmp_path_factory.mktemp("pipeline")))


def rectangle(box: tuple[int, int, int, int]) -> list[list[int]]:
    left, top, right, bottom = box
    return [[left, top, right, top, right, bottom, left, bottom]]


BOX = (24, 16, 60, 48)


def make_coco(root: Path, photos: int = 5) -> Path:
    """COCO in small: polygons, both kinds of RLE, a crowd, a speck; pictures of two shapes."""
    from pycocotools import mask as coco

    folder = root / "val2017"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for number in range(photos):
        height, width = (72, 96) if number % 2 else (96, 72)
        name = f"{number:012d}.png"
        PILImage.fromarray(picture(height, width, seed=number)).save(folder / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        mask = np.zeros((height, width), np.uint8)
        mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
        runs = coco.encode(np.asfortranarray(mask))
        plain = np.diff(np.flatnonzero(np.diff(mask.T.ravel(), prepend=0, append=2)), prepend=0)
        shape: Any = rectangle(BOX)
        if number == 1:
            shape = {"size": [height, width], "counts": runs["counts"].decode()}
        if number == 2:
            shape = {"size": [height, width], "counts": plain.tolist()}
        common = {"image_id": number, "iscrowd": 0}
        annotations += [
            {**common, "id": 3 * number, "category_id": 18, "segmentation": shape,
             "area": int(mask.sum())},
            {**common, "id": 3 * number + 1, "category_id": 1, "area": 16,
             "segmentation": rectangle((0, 0, 4, 4))},
            {**common, "id": 3 * number + 2, "category_id": 1, "iscrowd": 1, "area": 3000,
             "segmentation": {"size": [height, width], "counts": plain.tolist()}},
        ]  # fmt: skip
    categories = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
    listed = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_val2017.json").write_text(json.dumps(listed))
    return root


def files(root: Path) -> dict[str, str]:
    """Every picture, mask and manifest below a folder, with its hash."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "journal.jsonl"
    }


def pixels(path: Path | None) -> np.ndarray:
    assert path is not None
    return np.asarray(PILImage.open(path))


@pytest.fixture(scope="module")
def built(pipeline: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO-SD from five pictures, with all variants."""
    root = tmp_path_factory.mktemp("built")
    make_coco(root / "coco")
    build(
        "coco-sd", root / "coco", pipeline, root / "set", variants=list(VARIANTS), untouched=True,
        **QUICK,
    )  # fmt: skip
    return root


def test_every_variant_is_listed_with_its_mask_split_and_category(built: Path) -> None:
    records = read_manifest(built / "set")
    assert len(records) == 5 * 4
    assert {r.method for r in records} == {"ldm", "ldm_clean", "ldm_real", "none"}
    for record in records:
        digest = hashlib.sha256(Path(record.source).read_bytes()).hexdigest()
        assert record.split == split_of(digest)
        assert pixels(record.image).shape[:2] in ((64, 48), (48, 64))
        if record.manipulated:
            mask = pixels(record.mask)
            assert set(np.unique(mask)) == {0, 255}
            assert mask.shape == pixels(record.image).shape[:2]
            assert record.parameters["label"] == record.parameters["prompt"] == "dog"


def test_variants_differ_in_where_the_traces_lie(built: Path) -> None:
    for number in range(5):
        kinds = {
            kind: pixels(built / f"set/images/{kind}/val2017-{number:012d}.png")
            for kind in (*VARIANTS, "none")
        }
        inside = pixels(built / f"set/masks/val2017-{number:012d}.png") > 0
        drawn, source = kinds["ldm"], kinds["none"]
        assert (drawn[~inside] != source[~inside]).any(), "the whole picture is decoded"
        assert (drawn[inside] != source[inside]).any()
        assert np.array_equal(kinds["ldm_clean"][~inside], source[~inside])
        assert np.array_equal(kinds["ldm_clean"][inside], drawn[inside])
        assert np.array_equal(kinds["ldm_real"][inside], source[inside])
        assert np.array_equal(kinds["ldm_real"][~inside], drawn[~inside])


def test_polygons_and_both_kinds_of_rle_give_the_same_object(tmp_path: Path) -> None:
    regions = sorted(coco_regions(make_coco(tmp_path), (0.02, 0.5), 0), key=lambda r: r.path)
    assert [r.label for r in regions] == ["dog"] * 5  # never the speck, never the crowd
    for region in regions:
        mask = region.mask()
        wanted = np.zeros((region.height, region.width), bool)
        wanted[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
        assert (mask != wanted).mean() < 0.02
    assert np.array_equal(regions[1].mask(), regions[3].mask() | regions[1].mask())


def test_masks_follow_their_pictures_through_reducing_and_cropping() -> None:
    photo = np.zeros((101, 203, 3), np.uint8)
    mask = np.zeros((101, 203), bool)
    photo[40:80, 60:140] = 255
    mask[40:80, 60:140] = True
    small, region = fitted(photo, mask, 96)
    assert small.shape[:2] == region.shape == fitted_shape(101, 203, 96) == (40, 96)
    assert (region != (small[..., 0] > 127)).mean() < 0.01
    same, _ = fitted(photo, mask, 512)
    assert same.shape[:2] == (96, 200)  # never enlarged


def test_a_catalogue_name_opens_and_checks_what_was_built(built: Path) -> None:
    from forgemap.data.catalog import check, open_data

    assert check("coco-sd", built / "set").problems == []
    kept = open_data(f"coco-sd/ldm_clean:{built / 'set'}")
    assert {r.method for r in kept} == {"none", "ldm_clean"}


def test_an_interrupted_run_ends_like_one_that_was_not(
    built: Path, pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {**QUICK, "variants": list(VARIANTS), "untouched": True}
    real, calls = redraw.redraw, 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(redraw, "redraw", failing)
    with pytest.raises(KeyboardInterrupt):
        build("coco-sd", built / "coco", pipeline, tmp_path / "set", **settings)
    journal = tmp_path / "set/journal.jsonl"
    journal.write_text(journal.read_text()[:-30])  # the kill came in the middle of a line
    done = files(tmp_path / "set")
    assert not (tmp_path / "set/manifest.jsonl").exists() and len(done) > 0
    build("coco-sd", built / "coco", pipeline, tmp_path / "set", **settings)
    assert files(tmp_path / "set") == files(built / "set")
    calls = 2
    build("coco-sd", built / "coco", pipeline, tmp_path / "set", **settings)
    assert calls == 2  # nothing is drawn twice


@pytest.mark.distributed
@pytest.mark.timeout(900)  # two fresh processes import diffusers
def test_two_processes_make_the_pictures_of_one(built: Path, pipeline: str, tmp_path: Path) -> None:
    build(
        "coco-sd", built / "coco", pipeline, tmp_path / "set", variants=list(VARIANTS),
        untouched=True, devices=["cpu", "cpu"], **QUICK,
    )  # fmt: skip
    assert files(tmp_path / "set") == files(built / "set")


def test_the_seed_and_the_prompt_decide(built: Path, pipeline: str, tmp_path: Path) -> None:
    for name, change in (("seed", {"seed": 1}), ("prompt", {"prompt": "a cat, not a {label}"})):
        build("coco-sd", built / "coco", pipeline, tmp_path / name, limit=2, **change, **QUICK)
        for path in (tmp_path / name / "images/ldm").iterdir():
            assert path.read_bytes() != (built / "set/images/ldm" / path.name).read_bytes()


def test_limit_and_split_choose_photos(built: Path, pipeline: str, tmp_path: Path) -> None:
    split = read_manifest(built / "set")[0].split
    build("coco-sd", built / "coco", pipeline, tmp_path / "a", split=split, limit=1, **QUICK)
    (record,) = read_manifest(tmp_path / "a")
    assert record.split == split


def test_faces_are_redrawn_in_parts_or_where_given_masks_say(pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "faces/deep").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "deep/a.jpg", "b.png")):
        PILImage.fromarray(picture(96, 96, seed=seed)).save(tmp_path / "faces" / name)
    build("faces", tmp_path / "faces", pipeline, tmp_path / "parts", **QUICK)
    records = read_manifest(tmp_path / "parts")
    assert sorted(r.image.stem for r in records) == ["a", "b", "deep-a"]
    assert all(r.parameters["label"] in FACE_PARTS for r in records)
    masks = tmp_path / "masks"
    (masks / "deep").mkdir(parents=True)
    given = np.zeros((96, 96), np.uint8)
    given[:48] = 255
    for name in ("a.png", "deep/a.png", "b.png"):
        PILImage.fromarray(given).save(masks / name)
    build("faces", tmp_path / "faces", pipeline, tmp_path / "given", masks=masks, **QUICK)
    for record in read_manifest(tmp_path / "given"):
        mask = pixels(record.mask)
        assert mask[:32].all() and not mask[32:].any()
    (masks / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png has no mask"):
        build("faces", tmp_path / "faces", pipeline, tmp_path / "gone", masks=masks, **QUICK)


@pytest.mark.parametrize("part", FACE_PARTS)
def test_parts_of_the_face_lie_inside_and_are_of_fitting_size(part: str) -> None:
    mask = Region("a.jpg", "a", part, 256, 256, (part, 0.0, 0.0)).mask()
    assert 0.02 <= mask.mean() <= 0.5
    assert not mask[:, 0].any() and not mask[-1].any()


def test_a_photo_that_cannot_be_used_is_skipped_and_named(
    pipeline: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_coco(tmp_path / "coco", photos=3)
    (root / "val2017/000000000001.png").write_bytes(b"torn")
    PILImage.fromarray(picture(64, 64)).save(root / "val2017/000000000002.png")
    build("coco-sd", root, pipeline, tmp_path / "set", **{**QUICK, "progress": True})
    assert len(read_manifest(tmp_path / "set")) == 1
    said = capsys.readouterr().err
    assert "000000000001.png" in said
    assert "is 64x64 pixels, its annotation says 72x96" in said


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"what": "lsun"}, "Unknown set 'lsun'"),
        ({"variants": ["ldm", "sdm"]}, "Unknown variant 'sdm': use ldm, ldm_clean, ldm_real"),
        ({"split": "dev"}, "Unknown split 'dev'"),
        ({"area": (0.5, 0.1)}, "two shares"),
        ({"prompt": "a {thing}"}, "may hold {label}"),
        ({"precision": "8"}, "Unknown precision '8'"),
        ({"masks": "m"}, "COCO brings its own masks"),
        ({"photos": "/nowhere"}, "no copy of COCO: there is no annotations/instances_"),
        ({"area": (0.9, 0.95)}, "no picture with a region to redraw"),
        ({"devices": ["warp:3"]}, "cannot run on the device 'warp:3'"),
        ({"model": "/nowhere/model"}, "/nowhere/model cannot be loaded"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    built: Path, pipeline: str, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    given = {"what": "coco-sd", "photos": built / "coco", "model": pipeline, **QUICK, **change}
    with pytest.raises(ForgemapError) as caught:
        build(out=tmp_path / "set", **given)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_other_settings_do_not_go_on_in_the_same_folder(built: Path, pipeline: str) -> None:
    with pytest.raises(DataError, match=r"other settings \(variants was .*'ldm_real'\]"):
        build("coco-sd", built / "coco", pipeline, built / "set", **QUICK)


def test_a_pipeline_that_is_none_is_refused(pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no model_index\.json"):
        Inpainter(str(tmp_path / "empty"))


def test_weights_that_have_to_be_unpickled_are_refused(pipeline: str, tmp_path: Path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file

    copy = shutil.copytree(pipeline, tmp_path / "pickled")
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(ModelError, match="safetensors"):
        Inpainter(str(copy))


def test_the_command_builds(built: Path, pipeline: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from forgemap.cli import app

    command = ["data", "build", "coco-sd", "--coco", str(built / "coco"), "--model", pipeline]
    options = [
        "--steps",
        "2",
        "--size",
        "64",
        "--batch",
        "2",
        "--variants",
        "ldm,ldm_clean,ldm_real",
    ]
    run = CliRunner().invoke(
        app, [*command, "--out", str(tmp_path / "set"), *options, "--untouched", "--device", "cpu"]
    )
    assert run.exit_code == 0, run.output
    assert files(tmp_path / "set") == files(built / "set")
    wrong = CliRunner().invoke(app, ["data", "build", "faces", *command[3:], "--out", "x"])
    assert "takes --faces FOLDER" in str(wrong.exception)
