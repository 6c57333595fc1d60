"""Shards: nothing lost or doubled, whatever was killed, split, cut short or unreachable."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

pytest.importorskip("webdataset")

from forgemap.cli import app
from forgemap.data.shards import (
    Settings,
    ShardPairs,
    ShardStream,
    check_shards,
    open_source,
    read_exclusions,
    read_shards,
    write_shards,
)
from forgemap.data.shards.layout import D3_MEMBERS, key_of, open_index
from forgemap.data.shards.photos import Downloaded, Fetch, Unavailable
from forgemap.errors import DataError


def encoded(number: int, format: str = "PNG", side: int = 8) -> bytes:
    """A small picture that no other number gives."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    PILImage.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def folder(root: Path, names: dict[str, range], suffix: str = "png") -> Path:
    """``root/<generator>/<number>.png`` for each number of each generator, all different."""
    for place, (generator, numbers) in enumerate(names.items()):
        (root / "train" / generator).mkdir(parents=True)
        for n in numbers:
            file = root / "train" / generator / f"{n:04d}.{suffix}"
            file.write_bytes(encoded(1000 * place + n))
    return root


def write(root: Path, out: Path, per_shard: int = 4, **more):
    return write_shards(
        open_source(root), out, Settings(per_shard=per_shard), progress=False, **more
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("source") / "set"
    return folder(root, {"real": range(22), "gen_0": range(22), "gen_1": range(22)})


@pytest.fixture(scope="module")
def written(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("written") / "shards"
    write(source, out)
    return out


@pytest.fixture
def shards(written, tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def sums(out: Path) -> list[tuple[str, str]]:
    return [(shard.file, shard.sha256) for shard in open_index(out).shards]


# --- what is written ------------------------------------------------------------------------------


def test_every_picture_comes_back_as_it_was_under_d3_names(source, written):
    found = list(read_shards(written))
    assert len(found) == 22
    for sample in found:
        assert sample.key == f"elsa_v2__train__{sample.id}"
        for member, data in sample.pictures.items():
            assert data == (source / "train" / member / f"{sample.id}.png").read_bytes()
    first = open_index(written).shards[0]
    with tarfile.open(written / first.file) as tar:
        names = [name.split(".", 1)[1] for name in tar.getnames()[:5]]
    assert sorted(names) == ["caption.txt", "gen_0.png", "gen_1.png", "real.png", "url.txt"]


def test_webdataset_itself_reads_them(written):
    import webdataset

    files = [str(written / shard.file) for shard in open_index(written).shards]
    found = webdataset.WebDataset(files, shardshuffle=False)
    assert sorted(row["__key__"] for row in found) == sorted(s.key for s in read_shards(written))


def test_a_shard_is_not_one_kind_alone_but_mixed(written):
    first = [s.id for s in read_shards(written / open_index(written).shards[0].file)]
    assert first != sorted(first) or int(first[-1]) - int(first[0]) > len(first)


def test_generators_of_any_name_get_numbers_and_the_index_says_whose(tmp_path):
    root = folder(tmp_path / "set", {"real": range(3), "midjourney": range(3), "ldm": range(3)})
    index = write(root, tmp_path / "out")
    assert index.generators == {"gen_0": "ldm", "gen_1": "midjourney"}
    pair = ShardPairs(tmp_path / "out", seed=0)[0]
    assert pair.real.generator == "real" and pair.fake.generator in ("ldm", "midjourney")


@pytest.mark.parametrize(
    ("reals", "fakes"), [(range(9), range(100, 105)), (range(3), range(9, 19))]
)
def test_of_pictures_without_common_names_none_is_lost(tmp_path, reals, fakes):
    root = folder(tmp_path / "set", {"real": reals, "gan": fakes})
    index = write(root, tmp_path / "out")
    found = Counter(data for s in read_shards(tmp_path / "out") for data in s.pictures.values())
    assert set(found.values()) == {1}
    assert set(found) == {file.read_bytes() for file in root.rglob("*.png")}
    assert index.facts["source"]["paired"] is False
    assert len(ShardPairs(tmp_path / "out", 0)) == min(len(reals), len(fakes))


def test_pictures_of_one_name_in_deeper_folders_are_all_kept(tmp_path):
    for inner in ("a", "b", "c"):
        for place, kind in enumerate(("0_real", "1_fake")):
            file = tmp_path / "progan" / inner / kind / "1.png"
            file.parent.mkdir(parents=True)
            file.write_bytes(encoded(ord(inner) * 2 + place))
    write(tmp_path / "progan", tmp_path / "out")
    found = [data for s in read_shards(tmp_path / "out") for data in s.pictures.values()]
    assert len(found) == len(set(found)) == 6


def test_jpeg_and_png_stay_as_they_are_and_others_become_png_without_loss(tmp_path):
    for kind, format in (("real", "BMP"), ("gan", "JPEG")):
        (tmp_path / "set" / kind).mkdir(parents=True)
        data = encoded(len(kind), format)
        (tmp_path / "set" / kind / f"1.{format.lower()}").write_bytes(data)
    write(tmp_path / "set", tmp_path / "out")
    (sample,) = read_shards(tmp_path / "out")
    assert sample.pictures["gen_0"] == encoded(3, "JPEG")
    assert (sample.load("real").format, sample.load("gen_0").format) == ("PNG", "JPEG")
    original = np.asarray(PILImage.open(io.BytesIO(encoded(4, "BMP"))))
    assert np.array_equal(sample.load("real").pixels, original)


def test_the_published_encoding_is_one_for_the_whole_record(tmp_path):
    for kind, format in (("real", "JPEG"), ("gan", "PNG")):
        (tmp_path / "set" / kind).mkdir(parents=True)
        (tmp_path / "set" / kind / f"1.{format.lower()}").write_bytes(encoded(1, format))
    settings = Settings(encode="published")
    write_shards(open_source(tmp_path / "set"), tmp_path / "out", settings, progress=False)
    (sample,) = read_shards(tmp_path / "out")
    assert {sample.load(m).format for m in sample.pictures} == {"PNG"}


def test_a_broken_picture_is_noted_and_the_others_are_kept(source, tmp_path):
    root = Path(shutil.copytree(source, tmp_path / "set"))
    broken = root / "train" / "gen_1" / "0007.png"
    broken.write_bytes(broken.read_bytes()[:60])
    index = write(root, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").open()]
    assert [row["id"] for row in rows] == ["0007"] and "gen_1" in rows[0]["why"]
    (sample,) = (s for s in read_shards(tmp_path / "out") if s.id == "0007")
    assert sorted(sample.pictures) == ["gen_0", "real"]  # and reading knows that this is meant
    assert index.facts["incomplete"] == 1 and not check_shards(tmp_path / "out").problems


def test_ids_on_a_list_are_left_out_when_writing_and_when_reading(source, written, tmp_path):
    (tmp_path / "list.json").write_text('["0003", "elsa_v2__train__0004"]')
    (tmp_path / "list.txt").write_text("# bad ones\n0003\n0004  # blank\n\n")
    as_json, as_text = (read_exclusions(tmp_path / f"list.{kind}") for kind in ("json", "txt"))
    assert as_json == as_text == {"0003", "0004"}
    write(source, tmp_path / "out", exclude=as_json)
    expected = {f"{n:04d}" for n in range(22)} - as_json
    assert {s.id for s in read_shards(tmp_path / "out")} == expected
    assert {s.id for s in read_shards(written, exclude=as_json)} == expected
    assert len(ShardPairs(written, 0, exclude=as_json)) == 20


def test_ids_that_no_file_name_holds_become_different_keys():
    ids = ["a/b", "a.b", "a__b", "a" * 200, "a" * 201, "ä", "", "a-b"]
    keys = {key_of("elsa_v2", "train", id) for id in ids}
    assert len(keys) == len(ids)
    assert all(len(key) < 90 and "." not in key and "/" not in key for key in keys)


# --- killed, repeated, shared ---------------------------------------------------------------------

SCRIPT = """
import sys, time
from forgemap.data.shards import Settings, open_source, write_shards
from forgemap.data.shards import shard
if __name__ == "__main__":
    slow = shard.encoded
    def encoded(files, how):
        time.sleep(0.02)  # so that there is something to kill
        return slow(files, how)
    shard.encoded = encoded
    workers = int(sys.argv[3])
    write_shards(open_source(sys.argv[1]), sys.argv[2], Settings(per_shard=4), workers=workers,
                 progress=False)
"""


def killed(source: Path, out: Path, workers: int) -> int:
    """Begin to write, kill it with SIGKILL after two shards; the number of shards then there."""
    command = [sys.executable, "-c", SCRIPT, str(source), str(out), str(workers)]
    run = subprocess.Popen(command)
    end = time.monotonic() + 100
    while len(list((out / ".progress").glob("*.tar.json"))) < 2 and time.monotonic() < end:
        assert run.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    return len(list(out.glob("*.tar")))


def test_a_killed_writer_goes_on_and_loses_or_doubles_nothing(source, written, tmp_path):
    out = tmp_path / "out"
    there = killed(source, out, workers=1)
    assert 2 <= there < 6
    with pytest.raises(DataError, match="not finished"):
        list(read_shards(out))
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("*.tar")}
    write(source, out)
    assert sums(out) == sums(written)
    for name, when in before.items():  # what was done is not done again
        assert (out / name).stat().st_mtime_ns == when
    assert not list(out.glob("*.part")) and not check_shards(out).problems


@pytest.mark.distributed
def test_killed_workers_go_too_and_any_number_of_workers_writes_the_same(source, written, tmp_path):
    out = tmp_path / "out"
    killed(source, out, workers=2)
    write(source, out, workers=2)
    assert sums(out) == sums(written)
    assert not check_shards(out).problems


def test_machines_share_a_folder_and_the_last_writes_the_index(source, written, tmp_path):
    out = tmp_path / "out"
    assert write(source, out, part=(2, 2)) is None
    assert write(source, out, part=(1, 2)) is not None
    assert sums(out) == sums(written)


def test_a_lost_shard_is_written_again_before_the_index_is(source, written, tmp_path):
    out = tmp_path / "out"
    assert write(source, out, part=(1, 2)) is None
    next(out.glob("*.tar")).unlink()
    write(source, out)
    assert sums(out) == sums(written)


def test_a_run_killed_at_its_first_or_last_step_goes_on(source, written, tmp_path):
    out = tmp_path / "out"
    (out / ".progress").mkdir(parents=True)  # and nothing in it yet
    write(source, out)
    assert sums(out) == sums(written)
    (out / ".progress").mkdir()  # the index is there, the notes were not removed yet
    write(source, out)
    assert not check_shards(out).problems


def test_a_stream_that_breaks_off_is_one_sentence_and_goes_on(parquet, tmp_path, monkeypatch):
    from forgemap.data.shards.hub import Streamed

    whole, item = write(parquet, tmp_path / "whole", per_shard=2), Streamed._item

    def breaks(self, row):
        if row["id"] == "907":
            raise ConnectionError("connection reset")
        return item(self, row)

    monkeypatch.setattr(Streamed, "_item", breaks)
    with pytest.raises(DataError, match=r"part 1 stopped after 2 records \(connection reset\)"):
        write(parquet, tmp_path / "out", per_shard=2)
    monkeypatch.setattr(Streamed, "_item", item)
    write(parquet, tmp_path / "out", per_shard=2)
    assert sums(tmp_path / "out") == [(s.file, s.sha256) for s in whole.shards]


def test_other_options_or_another_folder_are_refused(source, shards, tmp_path):
    with pytest.raises(DataError, match="another settings"):
        write(source, shards, per_shard=5)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(DataError, match="already holds something else"):
        write(source, tmp_path / "mine")


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [0, 5])
def test_two_nodes_with_two_workers_each_read_every_sample_once(written, monkeypatch, shuffle):
    from torch.utils.data import DataLoader

    seen: list[str] = []
    shares = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        stream = ShardStream(written, shuffle=shuffle, seed=3, epoch=7)
        keys = [s.key for s in DataLoader(stream, batch_size=None, num_workers=2)]
        shares.append(len(keys))
        seen += keys
    assert min(shares) > 0
    assert Counter(seen) == Counter(s.key for s in read_shards(written))


def test_the_order_changes_with_the_epoch_and_is_the_same_again_for_the_same_one(written):
    def order(epoch: int) -> list[str]:
        return [s.key for s in ShardStream(written, shuffle=8, seed=1, epoch=epoch)]

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1))


