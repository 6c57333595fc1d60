"""forgemap demo: real photographs, known edits, measured verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .extras import needs


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the report.")] = Path(
        "forgemap-demo"
    ),
    model: Annotated[str, typer.Option(help="As in `forgemap analyze`.")] = "default",
    seed: Annotated[int, typer.Option(help="Another seed edits other regions.")] = 0,
) -> None:
    """Edit real photographs in known ways, and see what Forgemap says of them. Needs no network."""
    with needs("synth"):
        from ..demo import run

        run(out, model=model, seed=seed)
