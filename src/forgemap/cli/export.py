"""forgemap export: a model for another engine or precision, proved equal before it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[
        str,
        typer.Argument(help='"default", a model folder, an embedder\'s folder, or a hub id.'),
    ],
    kind: Annotated[str, typer.Option("--format", help="onnx, openvino or torch.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, bf16 (openvino, torch) or int8.")] = "fp32",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real pictures: int8 is calibrated on half of them, every export is "
            "checked on them. Default: photographs that scikit-image brings."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The export's folder, which --model takes; default: beside the weights, where "
            "--engine auto finds it."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Use at most so many pictures.")] = 64,
) -> None:
    """Write a model for another engine, with the comparison that proves it.

    The export is compared with torch in float32 on real pictures: in fp32 no probability may
    differ by more than 0.001; in bf16 and int8 the masks' mean IoU must reach 0.98 and at most
    0.5 % of the verdicts may differ. One that does not match is not written. --format torch
    --precision bf16 writes the comparison alone, with which --engine auto may take bf16 in torch.
    """
    from ..export import export as run

    made = run(
        model,
        kind,
        precision,
        out=out,
        calibrate=calibrate,
        limit=limit,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    parity = made.export.parity
    facts = [f"{parity.pictures} pictures", f"largest difference {parity.largest_difference:.2g}"]
    if parity.mask_iou is not None:
        facts.append(f"mean mask IoU {parity.mask_iou:.4f}")
        facts.append(f"{parity.verdict_flips} verdicts differ")
    if parity.cosine is not None:
        facts.append(f"smallest cosine {parity.cosine:.5f}")
    if made.export.precision == "int8":
        facts.append(f"left in float32: {made.export.skipped or 'nothing'}")
    facts.append(f"{made.export.speed:.2f} times as fast as torch here")
    print("; ".join(facts))
    print(made.folder)
