"""data/catalog: each published layout, in miniature and with its trap, becomes the same records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.data.catalog import SETS, check, open_data, read_set, root_of
from forgemap.data.datasets import load_pair
from forgemap.data.records import Record, read_manifest, write_manifest
from forgemap.errors import DataError, ForgemapError

from .conftest import picture

SHAPE = (48, 64)
REGION = np.s_[12:30, 20:44]  # what every edited picture here has edited


def truth(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[REGION] = 255
    return mask


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(pixels).save(path)
    return path


def photo(path: Path, seed: int = 0) -> Path:
    return save(path, picture(*SHAPE, seed=seed))


def edited(path: Path, seed: int = 0) -> Path:
    """The photo of the same seed with another content in the region."""
    pixels = picture(*SHAPE, seed=seed)
    pixels[REGION] = 255 - pixels[REGION]
    return save(path, pixels)


def make_dolos(root: Path) -> None:
    for split in ("train", "valid", "test"):
        for number in range(2):
            photo(root / f"celebahq/real/{split}/{number}.png", number)
            edited(root / f"celebahq/fake/lama/images/{split}/{number}.png", number)
            inverted = np.dstack([255 - truth()] * 3)
            save(root / f"celebahq/fake/lama/masks/{split}/{number}.png", inverted)
            photo(root / f"ffhq/fake/p2/{split}/{number}.png", number + 7)
            photo(root / f"ffhq/real/{split}/{number}.png", number + 3)


def make_autosplice(root: Path) -> None:
    for name in ("12", "7_a"):  # an ID may hold the "_" that the rule is about
        photo(root / f"Authentic/{name}.jpg", 1)
        save(root / f"Mask/{name}_mask.png", truth())
        for quality in (75, 90, 100):
            for number in range(2):
                edited(root / f"Forged_JPEG{quality}/{name}_{number}.jpg", 1)


def make_cocoglide(root: Path) -> None:
    for number, category in (("114871", "dining table"), ("3501", "broccoli")):
        edited(root / f"fake/glide_inpainting_val2017_{number}_up.png", 2)
        save(root / f"mask/{category}_{number}_mask.png", truth())
        photo(root / f"real/val2017_{number}.png", 2)


def make_casia(root: Path) -> None:
    photo(root / "Au/Au_art_00014.jpg", 5)
    photo(root / "Au/Au_ani_00001.jpg", 6)
    edited(root / "Tp/Tp_D_CRN_S_N_cha00063_art00014_11818.tif", 5)
    edited(root / "Tp/Tp_S_NRN_M_N_pla00020_pla00020_10988.jpg", 8)
    edited(root / "Tp/Tp_D_NRD_S_N_cha10002_cha10001_20094.jpg", 9)  # misnamed: its mask says Tp_S
    masks = root / "CASIA 2 Groundtruth"
    save(masks / "Tp_D_CRN_S_N_cha00063_art00014_11818_gt.png", truth())
    save(masks / "Tp_S_NRN_M_N_pla00020_pla00020_10988_gt.png", truth())
    save(masks / "Tp_S_NRD_S_N_cha10002_cha10001_20094_gt3.png", truth())
    (root / "Tp" / "Thumbs.db").write_bytes(b"windows was here")


def make_columbia(root: Path) -> None:
    photo(root / "4cam_auth/canong3_02_sub_01.tif")
    photo(root / "4cam_auth/edgemask/canong3_02_sub_01_edgemask.jpg")
    edited(root / "4cam_splc/canong3_canonxt_sub_01.tif")
    colours = np.zeros((*SHAPE, 3), np.uint8)
    colours[..., 0] = 200  # red: the first camera
    colours[REGION] = (0, 200, 0)
    colours[12:14, 20:44] = (0, 255, 0)  # the seam is brighter
    path = root / "4cam_splc/edgemask/canong3_canonxt_sub_01_edgemask.jpg"
    path.parent.mkdir(parents=True)
    PILImage.fromarray(colours).save(path, quality=95, subsampling=0)


def make_coverage(root: Path) -> None:
    for number in (1, 2):
        photo(root / f"image/{number}.tif", number)
        edited(root / f"image/{number}t.tif", number)
        save(root / f"mask/{number}forged.tif", truth())
        for other in ("copy", "paste"):
            save(root / f"mask/{number}{other}.tif", np.roll(truth(), 9, axis=1))


def make_nist(root: Path) -> None:
    rows = [
        "TaskID|ProbeFileID|ProbeFileName|ProbeMaskFileName|BaseFileName|IsTarget"
        "|IsManipulationTypeRemoval|IsManipulationTypeSplice|IsManipulationTypeCopyClone",
        "manipulation|1|probe/NC2016_0128.jpg|reference/manipulation/mask/NC2016_3942.png"
        "|world/NC2016_3272.jpg|Y|N|Y|N",
        # the table names a folder that was renamed
        "manipulation|2|probe/NC2016_0200.jpg|reference/removal/mask/NC2016_0001.png"
        "|world/NC2016_3272.jpg|Y|Y|N|N",
        "manipulation|3|probe/NC2016_0136.jpg|||N|N|N|N",
    ]
    table = root / "NC2016_Test0613/reference/manipulation/NC2016-manipulation-ref.csv"
    table.parent.mkdir(parents=True)
    table.write_text("\n".join(rows) + "\n")
    inner = root / "NC2016_Test0613"
    edited(inner / "probe/NC2016_0128.jpg", 4)
    edited(inner / "probe/NC2016_0200.jpg", 4)
    photo(inner / "probe/NC2016_0136.jpg", 5)
    photo(inner / "world/NC2016_3272.jpg", 4)
    save(inner / "reference/manipulation/mask/NC2016_3942.png", 255 - truth())
    save(inner / "reference/remove/mask/NC2016_0001.png", 255 - truth())


def make_imdl(root: Path) -> None:
    # Sorted, "b-1.png" comes before "b.jpg", but "b-1_gt.png" after "b.png": order misleads.
    for image, mask in (("a.jpg", "a.png"), ("b-1.png", "b-1_gt.png"), ("b.jpg", "b.png")):
        edited(root / "Tp" / image)
        save(root / "Gt" / mask, truth())


def make_json(root: Path) -> None:
    edited(root / "Tp/6.jpg")
    save(root / "Gt/6.png", truth())
    photo(root / "Tp/8.jpg")
    pairs = [["Tp/6.jpg", "Gt/6.png"], ["Tp/8.jpg", "Negative"]]
    (root / "list.json").write_text(json.dumps(pairs))


def make_pairs(root: Path) -> None:
    for split in ("train", "val"):
        edited(root / f"images/{split}/lama/x.jpg")
        save(root / f"masks/{split}/lama/x_mask.png", truth())
        photo(root / f"real/{split}/x.jpg")


def make_generated(root: Path) -> None:
    photo(root / "real/1.png", 1)
    for generator in ("gen_0", "sdxl"):
        photo(root / f"fake/{generator}/1.png", 2)


def make_manifest(root: Path) -> None:
    image, mask = edited(root / "images/a.png"), save(root / "masks/a.png", truth())
    write_manifest([Record(image, mask, "a", "ldm", "test", {}, 0)], root / "manifest.jsonl")


MAKERS = {
    "dolos": make_dolos,
    "autosplice": make_autosplice,
    "coco-sd": make_manifest,
    "cocoglide": make_cocoglide,
    "casia-v2": make_casia,
    "columbia": make_columbia,
    "coverage": make_coverage,
    "nist16": make_nist,
    "imdl-folder": make_imdl,
    "imdl-json": make_json,
    "pairs": make_pairs,
    "generated": make_generated,
    "manifest": make_manifest,
}
METHODS = {
    "dolos": {"none", "lama", "ffhq-p2"},
    "autosplice": {"none", "autosplice_jpeg75", "autosplice_jpeg90", "autosplice_jpeg100"},
    "cocoglide": {"none", "glide"},
    "casia-v2": {"none", "splice", "copy_move"},
    "columbia": {"none", "splice"},
    "coverage": {"none", "copy_move"},
    "nist16": {"none", "splice", "removal"},
    "imdl-folder": {"edited"},
    "imdl-json": {"none", "edited"},
    "pairs": {"none", "lama"},
    "generated": {"none", "gen_0", "sdxl"},
}


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A sound miniature of the set that the test names."""
    name = request.param
    MAKERS[name](tmp_path / "copy")
    return name, tmp_path / ("copy/list.json" if name == "imdl-json" else "copy")


