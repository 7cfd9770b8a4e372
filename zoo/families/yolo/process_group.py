"""The processes that train one YOLO together, as Lightning brings those of other families together.

Without one, everything here is about the only process: number 0 of 1.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from zoo.families.yolo.config import YoloConfig

Item = TypeVar("Item")


def join_group(config: YoloConfig, device: torch.device) -> torch.device:
    """Wait for the other processes of a training; return this one's device."""
    if config.workload.ranks == 1:
        return device
    # Late: most runs are of one process, and it takes seconds.
    from lightning.fabric import Fabric

    fabric = Fabric(
        accelerator=device.type,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy="ddp",
    )
    # It would announce the processes.
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    fabric.launch()
    own: torch.device = fabric.device
    return own


def rank() -> int:
    """Return this process's number; the first one writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process do a thing before the others."""
    if rank():
        barrier()
    yield
    if not rank():
        barrier()


def barrier() -> None:
    """Wait until all processes are here."""
    gather([None])


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Return this process's part of what all work on; `gather` puts the parts together again."""
    return items[rank() :: world_size()]


def gather(own: Sequence[Item]) -> list[Item]:
    """Return what all processes have made of their shares, in the order of the whole."""
    if world_size() == 1:
        return list(own)
    parts: list[Sequence[Item]] = [()] * world_size()
    dist.all_gather_object(parts, list(own))
    total = sum(map(len, parts))
    return [parts[i % len(parts)][i // len(parts)] for i in range(total)]


def average(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the mean over all processes of numbers that each has."""
    if world_size() == 1 or not values:
        return values
    total = torch.stack([torch.as_tensor(value).detach().float() for value in values.values()])
    dist.all_reduce(total)
    return dict(zip(values, total / world_size(), strict=True))


def copy_buffers(network: nn.Module) -> None:
    """Give all processes the first one's statistics of batch norms; the weights are the same."""
    if world_size() > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def bring_together(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a network whose gradients are the mean of all processes'."""
    # As Ultralytics does: not every loss reaches every weight, such as without objects.
    return DistributedDataParallel(
        network,
        device_ids=None if device.type == "cpu" else [device.index],
        find_unused_parameters=True,
    )
