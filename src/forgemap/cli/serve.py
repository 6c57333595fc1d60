"""forgemap serve: the service, on this machine alone unless told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .extras import needs

if TYPE_CHECKING:
    from ..serve.settings import Settings


def serve(context: typer.Context) -> None:
    """Answer pictures over HTTP, with a page for people at the address that is printed."""
    from ..serve.settings import Settings
    from .flags import run_config_command

    run_config_command(
        Settings,
        run,
        name="forgemap serve",
        help="Answer pictures over HTTP, with a page for people at the address that is printed. "
        "Prints one line when it is ready. Its log goes to stderr, a JSON object per line. SIGTERM "
        "or Ctrl-C: it finishes what it has accepted and exits with 0.",
        arguments=context.args,
    )


def run(settings: Settings) -> None:
    """Serve until a signal says stop."""
    with needs("serve"):
        from ..serve.logs import set_up
        from ..serve.run import serve as serve_until_stopped

    set_up(settings.log_level)
    serve_until_stopped(
        settings, lambda address: print(f"Forgemap is ready at {address}", flush=True)
    )
