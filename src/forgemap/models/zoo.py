"""zoo.py: the published models: address, hash, licence, what they were trained on and are for.

A table and what is read off it; it knows nothing of networks, so that listing it is quick.
Sources: the README of github.com/bit-ml/DeCLIP (addresses, training sets, licence) and clip.py of
github.com/openai/CLIP (addresses, which hold each file's SHA-256).
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from ..errors import ModelError
from .home import home


@dataclass(frozen=True)
class Licence:
    """The terms under which a file is published."""

    #: Its usual name.
    name: str
    #: Where its text is.
    address: str
    #: What it asks for, in a sentence.
    summary: str
    #: Must it be accepted before the first download?
    ask: bool


@dataclass(frozen=True)
class Published:
    """One published file."""

    #: What Forgemap calls it.
    name: str
    #: A whole localizer (a backbone and its decoder), or CLIP's weights for others.
    kind: Literal["localizer", "backbone"]
    #: Where a program downloads it.
    address: str
    #: Where a person does, if the address refuses.
    page: str
    #: A key of `LICENCES`.
    licence: str
    #: What it was trained on.
    training: str
    #: What it is good for, and what not.
    use: str
    #: SHA-256 in hex; None: none was published, so the first download's is recorded.
    sha256: str | None = None
    #: Bytes; None: not published.
    size: int | None = None
    #: Where a localizer's features are taken.
    layer: str = ""
    #: The CLIP weights that a localizer looks through, by their names here.
    backbones: tuple[str, ...] = ()
    #: Does a localizer's own file hold them?
    whole: bool = False

    @property
    def file(self) -> str:
        """The published file's own name."""
        return unquote(self.address.rsplit("/", 1)[1])


LICENCES = {
    "cc-by-nc-sa-4.0": Licence(
        name="CC BY-NC-SA 4.0",
        address="https://creativecommons.org/licenses/by-nc-sa/4.0/",
        summary="name the authors, no commercial use, what you make of it under the same terms; "
        "DeCLIP's repository states it for its code and nothing else for its weights",
        ask=True,
    ),
    "mit": Licence(
        name="MIT",
        address="https://github.com/openai/CLIP/blob/main/LICENSE",
        summary="keep the copyright notice; OpenAI's model card advises against deployed use",
        ask=False,
    ),
}

_DECLIP = "https://storage.googleapis.com/bitdefender_ml_artifacts/declip"
_DECLIP_PAGE = "https://storage.cloud.google.com/bitdefender_ml_artifacts/declip"
_VIT = "backbone_VIT/ViT_layer20_conv-20"
_FUSION = "backbone_VIT%2BRN50/ViT_layer20%2BRN50_layer3_conv-20"
_CLIP = "https://openaipublic.azureedge.net/clip/models"
_CLIP_PAGE = "https://github.com/openai/CLIP/blob/main/clip/clip.py"
_CLIP_TRAINING = "400 million pairs of picture and caption from the web"


def _vit(name: str, file: str, training: str, use: str) -> Published:
    return Published(
        name=name,
        kind="localizer",
        address=f"{_DECLIP}/{_VIT}_{file}.pth",
        page=f"{_DECLIP_PAGE}/{_VIT}_{file}.pth",
        licence="cc-by-nc-sa-4.0",
        training=training,
        use=use,
        layer="layer20",
        backbones=("clip-vit-l14",),
        whole=True,
    )


def _fusion(name: str, file: str, training: str, use: str) -> Published:
    return Published(
        name=name,
        kind="localizer",
        address=f"{_DECLIP}/{_FUSION}_{file}.pth",
        page=f"{_DECLIP_PAGE}/{_FUSION}_{file}.pth",
        licence="cc-by-nc-sa-4.0",
        training=training,
        use=use,
        layer="layer20+layer3",
        backbones=("clip-vit-l14", "clip-rn50"),
    )