every = pytest.mark.parametrize("copy", SETS, indirect=True)


def only(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("copy", [name], indirect=True)


def refusal(name: str, root: Path) -> list[str]:
    """The sentences of `forgemap data check`, which must not end well."""
    run = CliRunner().invoke(app, ["data", "check", name, str(root)])
    assert run.exit_code == 1, run.output
    assert open_is_refused(name, root) or "look inverted" in run.output or "marks" in run.output
    return [line for line in run.output.splitlines() if line.startswith("Wrong: ")]


def open_is_refused(name: str, root: Path) -> bool:
    try:
        open_data(f"{name}:{root}")
    except DataError as error:
        return "\n" not in str(error)
    return False


@every
def test_a_sound_copy_passes_and_white_is_manipulated_in_every_set(copy: tuple[str, Path]) -> None:
    name, root = copy
    run = CliRunner().invoke(app, ["data", "check", name, str(root)])
    assert (run.exit_code, run.output.splitlines()[-1]) == (0, "Sound."), run.output
    records = open_data(f"{name}:{root}")
    assert {r.method for r in records} == METHODS.get(name, {"ldm"})
    for record in records:
        pixels, mask = load_pair(record)
        assert pixels.shape[:2] == mask.shape
        if not record.manipulated:
            assert not mask.any()
        elif record.marks == "whole":
            assert mask.all()
        else:
            wrong = mask != truth()
            # Columbia's masks went through JPEG; the others are exact.
            assert wrong.mean() <= (0.05 if name == "columbia" else 0), record.mask


@every
def test_a_manifest_of_a_set_gives_its_records(copy: tuple[str, Path], tmp_path: Path) -> None:
    name, root = copy
    out = tmp_path / "elsewhere" / "manifest.jsonl"
    run = CliRunner().invoke(app, ["data", "manifest", name, str(root), "--out", str(out)])
    assert run.exit_code == 0, run.output
    direct, listed = open_data(f"{name}:{root}"), open_data(out)
    assert sorted((r.image, r.method, r.split, r.marks, r.source) for r in listed) == sorted(
        (r.image.resolve(), r.method, r.split, r.marks, r.source) for r in direct
    )
    for one, other in zip(listed, direct, strict=True):
        assert np.array_equal(load_pair(one)[1], load_pair(other)[1])


@every
def test_every_docstring_draws_a_tree(copy: tuple[str, Path]) -> None:
    run = CliRunner().invoke(app, ["data", "list", copy[0]])
    assert run.exit_code == 0
    assert "/" in run.output or ".jsonl" in run.output
    assert "::" not in run.output


@only("dolos")
def test_one_method_is_read_with_the_untouched_pictures(copy: tuple[str, Path]) -> None:
    name, root = copy
    assert {r.method for r in open_data(f"{name}/lama:{root}")} == {"none", "lama"}
    assert {r.split for r in open_data(f"{name}/lama:{root}", "val")} == {"val"}
    with pytest.raises(DataError, match=r"no method 'ldm'; it has ffhq-p2, lama"):
        open_data(f"{name}/ldm:{root}")
    assert root_of(f"{name}/lama:{root}") == root


@only("dolos")
def test_inverted_masks_are_found_out(copy: tuple[str, Path]) -> None:
    name, root = copy
    for file in (root / "celebahq/fake/lama/masks").rglob("*.png"):
        save(file, 255 - np.asarray(PILImage.open(file)))
    assert ["lama look inverted" in s for s in refusal(name, root)] == [True]


@only("pairs")
def test_inverted_masks_are_found_out_without_originals_too(copy: tuple[str, Path]) -> None:
    name, root = copy
    for file in (root / "masks").rglob("*.png"):
        save(file, 255 - np.asarray(PILImage.open(file)))
    (sentence,) = refusal(name, root)
    assert "look inverted" in sentence and "white (255)" in sentence
    run = CliRunner().invoke(
        app, ["data", "manifest", name, str(root), "--out", str(root / "m.jsonl"), "--leave-out"]
    )
    assert isinstance(run.exception, ForgemapError) and "look inverted" in str(run.exception)
    assert not (root / "m.jsonl").exists()


@only("dolos")
def test_an_empty_split_is_named(copy: tuple[str, Path]) -> None:
    name, root = copy
    for folder in ("images", "masks"):
        for file in (root / f"celebahq/fake/lama/{folder}/valid").iterdir():
            file.unlink()
    result = check(name, root)
    (sentence,) = result.problems
    assert "lama/images/valid holds no pictures: the split 'val' is empty" in sentence
    assert len(open_data(f"{name}/lama:{root}", "test")) == 6  # the other splits remain of use


@only("dolos")
def test_a_set_is_not_read_without_masks(copy: tuple[str, Path]) -> None:
    name, root = copy
    (root / "celebahq/fake/lama/masks/test/1.png").unlink()
    sentences = refusal(name, root)
    assert len(sentences) == 1 and "images/test/1.png has no mask" in sentences[0]


@only("casia-v2")
def test_casias_misnamed_masks_are_paired_by_their_number(copy: tuple[str, Path]) -> None:
    name, root = copy
    found = read_set(name, root)
    by_name = {r.image.stem.rpartition("_")[2]: r for r in found.records if r.manipulated}
    assert by_name["20094"].mask is not None
    assert by_name["20094"].mask.name == "Tp_S_NRD_S_N_cha10002_cha10001_20094_gt3.png"
    assert (by_name["11818"].method, by_name["11818"].source) == ("splice", "art00014")
    assert by_name["10988"].method == "copy_move"
    assert any("paired by its number" in note for note in found.notes)
    splits = {r.split for r in found.records if r.source == "art00014"}
    assert len(splits) == 1 and sum(r.source == "art00014" for r in found.records) == 2


@only("casia-v2")
def test_faulty_pictures_are_named_and_can_be_left_out(copy: tuple[str, Path]) -> None:
    name, root = copy
    mask = root / "CASIA 2 Groundtruth/Tp_S_NRN_M_N_pla00020_pla00020_10988_gt.png"
    save(mask, truth().T)  # turned, as some are
    edited(root / "Tp/Tp_D_NNN_M_B_art00037_nat10103_10108.tif")  # one of those without a mask
    one, other = sorted(refusal(name, root), key=lambda s: "no mask" in s)
    assert "the mask is 48x64 pixels" in one and "is 64x48" in one
    assert "10108.tif has no mask" in other
    out = root / "manifest.jsonl"
    command = ["data", "manifest", name, str(root), "--out", str(out)]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, ForgemapError) and not out.exists()
    assert "--leave-out" in str(refused.exception)
    assert CliRunner().invoke(app, [*command, "--leave-out"]).exit_code == 0
    kept = {r.image.name for r in read_manifest(out)}
    assert len(kept) == 4
    assert not any("10988" in n or "10108" in n for n in kept)


