"""Evaluating an embedder: per generator, against naive counts, with what is fitted kept apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

from sklearn import metrics

from forgemap.classifiers import KINDS, Source, fit, save
from forgemap.cli import app
from forgemap.errors import DataError, ModelError
from forgemap.evaluate import generated
from forgemap.evaluate.embed import Model, embed
from forgemap.evaluate.embeddings import read_embeddings
from forgemap.evaluate.generated import evaluate
from forgemap.evaluate.generated_scores import MEAN, POOLED, figures

from .conftest import picture
from .test_embed import new_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return new_model(tmp_path_factory.mktemp("models") / "code", 0)


def make(root: Path, names: dict[str, int], seed: int = 0, tint: bool = True) -> Path:
    """Folders of pictures; those of each generator have a tint of their own, photos have none."""
    for place, (name, count) in enumerate(names.items()):
        (root / name).mkdir(parents=True)
        for n in range(count):
            pixels = picture(36, 40, seed=seed + 1000 * place + n).astype(int)
            if tint and place:
                pixels[..., place % 3] += 70
            image = PILImage.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(root / name / f"{n:03d}.png")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("data") / "set", {"real": 20, "gan": 14, "ldm": 9})


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("training") / "set"
    return make(root, {"real": 25, "gan": 20, "ldm": 20}, seed=500_000)


@pytest.fixture(scope="module")
def found(model, data, training):
    return evaluate(model, data, fit=training, progress=False)


def test_every_figure_is_what_counting_gives(found):
    columns = found.scored.columns
    assert sorted(found.groups) == ["linear", "nearest", "one-class"]
    for kind in found.groups:
        scores = found.scored.scores[kind]
        for name in ("gan", "ldm", POOLED):
            some = (columns["label"] == 0) | (columns["generator"] == name) | (name == POOLED)
            truth, values = columns["label"][some], scores[some]
            group = found.group(kind, name)
            says = values > 0.5
            assert group.pictures == truth.sum()
            assert group["real"].value == pytest.approx((~says[truth == 0]).mean())
            assert group["fake"].value == pytest.approx(says[truth == 1].mean())
            assert group["accuracy"].value == pytest.approx((says == truth).mean())
            assert group["auc"].value == pytest.approx(metrics.roc_auc_score(truth, values))
            assert group["ap"].value == pytest.approx(
                metrics.average_precision_score(truth, values)
            )
            rate, true, _ = metrics.roc_curve(truth, values, drop_intermediate=False)
            assert group["tpr_at_fpr_5"].value == pytest.approx(true[rate <= 0.05].max())
            assert group["tpr_at_fpr_1"].value == pytest.approx(true[rate <= 0.01].max())


def test_the_mean_counts_each_generator_alike_and_pooling_does_not(found):
    for kind in found.groups:
        each = [found.group(kind, name)["fake"].value for name in ("gan", "ldm")]
        assert found.group(kind, MEAN)["fake"].value == pytest.approx(np.mean(each))
        pooled = np.average(each, weights=[14, 9])
        assert found.group(kind, POOLED)["fake"].value == pytest.approx(pooled)


def test_intervals_contain_the_value(found):
    for groups in found.groups.values():
        for group in groups:
            value = group["auc"]
            assert value.low - 1e-9 <= value.value <= value.high + 1e-9


def test_what_differs_is_found_and_what_does_not_is_not(model, training, found, tmp_path):
    assert found.group("linear")["auc"].value > 0.85
    same = make(tmp_path / "same", {"real": 30, "gan": 30}, seed=7, tint=False)
    other = evaluate(
        model, same, fit=make(tmp_path / "fit", {"real": 30, "gan": 30}, 99, False), progress=False
    )
    assert 0.25 < other.group("linear")["auc"].value < 0.75


def test_a_score_of_exactly_one_half_counts_as_real():
    scores, labels = np.array([0.5, 0.5, 0.6]), np.array([False, True, True])
    found = figures(scores, labels, np.ones(3))
    assert (found["real"], found["fake"]) == (1.0, 0.5)
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_fake_is_one_for_all_three_kinds(found):
    """The one-class machine's inliers are real: its scores must not come out turned round."""
    columns = found.scored.columns
    for kind in KINDS:
        scores = found.scored.scores[kind]
        assert scores[columns["label"] == 1].mean() > scores[columns["label"] == 0].mean(), kind