def test_repeating_without_a_shard_to_read_says_so_instead_of_waiting(written, monkeypatch):
    monkeypatch.setenv("RANK", "30")
    monkeypatch.setenv("WORLD_SIZE", "31")
    with pytest.raises(DataError, match="cannot feed 31 nodes x 1 workers"):
        next(iter(ShardStream(written, repeat=True)))


def test_pairs_are_a_function_of_their_number_and_an_epoch_has_every_record_once(written):
    pairs, other = ShardPairs(written, seed=5), ShardPairs(written, seed=5)
    assert len(pairs) == 22
    first = [pairs[n].real.key for n in range(22)]
    assert sorted(first) == sorted(s.key for s in read_shards(written))
    assert [other[n].real.key for n in reversed(range(22))] == first[::-1]
    second = {pairs[n].real.key: pairs[n].fake.generator for n in range(22, 44)}
    for n in range(22):  # the next epoch shows the other generator
        pair = pairs[n]
        assert pair.fake.key == pair.real.key
        assert {pair.fake.generator, second[pair.real.key]} == {"gen_0", "gen_1"}
    assert first != [pairs[n].real.key for n in range(22, 44)]


def test_pairs_hold_the_pictures_of_the_stream(written):
    samples = {s.key: s.pictures for s in read_shards(written)}
    pairs = ShardPairs(written, seed=0)
    for n in range(22):
        real, fake = pairs[n]
        assert real.image == samples[real.key]["real"]
        assert fake.image == samples[fake.key][fake.generator]


