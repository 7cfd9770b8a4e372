"""`batch: auto`: the largest batch that a device has memory for; the optimiser's steps stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from converters.strict_yaml import read_mapping
from zoo.config import RunConfig
from zoo.families.activation_checkpointing import checkpoint_blocks
from zoo.families.outlines import NetworkOutline, load_outline
from zoo.families.training_step import TrainingStep
from zoo.machine.devices import Precision, autocast, choose_device, free_memory, place
from zoo.machine.facts import read_ram
from zoo.runs.memory import GB, OVERHEAD, USABLE, Device, estimate


def settle_batch(config: RunConfig, family: str, out: Path) -> tuple[RunConfig, str]:
    """Return a config whose batch is a number, and a line about it where it was chosen here.

    A run that is there already keeps what was chosen for it, on whatever device it continues.

    Args:
        config: of the family, with `batch: auto` or without.
        family: its name.
        out: the run's folder.

    Raises:
        ValueError: nothing says how much memory the network needs, or not even the least batch
            fits.
    """
    chosen: Any = config
    wanted = getattr(chosen, "effective_batch", None)
    if wanted is None:
        return config, ""
    file = out / "config.yaml"
    if file.is_file():
        batch = read_mapping(file, "a run's settings").get("batch")
        is_part = isinstance(batch, int) and batch > 0 and wanted % batch == 0
        return (chosen.with_steps_of(batch) if is_part else config), ""
    outline = load_outline(family)
    if outline is None:
        raise ValueError(f"batch: expected a number: the family '{family}' tells no memory")
    device, how = Device.of(chosen), "measured on this GPU of"
    if device is not None:
        need = by_measuring(chosen, outline, device)
    else:
        device = Device(SHARE_OF_RAM * (read_ram() or LEAST_RAM), "32-true")
        need, how = by_estimate(chosen, outline, device.precision), "estimated without a GPU, for"
    batch = largest_batch(chosen, device, need)
    return chosen.with_steps_of(batch), (
        f"batch: auto is {batch} of {wanted} images for the optimizer, {how} "
        f"{device.memory / GB:.1f} GB"
    )


# Of a computer without a GPU: other programs and the data have to live, too.
SHARE_OF_RAM, LEAST_RAM = 0.5, 4 * GB
Need = Callable[[int], float]
"""How many bytes training needs with a batch; infinite where the device has not as many."""


def fitting(wanted: int, least: int = 1) -> list[int]:
    """Return the batches of which some make up what the optimiser sees at a time, smallest first.

    >>> fitting(12), fitting(12, 2), fitting(7, 2)
    ([1, 2, 3, 4, 6, 12], [2, 3, 4, 6, 12], [7])

    Raises:
        ValueError: the least batch is larger than all of it.
    """
    if least > wanted:
        raise ValueError(f"effective_batch: expected at least {least}, found {wanted}")
    return [batch for batch in range(least, wanted + 1) if wanted % batch == 0]


def largest_batch(config: Any, device: Device, need: Need) -> int:
    """Return the largest part of the effective batch for which a device has room.

    Memory grows with the batch, so that the first one that does not fit ends the search.

    Args:
        config: of the family, with an effective batch.
        device: what there is.
        need: how much training takes; see `by_estimate` and `by_measuring`.

    Raises:
        ValueError: not even the smallest one fits.
    """
    found = 0
    for batch in fitting(config.effective_batch, config.least_batch):
        if need(batch) > USABLE * device.memory:
            break
        found = batch
    if not found:
        saving = "" if config.with_checkpointing() is None else ", or gradient_checkpointing=true"
        raise ValueError(
            f"batch: auto: expected room for the smallest batch in {device.memory / GB:.1f} GB, "
            f"found too little: try a smaller size{saving}"
        )
    return found


def by_estimate(config: Any, outline: NetworkOutline, precision: Precision) -> Need:
    """Return how much training needs, by `zoo.runs.memory.estimate`; needs no GPU."""

    def need(batch: int) -> float:
        return estimate(config.with_steps_of(batch), outline, precision).total

    return need


def by_measuring(config: Any, outline: NetworkOutline, device: Device) -> Need:
    """Return how much training takes on the device: one step up to the gradients, with noise.

    What the optimizer and an average of the weights keep is added by number.
    """
    place_to_be = choose_device(config.device)

    def need(batch: int) -> float:
        try:
            return measured_bytes(config.with_steps_of(batch), outline, place_to_be, device)
        except torch.OutOfMemoryError:
            return math.inf
        finally:
            free_memory()

    return need


def measured_bytes(
    config: Any, outline: NetworkOutline, place_to_be: torch.device, device: Device
) -> float:
    """Return the bytes that a run with this config takes at its peak, on a GPU.

    Raises:
        torch.OutOfMemoryError: the GPU has not as many.
    """
    network = outline.build(outline.without_weights(config), len(config.labels))
    place(network, place_to_be).train()
    if config.gradient_checkpointing:
        checkpoint_blocks(outline.blocks(network))
    step = outline.training_step(network, config, config.labels).to(place_to_be)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    learned = sum(weight.numel() * weight.element_size() for weight in weights)
    held = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    torch.cuda.reset_peak_memory_stats(place_to_be)
    run_step(step, place_to_be, device.precision)
    peak = float(torch.cuda.max_memory_allocated(place_to_be))
    return peak + config.optimizer_states * learned + config.has_average * held + OVERHEAD


def run_step(step: TrainingStep, place_to_be: torch.device, precision: Precision) -> None:
    """Compute a batch of noise up to the gradients of the weights."""
    images = torch.randn(step.images_shape, device=place_to_be)
    with autocast(place_to_be, precision):
        found = step(images)
    losses: Sequence[torch.Tensor] = [found] if torch.is_tensor(found) else list(found)
    torch.stack([loss.float().sum() for loss in losses]).sum().backward()


def describe_memory(config: Any, family: str, memory: float) -> str:
    """Say how much memory training will need on a GPU, and which batch would fill it; no GPU.

    Args:
        config: of the family.
        family: its name.
        memory: of the GPU, in bytes.

    Raises:
        ValueError: the family, or its config, does not say what the network is like.
    """
    outline = load_outline(family)
    if outline is None:
        raise ValueError(f"--estimate: the family '{family}' does not say what its networks need")
    precision: Precision = "16-mixed" if config.precision == "auto" else config.precision
    device = Device(memory, precision)
    wanted = config.effective_batch or config.images_a_step
    chosen = config.model_copy(update={"effective_batch": wanted})
    lines = []
    if config.effective_batch is None:
        found = estimate(config, outline, precision)
        fits = "fits" if found.total <= USABLE * memory else "does not fit"
        lines.append(f"batch {config.batch}, {precision}: {found.describe()}; estimated, {fits}")
    try:
        batch = largest_batch(chosen, device, by_estimate(chosen, outline, precision))
        lines.append(
            f"batch: auto would be {batch} of {wanted} images for the optimizer on a GPU of "
            f"{memory / GB:.0f} GB"
        )
    except ValueError as error:
        lines.append(str(error))
    return "\n".join(lines)
