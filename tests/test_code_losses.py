"""The contrastive loss of CoDE: the published numbers, the paper's loops, two processes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from forgemap.train.losses import Views, contrastive_loss, gather_rows, info_nce

GOLDEN = load_file(Path(__file__).parent / "golden" / "code_losses.safetensors")


def golden_views(name: str) -> Views:
    names = (name, f"augmented_{name}", f"global_{name}", f"local_{name}")
    return Views(*(GOLDEN[f"features.{n}"] for n in names))


def naive_info_nce(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> float:
    """One query after the other, one negative after the other, as the formula is written."""

    def similar(a: Tensor, b: Tensor) -> float:
        dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
        lengths = [math.sqrt(sum(float(x) ** 2 for x in v)) for v in (a, b)]
        return math.exp(dot / (lengths[0] * lengths[1]) / temperature)

    losses = []
    for own, other in zip(query, positive, strict=True):
        near = similar(own, other)
        losses.append(-math.log(near / (near + sum(similar(own, n) for n in negatives))))
    return sum(losses) / len(losses)


def test_every_term_is_the_published_one() -> None:
    loss = contrastive_loss(golden_views("real"), golden_views("fake"))
    for name, value in loss.terms.items():
        assert float(value) == pytest.approx(float(GOLDEN[f"expected.infonce_{name}"]), rel=1e-6)
    assert float(loss.real) == pytest.approx(float(GOLDEN["expected.loss_real"]), rel=1e-6)
    assert float(loss.fake) == pytest.approx(float(GOLDEN["expected.loss_fake"]), rel=1e-6)
    assert float(loss.total) == pytest.approx(float(GOLDEN["expected.loss_total"]), rel=1e-6)


def test_without_negatives_the_other_positives_are_the_negatives() -> None:
    expected = float(GOLDEN["expected.infonce_implicit_negatives"])
    real, fake = golden_views("real"), golden_views("fake")
    candidates = [info_nce(real.plain, real.augmented), info_nce(fake.plain, fake.augmented)]
    assert any(float(c) == pytest.approx(expected, rel=1e-6) for c in candidates)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_info_nce_is_the_formula(temperature: float) -> None:
    torch.manual_seed(1)
    query, positive, negatives = torch.randn(5, 7), torch.randn(5, 7), 3 * torch.randn(9, 7)
    ours = float(info_nce(query, positive, negatives, temperature))
    assert ours == pytest.approx(naive_info_nce(query, positive, negatives, temperature), rel=1e-5)


def test_both_classes_are_optimised() -> None:
    torch.manual_seed(0)
    views = [[torch.randn(4, 6, requires_grad=True) for _ in range(4)] for _ in range(2)]
    contrastive_loss(Views(*views[0]), Views(*views[1])).total.backward()
    assert all(v.grad is not None and v.grad.abs().sum() > 0 for side in views for v in side)
    queries = views[1][0], views[1][3]  # a generated query is in the fake terms alone
    assert all(v.grad is not None for v in queries)


def test_classes_that_lie_apart_cost_nothing_and_mixed_ones_do() -> None:
    apart = [torch.eye(8)[i].expand(6, 8) for i in (0, 1)]
    separate = contrastive_loss(Views(*[apart[0]] * 4), Views(*[apart[1]] * 4)).total
    mixed = contrastive_loss(Views(*[apart[0]] * 4), Views(*[apart[0]] * 4)).total
    assert float(separate) < 0.01 and float(mixed) == pytest.approx(2 * math.log(7))


def test_one_process_gathers_its_own_rows() -> None:
    rows = torch.randn(3, 4)
    assert gather_rows(rows) is rows


TWO = """
import sys, torch, torch.distributed as dist
from forgemap.train.losses import Views, contrastive_loss, gather_rows
rank, address, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
torch.manual_seed(5)
pictures, weight = torch.randn(8, 8, 5), torch.randn(5, 6)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(5, 6, bias=False))
with torch.no_grad():
    model.module.weight.copy_(weight.T)
mine = model(pictures[:, 4 * rank : 4 * rank + 4].flatten(0, 1)).unflatten(0, (8, 4))
loss = contrastive_loss(Views(*mine[:4]), Views(*mine[4:]), gather=gather_rows).total
loss.backward()
if rank == 0:
    torch.save(model.module.weight.grad, out)
# Neither leaves while the other still talks to it: PyTorch may abort a process that does.
dist.barrier()
del model, mine, loss
dist.destroy_process_group()
"""


@pytest.mark.distributed
def test_negatives_of_two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    torch.manual_seed(5)
    pictures, weight = torch.randn(8, 8, 5), torch.randn(5, 6)
    layer = torch.nn.Linear(5, 6, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight.T)
    views = layer(pictures.flatten(0, 1)).unflatten(0, (8, 8))
    contrastive_loss(Views(*views[:4]), Views(*views[4:])).total.backward()

    address, out = f"file://{tmp_path}/meeting", tmp_path / "gradient.pt"
    runs = [
        subprocess.Popen([sys.executable, "-c", TWO, str(rank), address, str(out)])
        for rank in range(2)
    ]
    assert [run.wait(timeout=100) for run in runs] == [0, 0]
    assert layer.weight.grad is not None
    torch.testing.assert_close(torch.load(out, weights_only=True), layer.weight.grad)