def test_a_classifier_left_alone_with_a_generator_never_saw_it(model, data, training, monkeypatch):
    fitted: list[frozenset[int]] = []
    sizes = {"gan": 20, "ldm": 20, "real": 25}

    def spy(kind, vectors, labels, source):
        fitted.append(frozenset([len(labels), int(np.sum(labels))]))
        return fit(kind, vectors, labels, source)

    monkeypatch.setattr(generated.kinds, "fit", spy)
    found = evaluate(
        model, data, fit=training, leave_one_out=True, classifiers=["linear"], progress=False
    )
    left = sizes["real"] + sizes["gan"]
    assert fitted == [frozenset([65, 40]), frozenset([left, 20]), frozenset([left, 20])]
    names = [group.name for group in found.groups["left out, linear"]]
    assert names == ["gan", "ldm", MEAN]
    # Tinted like neither photo nor the one that was seen: harder than when it was seen.
    seen, unseen = found.group("linear", "ldm"), found.group("left out, linear", "ldm")
    assert unseen["fake"].value <= seen["fake"].value


def test_without_pictures_to_fit_on_leaving_one_out_divides_the_data(model, training):
    found = evaluate(model, training, leave_one_out=True, classifiers=["nearest"], progress=False)
    assert found.facts["fitted_on"] + found.facts["pictures"] == 65
    assert found.facts["fitted_on"] > 30
    assert {g.name for g in found.groups["left out, nearest"]} >= {"gan", "ldm"}


def test_leaving_out_the_only_generator_is_one_sentence(model, tmp_path):
    root = make(tmp_path / "set", {"real": 30, "gan": 30})
    with pytest.raises(DataError, match="Without gan there is no generator to fit on"):
        evaluate(model, root, leave_one_out=True, classifiers=["linear"], progress=False)


def test_univfd_and_genimage_compare_each_generator_with_its_own_photos(model, training, tmp_path):
    for name in ("progan", "stylegan"):
        source = make(tmp_path / "made" / name, {"0_real": 6, "1_fake": 5}, seed=len(name))
        shutil.copytree(source, tmp_path / "univfd" / name)
        for ours, theirs in (("0_real", "nature"), ("1_fake", "ai")):
            shutil.copytree(source / ours, tmp_path / "genimage" / name / "val" / theirs)
    results = []
    for layout in ("univfd", "genimage"):
        found = evaluate(
            model, tmp_path / layout, fit=training, classifiers=["linear"], progress=False
        )
        columns, scores = found.scored.columns, found.scored.scores["linear"]
        for name in ("progan", "stylegan"):
            own = (columns["generator"] == name) | (columns["group"] == name)
            assert own.sum() == 11
            expected = metrics.roc_auc_score(columns["label"][own], scores[own])
            assert found.group("linear", name)["auc"].value == pytest.approx(expected)
        results.append(found.group("linear", MEAN)["auc"].value)
    assert results[0] == pytest.approx(results[1])


def test_transformed_and_plain_pictures_have_tables_of_their_own(model, data, training):
    found = evaluate(
        model, data, fit=training, classifiers=["linear"], transforms=True, progress=False
    )
    assert found.facts["fitted_on"] == 65  # fitted on pictures as they are
    plain, changed = (found.group("linear", POOLED, v) for v in ("as is", "transforms"))
    assert plain.pictures == changed.pictures == 23
    assert plain["auc"].value != changed["auc"].value


def test_d3s_test_set_is_two_variants(model, training, tmp_path):
    for place, variant in enumerate(("augm", "no_augm")):
        make(tmp_path / "d3" / variant, {"real": 5, "gen_0": 5, "gen_1": 4}, seed=place)
    found = evaluate(model, tmp_path / "d3", fit=training, classifiers=["linear"], progress=False)
    for variant in ("augm", "no_augm"):
        assert found.group("linear", "gen_1", variant).pictures == 4
        assert found.group("linear", MEAN, variant).pictures == 9


def test_several_crops_give_one_score(model, data, training):
    found = evaluate(
        model,
        data,
        fit=training,
        classifiers=["linear"],
        crops="five",
        aggregation="max-score",
        progress=False,
    )
    assert len(found.scored.scores["linear"]) == 43


