"""literal_declip.py: DeCLIP's forward and training step, straight from the papers' structure.

What there is to be measured against: CLIP's whole tower in OpenAI's form (all blocks, sequence
first, float32, every block's output kept by a hook as in the published code), the convolutional
decoder as one `Sequential`, a loop that runs the frozen tower anew for every picture of every
epoch, and the step's localization metrics computed in the step, a sort for each.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.literal_metrics import with_torch


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """A residual block of CLIP: (tokens, B, width) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        named = [
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", QuickGELU()),
            ("c_proj", nn.Linear(4 * width, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict[str, nn.Module](named))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(x)


class Tower(nn.Module):
    """CLIP's image tower: images (B, 3, 224, 224) -> embeddings (B, 768)."""

    def __init__(self, width: int, blocks: int, heads: int, patch: int = 14) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        tokens = (224 // patch) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, blocks, heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, 768) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1)
        x = self.ln_pre(x + self.positional_embedding).permute(1, 0, 2)
        x = self.transformer(x).permute(1, 0, 2)
        return self.ln_post(x[:, 0]) @ self.proj


class LiteralDeclip(nn.Module):
    """images (B, 3, 224, 224) -> logits (B, 65536); the defaults are ViT-L/14, layer20, conv-20.

    Its tensors have the published names, so that `forgemap.models.published` reads them.
    """

    def __init__(
        self,
        width: int = 1024,
        blocks: int = 24,
        heads: int = 16,
        layer: int = 20,
        channels: tuple[int, ...] = (512, 256, 128, 64),
        depth: int = 5,
    ) -> None:
        super().__init__()
        self.sizes = {"layer": f"layer{layer}", "heads": heads, "depth": depth}
        self.model = nn.Module()
        self.model.visual = Tower(width, blocks, heads)
        self.layer = layer
        self.features: dict[int, Tensor] = {}
        for number, block in enumerate(self.model.visual.transformer.resblocks):
            block.register_forward_hook(self._keep(number))
        layers: list[nn.Module] = []
        inputs = width
        for outputs in channels:
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, outputs, 5, padding=2)]
                layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
        self.fc = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 5, padding=2))
        for module in self.fc:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        self.model.requires_grad_(False)

    def _keep(self, number: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            self.features[number] = output

        return hook

    def forward(self, images: Tensor) -> Tensor:
        self.model.visual(images)
        tokens = self.features[self.layer].permute(1, 0, 2)[:, 1:]
        side = int(tokens.shape[1] ** 0.5)
        grid = tokens.permute(0, 2, 1).view(len(images), -1, side, side)
        return self.fc(grid).flatten(1)

    def checkpoint(self) -> dict[str, Any]:
        """What the published code would save, sharing this network's tensors."""
        depth = self.sizes["depth"]
        return {
            "model": dict(self.state_dict()),
            "feature_layer": self.sizes["layer"],
            "decoder_type": f"conv-{4 * depth}",  # type: ignore[operator]
        }


class LiteralTraining:
    """The published step: forward, loss, backward, AdamW, and metrics of the batch."""

    def __init__(self, network: LiteralDeclip, lr: float = 1e-3) -> None:
        self.network = network.train()
        network.model.eval()
        self.optimizer = torch.optim.AdamW(network.fc.parameters(), lr=lr, weight_decay=0)
        self.loss = nn.BCEWithLogitsLoss()

    def step(self, images: Tensor, masks: Tensor) -> tuple[float, dict[str, float]]:
        """images (B, 3, 224, 224), masks (B, 65536) of 0 and 1 -> loss, mean metrics."""
        output = self.network(images)
        loss = self.loss(output, masks)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item(), self.metrics(output.detach(), masks)

    def metrics(self, output: Tensor, masks: Tensor) -> dict[str, float]:
        side = int(output.shape[1] ** 0.5)
        prob = output.sigmoid().view(-1, side, side).numpy()
        truth = masks.view(-1, side, side).byte().numpy()
        each = [with_torch(p, m) for p, m in zip(prob, truth, strict=True)]
        return {name: sum(one[name] for one in each) / len(each) for name in each[0]}
