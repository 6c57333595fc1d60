"""fronts.py: how a model is cut for an export: fixed layers in torch, learned layers in the graph.

Most models are exported whole. TraceNet's residuals and JPEG-grid maps stay in torch: they are
fixed, must never lose precision, and the grid's choice of an origin is a maximum among near ties,
which another library's rounding would decide otherwise (probabilities then differ by up to 0.05).
So do those of an embedder whose stem is TraceNet's encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.embedder import NATIVE_SCALE, Embedder
from ..models.grid import GridTraces
from ..models.output import LocalizerOutput
from ..models.stems import Spectra, TraceStem
from ..models.tracenet import Residuals, TraceNet

Arrays = list[np.ndarray]


class Front(Protocol):
    """What happens in torch before and after the exported graph."""

    @property
    def inputs(self) -> Sequence[str]:
        """Names of the graph's inputs."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the graph's outputs."""

    @property
    def free(self) -> Sequence[int]:
        """Dimensions of the inputs besides the batch that may have any size."""

    def before(self, images: Tensor) -> list[Tensor]: ...

    def after(self, outputs: Arrays, images: Tensor) -> Any: ...


class Whole:
    """A localizer of a fixed input size: the graph is the model."""

    inputs = ("images",)
    free: Sequence[int] = ()

    def __init__(self, evidence: bool) -> None:
        self.outputs = ("mask", "evidence") if evidence else ("mask",)

    def before(self, images: Tensor) -> list[Tensor]:
        return [images]

    def after(self, outputs: Arrays, images: Tensor) -> LocalizerOutput:
        mask, *evidence = (torch.from_numpy(array) for array in outputs)
        return LocalizerOutput(mask, evidence[0] if evidence else None)


class Embeddings:
    """An embedder: the graph is the model, its answer one tensor."""

    inputs, outputs = ("images",), ("embeddings",)
    free: Sequence[int] = ()

    def before(self, images: Tensor) -> list[Tensor]:
        return [images]

    def after(self, outputs: Arrays, images: Tensor) -> Tensor:
        return torch.from_numpy(outputs[0])


class Traces:
    """TraceNet: the graph begins where the learned layers do."""

    inputs, outputs = ("planes", "grid"), ("mask", "evidence")
    free = (2, 3)

    def __init__(self, colours: bool) -> None:
        self.residuals, self.grid = Residuals(), GridTraces(colours)

    def before(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> (B, 12, H', W'), even, and (B, 14 or 15, ceil(H' / 8), ceil(W' / 8))."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % 2, 0, -height % 2), mode="replicate")
        return [torch.cat([images, self.residuals(images)], dim=1), self.grid(images)]

    def after(self, outputs: Arrays, images: Tensor) -> LocalizerOutput:
        mask, evidence = (torch.from_numpy(array) for array in outputs)
        return LocalizerOutput(mask[..., : images.shape[-2], : images.shape[-1]], evidence)


class TraceEmbeddings(Traces):
    """An embedder on traces: the graph begins where the stem's learned layers do.

    Args:
        spectra: whether there is one on spectra beside it; they are the graph's third input.
    """

    outputs = ("embeddings",)  # type: ignore[assignment]
    free = ()  # type: ignore[assignment]

    def __init__(self, spectra: bool) -> None:
        super().__init__(colours=True)
        self.spectra = Spectra() if spectra else None
        if spectra:
            self.inputs = ("planes", "grid", "spectra")  # type: ignore[assignment]

    def before(self, images: Tensor) -> list[Tensor]:
        """As `Traces.before`, and (B, h, w, 1632) where there are spectra."""
        return super().before(images) + (
            [self.spectra(images * NATIVE_SCALE)] if self.spectra else []
        )

    def after(self, outputs: Arrays, images: Tensor) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(outputs[0])


class TraceEmbeddingsCore(nn.Module):
    """The learned layers of such an embedder, of inputs as `TraceEmbeddings.before` makes them."""

    def __init__(self, model: Embedder, stem: TraceStem) -> None:
        super().__init__()
        self.model, self.stem = model, stem

    def forward(self, planes: Tensor, grid: Tensor, spectra: Tensor | None = None) -> Tensor:
        vectors = self.model.of_tokens(*self.stem.learned(planes, grid))
        beside = self.model.spectra
        if beside is None:
            return vectors
        return torch.cat([vectors, beside.of_tokens(beside.patches.learned(spectra))], dim=1)  # type: ignore[operator]


class TraceCore(nn.Module):
    """TraceNet's learned layers, of inputs as `Traces.before` makes them.

    The same as `TraceNet.forward`, with sizes that a symbolic export can follow.
    """

    def __init__(self, model: TraceNet) -> None:
        super().__init__()
        self.net = model

    def forward(self, planes: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        net = self.net
        x1 = net.down1(F.avg_pool2d(net.stem(planes).abs(), 2))
        x2 = net.down2(x1)
        x3 = net.in3(x2)
        x3 = net.down3(x3 + cropped(net.grid_in(grid), x3))
        x4 = net.down4(x3)
        y = net.up3(upsample(net.lateral4(x4), x3) + net.lateral3(x3))
        y = net.up2(upsample(y, x2) + net.lateral2(x2))
        y = net.up1(upsample(y, x1) + net.lateral1(x1))
        return upsample(net.mask_head(y), planes), net.evidence_head(x4)


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """`tracenet.upsample`, cropped by places."""
    x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    return cropped(x, like)


def cropped(x: Tensor, like: Tensor) -> Tensor:
    """The top left part of x that has the height and width of `like`.

    By places instead of a slice: the size is then `like`'s own symbol, where nested minima of
    sizes made the export take minutes.
    """
    rows, columns = (torch.arange(size, device=x.device) for size in like.shape[-2:])
    return x.index_select(2, rows).index_select(3, columns)


class Cut(NamedTuple):
    """A model as it is exported."""

    front: Front
    #: From the front's `before` to its `after`; its outputs are tensors.
    core: nn.Module


class _MaskAlone(nn.Module):
    """A localizer without an evidence head: a graph cannot answer None."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        mask: Tensor = self.model(images).mask
        return mask