# --- damage ---------------------------------------------------------------------------------------


def first_shard(shards: Path) -> Path:
    return shards / open_index(shards).shards[0].file


def everything_that_reads(shards: Path) -> dict[str, str]:
    """What each way of reading says of a damaged folder."""
    said = {}
    for name, read in (
        ("stream", lambda: list(read_shards(shards))),
        ("pairs", lambda: [p for n, p in zip(range(22), ShardPairs(shards, 0), strict=False)]),
    ):
        try:
            read()
        except DataError as error:
            said[name] = str(error)
    said["check"] = " ".join(check_shards(shards, progress=False).problems)
    return said


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("where", ["in a picture", "between two members", "at the end"])
def test_a_shard_that_was_cut_short_is_named_with_the_last_key(shards, indexed, where):
    file = first_shard(shards)
    with tarfile.open(file) as tar:
        members = tar.getmembers()
    fourth = members[3 * 5]  # the first member of the fourth sample
    size = {
        "in a picture": members[3 * 5 + 1].offset_data + 10,
        "between two members": fourth.offset,
        "at the end": members[-1].offset_data + 512,
    }[where]
    os.truncate(file, size)
    if not indexed:
        (shards / "index.json").unlink()
    said = everything_that_reads(shards)
    for name in ("stream", "check"):
        assert file.name in said[name] and "cut short" in said[name], name
        assert "elsa_v2__train__" in said[name], name
    if indexed:
        assert "cut short" in said["pairs"]