@only("autosplice")
def test_a_mask_serves_all_pictures_made_from_one_photo(copy: tuple[str, Path]) -> None:
    name, root = copy
    records = [r for r in open_data(f"{name}:{root}") if r.manipulated]
    assert len(records) == 12
    assert {r.mask.name for r in records if r.source == "7_a"} == {"7_a_mask.png"}
    save(root / "Mask/99_mask.png", truth())
    assert "99_mask.png is a mask without a picture" in refusal(name, root)[0]


@only("imdl-folder")
def test_imdl_pairs_are_those_of_the_names_not_of_the_order(copy: tuple[str, Path]) -> None:
    name, root = copy
    found = read_set(name, root)
    assert [(r.image.name, r.mask.name) for r in found.records if r.mask] == [
        ("a.jpg", "a.png"),
        ("b-1.png", "b-1_gt.png"),
        ("b.jpg", "b.png"),
    ]
    save(root / "Gt/a0.png", truth())  # all that follow would be paired wrongly
    sentences = "\n".join(refusal(name, root))
    assert "a0.png is a mask without a picture" in sentences
    assert "Tp holds 3 pictures, Gt 4 masks" in sentences
    assert any("instead of b-1_gt.png" in note for note in check(name, root).notes)


def test_imdl_names_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    edited(tmp_path / "Tp/NC2016_1.jpg")
    save(tmp_path / "Gt/NC2016_77.png", truth())
    (sentence,) = refusal("imdl-folder", tmp_path)
    assert "cannot be checked" in sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("{}", "must be a list of pairs"),
        ('[["a.jpg"]]', "entry 1 is not a pair"),
        ('[["Tp/6.jpg", "Gt/5.png"]]', "entry 1 names .*Gt/5.png, which does not exist"),
    ],
)
def test_bad_imdl_json_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    make_json(tmp_path)
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(DataError, match=sentence):
        open_data(f"imdl-json:{tmp_path / 'list.json'}")


