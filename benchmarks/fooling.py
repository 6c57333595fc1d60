"""fooling.py: how easily a model is fooled on purpose: python -m benchmarks.fooling DATA.

Two kinds of opponent. One has the model's weights and changes every pixel by at most 1, 2 or 4 of
255 along the gradient: projected gradient descent in the maximum norm (A. Madry et al., "Towards
deep learning models resistant to adversarial attacks", ICLR 2018), to hide edits and to frame
untouched pictures; random changes of the same size stand beside it. The other knows nothing and
saves, shrinks or blurs the picture.

TraceNet's JPEG-grid layer counts and takes maxima, without gradients: the attack goes around it,
through the noise residuals. A stronger attack would approximate its gradient (A. Athalye et al.,
"Obfuscated gradients give a false sense of security", ICML 2018), so these figures are a lower
bound of what an opponent can do.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from forgemap.data.catalog import open_data
from forgemap.detector import Detector
from forgemap.errors import DataError, ForgemapError, ModelError
from forgemap.evaluate import facts
from forgemap.evaluate.bootstrap import mean_interval
from forgemap.evaluate.markdown import cell, markdown_table
from forgemap.evaluate.metrics import iou
from forgemap.evaluate.pictures import draw, read_mask
from forgemap.evaluate.results import write
from forgemap.evaluate.robustness import Changed, follow, jpeg, resize
from forgemap.evaluate.robustness_pipelines import shown
from forgemap.image import load_image
from forgemap.report import VERDICTS

Pixels = np.ndarray  # (H, W, 3) uint8
Rng = np.random.Generator

BUDGETS = (1, 2, 4)  # of 255
STEPS = 12
LARGEST = 1_100_000  # pixels: a gradient needs some fifty times the picture's memory
HIDE, FRAME = -1, 1  # what the score is driven to


def pgd(
    network: Any, pixels: Pixels, budget: int, *, goal: int = HIDE, steps: int = STEPS
) -> Pixels:
    """The picture with each value changed by at most `budget`, whole numbers, as a file holds them.

    Of all steps the one that goes farthest is kept, the picture as it is among them. What is driven
    down (HIDE) or up (FRAME) is the softened maximum of the evidence logits and the mean of the
    mask's logits where they are highest, which are what the verdict rests on.

    Raises:
        ModelError: the network resizes pictures, so that its gradient does not reach the pixels.
    """
    if not getattr(network, "native", False):
        raise ModelError("The attack needs a network that looks at pictures at native resolution.")
    start = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]).float()
    mean = torch.tensor(network.preprocess.mean).view(1, 3, 1, 1)
    std = torch.tensor(network.preprocess.std).view(1, 3, 1, 1)
    moved, best, most = torch.zeros_like(start), start, -float("inf")
    for turn in range(steps + 1):
        # What the network sees is what a file can hold; the gradient passes the rounding by.
        changed = (start + moved.round()).clamp(0, 255).requires_grad_(True)
        loss = suspicion(*network((changed / 255 - mean) / std))
        if goal * float(loss.detach()) > most:
            best, most = changed.detach(), goal * float(loss.detach())
        if turn == steps:
            break
        (gradient,) = torch.autograd.grad(loss, changed)
        # Steps that shorten: the traces saturate, and long ones overshoot. They add up to several
        # times the budget, enough to reach the border and return.
        step = 0.6 * budget * (1 - turn / steps)
        moved = (moved + goal * step * gradient.sign()).clamp(-budget, budget)
    return np.ascontiguousarray(best.byte()[0].permute(1, 2, 0).numpy())


def suspicion(mask: torch.Tensor, evidence: torch.Tensor | None) -> torch.Tensor:
    """A differentiable stand-in for the score of one picture."""
    cells = F.avg_pool2d(mask, 8, ceil_mode=True).flatten()
    highest = cells.topk(max(1, cells.numel() // 20)).values.mean()
    return highest if evidence is None else highest + torch.logsumexp(evidence.flatten(), 0)


def random_change(pixels: Pixels, budget: int, rng: Rng) -> Pixels:
    """Each value moved up or down by the whole budget, by chance: what the attack is not."""
    sign = rng.integers(0, 2, pixels.shape) * 2 - 1
    return np.clip(pixels.astype(int) + budget * sign, 0, 255).astype(np.uint8)


TRIVIAL: dict[str, Callable[[Pixels, Rng], Changed]] = {
    "saved as JPEG 90": lambda pixels, rng: jpeg(pixels, 90, rng),
    "saved as JPEG 75": lambda pixels, rng: jpeg(pixels, 75, rng),
    "resized by 0.9": lambda pixels, rng: resize(pixels, 0.9, rng),
    "resized by 0.9, JPEG 75": lambda pixels, rng: jpeg(shown(resize(pixels, 0.9, rng)), 75, rng),
    "median of 3 x 3": lambda pixels, rng: cv2.medianBlur(pixels, 3),
}
"""What needs no weights; JPEGs stay files, since scores take into account that they lose detail."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fooling", description=__doc__)
    parser.add_argument("data", help="manifest or folder with edited and untouched pictures")
    parser.add_argument("--model", default="default")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--limit", type=int, default=24, help="pictures, a third untouched [24]")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for fooling.md and fooling.json")
    given = parser.parse_args(arguments)
    try:
        rows = run(
            given.model, given.data, split=given.split, limit=given.limit, steps=given.steps,
            seed=given.seed,
        )  # fmt: skip
        machine = facts.machine()
        text = (
            f"{rows[0]['model']}, {machine['date']}, {machine['processor']}; {given.steps} steps; "
            f"95 % intervals over source photos in brackets.\n\n{table(rows)}"
        )
        print(text)
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
            content = {**machine, "steps": given.steps, "rows": rows}
            write(given.out / "fooling.json", json.dumps(content, indent=1) + "\n")
            write(given.out / "fooling.md", text)
    except ForgemapError as error:
        print(f"benchmarks.fooling: {error}", file=sys.stderr)
        return 2
    return 0


