"""How much memory a training run will need on a GPU, before it starts; computed without one.

The network is laid out on a device that is only pretended (PyTorch's fake tensors, with CUDA's own
rules for mixed precision), shown one batch, and asked what autograd keeps for the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from converters.errors import one_line
from zoo.config import RunConfig
from zoo.families.activation_checkpointing import checkpoint_blocks
from zoo.families.outlines import NetworkOutline, build_outline, load_outline
from zoo.machine.devices import Precision, choose_device, settle_precision

GB = 1e9
# The driver's context, the libraries' kernels and workspaces, and what the allocator cannot use.
OVERHEAD = 1.2 * GB
# Part of a device that may be planned for: other processes and fragments take some.
USABLE = 0.95


@dataclass(frozen=True)
class MemoryEstimate:
    """What training needs at its peak, in bytes.

    Attributes:
        parameters: weights and buffers, with an average of them where one is kept.
        gradients: one for each weight that learns.
        optimizer: its state.
        activations: what autograd keeps of one batch for the gradient, the loss's own included, and
            copies of the weights in half precision.
        passing: tensors that live for a moment: the two largest, and of a network with gradient
            checkpointing what is computed anew of its largest block.
    """

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    passing: float

    @property
    def total(self) -> float:
        """The sum, with what the driver and libraries take."""
        return self.fixed + self.activations + self.passing

    @property
    def fixed(self) -> float:
        """What does not depend on the images."""
        return self.parameters + self.gradients + self.optimizer + OVERHEAD

    def describe(self) -> str:
        """Return the figures in a line."""
        parts = ("parameters", "gradients", "optimizer", "activations", "passing")
        named = ", ".join(f"{name} {getattr(self, name) / GB:.2f}" for name in parts)
        return f"about {self.total / GB:.1f} GB of memory ({named}, overhead {OVERHEAD / GB:.1f})"


@dataclass(frozen=True)
class Device:
    """What matters of a GPU here.

    Attributes:
        memory: in bytes.
        precision: in which number format training will compute.
    """

    memory: float
    precision: Precision

    @classmethod
    def of(cls, config: Any) -> Device | None:
        """Return what a config with an outline will train on; None where that is no GPU.

        Raises:
            ValueError: the device is not there.
        """
        device = choose_device(config.device)
        if device.type != "cuda":
            return None
        found = torch.cuda.get_device_properties(device).total_memory
        chosen = settle_precision(config.precision, device)
        return cls(float(found), chosen)


def estimate(config: Any, outline: NetworkOutline, precision: Precision) -> MemoryEstimate:
    """Return what a run with this config needs on a GPU; nothing is downloaded or computed.

    Args:
        config: of the family.
        outline: what the family's networks are like.
        precision: in which number format it will compute.

    Raises:
        ValueError: the network's dimensions are not known without its weights.
    """
    labels = config.labels
    network = build_outline(outline, config, len(labels))
    weights = [p for p in network.parameters() if p.requires_grad]
    learned = sum(p.numel() * p.element_size() for p in weights)
    held = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    blocks = outline.blocks(network) if config.gradient_checkpointing else []
    activations = measure(network, config, outline, precision, blocks)
    return MemoryEstimate(
        held * (1 + config.has_average),
        learned,
        config.optimizer_states * learned,
        activations.saved,
        activations.passing,
    )


@dataclass(frozen=True)
class ActivationBytes:
    """Bytes that a forward pass leaves for the gradient, and those that are only passing.

    Attributes:
        saved: storages that autograd keeps, each counted once.
        largest: of them.
        block: what the largest checkpointed block would keep.
    """

    saved: int
    largest: int
    block: int

    @property
    def passing(self) -> int:
        """Gradients of the largest tensor and of what it came from, or a block computed anew."""
        return 2 * self.largest + self.block


def measure(
    network: nn.Module,
    config: Any,
    outline: NetworkOutline,
    precision: Precision,
    blocks: Sequence[nn.Module],
) -> ActivationBytes:
    """Return what autograd keeps of one batch; the network's weights end on a pretended GPU."""
    with FakeTensorMode(allow_non_fake_inputs=True), _autocast(precision):
        # As `to_empty` does, whose further argument Ultralytics' networks do not take.
        network = network._apply(partial(torch.empty_like, device="cuda")).train()
        step = outline.training_step(network, config, config.labels)
        tensors = (*step.parameters(), *step.buffers())
        held = {tensor.untyped_storage()._cdata for tensor in tensors}
        images = torch.empty(step.images_shape, device="cuda")
        block = _largest_block(step, blocks, images, held) if blocks else 0
        checkpoint_blocks(blocks)
        with saved_bytes(held) as sizes:
            step(images)
    return ActivationBytes(sum(sizes.values()), max(sizes.values(), default=0), block)


