"""forgemap convert: published checkpoints and pickled classifiers -> files that run no code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .models import AcceptLicence, Getter, Offline, Proxy


def convert(
    checkpoint: Annotated[
        str,
        typer.Argument(help="A .pth or .safetensors file, or the name of a downloaded model."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The model folder; default for a name: its own.")
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="CLIP's weights for a file that holds the decoder alone: OpenAI's .pt, "
            "safetensors, or a hub id such as openai/clip-vit-large-patch14; may be repeated."
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Where features are taken, if the file does not say.")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Attention heads of the ViT, if not width / 64.")
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download published files that it needs.")
    ] = False,
    accept_licence: AcceptLicence = False,
    offline: Offline = False,
    proxy: Proxy = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="For a classifier (.sav, .joblib, .pkl): folder or hub id of the embedder that it "
            "belongs to, such as aimagelab/CoDE."
        ),
    ] = None,
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle", help="Unpickle a classifier, once and in a process of its own."
        ),
    ] = False,
) -> None:
    """Turn a published DeCLIP checkpoint into a model folder with safetensors.

    A pickled classifier of CoDE (.sav, .joblib, .pkl) becomes one .safetensors file.

    Nothing in the file is run. A tensor that is missing, left over or of another shape is an error
    that names it. CLIP's weights, where the file has none, are those that `forgemap models
    download` left on this machine, or those given by --backbone.
    """
    from ..unpickle import SUFFIXES

    if checkpoint.endswith(SUFFIXES):
        print(_classifier(Path(checkpoint), out, embedder, trust_pickle))
        return
    from ..models.convert import convert as run
    from ..models.download import trusted_file

    getter = Getter(accept_licence=accept_licence, offline=offline, proxy=proxy)
    folder = run(
        checkpoint,
        out,
        backbones=backbone or (),
        layer=layer,
        heads=heads,
        get=getter if fetch else trusted_file,
    )
    print(folder)


def _classifier(path: Path, out: Path | None, embedder: str | None, trust: bool) -> Path:
    from ..classifiers import Source
    from ..errors import ModelError
    from ..models.huggingface import load_embedder
    from ..unpickle import convert_classifier

    if embedder is None:
        raise ModelError(
            f"{path}: say which embedder it belongs to: --embedder FOLDER or owner/name."
        )
    out = out or path.with_suffix(".safetensors")
    if not trust:  # said before anything is read
        convert_classifier(path, out, Source(embedder, "", 0))
    model, _ = load_embedder(embedder)
    source = Source(embedder, model.fingerprint(), model.width)
    convert_classifier(path, out, source, trust=trust)
    return out
