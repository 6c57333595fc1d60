"""Published models: the table, downloads that survive a bad server, licences, hashes, commands.

A real server on this machine serves files of the published structure, and misbehaves.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import forgemap
from forgemap.cli import app
from forgemap.errors import ForgemapError, ModelError
from forgemap.models.download import LicenceError, download, trusted_file, verify
from forgemap.models.fetch import FetchError, Transfer, fetch
from forgemap.models.ledger import read_record, record_path
from forgemap.models.zoo import LICENCES, ZOO, file_of, find, folder_of

from .published_files import (
    RN50_WIDTH,
    VIT_WIDTH,
    Server,
    checkpoint,
    decoder_tensors,
    rn50_tensors,
    save_torchscript,
    send,
    serving,
    sha256,
    vit_tensors,
)

VIT, FUSION = "declip-vit-l14-ldm", "declip-vit-l14-rn50-ldm"
QUICK = Transfer(retries=2, pause=0.01, timeout=5)
BODY = bytes(range(256)) * 4000  # about a megabyte


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each published structure, under its published name."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published")
    vit, rn50 = vit_tensors(), rn50_tensors()
    save_torchscript({k: t.half() if t.is_floating_point() else t for k, t in vit.items()},
                     folder / ZOO["clip-vit-l14"].file)  # fmt: skip
    save_torchscript(rn50, folder / ZOO["clip-rn50"].file)
    whole = {f"model.{name}": t for name, t in vit.items()}
    torch.save(checkpoint(whole | decoder_tensors(VIT_WIDTH, fusion=False)), folder / ZOO[VIT].file)
    channels = VIT_WIDTH + 16 * RN50_WIDTH
    torch.save(checkpoint(decoder_tensors(channels, fusion=True)), folder / ZOO[FUSION].file)
    return folder


@pytest.fixture
def server(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves the shelf (as a copy that a test may change) as the mirror of everything."""
    mine = tmp_path / "served"
    mine.mkdir()
    for file in shelf.iterdir():
        os.link(file, mine / file.name)
    for name in ("clip-vit-l14", "clip-rn50"):  # these have a published hash
        entry = ZOO[name]
        monkeypatch.setitem(ZOO, name, replace(entry, sha256=sha256(shelf / entry.file)))
    monkeypatch.setenv("FORGEMAP_HOME", str(tmp_path / "home"))
    for variable in ("FORGEMAP_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with serving(mine) as running:
        monkeypatch.setenv("FORGEMAP_MIRROR", running.address)
        yield running


@pytest.fixture
def run(server: Server) -> Callable[..., Any]:
    """Runs a command in this process."""
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def get(name: str, **options: Any) -> Path:
    return download(name, **{"agree": lambda licence, entry: True, "how": QUICK, **options})


def refused(match: str, call: Callable[[], object], kind: type[ForgemapError] = ModelError) -> str:
    with pytest.raises(kind, match=match) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def times(count: int, habit: Callable[[Any, bytes], object]) -> Callable[[Any, bytes], bool]:
    """Do it so often, then serve well."""
    left = [count]

    def once(handler: Any, body: bytes) -> bool:
        left[0] -= 1
        if left[0] < 0:
            return False
        habit(handler, body)
        return True

    return once


def always(habit: Callable[[Any, bytes], object]) -> Callable[[Any, bytes], bool]:
    return times(10**9, habit)


def answers(status: int) -> Callable[[Any, bytes], object]:
    return lambda handler, body: handler.send_error(status)


# The table


def test_all_nine_checkpoints_and_the_weights_they_need_are_listed() -> None:
    localizers = [entry for entry in ZOO.values() if entry.kind == "localizer"]
    assert len(localizers) == 9
    assert sum(entry.whole for entry in localizers) == 5
    assert {name for entry in localizers for name in entry.backbones} == ZOO.keys() - {
        entry.name for entry in localizers
    }


def test_every_entry_is_complete_and_distinct() -> None:
    assert all(name == entry.name for name, entry in ZOO.items())
    assert len({entry.address for entry in ZOO.values()}) == len(ZOO)
    assert len({file_of(entry) for entry in ZOO.values()}) == len(ZOO)
    for entry in ZOO.values():
        assert entry.address.startswith("https://") and entry.page.startswith("https://")
        assert entry.training and entry.use and entry.licence in LICENCES
        assert LICENCES[entry.licence].ask == (entry.kind == "localizer")
        assert entry.sha256 is None or f"/{entry.sha256}/" in entry.address


def test_a_misspelt_name_is_told_the_nearest() -> None:
    refused("did you mean declip-vit-l14-ldm", lambda: find("declip-vit-l14-lmd"))
    refused("valid: declip-vit-l14-pluralistic, ", lambda: find("xyz"))


# The transfer


@pytest.fixture
def big(server: Server) -> str:
    (server.folder / "big").write_bytes(BODY)
    return f"{server.address}/big"


def test_a_cut_download_goes_on_where_it_stopped(server: Server, big: str, tmp_path: Path) -> None:
    tag = f'"{hashlib.md5(BODY).hexdigest()}"'
    server.habits["big"] = times(1, lambda h, body: send(h, body, tag=tag, cut=700_000))
    seen: list[tuple[int, int | None]] = []
    how = replace(QUICK, progress=lambda have, total: seen.append((have, total)))
    fetch(big, tmp_path / "part", how)
    assert (tmp_path / "part").read_bytes() == BODY
    first, second = server.ranges("big")
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 700_000
    assert seen[-1] == (len(BODY), len(BODY))
    assert [have for have, _ in seen] == sorted(have for have, _ in seen)


def test_what_arrived_is_kept_for_the_next_call(server: Server, big: str, tmp_path: Path) -> None:
    tag = f'"{hashlib.md5(BODY).hexdigest()}"'
    server.habits["big"] = times(1, lambda h, body: send(h, body, tag=tag, cut=500_000))
    how = replace(QUICK, retries=0)
    # The first attempt brings something, so it is tried again: let that one fail for good.
    server.habits["big"] = _then(server.habits["big"], times(1, answers(503)))
    refused(
        "503.*bytes are kept: run the same command again",
        lambda: fetch(big, tmp_path / "part", how),
    )
    kept = (tmp_path / "part").stat().st_size
    assert kept > 0
    fetch(big, tmp_path / "part", how)
    assert (tmp_path / "part").read_bytes() == BODY
    assert server.ranges("big")[-1] == f"bytes={kept}-"


def _then(*habits: Callable[[Any, bytes], bool]) -> Callable[[Any, bytes], bool]:
    return lambda handler, body: any(habit(handler, body) for habit in habits)


def test_a_server_without_ranges_starts_anew(server: Server, big: str, tmp_path: Path) -> None:
    server.habits["big"] = _then(
        times(1, lambda h, body: send(h, body, tag='"1"', cut=600_000)),
        always(lambda h, body: send(h, body, tag='"1"')),  # whatever Range says
    )
    fetch(big, tmp_path / "part", QUICK)
    assert (tmp_path / "part").read_bytes() == BODY


def test_a_server_without_versions_is_not_resumed(server: Server, big: str, tmp_path: Path) -> None:
    server.habits["big"] = times(1, lambda h, body: send(h, body, cut=600_000))
    fetch(big, tmp_path / "part", QUICK)
    assert (tmp_path / "part").read_bytes() == BODY
    assert server.ranges("big") == ["", ""]


def test_parts_of_two_versions_are_never_joined(server: Server, big: str, tmp_path: Path) -> None:
    server.habits["big"] = times(1, lambda h, body: send(h, body, tag='"old"', cut=600_000))
    (server.folder / "big").write_bytes(BODY[::-1])
    fetch(big, tmp_path / "part", QUICK)
    assert (tmp_path / "part").read_bytes() == BODY[::-1]


def test_a_wrong_range_is_not_appended(server: Server, big: str, tmp_path: Path) -> None:
    tag = f'"{hashlib.md5(BODY).hexdigest()}"'
    server.habits["big"] = _then(
        times(1, lambda h, body: send(h, body, tag=tag, cut=600_000)),
        times(1, lambda h, body: send(h, body, tag=tag, start=5)),
    )
    fetch(big, tmp_path / "part", QUICK)
    assert (tmp_path / "part").read_bytes() == BODY


def test_a_server_that_always_cuts_is_given_up(server: Server, big: str, tmp_path: Path) -> None:
    server.habits["big"] = always(lambda h, body: send(h, body, cut=1000))
    refused("bytes are kept", lambda: fetch(big, tmp_path / "part", QUICK))
    assert len(server.requests) == 1 + 1 + QUICK.retries  # the first one brought something


def test_passing_errors_are_tried_again(server: Server, big: str, tmp_path: Path) -> None:
    server.habits["big"] = _then(times(1, answers(503)), times(1, answers(429)))
    fetch(big, tmp_path / "part", QUICK)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "said", "requests"),
    [
        (404, r"has no such file \(404 Not Found\)\. Fetch it with a browser from https://", 1),
        (403, r"refuses access \(403 Forbidden\)\. Fetch it with a browser from https://", 1),
        (500, r"has an error of its own \(500 .*run the same command again later", 3),
    ],
)
def test_refusals_are_sentences_and_leave_nothing(
    status: int, said: str, requests: int, server: Server
) -> None:
    server.habits[ZOO[VIT].file] = always(answers(status))
    refused(said, lambda: get(VIT), FetchError)
    assert len(server.requests) == requests
    assert not file_of(ZOO[VIT]).exists()
    assert not read_record(ZOO[VIT])


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_instead_of_the_file_is_refused(kind: str, server: Server) -> None:
    page = b"<!DOCTYPE html><html>Sign in to continue</html>"
    server.habits[ZOO[VIT].file] = always(lambda h, body: send(h, page, kind=kind))
    refused("web page", lambda: get(VIT))
    assert not list(file_of(ZOO[VIT]).parent.glob("*.part*"))
    assert not read_record(ZOO[VIT])
    server.habits.clear()
    assert get(VIT).read_bytes() == (server.folder / ZOO[VIT].file).read_bytes()