_FACES = "Dolos: CelebA-HQ faces, parts of which were inpainted by"
_ALL = (
    _vit(
        "declip-vit-l14-pluralistic",
        "pluralistic",
        f"{_FACES} Pluralistic (a GAN)",
        "faces inpainted by a GAN; the fusion trained on the same is weak on other editors",
    ),
    _vit(
        "declip-vit-l14-lama",
        "lama",
        f"{_FACES} LaMa (Fourier convolutions)",
        "faces edited by LaMa; the fusion trained on the same is weak on other editors",
    ),
    _vit(
        "declip-vit-l14-repaint-p2",
        "repaint-p2-9k",
        f"{_FACES} RePaint-P2 (pixel diffusion)",
        "faces inpainted by pixel diffusion",
    ),
    _vit(
        "declip-vit-l14-ldm",
        "ldm",
        f"{_FACES} latent diffusion",
        "faces inpainted by an editor that is not known: of the four, this training set carries "
        "over best in the paper",
    ),
    _vit(
        "declip-vit-l14-coco-sd",
        "cocosd",
        "COCO-SD: objects of COCO photographs repainted by Stable Diffusion's inpainting",
        "everyday photographs with an object repainted by Stable Diffusion; the only one "
        "not trained on faces",
    ),
    _fusion(
        "declip-vit-l14-rn50-pluralistic",
        "pluralistic",
        f"{_FACES} Pluralistic (a GAN)",
        "faces inpainted by a GAN: published IoU 83.7 %, on the other three editors 4.9 to 51.9 %",
    ),
    _fusion(
        "declip-vit-l14-rn50-lama",
        "lama",
        f"{_FACES} LaMa (Fourier convolutions)",
        "faces edited by LaMa: published IoU 86.5 %, on the other three editors 21.6 to 32.0 %",
    ),
    _fusion(
        "declip-vit-l14-rn50-repaint-p2",
        "repaint-p2-9k",
        f"{_FACES} RePaint-P2 (pixel diffusion)",
        "faces inpainted by pixel diffusion: published IoU 74.0 %, on the other three editors "
        "27.4 to 54.2 %",
    ),
    _fusion(
        "declip-vit-l14-rn50-ldm",
        "ldm",
        f"{_FACES} latent diffusion",
        "faces inpainted by an editor that is not known: published IoU 51.1 %, on the other three "
        "editors 43.5 to 56.4 %, which is the best of the four",
    ),
    Published(
        name="clip-vit-l14",
        kind="backbone",
        address=f"{_CLIP}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/"
        "ViT-L-14.pt",
        page=_CLIP_PAGE,
        licence="mit",
        training=_CLIP_TRAINING,
        use="the ViT-L/14 that DeCLIP looks through; not a localizer by itself",
        sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
    Published(
        name="clip-rn50",
        kind="backbone",
        address=f"{_CLIP}/afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
        page=_CLIP_PAGE,
        licence="mit",
        training=_CLIP_TRAINING,
        use="the ResNet-50 that DeCLIP's fusion looks through; not a localizer by itself",
        sha256="afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    ),
)
#: Every published file by its name.
ZOO: dict[str, Published] = {entry.name: entry for entry in _ALL}


def find(name: str) -> Published:
    """The entry of that name, or a ModelError that lists the names (or the nearest one)."""
    if name in ZOO:
        return ZOO[name]
    near = difflib.get_close_matches(name, ZOO, n=1)
    hint = f"did you mean {near[0]}?" if near else f"valid: {', '.join(ZOO)}."
    raise ModelError(f"{name}: no published model has this name; {hint}")


def address_of(entry: Published) -> str:
    """Where to download: as published, or the file of that name in $FORGEMAP_MIRROR."""
    if mirror := os.environ.get("FORGEMAP_MIRROR"):
        return f"{mirror.rstrip('/')}/{entry.address.rsplit('/', 1)[1]}"
    return entry.address


def file_of(entry: Published) -> Path:
    """Where the downloaded file is kept (it need not be there)."""
    return home() / "published" / entry.file


def folder_of(entry: Published) -> Path:
    """Where the model folder made of it is kept (it need not be there)."""
    return home() / "models" / entry.name


def ready_folder(name: str) -> Path:
    """The model folder of a published model that was downloaded and converted before.

    Raises:
        ModelError: it was not, or it is no localizer; the sentence says what to run.
    """
    entry = find(name)
    if entry.kind == "backbone":
        raise ModelError(f"{name}: holds CLIP's weights, which mark nothing without a decoder.")
    folder = folder_of(entry)
    if (folder / "config.json").is_file():
        return folder
    command = "convert" if file_of(entry).is_file() else "models download"
    done = "downloaded but not converted" if command == "convert" else "not on this machine"
    raise ModelError(f"{name}: a published model, {done}; run: forgemap {command} {name}")