def run(
    model: str,
    data: str,
    *,
    split: str = "test",
    limit: int = 24,
    steps: int = STEPS,
    budgets: Sequence[int] = BUDGETS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row per picture and attack, for `table`.

    A row: image, source, method, manipulated, attack, score, verdict, iou, model. The attack "none"
    is the picture as it is. A third of the pictures is untouched, the others are evenly of all
    methods. Pictures of more than LARGEST pixels are left out.
    """
    detector = Detector.load(model, detector=None)
    detector.model.requires_grad_(False)
    known = open_data(data, split)
    share = max(1, limit // 3)
    plain = draw([r for r in known if not r.manipulated], share, seed)
    edited = draw([r for r in known if r.manipulated], max(1, limit - share), seed)
    records = [*edited, *plain]
    rows = []
    for number, record in enumerate(records):
        pixels = load_image(record.image).pixels
        if pixels.shape[0] * pixels.shape[1] > LARGEST:
            continue
        mask = read_mask(record)
        rng = np.random.default_rng([seed, number])
        made: dict[str, Changed] = {"none": record.image.read_bytes()}
        goal = HIDE if record.manipulated else FRAME
        for budget in budgets:
            made[f"gradient, {budget}"] = pgd(
                detector.model, pixels, budget, goal=goal, steps=steps
            )
            made[f"random, {budget}"] = random_change(pixels, budget, rng)
        made |= {name: change(pixels, rng) for name, change in TRIVIAL.items()}
        for name, changed in made.items():
            report = detector.analyze(changed)
            assert report.heat is not None
            overlap = None
            if mask is not None:
                overlap = iou(report.heat, follow(mask, report.heat.shape))  # type: ignore[arg-type]
            rows.append(
                {
                    "image": record.image.name, "source": record.source, "method": record.method,
                    "manipulated": record.manipulated, "attack": name, "score": report.score,
                    "verdict": report.verdict, "iou": overlap, "model": detector.name,
                }
            )  # fmt: skip
        print(f"{number + 1} of {len(records)}", file=sys.stderr)
    if not rows:
        raise DataError(f"No picture of at most {LARGEST} pixels in {data}.")
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: for each attack, edits found before and no longer, IoU, untouched newly accused."""
    accused = {(r["image"], r["attack"]): r["verdict"] == VERDICTS[2] for r in rows}
    heads = ["attack", "edits found before", "of these, no longer found", "IoU before", "IoU after"]
    heads += ["untouched, not accused before", "of these, now accused"]
    before = {r["image"]: r["iou"] for r in rows if r["attack"] == "none"}
    lines = []
    for attack in dict.fromkeys(row["attack"] for row in rows):
        some = [row for row in rows if row["attack"] == attack]
        edits = [r for r in some if r["manipulated"]]
        found = [r for r in edits if accused[r["image"], "none"]]
        clear = [r for r in some if not r["manipulated"] and not accused[r["image"], "none"]]
        lines.append(
            [
                attack,
                str(len(found)),
                _share([not accused[r["image"], attack] for r in found], found),
                _share([before[r["image"]] for r in edits], edits),
                _share([r["iou"] for r in edits], edits),
                str(len(clear)),
                _share([accused[r["image"], attack] for r in clear], clear),
            ]
        )
    return markdown_table([heads, *lines])


def _share(values: Sequence[float], rows: Sequence[dict[str, Any]]) -> str:
    return cell(mean_interval(values, [row["source"] for row in rows]), 2)


if __name__ == "__main__":
    sys.exit(main())