@pytest.mark.parametrize("indexed", [True, False])
def test_a_sample_without_a_member_is_named_with_its_shard(shards, indexed):
    file = first_shard(shards)
    lacking = rewritten(file, lambda name: ".gen_1." in name)
    if indexed:
        trust(shards, file)
    else:
        (shards / "index.json").unlink()  # then D3's members are expected
    for name, sentence in everything_that_reads(shards).items():
        assert file.name in sentence, name
        assert lacking in sentence and "gen_1" in sentence, name


def trust(shards: Path, file: Path) -> None:
    """Make the index believe in the first shard as it is now."""
    index = json.loads((shards / "index.json").read_text())
    index["shards"][0] |= {"bytes": file.stat().st_size, "sha256": ""}
    (shards / "index.json").write_text(json.dumps(index))


def rewritten(file: Path, pick, put: bytes | None = None) -> str:
    """The tar file without the first member that is picked, or with other bytes; its key."""
    beside = file.with_suffix(".new")
    key = ""
    with tarfile.open(file) as old, tarfile.open(beside, "w") as new:
        for member in old:
            data = old.extractfile(member).read()
            if not key and pick(member.name):
                key = member.name.split(".")[0]
                if put is None:
                    continue
                data, member.size = put, len(put)
            new.addfile(member, io.BytesIO(data))
    os.replace(beside, file)
    return key


