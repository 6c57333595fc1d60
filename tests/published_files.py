"""Files of the published structure with random weights a hundredth as wide, and a server for them.

Names, nesting and indices are those of DeCLIP's checkpoints and of OpenAI's CLIP; only widths
differ. The ViT has 64 channels and so one head, as CLIP's rule (width / 64) says.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
VIT_WIDTH, RN50_WIDTH = 64, 4


def vit_tensors(width: int = VIT_WIDTH, blocks: int = 22) -> State:
    """OpenAI's ViT with its text tower (patch 14, input 224)."""
    state: State = {
        "visual.conv1.weight": torch.randn(width, 3, 14, 14) * 0.02,
        "visual.class_embedding": torch.randn(width),
        "visual.positional_embedding": torch.randn(257, width),
        "visual.proj": torch.randn(width, 8),
        **norm("visual.ln_pre", width),
        **norm("visual.ln_post", width),
    }
    for number in range(blocks):
        state |= block(f"visual.transformer.resblocks.{number}", width)
    return state | text_tower()


def rn50_tensors(width: int = RN50_WIDTH, depths: tuple[int, ...] = (3, 4, 6, 3)) -> State:
    """OpenAI's modified ResNet-50 with its text tower."""
    state: State = {}

    def convolution(name: str, inputs: int, outputs: int, side: int, bn: str) -> None:
        state[f"visual.{name}.weight"] = torch.randn(outputs, inputs, side, side) * 0.2
        state.update(batch_norm(f"visual.{bn}", outputs))

    convolution("conv1", 3, width // 2, 3, "bn1")
    convolution("conv2", width // 2, width // 2, 3, "bn2")
    convolution("conv3", width // 2, width, 3, "bn3")
    channels = width
    for stage, depth in enumerate(depths):
        planes = width * 2**stage
        for number in range(depth):
            name = f"layer{stage + 1}.{number}"
            convolution(f"{name}.conv1", channels, planes, 1, f"{name}.bn1")
            convolution(f"{name}.conv2", planes, planes, 3, f"{name}.bn2")
            convolution(f"{name}.conv3", planes, 4 * planes, 1, f"{name}.bn3")
            if number == 0:
                convolution(f"{name}.downsample.0", channels, 4 * planes, 1, f"{name}.downsample.1")
            channels = 4 * planes
    state["visual.attnpool.positional_embedding"] = torch.randn(50, channels)
    return state | text_tower()


def decoder_tensors(inputs: int, *, fusion: bool, width: int = 4) -> State:
    """conv-20: four stages of five (convolution, BatchNorm, ReLU) and an upsampling."""
    state: State = {}
    index = 0
    for _ in range(4):
        for _ in range(5):
            state[f"fc.{index}.weight"] = torch.randn(width, inputs, 5, 5) * 0.1
            state[f"fc.{index}.bias"] = torch.randn(width) * 0.1
            state |= batch_norm(f"fc.{index + 1}", width)
            index, inputs = index + 3, width
        index += 1
    index += fusion  # the resize to 256 x 256
    state[f"fc.{index}.weight"] = torch.randn(1, width, 5, 5)
    state[f"fc.{index}.bias"] = torch.randn(1)
    return state


def checkpoint(state: State, layer: str = "layer20") -> dict[str, Any]:
    """What DeCLIP's training saves."""
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}
    facts = {"total_steps": 7, "feature_layer": layer, "decoder_type": "conv-20"}
    return {"model": state, "optimizer": optimizer, **facts}


def norm(name: str, width: int) -> State:
    return {f"{name}.weight": 1 + 0.1 * torch.randn(width), f"{name}.bias": torch.randn(width)}


def batch_norm(name: str, width: int) -> State:
    statistics = {
        f"{name}.running_mean": 0.1 * torch.randn(width),
        f"{name}.running_var": 0.5 + torch.rand(width),
        f"{name}.num_batches_tracked": torch.tensor(9),
    }
    return norm(name, width) | statistics


def block(name: str, width: int) -> State:
    shapes = {
        "attn.in_proj": (3 * width, width),
        "attn.out_proj": (width, width),
        "mlp.c_fc": (4 * width, width),
        "mlp.c_proj": (width, 4 * width),
    }
    state = {**norm(f"{name}.ln_1", width), **norm(f"{name}.ln_2", width)}
    for part, shape in shapes.items():
        dot = "_" if part.endswith("in_proj") else "."
        state[f"{name}.{part}{dot}weight"] = torch.randn(shape) * 0.1
        state[f"{name}.{part}{dot}bias"] = torch.randn(shape[0]) * 0.1
    return state


def text_tower() -> State:
    return {
        **block("transformer.resblocks.0", 8),
        "token_embedding.weight": torch.zeros(9, 8),
        "positional_embedding": torch.zeros(5, 8),
        **norm("ln_final", 8),
        "text_projection": torch.zeros(8, 4),
        "logit_scale": torch.tensor(1.0),
        "input_resolution": torch.tensor(224),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(9),
    }


class Node(nn.Module):
    """A module with any tensors; what it computes does not matter."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def save_torchscript(state: State, path: Path) -> None:
    """`state` as a TorchScript archive, a module for each part of a name, as OpenAI's CLIP is."""
    root = Node()
    for name, tensor in state.items():
        *parents, last = name.split(".")
        node: nn.Module = root
        for parent in parents:
            if not hasattr(node, parent):
                node.add_module(parent, Node())
            node = getattr(node, parent)
        if tensor.is_floating_point():
            node.register_parameter(last, nn.Parameter(tensor))
        else:
            node.register_buffer(last, tensor)
    torch.jit.save(torch.jit.script(root), path)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Server:
    """Serves a folder over HTTP on this machine, and misbehaves as told.

    `habits` maps a file's name to what is done instead of serving it well: a function of the
    handler and the body, called for each request until it returns False (serve it well).
    """

    folder: Path
    address: str = ""
    habits: dict[str, Callable[[Any, bytes], bool]] = field(default_factory=dict)
    #: Of each request: the file's name and the Range header ("" without).
    requests: list[tuple[str, str]] = field(default_factory=list)
    #: Addresses as they were asked for; whole ones if this server is used as a proxy.
    asked: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def ranges(self, name: str) -> list[str]:
        return [asked for file, asked in self.requests if file == name]


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server in a thread, on a free port."""
    state = Server(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = unquote(urlsplit(self.path).path.rsplit("/", 1)[1])
            wanted = self.headers.get("Range", "")
            state.requests.append((name, wanted))
            state.asked.append(self.path)
            path = state.folder / name
            body = path.read_bytes() if path.is_file() else b""
            habit = state.habits.get(name)
            if habit is not None and habit(self, body):
                return
            if not path.is_file():
                self.send_error(404)
                return
            tag = f'"{hashlib.md5(body).hexdigest()}"'
            start = 0
            if wanted and self.headers.get("If-Range", tag) == tag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            send(self, body, start=start, tag=tag, **state.headers)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(
    handler: Any,
    body: bytes,
    *,
    start: int = 0,
    tag: str = "",
    cut: int | None = None,
    kind: str = "application/octet-stream",
    length: int | None = None,
    **more: str,
) -> None:
    """Answer with `body` from byte `start` on; `cut`: close after so many bytes of it."""
    rest = body[start:]
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(rest) if length is None else length))
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    if tag:
        handler.send_header("ETag", tag)
    for name, value in more.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(rest[:cut])
    handler.wfile.flush()
    handler.close_connection = True
