"""service.py: one picture through the queue, and what a caller is told of it; knows no HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ForgemapError
from .metrics import Metrics
from .problems import ProblemError, invalid
from .process import Answer, Task
from .queue import Pool
from .results import Keeper, Results
from .schemas import OUTPUTS, Options, decision_of
from .settings import MiB, Settings
from .uploads import Budget, Upload


class Service:
    """The parts of one server, tied together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.budget = Budget(settings.upload_memory * MiB)
        self.metrics.watch("upload_bytes", lambda: self.budget.used)
        memory = settings.result_memory * MiB
        self.results = Results(memory, settings.keep_seconds, self.metrics)
        self.keeper = None if settings.keep is None else Keeper(settings.keep)
        self.pool = Pool(settings, self.metrics)
        self.aliases = aliases(settings.model)

    def model(self, name: str | None) -> str:
        """What a request calls a model -> what the pool does. Raises ProblemError."""
        if name is None:
            return self.settings.model[0]
        if name not in self.aliases:
            known = ", ".join(self.aliases)
            raise invalid(
                [{"where": "query/model", "detail": f"no such model here; there are: {known}"}]
            )
        return self.aliases[name]

    def facts(self) -> list[dict[str, Any]]:
        """The models, as `schemas.Model`."""
        names = {path: name for name, path in self.aliases.items()}
        return [
            {
                "name": names[facts["served_as"]],
                **{k: v for k, v in facts.items() if k not in ("served_as", "decision")},
                "devices": list(self.settings.device),
                "default": facts["served_as"] == self.settings.model[0],
                "decision": decision_of(facts["decision"]),
            }
            for facts in self.pool.models
        ]

    def task(self, upload: Upload, options: Options, *, link: bool, limit: float) -> Task:
        """A picture as the queue takes it."""
        return Task(
            name=upload.name,
            data=upload.data,
            model=self.model(options.model),
            threshold=options.threshold,
            outputs=options.wanted,
            row=link,
            limit=limit,
        )

    async def finish(
        self, answer: Answer, task: Task, data: bytes, *, link: bool
    ) -> dict[str, Any]:
        """What a worker said -> `schemas.Result`, with its outputs kept or inline.

        Raises ProblemError: a fault, or the upload cannot be kept.
        """
        said = answer.said
        if "fault" in said:
            self.metrics.pictures.labels("failed").inc()
            raise ProblemError(
                "internal-error", "The picture met a fault of the server; its log has more."
            )
        result = self.result(said, task)
        self.metrics.pictures.labels(result["verdict"] or "unreadable").inc()
        if result["error"] is None:
            self.metrics.picture_seconds.observe(said["seconds"])
            if link:
                self._link(result, answer)
            else:
                result |= {name: _data_uri(png) for name, png in answer.files.items()}
        if self.keeper is not None:
            await asyncio.to_thread(self.keeper.keep, data, result)
        return result

    def result(self, said: dict[str, Any], task: Task) -> dict[str, Any]:
        """A result without outputs; `said` holds a report, or the sentence on why there is none."""
        facts = next((f for f in self.pool.models if f["served_as"] == task.model), None)
        blank = dict.fromkeys(("sha256", "width", "height", "orientation", "verdict", "score"))
        blank |= dict.fromkeys(("area", "reason", "metadata", *OUTPUTS, "result", "expires"))
        blank |= dict.fromkeys(("format", "jpeg_quality", "threshold", "seconds"))
        blank |= {"generated": None, "summary": None, "disagree": False, "mean_confidence": None}
        report = said.get("report", {"path": task.name, "regions": [], "copies": [], "notes": []})
        return {
            **blank,
            "model": facts and facts["id"],
            "error": said.get("error"),
            **report,
            **{k: said.get(k) for k in ("format", "jpeg_quality", "threshold", "seconds")},
            "decision": facts and decision_of(facts["decision"]),
        }

    def _link(self, result: dict[str, Any], answer: Answer) -> None:
        row = answer.said["row"] | {"threshold": result["threshold"]}
        kept = self.results.put(answer.files, row)
        if kept is None:
            result["notes"] = [
                *result["notes"],
                "the outputs are larger than this server keeps: ask for fewer, or inline",
            ]
            return
        result["result"], result["expires"] = kept
        result |= {name: f"/v1/results/{kept[0]}/{name}.png" for name in answer.files}

    async def report(self, ids: Sequence[str], title: str) -> bytes:
        """One HTML file of results that are kept. Raises ProblemError."""
        rows = [self.results.get(name).row for name in ids]
        settings: dict[str, object] = {
            "pixel limit": f"{self.settings.max_pixels:,}",
            "device": ", ".join(self.settings.device),
        }
        try:
            return await asyncio.to_thread(_write_report, rows, title, settings)
        except (ForgemapError, OSError) as error:
            raise ProblemError(
                "no-space", "The server has no room to write the report: try a smaller one."
            ) from error


def _write_report(rows: Sequence[bytes], title: str, settings: dict[str, object]) -> bytes:
    from ..report_html import ReportWriter  # numpy and OpenCV, which nothing else here needs

    values = [json.loads(row) for row in rows]
    thresholds = ", ".join(f"{t:g}" for t in sorted({row["threshold"] for row in values}))
    settings = {"threshold of the mask": thresholds, **settings}
    with tempfile.TemporaryDirectory(prefix="forgemap-report-") as folder:
        path = Path(folder, "report.html")
        with ReportWriter(path, title=title, settings=settings) as page:
            for row in values:
                page.add_row(row)
        return path.read_bytes()


def aliases(models: Sequence[str]) -> dict[str, str]:
    """What requests call each model: its folder's own name, never a path of this machine."""
    found: dict[str, str] = {}
    for model in models:
        base = name = os.path.basename(os.path.abspath(model)) if os.path.isdir(model) else model
        number = 1
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found[name] = model
    return found


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
