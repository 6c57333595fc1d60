"""forgemap train …: each trainer's configuration becomes its flags."""

from __future__ import annotations

from importlib import import_module

import typer

from .extras import needs

train = typer.Typer(help="Train a network.", no_args_is_help=True)

# The flags are read by the command itself, so that --help of the others stays quick.
LATE = {"allow_extra_args": True, "ignore_unknown_options": True}

# name -> its configuration in `train/<name>.py`, and what it does.
TRAINERS = {
    "localizer": (
        "LocalizerConfig",
        "Train a network that marks edited pixels, on manifests made by `forgemap synth` or on "
        "data sets, as NAME:ROOT.",
    ),
    "embedder": (
        "EmbedderConfig",
        "Train a network that tells generated pictures from real ones (CoDE), on folders of both "
        "or on shards. `--recipe code` holds the published values.",
    ),
    "autoencoder": (
        "AutoencoderConfig",
        "Train a small autoencoder on photographs, for `forgemap synth --autoencoder`.",
    ),
    "inpainter": ("InpainterConfig", "Train a small network that fills regions of photographs."),
}
AVERAGE = (
    "AverageConfig",
    "Average the weights of localizers of one network, such as one before and after further "
    "training; BatchNorm statistics are measured anew.",
)
RESUMES = " Interrupted, the same command goes on where it stopped."


def add(name: str, config: str, help: str) -> None:
    """Make `forgemap train NAME`."""

    @train.command(name, help=help, context_settings=LATE, add_help_option=False)
    def command(context: typer.Context) -> None:
        with needs("train"):
            trainer = import_module(f"forgemap.train.{name}")
            from ..train.processes import announce
        from .flags import run_config_command

        run_config_command(
            getattr(trainer, config),
            lambda chosen: announce(trainer.train(chosen)),
            name=f"forgemap train {name}",
            help=help,
            arguments=context.args,
        )


for trainer, (config, text) in TRAINERS.items():
    add(trainer, config, text + RESUMES)
add("average", *AVERAGE)
