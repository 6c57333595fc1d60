"""Forgemap: was this picture edited, and where?

>>> import forgemap
>>> report = forgemap.analyze("photo.jpg")
>>> report.verdict
'no sign of editing'

Everything below is imported on first use (PEP 562), so `import forgemap` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from forgemap.client import Client as Client
    from forgemap.detector import Detector as Detector
    from forgemap.detector import analyze as analyze
    from forgemap.detector import load as load
    from forgemap.report import Report as Report

__all__ = ["Client", "Detector", "Report", "__version__", "analyze", "load"]

_HOME = {
    "Client": "forgemap.client",
    "Detector": "forgemap.detector",
    "Report": "forgemap.report",
    "analyze": "forgemap.detector",
    "load": "forgemap.detector",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'forgemap' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
