"""autoencoder.py: image autoencoders of latent diffusion: picture -> latents -> picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from forgemap.errors import ModelError
from forgemap.models.generators import UPSAMPLING, bundled_generator, is_generator, load_generator
from forgemap.synth.taef2 import taef2_decoder, taef2_encoder

TAEF2_FILES = ("taef2_encoder.pth", "taef2_decoder.pth")
TILE, OVERLAP = 112, 24  # in latent cells; larger pictures go through in tiles: bounded memory


class Autoencoder:
    """An encoder and a decoder whose latents are `stride` times smaller a side than the picture.

    Args:
        encoder: images (B, 3, H, W) in [0, 1], H and W multiples of the stride -> latents
            (B, C, H / stride, W / stride).
        decoder: latents -> images, clamped here to [0, 1].
        name: what it was loaded from.
        weights: the decoder's, which `shaken` shakes.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor],
        decoder: Callable[[Tensor], Tensor],
        name: str,
        weights: Iterable[Tensor] = (),
    ) -> None:
        self._encoder, self._decoder, self.name = encoder, decoder, name
        self._weights = list(weights)
        with torch.inference_mode():
            self.stride = 64 // encoder(torch.zeros(1, 3, 64, 64)).shape[-1]

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> latents (B, C, ceil(H / stride), ceil(W / stride)).

        Other sizes than multiples of the stride are padded below and right by reflection.
        """
        below, right = (-side % self.stride for side in images.shape[-2:])
        if below or right:
            reflect = below < images.shape[-2] and right < images.shape[-1]
            images = F.pad(images, (0, right, 0, below), "reflect" if reflect else "replicate")
        return self._encoder(images)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) -> images (B, 3, stride h, stride w) in [0, 1]."""
        return self._decoder(latents).clamp(0, 1)

    @contextmanager
    def shaken(self, share: float, rng: np.random.Generator) -> Iterator[None]:
        """While it is open the decoder is a neighbour of itself, with traces of its own: each
        convolution has white noise on its weights, of ``share`` of their spread."""
        convolutions = [w for w in self._weights if w.ndim == 4]
        kept = [weight.detach().clone() for weight in convolutions]
        try:
            with torch.no_grad():
                for weight in convolutions:
                    noise = torch.from_numpy(rng.standard_normal(weight.shape, dtype=np.float32))
                    weight += share * weight.std() * noise
            yield
        finally:
            with torch.no_grad():
                for weight, before in zip(convolutions, kept, strict=True):
                    weight.copy_(before)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> latents (C, ceil(H / stride), ceil(W / stride)) float32."""
        s = self.stride

        def run(y: slice, x: slice) -> np.ndarray:
            part = pixels[y.start * s : y.stop * s, x.start * s : x.stop * s]
            images = torch.from_numpy(np.moveaxis(part, -1, 0).astype(np.float32) / 255)
            return np.asarray(self.encode(images[None])[0].numpy())

        rows, columns = (-(-side // s) for side in pixels.shape[:2])
        return tiled(run, rows, columns, 1)

    def decode_pixels(self, latents: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Latents (C, h, w) -> (H, W, 3) uint8, cropped to `shape` (H, W)."""

        def run(y: slice, x: slice) -> np.ndarray:
            part = torch.from_numpy(np.ascontiguousarray(latents[:, y, x]))
            return np.asarray(self.decode(part[None])[0].numpy())

        images = tiled(run, latents.shape[1], latents.shape[2], self.stride)
        cropped = np.moveaxis(images[:, : shape[0], : shape[1]], 0, -1)
        return np.ascontiguousarray(np.rint(cropped * 255).astype(np.uint8))

    def reconstruct(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> its reconstruction, the same shape and type."""
        return self.decode_pixels(self.encode_pixels(pixels), pixels.shape[:2])


def tiled(
    run: Callable[[slice, slice], np.ndarray], rows: int, columns: int, scale: int
) -> np.ndarray:
    """What `run` makes of each tile of a latent grid, blended linearly where tiles overlap.

    Args:
        run: rows and columns of latent cells -> (C, scale * rows, scale * columns).
    """
    if max(rows, columns) <= TILE:
        return run(slice(0, rows), slice(0, columns))
    total = weight = np.zeros(0, np.float32)
    for (y, wy), (x, wx) in product(_spans(rows, scale), _spans(columns, scale)):
        tile = run(y, x)
        if not total.size:
            total = np.zeros((len(tile), rows * scale, columns * scale), np.float32)
            weight = np.zeros(total.shape[1:], np.float32)
        here = slice(y.start * scale, y.stop * scale), slice(x.start * scale, x.stop * scale)
        total[:, here[0], here[1]] += tile * (wy[:, None] * wx)
        weight[here] += wy[:, None] * wx
    total /= weight
    return total


def _spans(cells: int, scale: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Overlapping spans that cover [0, cells), with the weight of each position in the blend.

    In an overlap the third next to the cut, where the tile sees padding, has no weight; over the
    middle third one tile gives way to the other.
    """
    for start in range(0, max(1, cells - OVERLAP), TILE - OVERLAP):
        stop = min(start + TILE, cells)
        position = (np.arange((stop - start) * scale, dtype=np.float32) + 0.5) / (OVERLAP * scale)
        ramp = (3 * position - 1).clip(0, 1)
        weights = np.ones_like(ramp)
        if start > 0:
            weights = np.minimum(weights, ramp)
        if stop < cells:
            weights = np.minimum(weights, ramp[::-1])
        yield slice(start, stop), weights


def load_autoencoder(source: str | Path) -> Autoencoder:
    """The autoencoder of a name, in a folder, or at a hub id.

    Args:
        source: the name of one that ships (UPSAMPLING), a folder written by `forgemap train
            autoencoder`, a folder with taef2_encoder.pth and taef2_decoder.pth, a folder saved by
            diffusers (AutoencoderKL or AutoencoderTiny), or the hub id ("owner/name") of such a
            model.

    Raises:
        ModelError: no such folder, weights that do not fit, or diffusers missing.
    """
    folder = Path(source)
    if str(source) in UPSAMPLING:
        return _load_own(bundled_generator(str(source)), str(source))
    if is_generator(folder):
        return _load_own(folder, str(folder))
    if all((folder / name).is_file() for name in TAEF2_FILES):
        return _load_taef2(folder)
    hub_id = not folder.exists() and str(source).count("/") == 1
    if hub_id or (folder / "config.json").is_file():
        return _load_diffusers(str(source))
    raise ModelError(
        f"No autoencoder at {source}: give {', '.join(UPSAMPLING)}, a folder that holds "
        f"{' and '.join(TAEF2_FILES)}, a folder saved by forgemap or diffusers, or a hub id such "
        "as owner/name."
    )


def _load_own(folder: Path, name: str) -> Autoencoder:
    network: Any = load_generator(folder)
    if network.config["architecture"] not in UPSAMPLING:
        raise ModelError(f"{folder} holds an inpainting network, not an autoencoder.")
    return Autoencoder(network.encode, network.decode, name, network.decoder.parameters())


def _load_taef2(folder: Path) -> Autoencoder:
    networks = []
    for name, build in zip(TAEF2_FILES, (taef2_encoder, taef2_decoder), strict=True):
        file = folder / name
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception:  # torch raises nearly every class there is, with advice to trust the file
            raise ModelError(f"{file} is damaged or is no file of plain weights.") from None
        try:
            # Sizes from the tensors: (width, 3, ...) ... (latents, width, ...), or the reverse.
            width, latents = (
                (len(state["0.weight"]), len(state["14.weight"]))
                if build is taef2_encoder
                else state["1.weight"].shape[:2]
            )
            network = build(width, latents)
            network.load_state_dict(state, strict=True)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"{file} does not hold TAEF2's weights: {reason}") from None
        network.float().eval()
        for parameter in network.parameters():
            if parameter.ndim == 4:  # faster on a CPU
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        networks.append(network)
    return Autoencoder(networks[0], networks[1], str(folder), networks[1].parameters())


def _load_diffusers(source: str) -> Autoencoder:
    try:
        import diffusers
    except ImportError:
        raise ModelError(
            f"The autoencoder {source} needs diffusers: pip install 'forgemap[diffusers]'."
        ) from None
    try:
        config = Path(source) / "config.json"
        if config.is_file():
            kind = json.loads(config.read_text())["_class_name"]
        else:
            kind = diffusers.AutoencoderKL.load_config(source)["_class_name"]
        if kind not in ("AutoencoderKL", "AutoencoderTiny"):
            raise ModelError(f"{source} holds {kind}: use an AutoencoderKL or AutoencoderTiny.")
        model = getattr(diffusers, kind).from_pretrained(source).float().eval()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"The autoencoder {source} cannot be loaded: {error}") from None

    def encode(images: Tensor) -> Tensor:
        encoded = model.encode(images * 2 - 1)
        # The mean of the distribution, not a sample: the same picture gives the same latents.
        latents: Tensor = encoded.latent_dist.mean if kind == "AutoencoderKL" else encoded.latents
        return latents

    def decode(latents: Tensor) -> Tensor:
        images: Tensor = model.decode(latents).sample / 2 + 0.5
        return images

    return Autoencoder(encode, decode, source, model.decoder.parameters())
