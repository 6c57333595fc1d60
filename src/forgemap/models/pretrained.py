"""pretrained.py: what a vision transformer of transformers is: fields, preprocessing, weights.

Importing transformers takes seconds, hence only inside functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelError
from ..preprocess import CLIP, Preprocess

#: What a backbone's name begins with if a pretrained model's folder or hub id follows.
PREFIX = "transformers:"

_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Mean and std by model type, for networks that come without a preprocessor; others: ImageNet's.
_NORMALISATION = {
    "clip_vision_model": (CLIP.mean, CLIP.std),
    "siglip_vision_model": _HALF,
    "siglip2_vision_model": _HALF,
    "vit": _HALF,
}
# Entries of a transformers configuration that are no part of the network, or follow from others.
_IDLE = ("stage_names", "out_features", "out_indices")


def describe(fields: Mapping[str, Any]) -> Any:
    """The transformers configuration of a vision transformer, made from its fields.

    Of a model of pictures and text (``model_type: clip``) it is the picture's part.
    """
    config_class = _import("PretrainedConfig")
    from transformers import CONFIG_MAPPING, AutoConfig

    given = dict(fields)
    kind = given.pop("model_type", None)
    given.pop("_name_or_path", None)
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ModelError(
            f"transformer: unknown model_type {kind!r}; valid are those of the installed "
            "transformers, such as clip_vision_model, deit, dinov2, dinov2_with_registers, "
            "dinov3_vit, siglip_vision_model, siglip2_vision_model, vit."
        )
    valid = AutoConfig.for_model(kind).to_dict().keys() - config_class().to_dict().keys()
    if unknown := sorted(given.keys() - valid):
        raise ModelError(
            f"transformer: {kind} has no field {', '.join(map(repr, unknown))}; "
            f"valid: {', '.join(sorted(valid))}."
        )
    try:
        config = AutoConfig.for_model(kind, **given)
    except Exception as error:  # each configuration validates in its own way
        reason = " ".join(str(error).split())
        raise ModelError(f"transformer: {kind} cannot have these fields ({reason}).") from error
    config = getattr(config, "vision_config", config)
    names = config.to_dict()
    for name in ("num_hidden_layers", "hidden_size", "patch_size"):
        if not isinstance(names.get(name), (int, list, tuple)):
            raise ModelError(f"transformer: {kind} is no vision transformer: it has no {name}.")
    if getattr(config, "mask_ratio", None) is not None:
        raise ModelError(
            f"transformer: {kind} hides and shuffles patches at random, so its features have no "
            "place in the picture; load the same weights as model_type vit."
        )
    return config


def fields_of(config: Any) -> dict[str, Any]:
    """All fields that determine a network, JSON-able: `describe` of them gives an equal one."""
    base = _import("PretrainedConfig")().to_dict().keys() - {"model_type"}
    values = config.to_dict().items()
    kept = {k: v for k, v in values if k not in base and k not in _IDLE and not k.startswith("_")}
    return json.loads(json.dumps({"model_type": config.model_type, **kept}))


def choose(
    backbone: str, fields: Mapping[str, Any] | None
) -> tuple[dict[str, Any], Preprocess, str | None]:
    """All fields, the preprocessing, and where the weights are (None: random ones).

    Args:
        backbone: "transformers:<folder or hub id>", or "transformers" with `fields`.
        fields: see `TransformerViT`.
    """
    if backbone.startswith(PREFIX):
        if fields:
            raise ModelError(
                f"{backbone} says all of the network: leave the argument transformer out."
            )
        name = backbone.removeprefix(PREFIX)
        return *read_pretrained(name), name
    if not fields:
        raise ModelError(
            f"backbone transformers: say which, as {PREFIX}facebook/dinov2-base, or describe it by "
            "the argument transformer, as {model_type: dinov2, hidden_size: 384}."
        )
    config = describe(fields)
    origin = {k: v for k, v in fields.items() if k == "_name_or_path"}
    return {**fields_of(config), **origin}, preprocessing(config, {}), None


def default_layer(fields: Mapping[str, Any]) -> str:
    """The layer at the depth of the paper's: 21 of 24 blocks."""
    return f"layer{max(1, fields['num_hidden_layers'] * 21 // 24) - 1}"