def cut(model: nn.Module) -> Cut:
    """How a torch model of `forgemap.models`, in eval mode, is exported."""
    front = front_of(traits_of(model))
    if isinstance(front, TraceEmbeddings):
        assert isinstance(model, Embedder) and isinstance(model.patches, TraceStem)
        return Cut(front, TraceEmbeddingsCore(model, model.patches))
    if isinstance(front, Traces):
        assert isinstance(model, TraceNet)
        return Cut(front, TraceCore(model))
    if isinstance(front, Whole) and len(front.outputs) == 1:
        return Cut(front, _MaskAlone(model))
    return Cut(front, model)


def traits_of(model: Any) -> dict[str, Any]:
    """What an export remembers of the model that it stands in for; JSON-able."""
    traits = {
        "architecture": model.config["architecture"],
        "native": model.native,
        "evidence": model.config.get("decoder") == "gradcam" or isinstance(model, TraceNet),
    }
    for name in ("stride", "reach", "width", "image_size"):
        if isinstance(getattr(model, name, None), int):
            traits[name] = getattr(model, name)
    for name in ("stem", "colours"):
        if name in model.config:
            traits[name] = model.config[name]
    if hasattr(model, "fingerprint"):
        traits["fingerprint"] = model.fingerprint()
    return traits


def front_of(traits: Any) -> Front:
    """The front of an export that was made of a model with these traits."""
    if traits["architecture"] == "tracenet":
        return Traces(bool(traits.get("colours")))  # unnamed by exports from before there were any
    if traits["architecture"] == "embedder":
        # Exports made before there was such a stem do not name theirs.
        stem = traits.get("stem")
        return TraceEmbeddings(stem == "both") if stem in ("traces", "both") else Embeddings()
    return Whole(bool(traits["evidence"]))
