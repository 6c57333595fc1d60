"""generators.py: the small networks that make pictures, shipped so that anyone has some offline."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from .build import build
from .checkpoint import CONFIG, WEIGHTS, write_folder
from .strict import load_strictly, read_safetensors

#: How a decoder doubles its resolution: this, more than anything, is a generator's fingerprint.
UPSAMPLING = ("nearest", "bilinear", "transposed", "shuffle")
INPAINTER = "inpaint"
STRIDE = 8  # pixels a side of one latent cell, and of the inpainter's coarsest cell


class Residual(nn.Module):
    """x plus two 3x3 convolutions of it; the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Double(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, 2 H, 2 W).

    Args:
        inputs, outputs: channels.
        kind: "nearest" or "bilinear": repeated or interpolated, then a 3x3 convolution;
            "transposed": a transposed 4x4 convolution of stride 2;
            "shuffle": a 3x3 convolution to 4 x outputs, four channels then become 2x2 pixels.
    """

    def __init__(self, inputs: int, outputs: int, kind: str) -> None:
        super().__init__()
        self.kind, self.outputs = kind, outputs
        self.conv: nn.Module = (
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
            if kind == "transposed"
            else _conv(inputs, 4 * outputs if kind == "shuffle" else outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "shuffle":
            return F.pixel_shuffle(self.conv(x), 2)
        if self.kind == "nearest":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif self.kind == "bilinear":
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.conv(x)


class PictureAutoencoder(nn.Module):
    """A picture as latents eight times smaller a side, and back.

    Args:
        upsampling: one of UPSAMPLING.
        latents: channels of the latents.
        width: channels at 1/8 of the resolution.
        widths: channels at 1/4, 1/2 and the full resolution.
        blocks: residual blocks of the encoder, and of the decoder at 1/8; one at each later stage.
    """

    def __init__(
        self,
        upsampling: str = "nearest",
        latents: int = 32,
        width: int = 80,
        widths: tuple[int, int, int] = (64, 32, 16),
        blocks: int = 2,
    ) -> None:
        super().__init__()
        if upsampling not in UPSAMPLING:
            raise ModelError(f"unknown upsampling {upsampling!r}; valid: {', '.join(UPSAMPLING)}.")
        self.config: dict[str, Any] = {
            "architecture": upsampling,
            "latents": latents,
            "width": width,
            "widths": list(widths),
            "blocks": blocks,
        }
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(STRIDE),
            nn.Conv2d(3 * STRIDE**2, width, 1),
            *(Residual(width) for _ in range(blocks)),
            nn.Conv2d(width, latents, 1),
        )
        stages: list[nn.Module] = [_conv(latents, width)]
        stages += [Residual(width) for _ in range(blocks)]
        for before, after in zip((width, *widths), widths, strict=False):
            stages += [Double(before, after, upsampling), Residual(after)]
        self.decoder = nn.Sequential(*stages, _conv(widths[-1], 3))

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1], sides multiples of 8 -> (B, latents, H / 8, W / 8)."""
        return self.encoder(images - 0.5)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> images (B, 3, H, W), not clamped."""
        return self.decoder(latents) + 0.5

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))


class Gated(nn.Module):
    """A convolution whose output is weighted by a second one (Yu et al., ICCV 2019)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, 2 * outputs, 3, stride=stride, padding=dilation, dilation=dilation
        )

    def forward(self, x: Tensor) -> Tensor:
        content, gate = self.conv(x).chunk(2, dim=1)
        return F.elu(content) * torch.sigmoid(gate)