def _largest_block(
    step: nn.Module, blocks: Sequence[nn.Module], images: torch.Tensor, held: set[int]
) -> int:
    """Return what the largest block keeps as long as it is not checkpointed, in bytes."""
    before: dict[nn.Module, int] = {}
    found = [0]

    with saved_bytes(held) as sizes, ExitStack() as hooks:

        def enter(block: nn.Module, _: Any) -> None:
            before[block] = sum(sizes.values())

        def leave(block: nn.Module, _: Any, __: Any) -> None:
            found.append(sum(sizes.values()) - before[block])

        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(enter).remove)
            hooks.callback(block.register_forward_hook(leave).remove)
        step(images)
    return max(found)


@contextmanager
def saved_bytes(held: Set[int]) -> Iterator[dict[int, int]]:
    """Collect the storages that autograd keeps within the block: identity -> bytes.

    Args:
        held: identities of storages that are there anyway, such as weights.
    """
    sizes: dict[int, int] = {}
    # Identities may be given again when a storage is gone.
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in held:
            sizes[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


@contextmanager
def _autocast(precision: Precision) -> Iterator[None]:
    """Compute as CUDA does in a precision; `torch.autocast` refuses to where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", precision != "32-true")
    half = torch.float16 if precision == "16-mixed" else torch.bfloat16
    torch.set_autocast_dtype("cuda", half)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def advise(config: Any, outline: NetworkOutline, device: Device) -> tuple[str, str]:
    """Return what a run needs, and what to change where the device has less; "" where it fits.

    It is an estimate: a run that is told not to fit may be tried all the same.
    """
    found = estimate(config, outline, device.precision)
    if found.total <= USABLE * device.memory:
        return found.describe(), ""
    remedies = _remedies(config, outline, device, found)
    return found.describe(), (
        f"this run needs about {found.total / GB:.1f} GB, the GPU has {device.memory / GB:.1f}: "
        + (f"try {', or '.join(remedies)}" if remedies else "choose a smaller network")
    )


def _remedies(
    config: Any, outline: NetworkOutline, device: Device, found: MemoryEstimate
) -> list[str]:
    """Return changes of the config, each of which fits by itself, the mildest first."""
    tried = [_with_batch(config, found, device)]
    checkpointed = config.with_checkpointing()
    if checkpointed is not None:
        lighter = estimate(checkpointed, outline, device.precision)
        change = _with_batch(checkpointed, lighter, device)
        tried.append(change and f"gradient_checkpointing=true {change}".strip())
        if lighter.total <= USABLE * device.memory:
            tried[-1] = "gradient_checkpointing=true"
    tried.append(_with_size(config, found, device))
    return [change for change in tried if change]


def _room(found: MemoryEstimate, device: Device) -> float:
    """Return how much of what images need there is room for."""
    return (USABLE * device.memory - found.fixed) / (found.total - found.fixed)


def _with_batch(config: Any, found: MemoryEstimate, device: Device) -> str:
    """Return a smaller batch that learns as the given one does; "" where none fits."""
    batch = min(math.floor(config.batch * _room(found, device)), config.batch - 1)
    return "" if batch < config.least_batch else config.with_batch(batch)


def _with_size(config: Any, found: MemoryEstimate, device: Device) -> str:
    """Return a smaller size of the same shape; "" where none fits, and for windows."""
    room = _room(found, device)
    return "" if room <= 0 else config.with_size(math.sqrt(room))


def advise_before(config: RunConfig, family: str) -> tuple[str, str]:
    """Return what `advise` does for the GPU that a run will use; two times "" without one.

    Families without an outline, and networks whose dimensions come with their weights, are not
    looked at.

    Args:
        config: of the family.
        family: its name.
    """
    outline = load_outline(family)
    if outline is None:
        return "", ""
    device = Device.of(config)
    if device is None:
        return "", ""
    try:
        return advise(config, outline, device)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        # Not every operation of every network can be pretended; that must not keep it from running.
        reason = one_line(error)
        return f"no estimate of memory: {reason:.160}", ""
