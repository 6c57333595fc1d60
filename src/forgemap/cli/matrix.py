"""forgemap matrix: train on each set, test on each."""

from __future__ import annotations

from typing import Any

import typer

from .extras import needs


def matrix(context: typer.Context) -> None:
    """Train on each set and test on each: what carries over from one kind of edit to another?"""
    with needs("train"):
        from ..matrix.config import MatrixConfig
    from .flags import run_config_command

    run_config_command(
        MatrixConfig,
        run,
        name="forgemap matrix",
        help="Train on each set, test on each; in-domain and out-of-domain means, with intervals. "
        "Sets are named by --train NAME=DATA, or are the methods of --data with --by method; DATA "
        "is a manifest or a published set as NAME:ROOT. With --axis and --values, one matrix for "
        "each value. All other options are those of `forgemap train localizer`. Interrupted, the "
        "same command goes on where it stopped.",
        arguments=context.args,
    )


def run(config: Any) -> None:
    """Run it and print its tables."""
    with needs("evaluate"):
        from ..matrix.report import tables
        from ..matrix.run import matrix as run_matrix

        result = run_matrix(config)
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to keep to
        console = Console(highlight=False, width=140)
    for table in tables(result):
        console.print(table)
    console.print(f"Table, heat map and JSON are in {config.out}", markup=False, soft_wrap=True)
