"""forgemap synth: edited pictures with exact masks, made from real photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ForgemapError
from .extras import needs


def synth(
    photos: Annotated[list[Path], typer.Argument(help="Photographs: files, folders or globs.")],
    out: Annotated[Path, typer.Option(help="Folder for images, masks and manifest.jsonl.")],
    methods: Annotated[str, typer.Option(help="Comma-separated; default: all that can run.")] = "",
    per_photo: Annotated[int, typer.Option(min=1, help="Edits made from each photograph.")] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    autoencoder: Annotated[
        str | None,
        typer.Option(
            help="For the methods that need one: nearest, bilinear, transposed or shuffle (these "
            "ship), a folder or a hub id; several with commas between are drawn from."
        ),
    ] = None,
    inpainter: Annotated[
        str, typer.Option(help="Folder of a network for inpaint_learned, instead of the bundled.")
    ] = "",
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="No edits: whole pictures in real/ and, as each autoencoder gives them back, in a "
            "folder of its name; default: the four that ship.",
        ),
    ] = False,
    latent_noise: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="With --whole: half of the pictures get noise on their latents, of at most this "
            "share of their spread, as a generator's are no photograph's.",
        ),
    ] = 0.0,
    weight_noise: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="With --whole: noise on the decoder's weights, of at most this share of their "
            "spread, other for each picture: many decoders out of one.",
        ),
    ] = 0.0,
    crop: Annotated[
        int | None,
        typer.Option(min=32, help="Edit crops of this side in pixels, not whole photos."),
    ] = None,
    vary: Annotated[
        bool, typer.Option("--vary", help="Vary size, processing and encoding, before and after.")
    ] = False,
    untouched: Annotated[
        bool, typer.Option("--untouched", help="Add unedited pictures with the same processing.")
    ] = False,
    benign: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Probability of an honest processing (resize, tone, text, messenger ...) before "
            "the edit, and of one after it; untouched twins get the same.",
        ),
    ] = 0.0,
    processing: Annotated[
        str, typer.Option(help="Comma-separated kinds for --benign; default: all.")
    ] = "",
    split: Annotated[
        str | None, typer.Option(help="Only photographs of this split: train, val or test.")
    ] = None,
    area: Annotated[
        str, typer.Option(metavar="MIN,MAX", help="Edited share of the picture's area.")
    ] = "0.005,0.5",
) -> None:
    """Make edited pictures with exact masks from real photographs.

    Interrupted, the same command goes on where it stopped.
    """
    with needs("synth"):
        from ..synth.compose import synthesize

    try:
        low, high = (float(share) for share in area.split(","))
    except ValueError:
        raise ForgemapError(f"--area {area!r} must be two numbers, such as 0.005,0.5.") from None
    with needs("synth"):
        manifest = synthesize(
            photos,
            out,
            methods=[name.strip() for name in methods.split(",") if name.strip()] or None,
            per_photo=per_photo,
            seed=seed,
            workers=workers,
            autoencoder=autoencoder,
            inpainter=inpainter,
            whole=whole,
            latent_noise=latent_noise,
            weight_noise=weight_noise,
            crop=crop,
            vary=vary,
            untouched=untouched,
            benign=benign,
            processing=[name.strip() for name in processing.split(",") if name.strip()] or None,
            split=split,
            area=(low, high),
        )
    print(manifest)
