"""The command line: what it prints, writes and returns. Runs in this process unless it says not."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from forgemap.analysis import unique_stems
from forgemap.cli import app
from forgemap.cli.extras import needs
from forgemap.errors import ForgemapError

KEYS = {
    *("path", "sha256", "width", "height", "orientation", "verdict", "score", "area", "regions"),
    "copies",
    *("mask", "heatmap", "overlay", "model", "error", "reason", "notes", "metadata"),
    *("generated", "summary", "disagree", "confidence_map", "mean_confidence"),
}


@pytest.fixture
def forgemap(tmp_path, monkeypatch):
    """Runs a command in an empty folder; the result has stdout, stderr and exit_code."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def analyze(forgemap, model_folder):
    """The first question alone, of the tiny model unless another is named."""
    asked = ("analyze", "--detector", "none")
    return lambda *files, model=model_folder: forgemap(*asked, "--model", model, *files)


def command(*arguments: object, **options) -> subprocess.Popen[str]:
    """The real command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "forgemap", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def never_manipulated(model_folder: Path, tmp_path: Path, verdict: str = "clear") -> Path:
    """A copy of the model that judges every picture the same."""
    folder = tmp_path / f"always-{verdict}"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    at = {"clear": (1.0, 1.0), "manipulated": (0.0, 0.0)}[verdict]
    config = json.loads((folder / "config.json").read_text())
    config["decision"] = {"manipulated_at": at[0], "clear_below": at[1], "calibrated_on": "a test"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_analyze_writes_maps_mask_overlay_json_and_html(forgemap, photos, model_folder):
    result = forgemap("analyze", photos, "--model", model_folder, "--out", "out")
    assert result.exit_code in (0, 1)
    assert sorted(os.listdir("out")) == sorted(
        [f"{stem}.{kind}.png" for stem in "abc" for kind in ("heatmap", "mask", "overlay")]
        + ["report.html", "report.json"]
    )
    for stem, size in {"a": (128, 96), "b": (80, 120), "c": (64, 64)}.items():
        with PILImage.open(f"out/{stem}.mask.png") as mask:
            assert mask.size == size
            assert set(np.unique(mask)) <= {0, 255}
        with PILImage.open(f"out/{stem}.heatmap.png") as heatmap:
            assert (heatmap.size, heatmap.mode) == (size, "L")
    assert "a.png" in Path("out/report.html").read_text()


def test_json_is_one_array_and_nothing_else(forgemap, photos, model_folder):
    (photos / "bad.png").write_bytes(b"not a picture")
    result = forgemap("analyze", photos, "--model", model_folder, "--json")
    reports = json.loads(result.stdout)
    assert [Path(r["path"]).name for r in reports] == ["a.png", "b.jpg", "bad.png", "c.png"]
    assert all(set(r) == KEYS for r in reports)
    assert Path(reports[0]["mask"]).is_file()
    assert reports[2]["verdict"] is None
    assert "bad.png" in reports[2]["error"]
    assert json.loads(Path("forgemap-out/report.json").read_text()) == reports


def test_json_regions_are_plain_numbers(analyze, photos, model_folder, tmp_path):
    folder = never_manipulated(model_folder, tmp_path, "manipulated")
    result = analyze(photos / "a.png", "--json", "--threshold", 0.01, model=folder)
    (report,) = json.loads(result.stdout)
    (region,) = report["regions"]
    assert region["box"] == [0, 0, 128, 96]
    assert region["area"] == pytest.approx(1)
    assert all(len(point) == 2 for point in region["polygon"])


def test_exit_code_is_0_clear_1_manipulated_3_unreadable(analyze, photos, model_folder, tmp_path):
    clear = never_manipulated(model_folder, tmp_path)
    manipulated = never_manipulated(model_folder, tmp_path, "manipulated")
    assert analyze(photos, model=clear).exit_code == 0
    assert analyze(photos, model=manipulated).exit_code == 1
    (photos / "bad.png").write_bytes(b"not a picture")
    assert analyze(photos, model=clear).exit_code == 3
    assert analyze(photos, model=manipulated).exit_code == 3


def test_missing_file_glob_without_match_and_empty_folder_are_named(analyze, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    result = analyze(photos / "a.png", "gone.jpg", "*.nef", "empty")
    assert result.exit_code == 3
    for name in ("gone.jpg", "*.nef", "empty"):
        assert any(name in line for line in result.stderr.splitlines())
    assert Path("forgemap-out/a.mask.png").is_file()


def test_no_files_and_no_report_write_less(analyze, photos):
    analyze(photos, "--no-files")
    assert not Path("forgemap-out").exists()
    analyze(photos / "a.png", "--no-report")
    assert sorted(os.listdir("forgemap-out")) == [
        f"a.{kind}.png" for kind in ("heatmap", "mask", "overlay")
    ]


def test_outputs_of_an_earlier_run_are_not_taken_for_photographs(analyze, photos):
    for _ in range(2):
        result = analyze(".", "--json")
        assert len(json.loads(result.stdout)) == 3
    result = analyze("forgemap-out/a.overlay.png", "--json")
    assert len(json.loads(result.stdout)) == 1


def test_outputs_may_lie_beside_or_above_the_photographs(analyze, photos):
    for out in (".", photos, photos):
        result = analyze(photos, "--out", out, "--json")
        assert len(json.loads(result.stdout)) == 3


def test_other_files_in_the_output_folder_stay(analyze, photos):
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    Path("out/a.mask.png").write_text("old")
    analyze(photos, "--out", "out")
    assert Path("out/notes.txt").read_text() == "mine"
    assert Path("out/a.mask.png").read_bytes().startswith(b"\x89PNG")
    assert not [name for name in os.listdir("out") if name.endswith((".part", ".tmp"))]


def test_pictures_of_the_same_name_do_not_overwrite_each_other():
    paths = [Path(p) for p in ("a/x.jpg", "a/x.png", "b/X.jpg", "b/x-2.jpg", "b/y.jpg")]
    assert unique_stems(paths) == ["x", "x-2", "X-3", "x-2-2", "y"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["analyze", "PHOTOS", "--model", "/no/such/model"], "/no/such/model"),
        (["analyze", "PHOTOS", "--model", "MODEL", "--device", "abacus"], "abacus"),
        (["analyze", "PHOTOS", "--model", "MODEL", "--out", "PHOTOS/a.png"], "a.png"),
        (["synth", "PHOTOS", "--out", "edits", "--methods", "magic"], "magic"),
        (["synth", "PHOTOS", "--out", "edits", "--area", "half"], "half"),
        (["evaluate", "MODEL", "nowhere"], "nowhere"),
        (["evaluate", "MODEL", "PHOTOS", "--recompress", "low"], "low"),
        (["calibrate", "MODEL", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence_that_names_them(
    arguments, named, forgemap, photos, model_folder
):
    known = {"PHOTOS": str(photos), "MODEL": str(model_folder)}
    for short, path in known.items():
        arguments = [a.replace(short, path) for a in arguments]
    result = forgemap(*arguments)
    assert isinstance(result.exception, ForgemapError)
    assert named in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""


def test_mistake_goes_to_stderr_without_traceback_and_with_exit_code_2(photos, tmp_path):
    process = command("analyze", photos, "--model", "/no/such/model", "--json", cwd=tmp_path)
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 2
    assert stdout == ""
    assert stderr.startswith("forgemap: ")
    assert len(stderr.splitlines()) == 1


def test_synth_then_evaluate(forgemap, photos, model_folder):
    pytest.importorskip("scipy", reason="needs the extra `evaluate`")
    result = forgemap(
        *("synth", photos, "--out", "edits", "--methods", "copy_move,noise", "--untouched"),
        *("--area", "0.05,0.3", "--seed", "3"),
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == "edits/manifest.jsonl"
    rows = [json.loads(line) for line in Path("edits/manifest.jsonl").read_text().splitlines()]
    assert {row["method"] for row in rows} <= {"copy_move", "noise", "none"}

    result = forgemap("evaluate", model_folder, "edits", "--recompress", "80", "--json")
    assert result.exit_code == 0, result.stderr
    results = json.loads(result.stdout)
    assert len(results["rows"]) == 2 * len(rows)
    table = forgemap("evaluate", model_folder, "edits", "--limit", "4").stdout
    assert "IoU" in table


def test_train_passes_its_flags_on(forgemap):
    pytest.importorskip("lightning_fabric", reason="needs the extra `train`")
    result = forgemap("train", "localizer", "--help")
    assert result.exit_code == 0
    assert "--weight-decay" in result.stdout
    result = forgemap("train", "localizer", "--data", "nowhere", "--crop", "33")
    assert isinstance(result.exception, ForgemapError)
    assert "crop is 33" in str(result.exception)


def test_wrong_option_is_a_usage_error_with_exit_code_2(forgemap):
    assert forgemap("analyze", "x.png", "--thresold", "0.5").exit_code == 2
    assert forgemap("analyze").exit_code == 2
    assert forgemap("analyze", "x.png", "--threshold", "2").exit_code == 2


def test_interrupt_ends_with_130_and_no_traceback(tmp_path, model_folder):
    for i in range(40):
        PILImage.new("RGB", (700, 700), (i, i, i)).save(tmp_path / f"{i}.png")
    asked = ("--model", model_folder, "--detector", "none", "--out", tmp_path / "out")
    process = command("analyze", tmp_path, *asked)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/*.mask.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not (tmp_path / "out" / "report.html").exists()
    assert not list(tmp_path.glob("out/.*"))


def test_reader_that_goes_away_causes_no_traceback(tmp_path):
    with open(tmp_path / "errors", "w+") as errors:
        shell = f"{sys.executable} -m forgemap analyze --help | true"
        subprocess.run(["bash", "-c", shell], stderr=errors, timeout=240, check=True)
        errors.seek(0)
        assert errors.read() == ""


def test_unprintable_file_name_is_no_obstacle(photos, model_folder, tmp_path):
    odd = os.fsencode(photos) + b"/\xff\x1b[31m.png"
    os.rename(photos / "a.png", odd)
    asked = ("--model", model_folder, "--detector", "none")
    process = command("analyze", photos, *asked, cwd=tmp_path)
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode in (0, 1), stderr
    assert "\x1b" not in stdout
    assert (tmp_path / "forgemap-out" / "report.html").is_file()


def test_help_and_version_are_quick_and_need_no_torch():
    code = (
        "import sys; from forgemap.cli import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
    )
    code += "assert not {'torch', 'numpy', 'cv2', 'PIL'} & set(sys.modules), 'slow imports'"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=240)


def test_every_subcommand_has_help(forgemap):
    for name in ("analyze", "demo", "synth", "evaluate", "calibrate", "version", "train"):
        result = forgemap(name, "--help")
        assert result.exit_code == 0
        assert name in result.stdout
    assert forgemap("version").stdout.startswith("forgemap ")


def test_analyze_help_documents_the_exit_codes(forgemap):
    text = " ".join(forgemap("analyze", "--help").stdout.split())
    assert "Exit code: 0" in text


def import_with(extra: str, module: str) -> None:
    with needs(extra):
        importlib.import_module(module)


def test_missing_library_is_a_sentence_that_names_the_extra():
    with pytest.raises(ForgemapError, match=r'no_such_library.*pip install "forgemap\[train\]"'):
        import_with("train", "no_such_library.part")
    with pytest.raises(ModuleNotFoundError):
        import_with("train", "forgemap.no_such_module")