def read_pretrained(name: str) -> tuple[dict[str, Any], Preprocess]:
    """What a pretrained model is, without its weights: its fields and its preprocessing.

    Args:
        name: a local folder as transformers saves it, or a hub id (``owner/name``,
            ``owner/name@revision``), whose small JSON files are downloaded and cached.

    Raises:
        ModelError: there is no such model, or it is no vision transformer.
    """
    _import("AutoConfig")
    from transformers import AutoConfig
    from transformers.image_processing_base import ImageProcessingMixin

    place, revision = _place(name)
    with _reading(name), _quiet():
        config = AutoConfig.from_pretrained(place, **revision)
    config = getattr(config, "vision_config", config)
    fields = fields_of(config)
    config = describe(fields)  # refuses what is no vision transformer
    fields["_name_or_path"] = Path(place).name if Path(place).is_dir() else name
    try:
        with _quiet():
            processor, _ = ImageProcessingMixin.get_image_processor_dict(place, **revision)
    except OSError as error:
        if Path(place, "preprocessor_config.json").exists():
            raise ModelError(
                f"{place}: preprocessor_config.json cannot be read; mend it, or delete it for the "
                "usual values of this family."
            ) from error
        processor = {}  # the model comes without one
    return fields, preprocessing(config, processor)


def preprocessing(config: Any, processor: Mapping[str, Any]) -> Preprocess:
    """A model's own mean, std, filter and input size (its crop's, if it crops).

    The size is rounded down to a multiple of the patch: a transformer drops what is beyond, and the
    mask would be stretched by as much.

    Args:
        config: see `describe`.
        processor: what ``preprocessor_config.json`` says; {} if there is none.
    """
    mean, std = _NORMALISATION.get(config.model_type, _IMAGENET)
    crops = processor.get("do_center_crop") and processor.get("crop_size")
    size = _side(crops) or _side(processor.get("size")) or native_size(config)
    patch = patch_size(config)
    return Preprocess(
        size=max(patch, size - size % patch),
        mean=processor.get("image_mean") or mean,
        std=processor.get("image_std") or std,
        interpolation="bicubic" if processor.get("resample", 2) == 3 else "bilinear",
    )


def patch_size(config: Any) -> int:
    """Side of a patch in pixels; a ModelError if patches are not square."""
    patch = config.patch_size
    sides = patch if isinstance(patch, (list, tuple)) else [patch]
    if len({*sides}) != 1 or not isinstance(sides[0], int) or sides[0] < 1:
        raise ModelError(f"transformer: patches of {patch!r} pixels are not squares.")
    return sides[0]


def native_size(config: Any) -> int:
    """Side in pixels of the pictures that the position embeddings were learned on."""
    size = getattr(config, "image_size", None)
    if size is None:  # SigLIP 2 counts patches instead
        return int(getattr(config, "num_patches", 196) ** 0.5) * patch_size(config)
    return size[0] if isinstance(size, (list, tuple)) else size


def random_model(config: Any) -> nn.Module:
    """The network with random weights."""
    from_config: Any = _import("AutoModel").from_config
    try:
        return from_config(config)
    except ValueError as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ModelError(
            f"transformer: no {config.model_type} can be built from these fields ({reason})."
        ) from error


def pretrained_model(config: Any, name: str) -> tuple[nn.Module, set[str]]:
    """The network with the weights of a folder or hub id, in float32, and what they lack.

    Only safetensors are read, and of them no block beyond the configuration's.
    """
    place, revision = _place(name)
    with torch.device("meta"):
        kind: Any = type(random_model(config))
    with _reading(name), _quiet():
        model, report = kind.from_pretrained(
            place,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **revision,
        )
    return model, set(report["missing_keys"])


def _side(size: Any) -> int | None:
    """A side in pixels, however a preprocessor spells it."""
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    return size if isinstance(size, int) and size > 0 else None


def _place(name: str) -> tuple[str, dict[str, str]]:
    """Folder or hub id, and the revision that is asked for."""
    if Path(name).is_dir():
        return name, {}
    place, at, revision = name.partition("@")
    if place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise ModelError(f"{name}: no such folder, and no hub id such as facebook/dinov2-base.")
    return place, {"revision": revision} if at else {}


def _import(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ModelError(
            f"this backbone needs transformers: pip install 'forgemap[clip]' ({error})."
        ) from error
    return getattr(transformers, name)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Whatever goes wrong with a model's files becomes one sentence."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # offline, unknown, gated, corrupt: many classes, one remedy
        reason = " ".join(str(error).split("\n")[0].split()).rstrip(".")
        raise ModelError(
            f"{name}: cannot be read; give a folder that transformers saved with its safetensors, "
            f"or a model of the Hugging Face hub that can be reached ({reason})."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers would report all that is left out, and draw bars; but the cut is meant."""
    from transformers import utils

    logging: Any = utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
