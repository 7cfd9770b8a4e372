"""How fast a machine trains a network: measured on it, or on paper from its arithmetic."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from zoo.config import load_config
from zoo.families import load_family
from zoo.families.outlines import NetworkOutline, build_outline, load_outline
from zoo.machine.devices import autocast, choose_device, place, settle_precision
from zoo.machine.facts import count_cores, list_gpus
from zoo.runs.batch_size import run_step
from zoo.runs.memory import GB, estimate
from zoo.source import DataSource

# A step forward and back costs three times the forward pass (Kaplan et al. 2020, section 2.1).
_PASSES = 3
# What training reaches of a GPU's arithmetic, in operations a second, with automatic mixed
# precision: some tenth of the peak of V100 (125e12), A100 (312e12) and H100 (990e12) by their data
# sheets, as convolutional networks in PyTorch do.
_EFFECTIVE = {"V100": 12e12, "A100": 31e12, "H100": 90e12}
_MEMORY = {"V100": 32 * GB, "A100": 80 * GB, "H100": 80 * GB}
_ON_PAPER = re.compile(r"(\d+)x(V100|A100|H100)")
# Reading, augmentation, validation and checkpoints beside the steps.
BESIDE = 1.35
# To predict an image costs a forward pass, and as much again around it.
PREDICTION = 0.7
# What each further core adds to the first.
_HELP = 0.7
# Until a command's libraries are loaded and it has read the data set.
START = 12.0


@dataclass(frozen=True)
class Machine:
    """What a plan is made for.

    Attributes:
        cores: of processors.
        gpus: their number.
        memory: of each, in bytes.
        model: of the GPUs, where the machine is not here; "" for this one.
    """

    cores: int
    gpus: int = 0
    memory: float = 0.0
    model: str = ""

    @classmethod
    def here(cls) -> Machine:
        """Return this machine."""
        gpus = list_gpus() if torch.cuda.is_available() else ()
        return cls(count_cores(), len(gpus), float(min((gpu.total for gpu in gpus), default=0)))

    @classmethod
    def parse(cls, text: str) -> Machine:
        """Return a machine that is not here, such as `4xV100`.

        Raises:
            ValueError: it is called otherwise.
        """
        found = _ON_PAPER.fullmatch(text)
        if found is None or int(found[1]) < 1:
            known = ", ".join(f"1x{name}" for name in _EFFECTIVE)
            raise ValueError(f"--machine: expected such as {known}, found '{text}'")
        count, model = int(found[1]), found[2]
        return cls(8 * count, count, _MEMORY[model], model)

    @property
    def trainings(self) -> int:
        """How many networks train at a time."""
        return max(1, self.gpus)


@dataclass(frozen=True)
class Cost:
    """What a network asks for.

    Attributes:
        seconds: of training, for each image of an epoch.
        memory: bytes that training needs on a GPU; None on a processor.
    """

    seconds: float
    memory: float | None = None


def cost_of(
    family: str, config: str, changes: list[str], data: DataSource, machine: Machine
) -> Cost:
    """Return what training a network costs on a machine.

    Args:
        family: its family.
        config: its config.
        changes: of the config, `key.sub=value`.
        data: the data set, which says what the config leaves open.
        machine: here, where some steps are computed, or elsewhere: then on paper.

    Raises:
        ValueError: a bad config, or a family that does not say what its networks are like.
    """
    chosen: Any = load_config(load_family(family).Config, family, config, changes, data)
    outline = load_outline(family)
    if outline is None:
        raise ValueError(f"family '{family}': expected one that tells what its networks are like")
    chosen = outline.without_weights(chosen)
    if machine.model:
        seconds = _PASSES * flops(chosen, outline) / _EFFECTIVE[machine.model]
        return Cost(BESIDE * seconds, estimate(chosen, outline, "16-mixed").total)
    seconds = BESIDE * _measured(chosen, outline)
    if machine.gpus:
        device = choose_device(chosen.device)
        precision = settle_precision(chosen.precision, device)
        return Cost(seconds, estimate(chosen, outline, precision).total)
    return Cost(seconds)


def flops(config: Any, outline: NetworkOutline) -> float:
    """Return the operations of a forward pass for one image; nothing is computed.

    Args:
        config: of the family.
        outline: what its networks are like.
    """
    network = build_outline(outline, config, len(config.labels))
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = network._apply(partial(torch.empty_like, device="cpu")).train()
        step = outline.training_step(network, config, config.labels)
        counter = FlopCounterMode(display=False)
        with counter:
            step(torch.empty(step.images_shape))
    return float(counter.get_total_flops()) / step.images_shape[0]


def _measured(config: Any, outline: NetworkOutline) -> float:
    """Return the seconds of a step on this machine, for each of its images.

    Without a GPU it is the time of one thread, which nothing else that runs just now changes,
    divided by the cores as far as they help.
    """
    device = choose_device(getattr(config, "device", "auto"))
    precision = settle_precision(config.precision, device)
    network = outline.build(config, len(config.labels))
    place(network, device).train()
    step = outline.training_step(network, config, config.labels).to(device)
    is_cpu = device.type == "cpu"
    threads = torch.get_num_threads()
    taken = []
    try:
        torch.set_num_threads(1 if is_cpu else threads)
        for _ in range(3):
            start, used = time.perf_counter(), time.thread_time()
            with autocast(device, precision):
                run_step(step, device, precision)
            if not is_cpu:
                torch.cuda.synchronize(device)
            one, all_in_all = time.thread_time() - used, time.perf_counter() - start
            taken.append(one / (1 + _HELP * (count_cores() - 1)) if is_cpu else all_in_all)
    finally:
        torch.set_num_threads(threads)
    # The first one makes room and plans.
    return min(taken[1:]) / step.images_shape[0]
