"""forgemap embed: a file of embeddings that says whose it is, goes on after a stop, is drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from typer.testing import CliRunner

pytest.importorskip("pyarrow")

import pyarrow.parquet as pq

from forgemap.cli import app
from forgemap.errors import DataError
from forgemap.evaluate import embed as module
from forgemap.evaluate.embed import Model, embed, is_embedder
from forgemap.evaluate.embeddings import read_embeddings
from forgemap.evaluate.maps import draw
from forgemap.image import load_image
from forgemap.models.build import build
from forgemap.models.checkpoint import save_model

from .conftest import picture

SMALL = {"width": 16, "layers": 1, "heads": 2, "mlp": 32, "patch": 8, "image_size": 32}


def new_model(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    return save_model(build({"architecture": "embedder", **SMALL}).eval(), folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return new_model(tmp_path_factory.mktemp("models") / "code", 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    for place, name in enumerate(("real", "sdxl", "gan")):
        (root / name).mkdir(parents=True)
        for n in range(8):
            pixels = picture(40, 48, seed=10 * place + n)
            PILImage.fromarray(pixels).save(root / name / f"{n}.png")
    return root


@pytest.fixture(scope="module")
def file(model, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "e.parquet"
    embed(Model.load(model), data, out, progress=False)
    return out


def test_a_row_is_the_networks_own_embedding_of_that_picture(model, data, file):
    network = Model.load(model).network
    found = read_embeddings(file)
    assert len(found) == 24
    for n in (0, 9, 23):
        pixels = load_image(data / found["path"][n]).pixels
        expected = network.embed(pixels)[0].numpy()
        np.testing.assert_allclose(found.vectors[n], expected, atol=1e-5)


def test_any_parquet_reader_sees_model_path_label_generator_and_embedding(model, file):
    table = pq.read_table(file).to_pylist()
    assert {row["model_hash"] for row in table} == {Model.load(model).network.fingerprint()}
    assert {row["model"] for row in table} == {str(model)}
    assert all(row["label"] == (row["generator"] != "real") for row in table)
    assert all(row["path"].startswith(row["generator"]) for row in table)
    assert {len(row["embedding"]) for row in table} == {16}


def test_embeddings_of_another_model_are_refused_in_one_sentence(file, tmp_path):
    other = Model.load(new_model(tmp_path / "other", 1))
    with pytest.raises(
        DataError, match=r"e\.parquet holds embeddings of .*code .*, not of .*other"
    ):
        read_embeddings(file, other.source)


def test_the_same_weights_in_another_folder_are_the_same_model(model, file, tmp_path):
    copy = Model.load(shutil.copytree(model, tmp_path / "copy"))
    assert len(read_embeddings(file, copy.source)) == 24


@pytest.mark.parametrize("damage", ["cut", "text", "foreign", "gone"])
def test_what_is_no_embedding_file_is_one_sentence(file, tmp_path, damage):
    bad = tmp_path / "bad.parquet"
    if damage == "cut":
        bad.write_bytes(file.read_bytes()[:-200])
    elif damage == "text":
        bad.write_text("path,label\n")
    elif damage == "foreign":
        import pyarrow as pa

        pq.write_table(pa.table({"path": ["a"]}), bad)
    with pytest.raises(DataError, match=r"bad\.parquet.*forgemap embed"):
        read_embeddings(bad)


def test_a_broken_picture_is_told_and_the_others_are_embedded(model, data, tmp_path):
    copy = Path(shutil.copytree(data, tmp_path / "set"))
    (copy / "gan" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    found = embed(Model.load(model), copy, tmp_path / "e.parquet", progress=False)
    assert len(found) == 23
    ((path, why),) = found.errors
    assert path == "gan/3.png" and why


def test_a_stopped_run_goes_on_and_gives_the_same_file(model, data, file, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART", 5)
    loaded, seen = Model.load(model), []
    whole = loaded.network.forward

    def dies(images):
        seen.append(len(images))
        if sum(seen) > 12:
            raise KeyboardInterrupt
        return whole(images)

    out = tmp_path / "e.parquet"
    loaded.network.forward = dies
    with pytest.raises(KeyboardInterrupt):
        embed(loaded, data, out, batch=4, progress=False)
    assert not out.exists()
    assert len(list((tmp_path / "e.parquet.parts").glob("*.parquet"))) == 2
    seen.clear()
    loaded.network.forward = lambda images: seen.append(len(images)) or whole(images)
    found = embed(loaded, data, out, batch=4, progress=False)
    assert sum(seen) == 24 - 10  # what was done is not done again
    before = read_embeddings(file)
    assert list(found["path"]) == list(before["path"])
    np.testing.assert_allclose(found.vectors, before.vectors, atol=1e-5)
    assert not (tmp_path / "e.parquet.parts").exists()


def test_a_file_of_other_settings_is_not_overwritten(model, data, file, tmp_path):
    copy = Path(shutil.copy(file, tmp_path / "e.parquet"))
    before = copy.read_bytes()
    with pytest.raises(DataError, match="another crops"):
        embed(Model.load(model), data, copy, crops="five", progress=False)
    assert copy.read_bytes() == before


def test_variants_and_crops_are_rows_of_their_own(model, data, tmp_path):
    found = embed(
        Model.load(model),
        data,
        tmp_path / "e.parquet",
        recompress=[50],
        transforms=True,
        crops="five",
        progress=False,
    )
    assert len(found) == 24 * 3 * 5
    assert list(dict.fromkeys(found["variant"])) == ["as is", "jpeg 50", "transforms"]
    for name in ("jpeg 50", "transforms"):  # and they are different pictures
        as_is = found.vectors[(found["variant"] == "as is") & (found["crop"] == 0)]
        changed = found.vectors[(found["variant"] == name) & (found["crop"] == 0)]
        assert not np.allclose(as_is, changed, atol=1e-4)


def test_d3s_own_variants_are_kept_apart(model, data, tmp_path):
    for variant in ("augm", "no_augm"):
        for name in ("real", "gan"):
            shutil.copytree(data / name, tmp_path / "d3" / variant / name)
    found = embed(Model.load(model), tmp_path / "d3", tmp_path / "e.parquet", progress=False)
    assert sorted({*found["variant"]}) == ["augm", "no_augm"]


def test_a_limit_is_shared_evenly_among_the_generators(model, data, tmp_path):
    found = embed(Model.load(model), data, tmp_path / "e.parquet", limit=7, progress=False)
    assert sorted(np.unique(found["generator"], return_counts=True)[1]) == [2, 2, 3]


def test_shards_give_the_embeddings_of_their_folder(model, data, file, tmp_path):
    pytest.importorskip("webdataset")
    from forgemap.data.shards import Settings, open_source, write_shards

    write_shards(open_source(data), tmp_path / "shards", Settings(per_shard=3), progress=False)
    found = embed(Model.load(model), tmp_path / "shards", tmp_path / "e.parquet", progress=False)
    expected = read_embeddings(file)

    def by_picture(some):
        keys = zip(some["generator"], (k.split("__")[-1] for k in some["key"]), strict=True)
        return dict(zip(keys, some.vectors, strict=True))

    ours, theirs = by_picture(found), by_picture(expected)
    assert ours.keys() == theirs.keys() and len(ours) == 24
    for key in ours:
        np.testing.assert_allclose(ours[key], theirs[key], atol=1e-5)


def test_reading_processes_change_nothing(model, data, file, tmp_path):
    found = embed(
        Model.load(model), data, tmp_path / "e.parquet", workers=2, batch=3, progress=False
    )
    np.testing.assert_allclose(found.vectors, read_embeddings(file).vectors, atol=1e-5)


def test_a_model_says_whether_it_is_an_embedder(model, model_folder, tmp_path):
    assert is_embedder(model) and not is_embedder(model_folder)
    assert not is_embedder(tmp_path / "nothing")


# --- maps and the command -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_a_map_is_drawn_by_generator(file, tmp_path, how):
    pytest.importorskip("sklearn" if how == "tsne" else "umap")
    drawn = draw(read_embeddings(file), how, tmp_path / "map.png")
    with PILImage.open(drawn) as image:
        assert image.format == "PNG" and image.width > 500
        colours = {tuple(c[1]) for c in image.convert("RGB").getcolors(2**24)}
    assert {(0, 114, 178), (213, 94, 0)} <= colours  # of the two generators


def test_clusters_that_lie_apart_lie_apart_on_the_map():
    from forgemap.evaluate.maps import tsne

    rng = np.random.default_rng(0)
    centres = np.repeat([[1, 0, 0], [0, 1, 0]], 20, axis=0)
    places = tsne((centres + 0.01 * rng.normal(size=(40, 3))).astype(np.float32), 0)
    middle = [places[:20].mean(0), places[20:].mean(0)]
    spread = max(np.linalg.norm(places[:20] - middle[0], axis=1).max(), 1e-6)
    assert np.linalg.norm(middle[0] - middle[1]) > spread


def run(*arguments: object):
    return CliRunner().invoke(app, ["embed", *map(str, arguments)])


def test_the_command_writes_and_draws(model, data, tmp_path):
    out = tmp_path / "e.parquet"
    done = run(model, data, "--out", out, "--plot", "tsne")
    assert done.exit_code == 0, done.exception
    assert "24 embeddings of 16 numbers" in done.output
    assert (tmp_path / "e-tsne.png").is_file()
    assert json.loads(pq.read_schema(out).metadata[b"forgemap.embeddings"])["data"] == str(data)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["MODEL", "DATA"], "Missing: --out"),
        (["MODEL", "DATA", "--out", "x.parquet", "--plot", "pca"], "use one of umap, tsne"),
        (["MODEL", "DATA", "--out", "x.parquet", "--crops", "all"], "valid: centre, five, grid"),
        (["LOCALIZER", "DATA", "--out", "x.parquet"], "is a tracenet"),
        (["MODEL", "FILE"], "give --plot"),
        (["MODEL", "nowhere", "--out", "x.parquet"], "no such folder"),
    ],
)
def test_mistakes_are_one_sentence(
    model, data, file, model_folder, tmp_path, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": model, "DATA": data, "FILE": file, "LOCALIZER": model_folder}
    done = run(*(names.get(a, a) for a in arguments))
    assert sentence in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_too_few_pictures_for_a_map_are_one_sentence(file, tmp_path):
    found = read_embeddings(file)
    with pytest.raises(DataError, match="3 pictures are too few"):
        draw(found.where(np.arange(24) < 3), "tsne", tmp_path / "map.png")
