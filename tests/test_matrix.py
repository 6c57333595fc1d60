"""The cross-generator matrix: right sums, nothing done twice, nothing begun that cannot end."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from forgemap.cli import app
from forgemap.errors import ForgemapError
from forgemap.evaluate.published import PUBLISHED, beside, canonical, tables_with
from forgemap.matrix import run
from forgemap.matrix.cells import Cell, Matrix, means
from forgemap.matrix.config import MatrixConfig, changed
from forgemap.matrix.report import grid, overview

SMALL = {"widths": [4, 4, 4, 6, 8], "blocks": [1, 1, 1, 1]}
SPLITS = {"train": 3, "val": 1, "test": 3}


def make_set(folder: Path, methods: tuple[str, ...], splits: dict[str, int] = SPLITS) -> Path:
    """Noisy photos, each untouched and edited by every method; a manifest of all splits."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    box = np.zeros((64, 80), np.uint8)
    box[16:48, 20:60] = 255
    cv2.imwrite(str(folder / "mask.png"), box)
    rows = []
    for split, number in splits.items():
        for photo in range(number):
            plain = rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)
            for method in ("none", *methods):
                pixels = plain.copy()
                if method == "blur":
                    pixels[box > 0] = cv2.GaussianBlur(plain, (0, 0), 3)[box > 0]
                elif method != "none":
                    pixels[box > 0] = 90
                name = f"{split}{photo}-{method}.png"
                cv2.imwrite(str(folder / name), pixels)
                mask = None if method == "none" else "mask.png"
                row = {"image": name, "mask": mask, "method": method, "split": split}
                rows.append({**row, "source": f"{folder.name}/{split}{photo}.jpg"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("sets") / "edited", ("blur", "fill"))


def small(edited: Path, out: Path, **changes: Any) -> MatrixConfig:
    values: dict[str, Any] = {
        "data": [str(edited)],
        "by": "method",
        "out": str(out),
        "model": SMALL,
        "crop": 48,
        "batch": 4,
        "steps": 4,
        "warmup": 1,
        "lr": 0.01,
        "workers": 0,
        "validate_every": 4,
        "accelerator": "cpu",
    }
    return MatrixConfig(**{**values, **changes})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is trained ("train NAME") and tested ("test PART") while the test runs."""
    made: list[str] = []
    train, evaluate = run.train, run.evaluate

    def noted_train(config: Any, **options: Any) -> Path:
        made.append(f"train {Path(config.out).name}")
        return train(config, **options)

    def noted_evaluate(model: Any, data: Path, *rest: Any, **options: Any) -> Any:
        made.append(f"test {data.name.removesuffix('.test.jsonl')}")
        return evaluate(model, data, *rest, **options)

    monkeypatch.setattr(run, "train", noted_train)
    monkeypatch.setattr(run, "evaluate", noted_evaluate)
    return made


# --- the figures ----------------------------------------------------------------------------------


def cells(table: dict[tuple[str, str], list[float]]) -> list[Cell]:
    """Cells whose pictures have these IoUs; picture n of every cell is made from photo n."""
    fixed = {"variant": "as is", "method": "m", "manipulated": True, "error": None, "folder": "."}
    fixed |= dict.fromkeys(("score", "flagged", "verdict", "f1_fixed", "f1_best", "ap", "auc"))
    return [
        Cell("", *pair, [{**fixed, "iou": v, "source": f"{n}"} for n, v in enumerate(values)], 0)
        for pair, values in table.items()
    ]


def test_means_are_those_of_the_naive_loops() -> None:
    rng = np.random.default_rng(3)
    names = "abcd"
    table = {pair: rng.random(5).tolist() for pair in product(names, names)}
    found = means(cells(table))
    value = {pair: np.mean(values) for pair, values in table.items()}
    assert found["in_domain"].value == pytest.approx(np.mean([value[n, n] for n in names]))
    foreign = [value[a, b] for a in names for b in names if a != b]
    assert found["out_of_domain"].value == pytest.approx(np.mean(foreign))
    for mine in names:
        gaps = []
        for test in names:
            rivals = [value[other, test] for other in names if other not in (mine, test)]
            if test != mine:
                gaps.append(value[mine, test] - np.mean(rivals))
        assert found[f"advantage/{mine}"].value == pytest.approx(np.mean(gaps))
    for interval in found.values():
        assert interval.low <= interval.value <= interval.high


def test_the_network_of_the_hardest_set_has_no_advantage_from_being_spared_it() -> None:
    # All networks are alike; only set c is hard.
    hard = {"a": 0.8, "b": 0.8, "c": 0.1}
    found = means(cells({(a, b): [hard[b]] * 3 for a in hard for b in hard}))
    assert found["elsewhere/c"].value > found["elsewhere/a"].value
    assert all(found[f"advantage/{n}"].value == pytest.approx(0) for n in hard)


def test_one_set_alone_has_no_out_of_domain_mean() -> None:
    found = means(cells({("a", "a"): [0.2, 0.4]}))
    assert set(found) == {"in_domain"} and found["in_domain"].value == pytest.approx(0.3)


def test_intervals_resample_photos_jointly_over_the_cells() -> None:
    # Photo 0 is hard everywhere: with one photo's weight shared, the difference never varies.
    values = [0.1, 0.5, 0.9]
    table = dict.fromkeys(product("abc", "abc"), values)
    found = means(cells(table))
    assert found["out_of_domain"].low < 0.45 < 0.55 < found["out_of_domain"].high
    assert found["advantage/a"].low == pytest.approx(0) == found["advantage/a"].high


def test_pictures_without_an_auc_are_left_out_of_its_means() -> None:
    one = cells({("a", "a"): [0.2, 0.4]})
    for row, auc in zip(one[0].rows, (0.7, None), strict=True):
        row["auc"] = auc
    assert means(one, "auc")["in_domain"].value == pytest.approx(0.7)


def test_published_figures_add_up_and_stand_beside_sets_of_their_names() -> None:
    paper = PUBLISHED["declip"]
    assert round(paper.in_domain, 1) == 73.8 and round(paper.out_of_domain, 1) == 34.7
    assert canonical("dolos_RePaint-P2-9k") == "repaint-p2"
    assert beside("ldm", "repaint-p2-9k") == 44.7 and beside("ldm", "splice") is None
    assert tables_with(["lama", "ldm"]) == [paper] and not tables_with(["lama", "splice"])


def test_the_table_shows_published_cells_and_other_systems() -> None:
    made = Matrix(
        cells({pair: [0.5, 0.7] for pair in product(("ldm", "lama"), ("ldm", "lama"))}),
        {"axis": "sets", "sets": [{"name": n, "marking_everything": 0.2} for n in ("ldm", "lama")]},
    )
    header, first, *_ = grid(made, "")
    assert header[:3] == ["train \\ test", "ldm", "lama"]
    assert first[2].startswith("60.0 (") and first[2].endswith("[paper 43.5]")
    assert ["PSCC-Net", "81.0", "21.6", "", ""] in overview(made)


# --- the work -------------------------------------------------------------------------------------


def test_a_matrix_is_made_once_and_grows(edited: Path, tmp_path: Path, calls: list[str]) -> None:
    config = small(edited, tmp_path / "m")
    first = run.matrix(config, progress=False)
    tests = ["test blur", "test untouched", "test fill"]
    assert calls == ["train blur", *tests, "train fill", *tests]
    stored = json.loads((tmp_path / "m/matrix.json").read_text())
    assert {(c["train"], c["test"]) for c in stored["cells"]} == set(
        product(("blur", "fill"), ("blur", "fill"))
    )
    cell = first.cell("blur", "fill")
    assert len(cell.rows) == 6 and len(cell.edited) == 3, "untouched pictures are shared"
    assert "image_auc" in cell.values and "flagged" in cell.values
    assert "| blur |" in (tmp_path / "m/matrix.md").read_text()
    for name in ("matrix.png", "matrix-auc.png"):
        assert (tmp_path / "m" / name).read_bytes().startswith(b"\x89PNG")

    calls.clear()
    again = run.matrix(config, progress=False)
    assert calls == [] and again.summary == first.summary

    other = make_set(tmp_path / "other", ("fill",), {"test": 2})
    run.matrix(replace(config, test=[f"elsewhere={other}"]), progress=False)
    assert calls == ["test elsewhere", "test elsewhere"]


def test_a_killed_matrix_goes_on_where_it_stopped(
    edited: Path, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(edited, tmp_path / "m")
    noted, whole = run.evaluate, run.train

    def killed(model: Any, data: Path, *rest: Any, **options: Any) -> Any:
        if data.name.startswith("fill"):
            raise KeyboardInterrupt
        return noted(model, data, *rest, **options)

    monkeypatch.setattr(run, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        run.matrix(config, progress=False)
    assert calls == ["train blur", "test blur", "test untouched"]
    monkeypatch.setattr(run, "evaluate", noted)

    # The second training is interrupted half-way, as by Ctrl-C.
    def half(config: Any, **options: Any) -> Path:
        return whole(replace(config, steps=2), **options)

    calls.clear()
    monkeypatch.setattr(run, "train", half)
    with pytest.raises(ForgemapError, match="same command goes on"):
        run.matrix(config, progress=False)
    assert calls == ["test fill", "train fill"]
    monkeypatch.setattr(run, "train", whole)
    calls.clear()
    run.matrix(config, progress=False)
    assert calls == ["train fill", "test blur", "test untouched", "test fill"]
    steps = (tmp_path / "m/runs/fill/validation.csv").read_text().splitlines()
    assert len(steps) == 3, "validated after the 2 steps and the 4, from one checkpoint"


def test_other_options_or_data_are_refused_in_the_same_folder(
    edited: Path, tmp_path: Path, calls: list[str]
) -> None:
    config = small(edited, tmp_path / "m", methods=["blur"], steps=1, validate_every=1)
    run.matrix(config, progress=False)
    with pytest.raises(ForgemapError, match=r"holds a training with lr = 0\.01, not 0\.5"):
        run.matrix(replace(config, lr=0.5), progress=False)
    other = make_set(tmp_path / "other", ("blur",))
    with pytest.raises(ForgemapError, match="data_sha256"):
        run.matrix(replace(config, data=[str(other)]), progress=False)


def test_an_axis_gives_a_matrix_for_each_value_with_its_own_options(
    edited: Path, tmp_path: Path
) -> None:
    declip = {"xception_channels": [4, 4, 4, 4, 4]}
    config = small(
        *(edited, tmp_path / "m"),
        axis="architecture",
        values=["tracenet,declip"],
        per_value={"declip": {"model": declip, "crop": 64}, "tracenet": {"lr": 0.02}},
        backbone="xception",
        decoder="linear",
    )
    config.check()
    sets, _ = run.prepare(config, tmp_path / "m")
    trainings = run.plan(config, sets, tmp_path / "m")
    assert [(t.value, t.train) for t in trainings] == list(
        product(("tracenet", "declip"), ("blur", "fill"))
    )
    first, last = trainings[0].config, trainings[-1].config
    assert (first.architecture, first.lr, first.crop) == ("tracenet", 0.02, 48)
    assert (last.architecture, last.lr, last.model) == ("declip", 0.01, declip)
    assert last.out == str(tmp_path / "m/runs/declip/fill")
    assert changed(last)["backbone"] == "xception" and "out" not in changed(last)


def test_a_seed_axis_shows_how_far_chance_goes(edited: Path, tmp_path: Path) -> None:
    config = small(
        *(edited, tmp_path / "m"), axis="seed", values=["3", "4"], methods=["fill"], steps=1
    )
    made = run.matrix(replace(config, validate_every=1), progress=False)
    assert made.values == ["3", "4"] and set(made.summary["iou"]["3"]) == {"in_domain"}
    text = (tmp_path / "m/matrix.md").read_text()
    assert "## seed 3" in text and "seed = 4" in text


# --- what cannot work -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"axis": "colour"}, "Unknown axis 'colour': use one of sets"),
        ({"axis": "seed"}, "needs --values"),
        ({"values": ["1"]}, "takes no --values"),
        ({"axis": "seed", "values": ["one"]}, "seed is a whole number"),
        ({"axis": "seed", "values": ["1", "1"]}, "named twice"),
        ({"axis": "decoder", "values": ["linear"]}, "add --architecture declip"),
        ({"by": "camera"}, "method is the only one"),
        ({"by": ""}, "Name the sets"),
        ({"train": ["a=b"]}, "Name the sets"),
        ({"test": ["lama"]}, "not NAME=DATA"),
        ({"test": ["../x=b"]}, "not NAME=DATA"),
        ({"methods": ["blur", "warp"]}, "edited by 'warp'; there are blur, fill"),
        ({"split": "train"}, "test or val"),
        ({"nodes": 2}, "made on one machine"),
        ({"crop": 50}, "crop is 50"),
        ({"model": {"depth": 3}}, "unknown argument 'depth'"),
        ({"model": {"widths": [4, 4, 4, 6, -8]}}, "no network has these sizes"),
        ({"axis": "seed", "values": ["1"], "per_value": {"2": {}}}, "not among the values"),
        ({"axis": "seed", "values": ["1"], "per_value": {"1": {"ler": 1}}}, "cannot set 'ler'"),
        ({"axis": "seed", "values": ["1"], "per_value": {"1": {"lr": "x"}}}, "per_value"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_any_training(
    edited: Path, tmp_path: Path, calls: list[str], changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ForgemapError, match=sentence) as caught:
        run.matrix(small(edited, tmp_path / "m", **changes), progress=False)
    assert "\n" not in str(caught.value) and calls == []


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_empty_split_of_the_last_set_stops_before_the_first_training(
    edited: Path, tmp_path: Path, calls: list[str], split: str
) -> None:
    splits = {name: 1 for name in SPLITS if name != split}
    empty = make_set(tmp_path / "empty", ("fill",), splits)
    config = small(edited, tmp_path / "m", data=[], by="", train=[f"a={edited}", f"b={empty}"])
    with pytest.raises(ForgemapError, match=f"'b' has no edited picture in its {split} split"):
        run.matrix(config, progress=False)
    assert calls == []


def test_a_mask_of_another_size_stops_before_the_first_training(
    tmp_path: Path, calls: list[str]
) -> None:
    broken = make_set(tmp_path / "broken", ("fill",))
    cv2.imwrite(str(broken / "mask.png"), np.full((5, 5), 255, np.uint8))
    with pytest.raises(ForgemapError, match="mask is 5x5 pixels"):
        run.matrix(small(broken, tmp_path / "m"), progress=False)
    assert calls == []


def test_photos_that_are_trained_on_in_one_set_and_tested_on_in_another_are_named(
    tmp_path: Path,
) -> None:
    make_set(tmp_path / "a", ("fill",))
    shared = make_set(tmp_path / "b", ("fill",))
    text = (shared / "manifest.jsonl").read_text()
    (shared / "manifest.jsonl").write_text(text.replace("b/test0.jpg", "a/train1.jpg"))
    config = small(shared, tmp_path / "m", data=[], by="")
    config = replace(config, train=[f"a={tmp_path / 'a'}", f"b={shared}"])
    _, remarks = run.prepare(config, tmp_path / "m")
    assert len(remarks) == 1 and "1 photos that b is tested on" in remarks[0]


def test_the_command_prints_the_table(edited: Path, tmp_path: Path) -> None:
    arguments = ["matrix", "--train", f"fill={edited}", "--out", str(tmp_path / "m")]
    arguments += ["--model", json.dumps(SMALL), "--crop", "48", "--batch", "4", "--steps", "1"]
    arguments += ["--workers", "0", "--validate-every", "1", "--accelerator", "cpu"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "marking everything" in done.stdout and "in domain" in done.stdout


@pytest.mark.distributed
def test_several_devices_train_in_a_command_of_their_own(edited: Path, tmp_path: Path) -> None:
    config = small(edited, tmp_path / "m", methods=["fill"], devices=2, steps=2, validate_every=2)
    made = run.matrix(config, progress=False)
    assert not np.isnan(made.cell("fill", "fill")["iou"].value)
    assert json.loads((tmp_path / "m/runs/fill.json").read_text())["weights_sha256"]
