"""scan: one row for each picture, whatever stops or breaks; and what `summary` makes of them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

import forgemap.scan.decoders
from forgemap.cli import app
from forgemap.detector import Detector
from forgemap.errors import DataError, ForgemapError
from forgemap.scan import scan
from forgemap.scan.decoders import Decoders
from forgemap.scan.items import Item
from forgemap.scan.parts import part_files, read_parts, schema
from forgemap.scan.summary import error_kind, summarize

from .scanning import BAD, leftovers, png, rows, settings, write_mix, write_pictures, write_tar

NUMBER = 12


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_mix(tmp_path_factory.mktemp("mix"), NUMBER)


@pytest.fixture(scope="module")
def whole(mix: list[str], model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a scan that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    scan(mix, out, settings(model_folder, masks=True), progress=False)
    return out


def test_every_picture_is_a_row_that_says_what_analyze_says(
    mix: list[str], whole: Path, model_folder: Path
) -> None:
    found = rows(whole)
    assert len(found) == 3 * NUMBER
    assert {row["source"] for row in found} == set(mix)
    assert sum(row["error"] is not None for row in found) == 3
    detector = Detector.load(model_folder, detector=None)
    for row in found:
        if row["key"] is None and row["error"] is None:
            report = detector.analyze(row["path"]).to_dict()
            assert {name: row[name] for name in report if name in row and name != "mask"} == {
                name: value for name, value in report.items() if name in row and name != "mask"
            }
            mask = PILImage.open(whole / row["mask"])
            assert mask.size == (row["width"], row["height"])
            white = mask.histogram()[255] / (mask.width * mask.height)
            assert white == pytest.approx(row["area"], abs=1e-9)
    bad = [row for row in found if row["error"] is not None]
    assert {row["sha256"] for row in bad} == {hashlib.sha256(BAD).hexdigest()}
    assert all(row["verdict"] is None and row["model"] == detector.name for row in bad)
    assert all("is damaged" in row["error"] for row in bad)
    assert leftovers(whole) == []
    # Parts are Parquet files that any tool reads, of at most `part_rows` and one pass more.
    tables = [table for table, _ in read_parts(whole, schema().names)]
    assert all(table.schema.equals(schema()) for table in tables)
    assert max(len(table) for table in tables) <= 5 + 2 and len(tables) >= 6


def test_a_finished_scan_is_not_done_again(mix: list[str], whole: Path, model_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in part_files(whole)}
    outcome = scan(mix, whole, settings(model_folder, masks=True), progress=False)
    assert (outcome.pictures, outcome.before) == (0, 3 * NUMBER)
    assert {path: path.stat().st_mtime_ns for path in part_files(whole)} == before


def test_lost_torn_and_foreign_parts_are_made_good(
    mix: list[str], whole: Path, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scan(mix, out, settings(model_folder, masks=True), progress=False)
    first, *_ = part_files(out)
    first.unlink()  # what follows it in the unit lies beyond a gap now
    (out / "parts" / ".part-0000001-00000000-00000005.parquet.7.tmp").write_bytes(b"half")
    scan(mix, out, settings(model_folder, masks=True), progress=False)
    assert rows(out) == rows(whole)
    assert leftovers(out) == []


def test_other_settings_models_and_sources_are_refused(
    mix: list[str], whole: Path, model_folder: Path, tmp_path: Path
) -> None:
    import torch

    from forgemap.models.build import build
    from forgemap.models.checkpoint import save_model

    torch.manual_seed(1)
    config = {"architecture": "tracenet", "widths": [4, 4, 8, 8, 8], "blocks": [1, 1, 1, 1]}
    other = save_model(build(config), tmp_path / "tiny")
    usual = settings(model_folder, masks=True)
    before = rows(whole)
    for sources, chosen, sentence in (
        (mix, replace(usual, model=str(other)), "results of another model"),
        (mix, replace(usual, threshold=0.9), "another threshold"),
        (mix, replace(usual, masks=False), "another masks"),
        (mix[:2], usual, "another sources"),
    ):
        with pytest.raises(DataError, match=sentence) as caught:
            scan(sources, whole, chosen, progress=False)
        assert "\n" not in str(caught.value)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="already holds something else"):
        scan(mix, tmp_path / "else", usual, progress=False)
    with pytest.raises(DataError, match="no pictures there"):
        scan([str(tmp_path / "else")], tmp_path / "out", usual, progress=False)
    assert rows(whole) == before
    with pytest.raises(DataError, match="results of another model"):
        scan(
            mix,
            tmp_path / "new",
            replace(usual, model=str(other)),
            since=whole,
            progress=False,
        )


def test_since_passes_over_what_is_known_by_hash(
    mix: list[str], whole: Path, model_folder: Path, tmp_path: Path
) -> None:
    folder = write_pictures(tmp_path / "new", 3, first=500)
    (folder / "moved.png").write_bytes((Path(mix[0]) / "0000.png").read_bytes())
    usual = settings(model_folder, masks=True)
    outcome = scan([str(folder), mix[0]], tmp_path / "out", usual, since=whole, progress=False)
    # The damaged one is tried again: it was never judged.
    assert (outcome.judged, outcome.unreadable, outcome.known) == (3, 1, NUMBER)
    found = rows(tmp_path / "out")
    assert [Path(row["path"]).name for row in found if row["error"] is None] == [
        f"000{n}.png" for n in range(3)
    ]
    assert summarize(tmp_path / "out").known == NUMBER
    again = scan([str(folder), mix[0]], tmp_path / "out", usual, since=whole, progress=False)
    assert again.pictures == 0
    with pytest.raises(DataError, match="another since"):
        scan([str(folder), mix[0]], tmp_path / "out", usual, progress=False)


def test_what_disappears_after_it_was_listed_is_a_row(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "in", 3)
    tar = write_tar(tmp_path / "a.tar", {"x.png": png(7)})
    import forgemap.scan.run as run

    real = run.open_results

    def then_gone(*arguments: Any) -> Any:
        results = real(*arguments)
        (folder / "0001.png").unlink()
        tar.unlink()
        return results

    monkeypatch.setattr(run, "open_results", then_gone)
    scan([str(folder), str(tar)], tmp_path / "out", settings(model_folder), progress=False)
    found = {row["path"]: row["error"] for row in rows(tmp_path / "out")}
    assert found.pop(str(folder / "0001.png")) == (
        f"{folder / '0001.png'} does not exist: check the path"
    )
    assert found.pop(str(tar)) == f"{tar} does not exist: check the path"
    assert list(found.values()) == [None, None]


def test_a_full_disk_is_one_sentence_and_what_is_written_stays_valid(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "in", 16)
    out = tmp_path / "out"
    usual = settings(model_folder)
    real = os.fsync
    written = 0

    def full_after_two(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written > 3:  # the journal, two parts
            with open("/dev/full", "wb", buffering=0) as full:
                full.write(b"x")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_after_two)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)") as caught:
        scan([str(folder)], out, usual, progress=False)
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    kept = rows(out)
    assert 5 <= len(kept) < 16
    assert leftovers(out) == []
    assert not summarize(out).complete
    scan([str(folder)], out, usual, progress=False)
    scan([str(folder)], tmp_path / "whole", usual, progress=False)
    assert rows(out) == rows(tmp_path / "whole")
    assert summarize(out).complete


def test_a_network_that_lacks_memory_for_a_batch_takes_pictures_alone(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_pictures(tmp_path / "in", 3)
    real = Detector.predict_many

    def small(self: Detector, pictures: Any) -> Iterator[Any]:
        if len(pictures) > 1 or pictures[0].shape[0] == 42:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 EiB")
        return real(self, pictures)

    monkeypatch.setattr(Detector, "predict_many", small)
    scan([str(folder)], tmp_path / "out", settings(model_folder), progress=False)
    errors = [row["error"] for row in rows(tmp_path / "out")]
    assert errors[:2] == [None, None] and "needs more memory than there is" in errors[2]

    def broken(self: Detector, pictures: Any) -> Iterator[Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Detector, "predict_many", broken)
    with pytest.raises(ForgemapError, match="The model failed on cpu"):
        scan([str(folder)], tmp_path / "two", settings(model_folder), progress=False)


def test_a_picture_that_ends_its_decoder_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(png(1))
    bad.write_bytes(png(2))
    decoders = Decoders(1, 10**6, 60, None)
    try:
        assert decoders.load(Item(0, "", str(good), address=str(good))).image is not None
        real = forgemap.scan.decoders._Decoder.run

        def killed(self: Any, *arguments: Any) -> Any:
            if self._process is None:
                self._start()
            os.kill(self._process.pid, signal.SIGKILL)  # as the kernel does when memory is short
            self._process.join()
            return real(self, *arguments)

        monkeypatch.setattr(forgemap.scan.decoders._Decoder, "run", killed)
        lost = decoders.load(Item(1, "", str(bad), address=str(bad)))
        monkeypatch.undo()
        assert lost.image is None
        assert lost.error == (f"{bad} brought its decoder down (signal 9): get an intact copy")
        assert decoders.load(Item(2, "", str(good), address=str(good))).error is None
        os.kill(decoders._all[0]._process.pid, signal.SIGSTOP)  # it will never answer
        decoders.timeout = 0.1
        slow = decoders.load(Item(3, "", str(good), address=str(good)))
        assert "was still being decoded after 0.1 s" in str(slow.error)
        decoders.timeout = 60
        assert decoders.load(Item(4, "", str(good), data=png(5))).error is None
    finally:
        decoders.close()


def test_one_scan_at_a_time(mix: list[str], whole: Path, model_folder: Path) -> None:
    from forgemap.scan.results import locked

    usual = settings(model_folder, masks=True)
    with locked(whole), pytest.raises(DataError, match="Another scan is writing"):
        scan(mix, whole, usual, progress=False)


def test_the_commands(mix: list[str], model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["scan", mix[0], "--out", str(out), "--model", str(model_folder), "--detector"]
    done = CliRunner().invoke(app, [*command, "none", "--workers", "1"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())  # where lines break depends on the folder's name
    assert f"{NUMBER - 1} judged" in said and "1 not readable" in said
    found = CliRunner().invoke(app, ["summary", str(out), "--plot", str(tmp_path / "s.png")])
    said = " ".join(found.output.split())
    assert found.exit_code == 0 and f"{NUMBER} rows, complete" in said
    assert "Error, 1 times: is damaged" in said
    assert PILImage.open(tmp_path / "s.png").format == "PNG"
    as_json = json.loads(CliRunner().invoke(app, ["summary", str(out), "--json"]).stdout)
    assert (as_json["pictures"], as_json["unreadable"]) == (NUMBER, 1)
    assert sum(as_json["verdicts"].values()) == NUMBER - 1
    scores = sorted(row["score"] for row in rows(out) if row["error"] is None)
    assert as_json["score_quantiles"]["0.5"] == pytest.approx(scores[NUMBER // 2 - 1], abs=1e-4)
    assert as_json["by_folder"] == as_json["by_source"]
    # Nothing to go wrong silently: a folder without results, a part that is damaged.
    assert isinstance(CliRunner().invoke(app, ["summary", str(tmp_path)]).exception, ForgemapError)
    damaged = part_files(out)[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(DataError, match="is damaged"):
        summarize(out)


def test_kinds_of_errors_do_not_name_pictures() -> None:
    gone = "a/1.png does not exist: check the path"
    large = "b.tar/2.png has 20000 x 9 pixels, over the limit of 1,000: shrink it"
    assert error_kind(gone, "a/1.png", None) == "does not exist"
    assert error_kind(large, "b.tar", "2.png") == "has N x N pixels, over the limit of N"


def test_the_number_of_pictures_in_shards_is_estimated_from_finished_ones(
    mix: list[str], whole: Path
) -> None:
    from forgemap.scan.listing import Facts
    from forgemap.scan.parts import Part
    from forgemap.scan.results import Results, read_journal
    from forgemap.scan.run import _Total

    journal = read_journal(whole)
    total = _Total(Results(whole, Facts(**journal["listing"]), journal, True))
    assert total.shown()["total"] is None  # of the shard only its bytes are known
    for name in (path.name for path in part_files(whole)):
        unit, start, stop = (int(text) for text in name.split(".")[0].split("-")[1:4])
        total.add(Part(unit, start, stop, end="-end" in name))
    assert total.shown() == {"total": 3 * NUMBER, "total_text": f"about {3 * NUMBER}"}
