"""spellings.py: how published files name, stack and size the tensors of each part of DeCLIP.

Our side asks: each tensor of our network knows its name in the file. So what the file holds beyond
that was asked for by nobody, and is either known to be of no use here or an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .decoders import DECODERS
from .strict import describe_shapes, raise_misfits

State = dict[str, Tensor]


class Spelling(NamedTuple):
    """The names of one kind of file; all patterns are regular expressions."""

    part: str  # of our network
    sign: str  # starts the names of some tensors of this part, and of no other
    names: tuple[tuple[str, str], ...]  # from our names to the file's, one substitution each
    block: str = "$^"  # starts the names of a numbered block's tensors; later ones are dead
    dead: str = "$^"  # the names of all others that are of no use here


TEXT_TOWER = (
    r"transformer\..*|token_embedding\.weight|positional_embedding|ln_final\..*|text_projection"
    r"|logit_scale|input_resolution|context_length|vocab_size"
)
#: A transformer block as OpenAI's CLIP names it; one in_proj matrix holds q, k and v.
OPENAI_BLOCK = (
    (r"(self_)?attn", "attn"),
    (r"[qkv]_proj\.", "in_proj_"),
    (r"(layer_)?norm(\d)", r"ln_\2"),
    (r"(mlp\.fc|linear)1", "mlp.c_fc"),
    (r"(mlp\.fc|linear)2", "mlp.c_proj"),
)
SPELLINGS = (
    Spelling(  # OpenAI's ViT
        part="vit",
        sign=r"visual\.transformer\.",
        names=(
            (r"^model\.", "visual."),
            (r"embeddings\.class_embedding", "class_embedding"),
            (r"embeddings\.patch_embedding", "conv1"),
            (r"embeddings\.position_embedding\.weight", "positional_embedding"),
            (r"pre_layrnorm", "ln_pre"),
            (r"encoder\.layers", "transformer.resblocks"),
            *OPENAI_BLOCK,
        ),
        block=r"visual\.transformer\.resblocks\.(\d+)\.",
        dead=rf"visual\.(proj|ln_post\..*)|{TEXT_TOWER}",
    ),
    Spelling(  # the same in transformers
        part="vit",
        sign=r"encoder\.layers\.",
        names=((r"^model\.", ""),),
        block=r"encoder\.layers\.(\d+)\.",
        dead=r"post_layernorm\..*|embeddings\.position_ids|visual_projection\..*|text_.*|logit_scale",
    ),
    Spelling(  # OpenAI's ResNet
        part="rn50",
        sign=r"visual\.layer1\.",
        names=((r"^(stages\.)?", "visual."),),
        block=r"visual\.layer(\d)\.",
        dead=rf"visual\.attnpool\..*|{TEXT_TOWER}",
    ),
    Spelling(
        part="xception",
        sign=r"block1\.",
        names=((r"^blocks\.", ""),),
        block=r"block(\d+)\.",
        dead=r"(conv|bn)[34]\..*|last_linear\..*",
    ),
)


class Part:
    """The tensors in a file that make one part of our network."""

    def __init__(self, state: State, source: str) -> None:
        self.state = state
        self.source = source

    def name(self, ours: str) -> str:
        """The file's name of one of our tensors: "visual.ln_pre.bias" of "pre_layrnorm.bias"."""
        raise NotImplementedError

    def is_dead(self, theirs: str, layer: int) -> bool:
        """Is this tensor known to be of no use, as the features are taken at `layer`?"""
        return False

    def fill(self, module: nn.Module, layer: int = 0) -> None:
        """Copy the tensors into `module`; one that does not fit is a ModelError that names it."""
        values, missing, misshaped, used = {}, set(), set(), set()
        for ours, value in module.state_dict().items():
            theirs, shape = self.name(ours), value.shape
            used.add(theirs)
            if theirs not in self.state:
                missing.add(theirs)
                continue
            tensor = self.state[theirs]
            stacked = re.search(r"([qkv])_proj\.", ours) if "in_proj_" in theirs else None
            if stacked:
                shape = torch.Size((3 * shape[0], *shape[1:]))
            if tensor.shape != shape:
                misshaped.add(describe_shapes(theirs, tensor.shape, shape))
                continue
            values[ours] = tensor.chunk(3)["qkv".index(stacked[1])] if stacked else tensor
        unexpected = {t for t in self.state if t not in used and not self.is_dead(t, layer)}
        raise_misfits(self.source, missing, unexpected, misshaped)
        module.load_state_dict(values)

    def shape(self, ours: str) -> torch.Size:
        """The shape of one of our tensors."""
        if self.name(ours) not in self.state:
            raise_misfits(self.source, missing=[self.name(ours)])
        return self.state[self.name(ours)].shape

    def matches(self, pattern: str) -> list[re.Match[str]]:
        """Of all names in the file that start like `pattern`."""
        return [match for name in self.state if (match := re.match(pattern, name))]


