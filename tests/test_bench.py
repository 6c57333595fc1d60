"""python -m benchmarks: ratios are of CPU time, a fall is measured again, the baseline is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from benchmarks import __main__ as bench
from benchmarks import engine_sides
from benchmarks.peak import operations
from benchmarks.timing import Case, Measured, clock, measure

from forgemap.engines.packed import has_bf16


def case(ours: int, literal: int, checks: list[int] | None = None, **more: object) -> Case:
    """Two sides that add up so many thousand numbers."""

    def side(thousands: int):
        return lambda: sum(range(1000 * thousands))

    def check() -> None:
        if checks is not None:
            checks.append(1)

    return Case("sums", side(ours), side(literal), check, None, **more)


def row(ratio: float, name: str = "sums") -> Measured:
    return Measured(name, 1.0, ratio, ratio, ratio, ratio, 3, None)


def test_the_ratio_is_how_much_longer_the_literal_side_takes():
    found = measure(case(200, 4000), 5)
    assert found.ours < found.literal
    assert found.ratio_low <= found.ratio <= found.ratio_high
    assert 5 < found.ratio < 80
    assert found.share is None


def test_the_share_is_of_the_peak_of_its_data_type():
    asked = []

    def peak(dtype: str) -> float:
        asked.append(dtype)
        return 1e9

    found = measure(case(200, 200, work=lambda: (2e9, "bfloat16")), 3, peak)
    assert asked == ["bfloat16"]
    assert found.share == pytest.approx(2 / found.ours)


def test_the_clock_counts_processes_that_were_started():
    begin = clock()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert clock() - begin > 0.01


def test_operations_are_counted():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert operations(lambda: a @ b) == 2 * 3 * 5 * 7


def test_only_what_has_fallen_by_a_third_is_measured_again():
    for before, times in ((None, 1), (1e-6, 1), (1e6, bench.TRIES)):
        checks: list[int] = []
        one = case(50, 50, checks, rounds=2)
        found = bench.confirmed(one, measure(one, 2), before)
        assert len(checks) == times
        assert found.rounds == 2 or times > 1
    assert bench.fallen(row(1.9), 3.0)
    assert not bench.fallen(row(2.1), 3.0)


def test_a_record_keeps_what_other_runs_and_processors_gave(tmp_path, monkeypatch):
    file = tmp_path / "baseline.json"
    file.write_text("{}")
    monkeypatch.setattr(bench, "BASELINE", file)
    assert bench.baseline("one") == {}
    for processor, rows in (
        ("one", [row(2.0), row(5.0, "other")]),
        ("two", [row(9.0)]),
        ("one", [row(3.0)]),
    ):
        bench.record({"processor": processor, "date": "today", "load": 1.0}, rows)
    assert bench.baseline("one") == {"sums": 3.0, "other": 5.0}
    assert bench.baseline("two") == {"sums": 9.0}
    assert not list(tmp_path.glob("*.part"))


def test_the_baseline_knows_the_cases_that_there_are():
    known = json.loads((Path(bench.__file__).parent / "baseline.json").read_text())
    names = {
        case.name
        for name in bench.BENCHMARKS
        for case in import_module(f"benchmarks.bench_{name}").cases(quick=True)
    }
    for processor, values in known.items():
        # A processor without bfloat16 has no such cases.
        own = {name for name in values["ratios"] if has_bf16() or not name.endswith("bf16")}
        assert own <= names, processor
        assert all(ratio > 0 for ratio in values["ratios"].values())


@pytest.mark.parametrize("option", ["--record", "--strict"])
def test_a_baseline_is_of_the_quick_cases_alone(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", option])
    with pytest.raises(SystemExit) as end:
        bench.main()
    assert end.value.code == 2
    assert "go with --quick" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics", "embedder", "declip", "engines", "features", "scan"])
def test_the_literal_forms_give_what_ours_give(name):
    for one in import_module(f"benchmarks.bench_{name}").cases(quick=True):
        one.check()


def test_what_was_stopped_leaves_no_folder_that_looks_finished(tmp_path):
    target = tmp_path / "export"

    def stopped() -> None:
        with engine_sides.whole(target) as partial:
            (partial / "half").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not target.exists()
    with engine_sides.whole(target) as partial:
        (partial / "all").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert [path.name for path in target.iterdir()] == ["all"]


@pytest.mark.slow
def test_a_run_of_the_engines_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    for module in ("onnxscript", "onnxruntime", "openvino", "nncf"):
        pytest.importorskip(module)
    first, last = ("onnx", "fp32"), ("openvino", "int8")
    engine_sides.prepare(tmp_path, True, [first])
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    engine_sides.prepare(tmp_path, True, [first, last])  # as after a stop between the two
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model", "graph", "onnx-fp32", "openvino-int8"}
    models = engine_sides.engines_of(tmp_path, [first, last])
    with torch.inference_mode():
        assert models["openvino int8"](torch.randn(1, 3, 224, 224)).mask.isfinite().all()

    from benchmarks import bench_engines

    measured = []
    monkeypatch.setattr(
        bench_engines,
        "start",
        lambda *_: (
            measured.append(1)
            or [{"cpu_seconds": 1.0, "wall_seconds": 1.0, "fastest_wall": 1.0, "peak_gb": 0.1}]
        ),
    )
    for _ in range(2):
        arguments = ["bench_engines", "start", "--quick", "--keep", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", arguments)
        bench_engines.main()
    assert measured == [1]