def test_a_flipped_byte_is_found_by_the_checksum(shards):
    file = first_shard(shards)
    data = bytearray(file.read_bytes())
    with tarfile.open(file) as tar:
        data[tar.getmembers()[1].offset_data + 50] ^= 1
    file.write_bytes(data)
    (problem,) = check_shards(shards).problems
    assert file.name in problem and "SHA-256" in problem


def test_a_picture_that_does_not_decode_is_found_with_shard_and_key(shards):
    file = first_shard(shards)
    key = rewritten(file, lambda name: name.endswith(".gen_0.png"), put=b"\x89PNG\r\n\x1a\nnone")
    trust(shards, file)
    assert not check_shards(shards).problems
    (problem,) = check_shards(shards, decode=True).problems
    assert f"{file.name}: gen_0 of the sample {key} cannot be decoded" in problem


def test_a_shard_that_is_there_twice_is_a_double(shards):
    file = first_shard(shards)
    shutil.copy(file, file.with_name("elsa_v2-train-00099.tar"))
    problems = check_shards(shards).problems
    assert any("not in the index" in p for p in problems)
    (shards / "index.json").unlink()
    problems = check_shards(shards).problems
    assert any("is there 2 times" in p and "00099" in p for p in problems)


def test_a_missing_shard_is_one_sentence(shards):
    file = first_shard(shards)
    file.unlink()
    for name, sentence in everything_that_reads(shards).items():
        assert file.name in sentence and "gone" in sentence, name


def test_d3s_own_shards_without_an_index_are_read(tmp_path):
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "elsa_v2-0000.tar")) as tar:
        for n in range(3):
            pictures = {f"{m}.jpg": encoded(10 * n + i, "JPEG") for i, m in enumerate(D3_MEMBERS)}
            texts = {"caption.txt": "a cat", "url.txt": "https://example.org/cat.jpg"}
            tar.write({"__key__": f"elsa_v2__train__12750010221{n}", **pictures, **texts})
    found = list(read_shards(tmp_path))
    assert [s.id for s in found] == [f"12750010221{n}" for n in range(3)]
    assert found[0].split == "train" and found[0].caption == "a cat"
    assert sorted(found[0].pictures) == sorted(D3_MEMBERS)
    assert len(ShardPairs(tmp_path, 0)) == 3
    pair = ShardPairs(tmp_path, 0)[0]
    assert pair.fake.generator in (
        "DeepFloyd IF",
        *(f"Stable Diffusion {v}" for v in ("1.4", "2.1", "XL")),
    )