@only("columbia")
def test_a_black_and_white_mask_is_none_of_columbias(copy: tuple[str, Path]) -> None:
    name, root = copy
    save(root / "4cam_splc/edgemask/canong3_canonxt_sub_01_edgemask.jpg", truth())
    assert "not a mask of red and green areas" in refusal_by_content(name, root)


def refusal_by_content(name: str, root: Path) -> str:
    """The one problem that only a look into the files finds."""
    (problem,) = check(name, root).problems
    return problem


@only("coverage")
@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (truth() // 255, "holds 0 and 1 instead of 0 and 255"),
        (np.zeros(SHAPE, np.uint8), "marks nothing"),
        (np.full(SHAPE, 255, np.uint8), "marks all of the picture"),
        (picture(*SHAPE) // 2 + 60, "mostly grey|coloured"),
    ],
)
def test_masks_that_are_none_are_named(
    copy: tuple[str, Path], mask: np.ndarray, sentence: str
) -> None:
    name, root = copy
    save(root / "mask/2forged.tif", mask)
    problem = refusal_by_content(name, root)
    assert "2forged.tif" in problem and re.search(sentence, problem)


@only("coverage")
def test_a_torn_picture_and_a_torn_mask_are_named(copy: tuple[str, Path]) -> None:
    name, root = copy
    for file in ("image/1.tif", "mask/2forged.tif"):
        (root / file).write_bytes((root / file).read_bytes()[:60])
    problems = check(name, root).problems
    assert len(problems) == 2
    assert all(any(f in p for p in problems) for f in ("image/1.tif", "2forged.tif"))