@pytest.mark.parametrize("name", [VIT, "clip-rn50"])
def test_other_wrong_bodies_are_refused(name: str, server: Server) -> None:
    file = ZOO[name].file
    server.habits[file] = always(lambda h, body: send(h, b'{"error": 1}'))
    refused("no zip archive", lambda: get(name))
    # A body of unknown length that was cut looks complete to HTTP.
    server.habits[file] = always(
        lambda h, body: h.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + body[:5000])
    )
    refused("only a part of it", lambda: get(name))
    other = (server.folder / ZOO[VIT if name == "clip-rn50" else "clip-rn50"].file).read_bytes()
    server.habits[file] = always(lambda h, body: send(h, other))
    refused("not the published RN50.pt|holds no decoder", lambda: get(name))
    assert not file_of(ZOO[name]).exists()


def test_bytes_damaged_on_the_way_are_noticed(server: Server) -> None:
    body = (server.folder / ZOO[VIT].file).read_bytes()
    server.headers["x-goog-hash"] = f"crc32c=AAAAAA==,md5={base64.b64encode(bytes(16)).decode()}"
    refused("damaged on its way", lambda: get(VIT))
    right = base64.b64encode(hashlib.md5(body).digest()).decode()
    server.headers["x-goog-hash"] = f"crc32c=AAAAAA==,md5={right}"
    assert get(VIT).read_bytes() == body