# --- the hub's columns and photos by address ------------------------------------------------------


class Web(BaseHTTPRequestHandler):
    """Photos, and what the web answers in their place."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self):
        Web.asked[self.path] += 1
        name = self.path.strip("/")
        if name == "moved":
            self.send_response(302)
            self.send_header("Location", "/3")
            self.end_headers()
            return
        if name == "flaky" and Web.asked[self.path] == 1:
            return self.answer(503, b"later")
        if name == "gone":
            return self.answer(404, b"not found")
        if name == "page":
            return self.answer(200, b"<html>sold</html>")
        if name == "huge":
            return self.answer(200, bytes(300_000))
        if name == "no":
            return self.answer(200, encoded(1, "JPEG"), {"X-Robots-Tag": "noai"})
        return self.answer(200, encoded(700 + (int(name) if name.isdigit() else 0), "JPEG"))

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


NAMES = ["0", "gone", "2", "page", "4", "huge", "moved", "no", "8", "flaky"]


@pytest.fixture(scope="module")
def parquet(web, tmp_path_factory) -> Path:
    """D3's columns in two Parquet files."""
    datasets = pytest.importorskip("datasets")
    root = tmp_path_factory.mktemp("hub")
    datasets.disable_progress_bars()
    image = {f"image_gen{i}": datasets.Image() for i in range(4)}
    text = {n: datasets.Value("string") for n in ("id", "url", "original_prompt")}
    for part in range(2):
        rows = [
            {
                "id": f"90{n}",
                "url": f"{web}/{NAMES[n]}",
                "original_prompt": f"photo {n}, “naïve”",
                **{f"image_gen{i}": {"bytes": encoded(10 * n + i), "path": None} for i in range(4)},
            }
            for n in range(5 * part, 5 * part + 5)
        ]
        made = datasets.Dataset.from_list(rows, features=datasets.Features({**text, **image}))
        made.to_parquet(root / f"train-{part:05d}-of-00002.parquet")
    return root


def test_a_stream_with_d3s_columns_becomes_shards_of_the_same_bytes(parquet, tmp_path):
    index = write(parquet, tmp_path / "out", per_shard=2)
    found = {s.id: s for s in read_shards(tmp_path / "out")}
    assert sorted(found) == [f"90{n}" for n in range(10)]
    for n in range(10):
        sample = found[f"90{n}"]
        assert sample.caption == f"photo {n}, “naïve”" and sample.url.endswith(NAMES[n])
        assert dict(sample.pictures) == {f"gen_{i}": encoded(10 * n + i) for i in range(4)}
    assert index.generators["gen_3"] == "Stable Diffusion XL"
    assert not check_shards(tmp_path / "out").problems
    with pytest.raises(DataError, match="no record has both"):
        ShardPairs(tmp_path / "out", 0)


def test_nothing_is_fetched_unasked(parquet, tmp_path):
    before = Web.asked.total()
    write(parquet, tmp_path / "out")
    assert Web.asked.total() == before


def test_photos_are_fetched_by_address_and_records_without_one_are_noted(parquet, tmp_path):
    settings = Settings(per_shard=3, incomplete="drop")
    photos = Fetch(max_bytes=100_000, private=True, timeout=5)
    out = tmp_path / "out"
    index = write_shards(open_source(parquet), out, settings, photos=photos, progress=False)
    found = {s.id: s for s in read_shards(out)}
    assert sorted(found) == ["900", "902", "904", "906", "908", "909"]
    assert found["904"].pictures["real"] == encoded(704, "JPEG")
    assert found["906"].pictures["real"] == encoded(703, "JPEG")  # moved
    why = {r["id"]: r["why"] for r in map(json.loads, (out / "dropped.jsonl").open())}
    assert sorted(why) == ["901", "903", "905", "907"]
    assert "404" in why["901"] and "larger" in why["905"] and "noai" in why["907"]
    assert index.facts["dropped"] == 4 and len(ShardPairs(out, 0)) == 6