class Tower(Part):
    """A backbone's tensors, in any of the spellings."""

    def __init__(self, state: State, source: str) -> None:
        # Before these names, a whole network puts "model.", and transformers "vision_model.".
        bare = {re.sub(r"^(vision_)?model\.", "", name): t for name, t in state.items()}
        super().__init__(bare, source)
        known = [spelling for spelling in SPELLINGS if self.matches(spelling.sign)]
        if not known:
            some = ", ".join(sorted(state)[:3])
            raise ModelError(f"{source}: holds no backbone that Forgemap knows, but {some} …")
        self.spelling = known[0]
        self.kind = known[0].part

    def name(self, ours: str) -> str:
        for pattern, replacement in self.spelling.names:
            ours = re.sub(pattern, replacement, ours)
        return ours

    def is_dead(self, theirs: str, layer: int) -> bool:
        block = re.match(self.spelling.block, theirs)
        later = block is not None and int(block[1]) > layer
        return later or re.fullmatch(self.spelling.dead, theirs) is not None

    def arguments(self) -> dict[str, Any]:
        """Those of `declip` that make this backbone, save the heads, which no tensor tells."""
        if self.kind == "vit":
            width, *_, patch = self.shape("model.embeddings.patch_embedding.weight")
            positions = self.shape("model.embeddings.position_embedding.weight")[0] - 1
            blocks = {int(match[1]) for match in self.matches(self.spelling.block)}
            sizes = {"width": width, "layers": 1 + max(blocks, default=-1), "patch": patch}
            return {**sizes, "image_size": patch * math.isqrt(positions)}
        if self.kind == "rn50":
            layers = [0, 0, 0, 0]
            for match in self.matches(r"visual\.layer([1-4])\.(\d+)\."):
                stage = int(match[1]) - 1
                layers[stage] = max(layers[stage], 1 + int(match[2]))
            return {"rn50_width": self.shape("layer1.0.conv1.weight")[0], "rn50_layers": layers}
        numbers = sorted({int(match[1]) for match in self.matches(r"block([1-3])\.")})
        names = ["conv1.weight", "conv2.weight", *(f"block{n}.skip.weight" for n in numbers)]
        return {"xception_channels": [self.shape(name)[0] for name in names]}


class Decoder(Part):
    """A decoder's tensors: one flat Sequential "fc", before it perhaps "att1" and "att2"."""

    def __init__(self, state: State, source: str) -> None:
        super().__init__(state, source)
        weights = {int(match[1]) for match in self.matches(r"fc\.(\d+)\.(weight|bias)$")}
        norms = {int(match[1]) for match in self.matches(r"fc\.(\d+)\.(running_|num_batches)")}
        if not weights - norms:
            raise ModelError(f"{source}: not a DeCLIP checkpoint, it holds no decoder (fc.0. …).")
        # The index in "fc" of each convolution, the last one (or the one linear map) apart.
        *self.convolutions, self.head = sorted(weights - norms)
        self.depth = max(1, len(self.convolutions) // 4)
        self.starts = self.convolutions[:: self.depth]

    def name(self, ours: str) -> str:
        if stage := re.match(r"stages\.(\d+)\.(\d+)", ours):
            return f"fc.{self.starts[int(stage[1])] + int(stage[2])}{ours[stage.end() :]}"
        head = (r"^(head|linear)\.", f"fc.{self.head}.")
        for pattern, replacement in (head, (r"^blocks\.0", "att1"), (r"^blocks\.1", "att2")):
            ours = re.sub(pattern, replacement, ours)
        for pattern, replacement in OPENAI_BLOCK:
            ours = re.sub(pattern, replacement, ours)
        return ours

    def inputs(self) -> int:
        """The channels that it takes."""
        return self.shape("stages.0.0.weight" if self.convolutions else "head.weight")[1]

    def arguments(self, facts: Mapping[str, Any], heads: int | None) -> dict[str, Any]:
        """Those of `declip` that make this decoder; `heads` are the ViT's."""
        found: dict[str, Any]
        if self.matches(r"att\d\."):
            # The published decoder hides from a token those that follow.
            found = {"decoder": "attention", "causal": True, "decoder_heads": heads}
        elif not self.convolutions:
            found = {"decoder": "linear"}
        else:
            ends = self.convolutions[self.depth - 1 :: self.depth]
            follow = [*self.starts[1:], self.head]
            # After a stage's last convolution: its BatchNorm, its ReLU, perhaps an upsampling.
            upsampled = [after - end > 3 for end, after in zip(ends, follow, strict=False)]
            if upsampled != sorted(upsampled):
                raise ModelError(f"{self.source}: only a decoder's first stages may not upsample.")
            found = {
                "decoder": f"conv-{len(self.convolutions)}",
                "channels": [self.shape(f"stages.{n}.0.bias")[0] for n in range(len(self.starts))],
                "skip_upsampling": upsampled.count(False),
            }
        stated = facts.get("decoder_type") or found["decoder"]
        if found["decoder"] not in DECODERS or found["decoder"] != stated:
            raise ModelError(
                f"{self.source}: the tensors are a {found['decoder']} decoder's, not {stated}'s."
            )
        return found