def test_a_file_that_cannot_fit_is_refused_before_it_is_begun(
    server: Server, big: str, tmp_path: Path
) -> None:
    server.habits["big"] = always(lambda h, body: send(h, body, length=10**18))
    refused(
        "1,000,000,000,000,000,000 bytes are to come", lambda: fetch(big, tmp_path / "part", QUICK)
    )
    assert not (tmp_path / "part").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_disk_that_fills_up_is_a_sentence_and_can_be_resumed(
    server: Server, big: str, tmp_path: Path
) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))\n"
        "from forgemap.models.fetch import Transfer, fetch\n"
        "fetch(sys.argv[1], Path(sys.argv[2]), Transfer())"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, big, tmp_path / "part"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "cannot be written (File too large)" in process.stderr.splitlines()[-1]
    fetch(big, tmp_path / "part", QUICK)
    assert (tmp_path / "part").read_bytes() == BODY
    assert server.ranges("big")[-1].startswith("bytes=")


def test_no_server_is_a_sentence_at_once(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
    refused("no connection to 127.0.0.1", lambda: fetch(address, tmp_path / "part", Transfer()))


def test_a_proxy_is_used_and_its_password_kept_secret(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.folder / "far").write_bytes(BODY)
    proxy = server.address.replace("//", "//me:secret@")
    fetch("http://nowhere.invalid/far", tmp_path / "a", replace(QUICK, proxy=proxy))
    monkeypatch.setenv("http_proxy", proxy)
    fetch("http://nowhere.invalid/far", tmp_path / "b", QUICK)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == BODY
    assert server.asked == ["http://nowhere.invalid/far"] * 2
    server.habits["far"] = always(answers(407))
    said = refused(
        "proxy that asks for a login",
        lambda: fetch("http://nowhere.invalid/far", tmp_path / "c", QUICK),
    )
    assert "secret" not in said
    for bad in ("http://me:secret@127.0.0.1:1", "me:secret@host", "http://me:secret@a b:x"):
        how = replace(QUICK, proxy=bad)
        with pytest.raises(FetchError, match="proxy") as error:
            fetch("http://h.invalid/x", tmp_path / "d", how)
        assert "secret" not in str(error.value)


# The download


def test_a_download_is_the_published_file_and_is_not_repeated(server: Server) -> None:
    path = get("clip-rn50")
    assert path.read_bytes() == (server.folder / "RN50.pt").read_bytes()
    assert path == get("clip-rn50") == trusted_file("clip-rn50")
    assert len(server.requests) == 1
    assert read_record(ZOO["clip-rn50"])["trusted"] == "published"
    assert not list(path.parent.glob("*.part*"))


def test_the_licence_is_asked_for_before_anything_is_requested(server: Server) -> None:
    refused("CC BY-NC-SA 4.0.*--accept-licence", lambda: download(VIT, how=QUICK), LicenceError)
    assert server.requests == []
    asked = []
    get(VIT, agree=lambda licence, entry: not asked.append(licence.name))
    get(FUSION, agree=lambda licence, entry: not asked.append(licence.name))
    assert asked == ["CC BY-NC-SA 4.0"]  # the first yes is remembered
    download("clip-rn50", how=QUICK)  # MIT asks for none


def test_the_first_hash_is_recorded_and_demanded_ever_after(server: Server) -> None:
    path = get(VIT)
    record = read_record(ZOO[VIT])
    assert record["sha256"] == sha256(path) and record["trusted"] == "first download"
    assert record["size"] == path.stat().st_size
    path.unlink()
    (server.folder / path.name).unlink()
    state = vit_tensors(blocks=21) | decoder_tensors(VIT_WIDTH, fusion=False)
    torch.save(checkpoint(state), server.folder / path.name)
    said = refused("another file than the one first downloaded", lambda: get(VIT))
    assert str(record_path(ZOO[VIT])) in said
    assert not path.exists()
    record_path(ZOO[VIT]).unlink()  # the remedy that it named
    assert get(VIT).is_file()


def test_a_file_that_changed_on_disk_is_refused(server: Server) -> None:
    path = get(VIT)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"changed")
    for call in (lambda: get(VIT), lambda: trusted_file(VIT)):
        refused("has changed since it was downloaded", call)
    (checked,) = verify([VIT])
    assert checked.what == "file" and "SHA-256 is" in checked.fault


