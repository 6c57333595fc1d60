"""How many processors may be used, as control groups of every kind say it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch

from forgemap.cores import available, quotas
from forgemap.detector import Detector

MINE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
pytestmark = pytest.mark.skipif(not MINE, reason="only Linux has control groups")


def system(root: Path, told: str, files: dict[str, str]) -> Path:
    """A file system in which this process belongs to the groups of ``told``."""
    for name, text in {"proc/self/cgroup": told, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_a_limit_counts_wherever_it_is_told(tmp_path: Path) -> None:
    two = "0::/\n"
    one = "9:name=systemd:/a/b\n3:cpuset:/a/b\n1:cpu,cpuacct:/a/b"
    limits = {
        "own": (two, {"cpu.max": "150000 100000"}, [1.5]),
        "none": (two, {"cpu.max": "max 100000"}, []),
        "around": ("0::/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, [0.5]),
        "mixed": (f"{one}\n0::/", {"unified/cpu.max": "700000 100000"}, [7.0]),
        "first": (one, _first("cpu,cpuacct/a/b", 250000), [2.5]),
        "first, none": (one, _first("cpu,cpuacct", -1), []),
        "first, of a container": (one, _first("cpu", 100000), [1.0]),
        "of memory": (one, _first("memory/a/b", 100000), []),
        "nothing told": ("", {"cpu.max": "100000 100000"}, []),
        "broken": (two, {"cpu.max": "100000"}, []),
    }
    for name, (told, files, expected) in limits.items():
        groups = {f"sys/fs/cgroup/{file}": text for file, text in files.items()}
        root = system(tmp_path / name, told, groups)
        assert list(quotas(root)) == expected, name
        most = [max(1, -int(-limit // 1)) for limit in expected]
        assert available(root) == min([MINE, *most]), name
    assert available(tmp_path / "no such system") == MINE


def _first(group: str, quota: int) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": str(quota), f"{group}/cpu.cfs_period_us": "100000"}


@pytest.fixture
def one_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process may run on one processor alone, and nobody has asked for threads."""
    mine, threads = os.sched_getaffinity(0), (torch.get_num_threads(), cv2.getNumThreads())
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    os.sched_setaffinity(0, {min(mine)})
    yield
    os.sched_setaffinity(0, mine)
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def test_a_model_keeps_to_the_processors_that_there_are_unless_told_otherwise(
    one_processor: None, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(3)
    cv2.setNumThreads(3)
    Detector.load(model_folder, detector=None)
    assert torch.get_num_threads() == cv2.getNumThreads() == 1
    torch.set_num_threads(3)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    Detector.load(model_folder, detector=None)
    assert torch.get_num_threads() == 3