def test_the_models_own_classifiers_are_used_and_no_other_models(model, data, training, tmp_path):
    mine = Path(shutil.copytree(model, tmp_path / "mine"))
    with pytest.raises(ModelError, match=r"has no classifier .*--fit"):
        evaluate(mine, data, progress=False)
    loaded = Model.load(mine)
    learned = embed(loaded, training, tmp_path / "t.parquet", progress=False)
    for kind in ("linear", "nearest"):
        made = fit(kind, learned.vectors, learned["label"], loaded.source)
        save(made, mine / f"{kind}.safetensors")
    own = evaluate(mine, data, progress=False)
    assert sorted(own.groups) == ["linear", "nearest"]
    again = evaluate(mine, data, fit=tmp_path / "t.parquet", progress=False)
    for kind in own.groups:
        np.testing.assert_allclose(own.scored.scores[kind], again.scored.scores[kind])
    other = Source("other", "0" * 64, 16)
    foreign = fit("linear", learned.vectors, learned["label"], other)
    save(foreign, tmp_path / "foreign.safetensors")
    with pytest.raises(ModelError, match=r"foreign\.safetensors: was fitted on .* of other"):
        evaluate(mine, data, classifiers=[str(tmp_path / "foreign.safetensors")], progress=False)


def test_embeddings_of_another_model_are_refused(model, data, training, tmp_path):
    embed(
        Model.load(new_model(tmp_path / "other", 1)), data, tmp_path / "o.parquet", progress=False
    )
    for arguments in (
        {"data": tmp_path / "o.parquet", "fit": training},
        {"data": data, "fit": tmp_path / "o.parquet"},
    ):
        with pytest.raises(DataError, match=r"o\.parquet holds embeddings of .*other"):
            evaluate(model, progress=False, **arguments)


def test_what_is_fitted_on_is_not_evaluated(model, data, tmp_path):
    with pytest.raises(DataError, match="is what is evaluated, too"):
        evaluate(model, data, fit=data, progress=False)


def test_a_generator_with_one_picture_and_unequal_classes_are_measured_and_said(
    model, training, tmp_path
):
    root = make(tmp_path / "set", {"real": 30, "gan": 1})
    found = evaluate(model, root, fit=training, classifiers=["linear"], progress=False)
    assert found.group("linear", "gan").pictures == 1
    assert "1 generated pictures against 30 others" in found.imbalance


def test_results_are_saved_and_a_second_run_only_reads(
    model, data, training, tmp_path, monkeypatch
):
    out, linear = tmp_path / "out", ["linear"]
    found = evaluate(model, data, out, classifiers=linear, fit=training, progress=False)
    saved = json.loads((out / "results.json").read_text())
    assert saved["pictures"] == 43 and len(saved["classifiers"]["linear"]) == 4
    for name in ("roc-linear.png", "reliability-linear.png", "scores.parquet"):
        assert (out / name).is_file()
    assert len(read_embeddings(out / "embeddings.parquet")) == 43

    def never(*_):
        raise AssertionError("embedded again")

    monkeypatch.setattr("forgemap.models.embedder.Embedder.forward", never)
    again = evaluate(model, data, out, classifiers=linear, fit=training, progress=False)
    np.testing.assert_array_equal(again.scored.scores["linear"], found.scored.scores["linear"])


def test_a_folder_of_something_else_is_left_alone(model, data, training, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(DataError, match="already holds something else"):
        evaluate(model, data, tmp_path / "out", fit=training, progress=False)


# --- the command ----------------------------------------------------------------------------------


def run(*arguments: object):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_command_tells_embedders_from_localizers(model, model_folder, data, training):
    done = run(model, data, "--fit", training, "--classifier", "linear", "--json")
    assert done.exit_code == 0, done.exception
    groups = json.loads(done.stdout)["classifiers"]["linear"]
    assert [group["name"] for group in groups] == ["gan", "ldm", POOLED, MEAN]
    refused = run(model_folder, data, "--leave-one-out")
    assert "--leave-one-out is for embedders" in str(refused.exception)


def test_the_tables_name_every_generator(model, data, training):
    done = run(model, data, "--fit", training, "--classifier", "one-class", "--leave-one-out")
    assert done.exit_code == 0, done.exception
    for word in ("gan", "ldm", POOLED, MEAN, "left out, one-class", "TPR at 1%"):
        assert word in done.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--fit", "TRAINING", "--classifier", "forest"], "is named by its kind: linear"),
        (["--classifier", "nearest"], r"nearest.safetensors: no such classifier"),
        (["--fit", "nowhere"], "no such folder"),
        (["--fit", "TRAINING", "--aggregation", "sum"], "unknown aggregation 'sum'"),
        (["--fit", "TRAINING", "--split", "test"], "no folder of the split 'test'"),
    ],
)
def test_mistakes_are_one_sentence(model, data, training, arguments, sentence):
    done = run(model, data, *(training if a == "TRAINING" else a for a in arguments))
    assert sentence in str(done.exception)
