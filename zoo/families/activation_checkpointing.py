"""Gradient checkpointing: less memory while learning, for one more pass through the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


def checkpoint_blocks(blocks: Iterable[nn.Module]) -> None:
    """Let blocks forget what they compute, and compute it anew where a gradient needs it.

    What a block is given is kept. Weights, their names, gradients and the statistics of batch norms
    are the same as without (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
    """
    for block in blocks:
        # A bound method: a copy of the network, such as an average of weights, binds its own.
        block.forward = MethodType(_forward, block)


def find_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield a network's blocks: elements of a list or sequence that are made of modules themselves.

    Of blocks inside of each other, the innermost ones.
    """
    # Those that derive from a dictionary of modules are networks, whose parts are stages.
    is_list = isinstance(module, nn.ModuleList | nn.Sequential) or type(module) is nn.ModuleDict
    for child in module.children():
        inner = list(find_blocks(child))
        yield from inner
        has_forward = not isinstance(child, nn.ModuleList | nn.ModuleDict)
        if is_list and has_forward and not inner and any(True for _ in child.children()):
            yield child


def _forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    plain: Callable[..., Any] = partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return plain(*args, **kwargs)
    again = partial(_contexts, block)
    return checkpoint(plain, *args, use_reentrant=False, context_fn=again, **kwargs)


def _contexts(block: nn.Module) -> Contexts:
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Keep batch norms from counting a batch twice, when it is computed anew: they get copies."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
