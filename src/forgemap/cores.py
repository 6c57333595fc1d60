"""cores.py: how many processors this process may keep busy, in a container too."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")


def available(system: Path = SYSTEM) -> int:
    """Processors that may be used, at least 1: of the machine's those that the process may run on,
    and no more than its container has time for.

    A container that is held to two processors still sees all 64 of its machine. Whoever then starts
    64 threads has them stopped for most of every tenth of a second, and each step of a network
    waits for the last of them. (`joblib.cpu_count` counts alike, but comes with extras alone and
    looks at the outermost group.)

    Args:
        system: the root of the file system where Linux tells its control groups.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows, which have neither
        return os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas(system))]))


def quotas(system: Path = SYSTEM) -> Iterator[float]:
    """Processors that each of the control groups around this process is held to; none if none."""
    for group in _groups(system):
        limit = _text(group / "cpu.max").split() or [
            number
            for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            for number in _text(group / name).split()
        ]
        if len(limit) == 2 and all(map(str.isdecimal, limit)):  # "max" and -1 are no limit
            yield int(limit[0]) / int(limit[1])


def _groups(system: Path) -> Iterator[Path]:
    """Folders of this process's control group and of those around it, where there may be any."""
    mount = system / "sys/fs/cgroup"
    for line in _text(system / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):  # version 1: each controller is mounted by itself
            mounts = {mount / "cpu", mount / controllers}
        elif not controllers:
            mounts = {mount, mount / "unified"}
        else:
            continue
        # A container may be shown its machine's path, but has its own group where the mount begins.
        own = Path(path.lstrip("/"))
        yield from (place / group for place in mounts for group in (own, *own.parents))


def keep_to_them() -> None:
    """No more threads of torch and OpenCV than `available`; OMP_NUM_THREADS is obeyed instead."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    import cv2
    import torch

    most = available()
    if torch.get_num_threads() > most:
        torch.set_num_threads(most)
    if cv2.getNumThreads() > most:
        cv2.setNumThreads(most)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