def test_addresses_of_the_local_network_are_not_asked_unless_it_is_said(web):
    before = Web.asked.total()
    for address in (f"{web}/0", web.replace("127.0.0.1", "localhost"), "file:///etc/passwd"):
        with pytest.raises(Unavailable):
            Fetch().get(address)
    assert Web.asked.total() == before


def test_a_stream_goes_on_in_the_middle_of_a_file(parquet, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    write(parquet, whole, per_shard=2)
    assert write(parquet, out, per_shard=2, part=(1, 2)) is None
    for name in ("elsa_v2-train-00000-00001.tar", "elsa_v2-train-00000-00002.tar"):
        (out / name).unlink()
        (out / ".progress" / f"{name}.json").unlink()
    write(parquet, out, per_shard=2)
    assert sums(out) == sums(whole)


def test_an_arrow_data_set_gives_the_same_samples(parquet, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = sorted(map(str, parquet.glob("*.parquet")))
    stored = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=tmp_path)
    stored.save_to_disk(tmp_path / "arrow")
    write(tmp_path / "arrow", tmp_path / "out")
    found = {s.id: dict(s.pictures) for s in read_shards(tmp_path / "out")}
    assert found["907"] == {f"gen_{i}": encoded(70 + i) for i in range(4)} and len(found) == 10


def test_columns_that_are_not_d3s_are_one_sentence(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"id": ["1"], "label": [0]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="url, original_prompt, image_gen0 … missing; it has id"):
        open_source(tmp_path)


def test_photos_that_img2dataset_downloaded_are_found_by_address(tmp_path):
    for n in range(2):
        (tmp_path / f"{n}.jpg").write_bytes(encoded(n, "JPEG"))
        (tmp_path / f"{n}.json").write_text(json.dumps({"url": f"http://a/{n}", "key": str(n)}))
    (tmp_path / "00000_stats.json").write_text('{"count": 2}')
    photos = Downloaded(tmp_path)
    assert photos.get("http://a/1") == encoded(1, "JPEG")
    with pytest.raises(Unavailable):
        photos.get("http://a/2")


# --- the command ----------------------------------------------------------------------------------


def run(*arguments: object):
    return CliRunner().invoke(app, ["shards", *map(str, arguments)])


def test_the_commands_write_check_and_describe(source, tmp_path):
    out = tmp_path / "out"
    done = run("write", source, "--out", out, "--per-shard", 10)
    assert done.exit_code == 0 and "22 samples (train 22)" in done.output
    facts = json.loads(run("info", out, "--json").stdout)
    assert facts["pictures"] == {"gen_0": 22, "gen_1": 22, "real": 22}
    assert run("check", out, "--decode").exit_code == 0
    os.truncate(first_shard(out), 5000)
    found = run("check", out, "--json")
    assert found.exit_code == 1
    assert len(json.loads(found.stdout)["problems"]) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["write", "nowhere", "--out", "x"], "no such folder"),
        (["write", "SOURCE", "--out", "x", "--encode", "webp"], "use one of keep, published"),
        (["write", "SOURCE", "--out", "x", "--part", "3/2"], "part 3 of 2"),
        (["write", "SOURCE", "--out", "x", "--name", "a b"], "name 'a b'"),
        (["write", "SOURCE", "--out", "x", "--split", "other"], "no picture of the split 'other'"),
        (["check", "nowhere"], "neither a folder of shards nor"),
        (["info", "SOURCE"], "holds no shards"),
    ],
)
def test_mistakes_are_one_sentence(source, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    done = run(*(source if a == "SOURCE" else a for a in arguments))
    assert isinstance(done.exception, DataError) or done.exit_code == 2
    assert sentence in str(done.exception)
    assert not (tmp_path / "x").exists()
