"""processes.py: one run on several devices and machines; whole tensors of sharded networks.

Every process computes its share of each batch (`batches.loader`); gradients are averaged, so that
the step is that of the whole batch. Under "fsdp" each process also holds just a share of every
parameter, gradient and moment; checkpoints and models are written whole under either strategy, and
so a run goes on under another one or on another number of devices.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..cores import keep_to_them
from ..errors import ForgemapError
from ..models.build import build
from ..models.strict import load_strictly

#: The strategies by name, and what each does.
STRATEGIES = {
    "auto": "one process alone, several as with ddp",
    "ddp": "every device holds the network, gradients are averaged",
    "fsdp": "every device holds a share of the network (PyTorch's fully_shard)",
}


def start(config: Any) -> Fabric:
    """The processes of a run, on their devices: started here, or those that torchrun started.

    Args:
        config: has ``accelerator``, ``devices`` (of each machine), ``nodes`` (machines),
            ``strategy``, ``precision``, ``batch`` and ``seed``.

    Raises:
        ForgemapError: there are no such devices, or they cannot share a batch.
    """
    keep_to_them()
    devices, nodes = config.devices, config.nodes
    if torch.distributed.is_torchelastic_launched():  # torchrun's numbers count
        devices, nodes = (int(os.environ[n]) for n in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"))
    world = devices * nodes
    if config.batch % world:
        raise ForgemapError(f"batch {config.batch} cannot be shared by {world} devices.")
    strategy: Any = "ddp" if world > 1 else "auto"
    if config.strategy == "ddp":
        strategy = "ddp"
    elif config.strategy == "fsdp":
        strategy = ModelParallelStrategy(shard, data_parallel_size=world, tensor_parallel_size=1)
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=config.precision,
        )
        fabric.launch()
    except Exception as error:  # no such accelerator, fewer devices: one class for each library
        reason = " ".join(str(error).strip().split("\n")[0].split()).rstrip(".")
        raise ForgemapError(
            f"{devices} devices ({config.accelerator}) on {nodes} machines cannot be had: {reason}."
        ) from error
    fabric.seed_everything(config.seed, verbose=False)
    return fabric


def distributed(
    fabric: Fabric,
    network: nn.Module,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    sync_batchnorm: bool = True,
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network and an optimiser for what learns of it, on their devices, shared out.

    Args:
        fabric: see `start`.
        network: stays the one to be validated and saved; parts of it are replaced in place.
        optimizer: makes one of parameters.
        sync_batchnorm: take the BatchNorms' statistics over all devices, as one device would over
            the whole batch. On CPUs, for which PyTorch has it not, each process takes its own.
    """
    if fabric.world_size > 1 and sync_batchnorm and fabric.device.type == "cuda":
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
        network = convert(network)
    if not sharded(fabric):  # shares must be contiguous
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model: nn.Module = fabric.setup_module(network)
    made = optimizer([p for p in network.parameters() if p.requires_grad])
    wrapped: Any = fabric.setup_optimizers(made)
    return model, wrapped


def shard(network: nn.Module, mesh: Any) -> nn.Module:
    """Share out a network: each block of its backbone on its own, then all the rest."""
    from torch.distributed.fsdp import fully_shard

    towers: list[Any] = [m for m in network.modules() if hasattr(m, "residual_blocks")]
    for tower in towers:
        for block in tower.residual_blocks():
            fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(network, mesh=mesh["data_parallel"])
    return network


def sharded(fabric: Fabric) -> bool:
    """Whether each process holds only a share of the network."""
    return isinstance(fabric.strategy, ModelParallelStrategy)


def announce(path: Path) -> None:
    """Print a result once, however many processes there are."""
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        print(path)


def mean(fabric: Fabric, value: Tensor) -> float:
    """The mean of a scalar over all processes."""
    if fabric.world_size > 1:
        value = fabric.all_reduce(value.detach().clone(), reduce_op="mean")  # type: ignore[assignment]
    return float(value.detach())


def whole(value: Any) -> Any:
    """Tensors with all their shares put together, in dicts and lists too; all must call it."""
    if isinstance(value, DTensor):
        shares: Any = value.detach()
        return shares.full_tensor().cpu()
    if isinstance(value, Mapping):
        return {key: whole(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [whole(inner) for inner in value]
    return value


def gathered(fabric: Fabric, network: nn.Module) -> Any:
    """The network with whole tensors, to be saved by the first process; all must call it."""
    if not sharded(fabric):
        return network
    tensors = whole(network.state_dict())
    if not fabric.is_global_zero:
        return network
    made: Any = build(network.config)  # type: ignore[arg-type]
    made.preprocess = network.preprocess
    load_strictly(made, tensors, "the shares of the network")
    return made.eval()


def like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor as `other` is held: on its device, and only this process's share of it."""
    if isinstance(value, DTensor) or not isinstance(other, DTensor):
        return value.to(other.device)
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a whole optimiser state, each moment as its parameter is held."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        number: {
            name: like(t, parameters[number]) if t.shape == parameters[number].shape else t
            for name, t in values.items()
        }
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})