@only("nist16")
def test_nist_pictures_of_one_base_share_their_source(copy: tuple[str, Path]) -> None:
    name, root = copy
    records = open_data(f"{name}:{root}")
    assert [r.source for r in records] == ["NC2016_3272", "NC2016_3272", "NC2016_0136"]
    assert {r.split for r in records} == {"test"}
    table = root / "NC2016_Test0613/reference/manipulation/NC2016-manipulation-ref.csv"
    table.write_text(table.read_text().replace("|", ","))
    with pytest.raises(DataError, match=r"no column 'ProbeFileName'.*divided by '\|'"):
        open_data(f"{name}:{root}")


@only("generated")
def test_generators_stay_apart(copy: tuple[str, Path]) -> None:
    name, root = copy
    records = open_data(f"{name}:{root}")
    assert len({r.split for r in records}) == 1  # all three show the photo called 1
    photo(root / "fake/stray.png")
    assert "unnamed generator" in refusal(name, root)[0]


def test_d3s_test_folders_are_generators(tmp_path: Path) -> None:
    for folder in ("real", "gen_0", "gen_3"):
        photo(tmp_path / folder / "1.png")
    assert {r.method for r in open_data(f"generated:{tmp_path}")} == {"none", "gen_0", "gen_3"}


def test_counts_are_compared_when_a_complete_copy_is_asked_for(tmp_path: Path) -> None:
    make_columbia(tmp_path)
    assert check("columbia", tmp_path).problems == []
    problems = check("columbia", tmp_path, complete=True).problems
    assert [p.partition(" has ")[2] for p in problems] == [
        "1 untouched pictures, the published set 183.",
        "1 splice pictures, the published set 180.",
    ]