class Filler(nn.Module):
    """Fills the masked region of a picture: a small U-Net of gated convolutions.

    It is given a smooth filling (see `smooth_fill`) and noise, and adds structure and grain.

    Args:
        width: channels at 1/2 of the resolution.
        deep: channels at 1/4.
        dilations: of the convolutions at 1/4, which look ever farther around.
    """

    def __init__(
        self, width: int = 32, deep: int = 64, dilations: tuple[int, ...] = (1, 2, 4, 8, 2, 1)
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "architecture": INPAINTER,
            "width": width,
            "deep": deep,
            "dilations": list(dilations),
        }
        self.first = Gated(5 * 4, width)
        self.down = Gated(width, deep, stride=2)
        self.body = nn.ModuleList(Gated(deep, deep, dilation=d) for d in dilations)
        self.up = Gated(deep, width)
        self.join = Gated(2 * width, width)
        self.last = _conv(width, 3 * 4)
        nn.init.zeros_(self.last.weight)

    def forward(self, filled: Tensor, masks: Tensor, noise: Tensor) -> Tensor:
        """The pictures with their regions filled; outside them they come back as they are.

        Args:
            filled: (B, 3, H, W) in [0, 1], sides multiples of 8; smoothly filled in the regions.
            masks: (B, 1, H, W), 1 in the regions.
            noise: (B, 1, H, W), standard normal; other noise, other grain.
        """
        seen = torch.cat([filled - 0.5, masks, noise * masks], dim=1)
        fine = self.first(F.pixel_unshuffle(seen, 2))
        x = self.down(fine)
        for layer in self.body:
            x = x + layer(x)
        x = self.up(F.interpolate(x, scale_factor=2, mode="nearest"))
        x = self.last(self.join(torch.cat([x, fine], dim=1)))
        return filled + masks * F.pixel_shuffle(x, 2)


def smooth_fill(images: Tensor, masks: Tensor) -> Tensor:
    """Regions filled with averages of what lies around them, coarser the farther inside.

    Args:
        images: (B, 3, H, W); what they hold in the regions is not looked at.
        masks: (B, 1, H, W), 1 in the regions.

    Returns:
        (B, 3, H, W), equal to `images` outside the regions; grey where there is no outside.
    """
    known = 1 - masks
    if known.amin() > 0:
        return images
    if max(images.shape[-2:]) == 1:
        return torch.where(known > 0, images, torch.full_like(images, 0.5))
    size = images.shape[-2:]
    odd = (0, size[1] % 2, 0, size[0] % 2)
    weights = F.avg_pool2d(F.pad(known, odd), 2)
    sums = F.avg_pool2d(F.pad(images * known, odd), 2)
    coarse = smooth_fill(sums / weights.clamp_min(1e-6), (weights == 0).to(images.dtype))
    fine = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.where(known > 0, images, fine[..., : size[0], : size[1]])


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


#: Every generator by name; a generator's config names one of them and its keyword arguments.
GENERATORS: dict[str, Callable[..., nn.Module]] = {
    **{kind: partial(PictureAutoencoder, kind) for kind in UPSAMPLING},
    INPAINTER: Filler,
}


def bundled_generator(name: str) -> Path:
    """The folder of a generator that ships with the package."""
    return Path(str(files("forgemap"))) / "weights" / "generators" / name


def is_generator(folder: Path) -> bool:
    """Whether a folder holds a generator that `forgemap train` wrote."""
    try:
        return "generator" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def save_generator(
    network: nn.Module, folder: str | Path, extra: Mapping[str, Any], card: str | None = None
) -> Path:
    """Write a generator as a folder that `load_generator` reads; half precision, half the size.

    Args:
        network: one of GENERATORS.
        folder: where to; an existing model folder is replaced.
        extra: more JSON-able entries of config.json, such as ``training``.
        card: the text of README.md; two lines if None.
    """
    described: Any = network
    tensors = {name: t.half() for name, t in network.state_dict().items()}
    if card is None:
        card = f"# {Path(folder).name}\n\nA generator of Forgemap, for `forgemap synth`.\n"
    return write_folder(folder, {"generator": described.config, **extra}, tensors, card)


def load_generator(folder: Path) -> nn.Module:
    """A generator from its folder (config.json, model.safetensors), in eval mode, float32.

    Raises:
        ModelError: a missing or damaged file, or weights that do not fit the config.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["generator"]
        network = build(config, GENERATORS)
    except FileNotFoundError:
        raise ModelError(f"{folder}: not a generator's folder, it has no {CONFIG}.") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: does not describe a generator ({error!r}).") from error
    tensors, _ = read_safetensors(folder / WEIGHTS)
    load_strictly(network, tensors, str(folder / WEIGHTS))
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
