"""facts.py: when, where and with which versions something was measured."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from ..cores import available

PACKAGES = (
    "forgemap",
    "torch",
    "numpy",
    "scipy",
    "opencv-contrib-python-headless",
    "pillow",
    "scikit-learn",
)


def machine() -> dict[str, Any]:
    """JSON-able: date (UTC), processor, cores, system, python, versions of what computes."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": available(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The model of the CPU; where the system hides its name, family and number identify it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    known = dict(line.split(":", 1) for line in lines if ":" in line)
    known = {key.strip(): value.strip() for key, value in known.items()}
    if "model name" not in known:
        return platform.processor()
    family, number = known.get("cpu family", "?"), known.get("model", "?")
    return f"{known['model name']} (family {family} model {number})"