def test_a_folder_that_is_another_set_is_recognised(tmp_path: Path) -> None:
    make_casia(tmp_path)
    with pytest.raises(DataError, match=r"no copy of columbia: there is no 4cam_splc .*casia-v2"):
        open_data(f"columbia:{tmp_path}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("colombia:/data", "Unknown data set 'colombia'.*dolos, autosplice"),
        ("columbia:/nowhere/at/all", "/nowhere/at/all does not exist"),
        ("/nowhere/at/all", "No manifest at /nowhere/at/all"),
    ],
)
def test_what_cannot_be_opened_is_said_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        open_data(text)


def test_old_manifests_are_read_and_written_as_they_were(tmp_path: Path) -> None:
    make_manifest(tmp_path)
    row = json.loads((tmp_path / "manifest.jsonl").read_text())
    assert row == {
        "image": "images/a.png", "mask": "masks/a.png", "source": "a", "method": "ldm",
        "split": "test", "parameters": {}, "seed": 0,
    }  # fmt: skip


def test_a_manifest_says_how_its_masks_mark(tmp_path: Path) -> None:
    make_manifest(tmp_path)
    line = json.loads((tmp_path / "manifest.jsonl").read_text())
    (tmp_path / "manifest.jsonl").write_text(json.dumps({**line, "marks": "black"}))
    (record,) = read_manifest(tmp_path)
    assert np.array_equal(load_pair(record)[1], 255 - truth())
    (tmp_path / "manifest.jsonl").write_text(json.dumps({**line, "marks": "red"}))
    with pytest.raises(DataError, match=r"marks 'red': use one of white, black, green, whole"):
        read_manifest(tmp_path)


def test_evaluation_takes_a_named_set(tmp_path: Path) -> None:
    from forgemap.evaluate.pictures import read, read_mask

    make_columbia(tmp_path)
    records, digest = read(Path(f"columbia:{tmp_path}"), None)
    (mask,) = [m for r in records if (m := read_mask(r)) is not None]
    assert set(np.unique(mask)) == {0, 1}
    assert abs(float(mask.mean()) - float((truth() > 0).mean())) < 0.05
    photo(tmp_path / "4cam_auth/another.tif")
    assert read(Path(f"columbia:{tmp_path}"), None)[1] != digest


def test_training_takes_a_named_set(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    from forgemap.train.setup import read_split

    make_dolos(tmp_path)
    records = read_split([f"dolos/lama:{tmp_path}"], "val")
    assert {(r.method, r.split) for r in records} == {("none", "val"), ("lama", "val")}


def test_opencv_is_not_asked_for_colour_where_grey_will_do(tmp_path: Path) -> None:
    """A palette mask (Pillow's mode P) reads like any other."""
    save(tmp_path / "images/a.png", picture(*SHAPE))
    palette = PILImage.fromarray(truth()).convert("P")
    (tmp_path / "masks").mkdir()
    palette.save(tmp_path / "masks/a.png")
    assert cv2.imread(str(tmp_path / "masks/a.png"), cv2.IMREAD_GRAYSCALE).max() == 255
    (record,) = open_data(f"pairs:{tmp_path}")
    assert np.array_equal(load_pair(record)[1], truth())
