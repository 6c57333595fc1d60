"""worker.py: the process that decodes and judges; one for each device.

python -m forgemap.serve.worker: messages (see `frames.py`) come on stdin and go to stdout.
Pictures from strangers are decoded here and nowhere else, so that one which crashes or stalls a
decoder takes down this process alone. It ends when stdin does.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from traceback import format_exc, format_exception
from typing import TYPE_CHECKING, Any, BinaryIO

from . import frames

if TYPE_CHECKING:
    from ..detector import Detector
    from ..image import Image
    from ..report import Report


Answer = tuple[int, dict[str, Any], list[bytes]]
"""A picture's place in the batch, what is said of it, and the files that belong to it."""


@dataclass(frozen=True)
class _Decoded:
    """A picture of a batch, ready for the network."""

    index: int
    item: dict[str, Any]
    image: Image
    seconds: float

    @property
    def size(self) -> int:
        return self.image.pixels.shape[0] * self.image.pixels.shape[1]


class _Upload(io.BytesIO):
    """Bytes with the name under which they came, which sentences about them use."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def main() -> None:
    """Load what the first message asks for, say so, then answer batches until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which then ends stdin
    commands = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    _keep_log_clean()
    _no_core_dumps()
    start = frames.read(commands)
    if start is None:
        return
    detectors = _load(start[0], answers)
    if detectors is None:
        return
    while (message := frames.read(commands)) is not None:
        header, bodies = message
        detector = detectors[header["model"]]
        for i, answer, blobs in _judge(detector, header["items"], bodies, header["max_pixels"]):
            frames.write(answers, {**answer, "kind": "picture", "index": i}, blobs)
        del bodies, message


def _load(start: dict[str, Any], answers: BinaryIO) -> dict[str, Detector] | None:
    from ..detector import Detector
    from ..errors import ForgemapError
    from ..generated import GenerationDetector

    detectors, generation, device = {}, None, start["device"]
    computed = {"engine": start["engine"], "precision": start["precision"]}
    try:
        if start["detector"] != "none":
            generation = GenerationDetector.load(
                start["detector"], device, classifier=start["classifier"], **computed
            )
        for name in start["models"]:
            detectors[name] = Detector.load(
                name, device, detector=generation, copies=start["copies"], **computed
            )
    except ForgemapError as error:
        frames.write(answers, {"kind": "failed", "error": str(error)})
        return None
    frames.write(answers, {"kind": "ready", "models": [_facts(n, d) for n, d in detectors.items()]})
    return detectors


def _facts(name: str, detector: Detector) -> dict[str, Any]:
    """What the server tells of a model; see `schemas.Model`."""
    model = detector.model
    return {
        "served_as": name,
        "id": detector.name,
        "weights_sha256": detector.basis["weights_sha256"],
        "architecture": str(model.config.get("architecture", "")),
        "native": bool(model.native),
        "input_size": model.preprocess.size,
        "engine": detector.computed.engine,
        "precision": detector.computed.precision,
        "generation": detector.generation and detector.generation.name,
        "decision": detector.decision.to_dict(),
    }


def _judge(
    detector: Detector, items: list[dict[str, Any]], bodies: list[bytes], max_pixels: int
) -> Iterator[Answer]:
    from ..errors import ImageError
    from ..image import load_image

    group: list[_Decoded] = []
    for i, item in enumerate(items):
        began = time.perf_counter()
        try:
            upload = _Upload(bodies[i], item["name"])
            image = load_image(upload, max_pixels=max_pixels, metadata=True)
        except ImageError as error:
            yield i, {"error": str(error)}, []
            continue
        finally:
            bodies[i] = b""
        held = sum(decoded.size for decoded in group)
        decoded = _Decoded(i, item, image, time.perf_counter() - began)
        if group and held + decoded.size > max_pixels:
            # No more memory for a batch than one picture may ask for.
            yield from _judge_group(detector, group)
            group = []
        group.append(decoded)
    if group:
        yield from _judge_group(detector, group)


def _judge_group(detector: Detector, group: list[_Decoded]) -> Iterator[Answer]:
    """One pass of the network; after a failure each picture that is left alone."""
    left = list(group)
    try:
        predictions = detector.predict_many([decoded.image.samples for decoded in group])
        while left:
            began = time.perf_counter()
            report = detector.judge(left[0].image, next(predictions), left[0].item["threshold"])
            answer, blobs = _answer(left[0], report)
            answer["seconds"] = left[0].seconds + time.perf_counter() - began
            yield left[0].index, answer, blobs
            del left[0]
    except Exception as error:  # out of memory, a fault of ours: the others shall have answers
        _log(format_exc())
        if len(group) == 1:
            yield group[0].index, {"fault": type(error).__name__}, []
            return
        for decoded in left:
            yield from _judge_group(detector, [decoded])


def _answer(decoded: _Decoded, report: Report) -> tuple[dict[str, Any], list[bytes]]:
    from ..report import available, write_output
    from ..report_html import picture_row

    item, image = decoded.item, decoded.image
    blobs = []
    names = [name for name in item["outputs"] if available(name, report)]
    for name in names:
        buffer = io.BytesIO()
        write_output(name, report, image.pixels, buffer)
        blobs.append(buffer.getvalue())
    answer: dict[str, Any] = {
        "report": report.to_dict(),
        "format": image.format,
        "jpeg_quality": image.jpeg_quality,
        "threshold": report.threshold,
        "outputs": names,
    }
    if item["row"]:
        answer["row"] = picture_row(report, image.pixels)
    return answer, blobs


def _log(traceback: str) -> None:
    """A line of the server's log."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    entry = {"time": now, "level": "error", "event": "fault in a worker", "traceback": traceback}
    print(json.dumps(entry), file=sys.stderr, flush=True)


def _keep_log_clean() -> None:
    """What libraries print goes nowhere: neither into the messages nor between the JSON of the
    log, as the decoders' complaints about damaged files would."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    with open(os.devnull, "r+b") as nothing:
        for number in (0, 1, 2):
            os.dup2(nothing.fileno(), number)
    warnings.simplefilter("ignore")
    sys.excepthook = lambda *error: _log("".join(format_exception(*error)))


def _no_core_dumps() -> None:
    """A core dump would leave a picture on the disk."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
