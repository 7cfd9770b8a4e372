"""Which device to compute on, and in which precision, by what the device can do."""

from __future__ import annotations

import gc
import platform
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Literal

import torch
from torch import nn

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]
# Tensor cores multiply float16 from compute capability 7.0 (V100) on, bfloat16 from 8.0 (A100) on.
FLOAT16_FROM = (7, 0)
BFLOAT16_FROM = (8, 0)
# PyTorch's own questions to the processor; of versions without them the answer is no.
_BFLOAT16_TOLD_BY = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
# Numbers of float32 that a processor's register holds: 16 with AVX-512, 8 with AVX2.
_REGISTER = 16


def choose_device(name: str = "auto") -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, ... means.

    Raises:
        ValueError: no such device, or a GPU that this PyTorch has no code for.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device '{name}': expected auto, cpu, cuda, cuda:1, mps, ...") from None
    if device.type == "cuda":
        _check_gpu(device)
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device '{name}': this computer or this PyTorch has no MPS; use cpu")
    return device


def free_memory() -> None:
    """Give back what a run held on the device; the next one may need all of it."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _check_gpu(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise ValueError(
            f"device '{device}': PyTorch {torch.__version__} finds no GPU; use cpu, or install the "
            "driver and a CUDA build of PyTorch"
        )
    found = torch.cuda.device_count()
    if (device.index or 0) >= found:
        raise ValueError(f"device '{device}': expected cuda:0 to cuda:{found - 1}")
    capability = torch.cuda.get_device_capability(device)
    built_for = torch.cuda.get_arch_list()
    if not runs_on(capability, built_for):
        raise ValueError(
            f"device '{device}': {torch.cuda.get_device_name(device)} is "
            f"sm_{capability[0]}{capability[1]}, but PyTorch {torch.__version__} is built for "
            f"{', '.join(built_for)}; install a build that has it (sm_70, V100: PyTorch 2.14 or "
            "older for CUDA 12.6), or use device=cpu"
        )


def runs_on(capability: tuple[int, int], built_for: list[str]) -> bool:
    """Tell whether code for `sm_80`, `compute_90`, ... runs on a device.

    Machine code (sm) runs on the same major version from its minor version on; intermediate code
    (compute) on everything newer. Those with a letter run on exactly their own version.
    (CUDA C++ programming guide, "Binary compatibility" and "PTX compatibility".)

    >>> runs_on((8, 6), ["sm_80"]), runs_on((7, 0), ["sm_75", "sm_80"])
    (True, False)
    """
    for name in built_for:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", name)
        if not match:
            continue
        version = int(match[2]), int(match[3])
        if match[4]:
            fits = version == capability
        elif match[1] == "sm":
            fits = version[0] == capability[0] and version <= capability
        else:
            fits = version <= capability
        if fits:
            return True
    return False


def choose_precision(device: torch.device) -> Precision:
    """Return the fastest precision that trains well on a device.

    The capability decides: `torch.cuda.is_bf16_supported` says yes where it is emulated, slowly. A
    processor computes in bfloat16 where it multiplies it by itself; it emulates it, too.
    """
    if device.type == "cpu":
        return "bf16-mixed" if multiplies_bfloat16() else "32-true"
    if device.type != "cuda":
        return "32-true"
    capability = torch.cuda.get_device_capability(device)
    if capability >= BFLOAT16_FROM:
        return "bf16-mixed"
    return "16-mixed" if capability >= FLOAT16_FROM else "32-true"


def settle_precision(
    wanted: Precision | Literal["auto"], device: torch.device, *, predicts: bool = False
) -> Precision:
    """Return the precision that a config means on a device.

    Args:
        wanted: the config's.
        device: where.
        predicts: whether a network that has learned predicts there. On a processor `auto` is full
            precision then: what is predicted should not depend on which processor it is.
    """
    if wanted != "auto":
        return wanted
    return "32-true" if predicts and device.type == "cpu" else choose_precision(device)


@cache
def multiplies_bfloat16() -> bool:
    """Tell whether the processor has instructions for products of bfloat16 (AVX-512 BF16, AMX)."""
    if not torch.backends.mkldnn.is_available():
        return False
    known = (getattr(torch.cpu, name, None) for name in _BFLOAT16_TOLD_BY)
    return any(tell() for tell in known if tell is not None)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context in which a network computes in `precision`."""
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    context: AbstractContextManager[Any] = torch.autocast(
        device.type, dtype=dtype, enabled=precision != "32-true"
    )
    return context


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, in the order of memory that its convolutions are fastest in.

    With channels next to each other, those of a processor take up to a third less time, too.
    """
    network.to(device)
    gains = device.type == "cuda" or (device.type == "cpu" and _gains_on_processor(network))
    if gains and is_convolutional(network):
        network.to(memory_format=torch.channels_last)
    return network


def is_convolutional(network: nn.Module) -> bool:
    """Tell whether most of a network's weights are kernels of convolutions over images."""
    weights = list(network.parameters())
    kernels = sum(p.numel() for p in weights if p.ndim == 4)
    return 2 * kernels > sum(p.numel() for p in weights)


def _gains_on_processor(network: nn.Module) -> bool:
    # Where it was measured.
    is_known = platform.machine().lower() in ("x86_64", "amd64")
    has_library = is_known and torch.backends.mkldnn.is_available()
    return has_library and next(narrow_strides(network), None) is None


def narrow_strides(network: nn.Module) -> Iterator[str]:
    """Yield the names of convolutions whose gradient a processor gets wrong with channels last.

    The gradient of a 1x1 convolution with a stride writes beyond its memory where it has fewer
    input channels than a register holds numbers (uxlfoundation/oneDNN, issue 6035).
    """
    for name, part in network.named_modules():
        if not isinstance(part, nn.Conv2d) or part.in_channels // part.groups >= _REGISTER:
            continue
        if set(part.kernel_size) == {1} and max(part.stride) > 1:
            yield name
