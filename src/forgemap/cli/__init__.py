"""The command line. One file for each subcommand; what it needs is imported when it runs."""

from __future__ import annotations

import io
import os
import signal
import sys

import typer

from .. import __version__
from ..errors import ForgemapError
from .analyze import analyze
from .calibrate import calibrate
from .convert import convert
from .data import data
from .demo import demo
from .embed import embed
from .evaluate import evaluate
from .export import export
from .image_level import image_level
from .matrix import matrix
from .models import models
from .report import report
from .scan import scan
from .serve import serve
from .shards import shards
from .summary import summary
from .synth import synth
from .train import LATE, train

app = typer.Typer(
    name="forgemap",
    help="Image forensics: was this picture edited, and where?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(analyze)
app.command()(demo)
app.command()(synth)
app.add_typer(train, name="train")
app.add_typer(data, name="data")
app.command(context_settings=LATE, add_help_option=False)(matrix)
app.command()(evaluate)
app.command()(embed)
app.command(name="image-level")(image_level)
app.command()(calibrate)
app.command()(scan)
app.command()(summary)
app.command(context_settings=LATE, add_help_option=False)(serve)
app.add_typer(report, name="report")
app.add_typer(shards, name="shards")
app.add_typer(models, name="models")
app.command()(convert)
app.command()(export)


@app.command()
def version() -> None:
    """Print the version."""
    print(f"forgemap {__version__}")


def main() -> None:
    """Entry point of `forgemap`: a user's mistake is one sentence on stderr and exit code 2."""
    # Threads that wait for work must sleep: on a busy or limited machine, spinning ones made a
    # small picture take forty times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if hasattr(signal, "SIGPIPE"):
        # End quietly when the reader of our output does, as in `forgemap analyze … | head`.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold bytes that the terminal's encoding does not know.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except ForgemapError as error:
        print(f"forgemap: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