def test_offline_asks_no_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    refused("network is switched off", lambda: get(VIT, forbid=True))
    monkeypatch.setenv("FORGEMAP_OFFLINE", "1")
    refused("network is switched off", lambda: get(VIT))
    assert server.requests == []
    get(VIT, file=server.folder / ZOO[VIT].file)  # a copy needs none
    assert get(VIT) == file_of(ZOO[VIT])
    assert server.requests == []
    monkeypatch.setenv("FORGEMAP_OFFLINE", "0")
    get("clip-rn50")


def test_a_copy_fetched_by_hand_is_checked_alike(server: Server, tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_bytes(b"\n <html>")
    refused("page.pth: is a web page", lambda: get(VIT, file=tmp_path / "page.pth"))
    refused(
        "not the published RN50.pt", lambda: get("clip-rn50", file=server.folder / "ViT-L-14.pt")
    )
    target = file_of(ZOO["clip-rn50"])
    target.write_bytes((server.folder / "RN50.pt").read_bytes())  # put there without a command
    get("clip-rn50")
    assert server.requests == []
    assert read_record(ZOO["clip-rn50"])["sha256"] == sha256(target)


def test_two_at_once_download_it_once(server: Server) -> None:
    release = threading.Event()
    server.habits["RN50.pt"] = times(1, lambda h, body: (release.wait(10), send(h, body)))
    waited: list[str] = []
    results: list[Path] = []

    def waiting(sentence: str) -> None:
        waited.append(sentence)
        release.set()

    threads = [
        threading.Thread(target=lambda: results.append(get("clip-rn50", waiting=waiting)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2 and len(server.requests) == 1 and len(waited) == 1


def test_a_home_that_cannot_be_written_is_a_sentence(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FORGEMAP_HOME", str(tmp_path / "file"))
    refused("FORGEMAP_HOME", lambda: get(VIT))


# The commands


def test_list_and_show_print_what_is_known(run: Callable[..., Any]) -> None:
    rows = json.loads(run("models", "list", "--json").stdout)
    assert [row["name"] for row in rows] == list(ZOO)
    table = run("models", "list").stdout
    assert all(name in table for name in ZOO)
    shown = run("models", "show", VIT).stdout
    for fact in (ZOO[VIT].address, ZOO[VIT].training, ZOO[VIT].use, "CC BY-NC-SA", "not published"):
        assert fact in shown
    run("models", "download", VIT, "--accept-licence", "--no-convert")
    assert sha256(file_of(ZOO[VIT])) in run("models", "show", VIT).stdout
    assert {
        row["name"]: row["state"] for row in json.loads(run("models", "list", "--json").stdout)
    }[VIT] == "downloaded"


def test_a_download_is_ready_to_analyze_with(run: Callable[..., Any], photos: Path) -> None:
    analyze = ("analyze", photos / "a.png", "--model", VIT, "--json", "--no-files")
    result = run(*analyze)
    assert f"run: forgemap models download {VIT}" in str(result.exception)
    result = run("models", "download", VIT, "--accept-licence")
    assert result.exit_code == 0, result.exception
    assert result.stdout.split() == [str(file_of(ZOO[VIT])), str(folder_of(ZOO[VIT]))]
    (report,) = json.loads(run(*analyze).stdout)
    assert report["model"].startswith(f"{VIT}@") and report["error"] is None
    assert forgemap.load(VIT).name == report["model"]


def test_a_fusion_brings_the_weights_it_needs(run: Callable[..., Any], server: Server) -> None:
    result = run("models", "download", FUSION, "--accept-licence")
    assert result.exit_code == 0, result.exception
    assert {name for name, _ in server.requests} == {ZOO[FUSION].file, "ViT-L-14.pt", "RN50.pt"}
    config = json.loads((folder_of(ZOO[FUSION]) / "config.json").read_text())
    assert config["model"]["layer"] == "layer20+layer3"
    assert [file["file"] for file in config["published"]["backbones"]] == ["ViT-L-14.pt", "RN50.pt"]
    assert "CC BY-NC-SA 4.0" in (folder_of(ZOO[FUSION]) / "README.md").read_text()
    rows = json.loads(run("models", "verify", "--json").stdout)
    assert [(row["name"], row["what"], row["verdict"]) for row in rows] == [
        (FUSION, "file", "ok"), (FUSION, "model", "ok"),
        ("clip-vit-l14", "file", "ok"), ("clip-rn50", "file", "ok"),
    ]  # fmt: skip


def test_without_a_terminal_a_licence_is_not_accepted_by_accident(
    run: Callable[..., Any], server: Server
) -> None:
    result = run("models", "download", VIT)
    assert isinstance(result.exception, LicenceError)
    assert "https://creativecommons.org/licenses/by-nc-sa/4.0/" in result.stderr
    assert server.requests == []


@pytest.mark.skipif(sys.platform == "win32", reason="asks at a POSIX terminal")
def test_at_a_terminal_the_licence_is_asked_for(server: Server) -> None:
    import pty

    for answer, code in ((b"n\n", 2), (b"y\n", 0)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "forgemap", "models", "download", VIT, "--no-convert"],
            stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.write(ours, answer)
        _, stderr = process.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == code, stderr
        assert b"Do you accept it?" in stderr
    assert file_of(ZOO[VIT]).is_file()


def test_verify_exits_with_1_when_something_changed(run: Callable[..., Any]) -> None:
    assert "Nothing was downloaded" in run("models", "verify").stdout
    assert isinstance(run("models", "verify", VIT).exception, ForgemapError)
    run("models", "download", VIT, "--accept-licence")
    assert run("models", "verify", VIT).exit_code == 0
    weights = folder_of(ZOO[VIT]) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    result = run("models", "verify")
    assert result.exit_code == 1 and "SHA-256 is" in result.stdout
    refused("converted weights have changed.*forgemap convert", lambda: forgemap.load(VIT))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models", "download", "nothing-like-it"], "no published model has this name"),
        (["models", "show", "declip-vit-l14-lmd"], "did you mean"),
        (["models", "download", VIT, FUSION, "--file", "x"], "give one name"),
        (["models", "download", VIT, "--file", "no/such.pth"], "no/such.pth: no such file"),
        (["models", "download", VIT, "--offline", "--accept-licence"], "switched off"),
        (["analyze", "x.png", "--model", "clip-rn50"], "mark nothing without a decoder"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], said: str, run: Callable[..., Any], server: Server
) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, ForgemapError)
    assert said in str(result.exception) and "\n" not in str(result.exception)
    assert server.requests == []
