"""The options --engine and --precision, as every command spells them."""

from __future__ import annotations

from typing import Annotated

import typer

Engine = Annotated[
    str,
    typer.Option(
        help="auto, torch, onnx or openvino; auto takes the fastest that is installed and was "
        "proved equal for this model (`forgemap export`)."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="auto, fp32, bf16 or int8; auto goes below float32 only where that was proved."
    ),
]
