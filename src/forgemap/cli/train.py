"""forgemap train …: each trainer's configuration becomes its flags."""

from __future__ import annotations

import typer

from .extras import needs

train = typer.Typer(help="Train a network.", no_args_is_help=True)

# The flags are read by the command itself, so that --help of the others stays quick.
LATE = {"allow_extra_args": True, "ignore_unknown_options": True}


@train.command(context_settings=LATE, add_help_option=False)
def localizer(context: typer.Context) -> None:
    """Train a network that marks edited pixels, on manifests made by `forgemap synth`."""
    with needs("train"):
        from ..train import localizer as trainer
    from .flags import run_config_command

    run_config_command(
        trainer.LocalizerConfig,
        lambda config: print(trainer.train(config)),
        name="forgemap train localizer",
        help="Train a network that marks edited pixels, on manifests made by `forgemap synth`. "
        "Interrupted, the same command goes on where it stopped.",
        arguments=context.args,
    )
